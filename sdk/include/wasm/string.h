/* As much of <string.h> as a wasm plugin without a C library needs. */
#ifndef THEMIS_WASM_STRING_H
#define THEMIS_WASM_STRING_H

#include <stddef.h>

/* With -mbulk-memory these are one instruction each. */
__attribute__((weak)) void *memcpy(void *to, const void *from, size_t len) {
  return __builtin_memcpy(to, from, len);
}

__attribute__((weak)) void *memmove(void *to, const void *from, size_t len) {
  return __builtin_memmove(to, from, len);
}

__attribute__((weak)) void *memset(void *to, int byte, size_t len) {
  return __builtin_memset(to, byte, len);
}

__attribute__((weak)) int memcmp(const void *one, const void *other, size_t len) {
  const unsigned char *a = (const unsigned char *)one, *b = (const unsigned char *)other;
  for (size_t at = 0; at < len; at++)
    if (a[at] != b[at]) return a[at] < b[at] ? -1 : 1;
  return 0;
}

__attribute__((weak)) size_t strlen(const char *text) {
  size_t len = 0;
  while (text[len] != 0) len++;
  return len;
}

__attribute__((weak)) int strcmp(const char *one, const char *other) {
  for (; *one != 0 && *one == *other; one++, other++) {
  }
  return (unsigned char)*one - (unsigned char)*other;
}

#endif /* THEMIS_WASM_STRING_H */
