/* As much of <stdlib.h> as a wasm plugin without a C library needs: memory, and a way to give up. */
#ifndef THEMIS_WASM_STDLIB_H
#define THEMIS_WASM_STDLIB_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

extern unsigned char __heap_base; /* the linker's */

/* A block: its size, this structure included, and while it is free the next free one, by address. */
struct themis_block {
  size_t size;
  struct themis_block *next;
};

__attribute__((weak)) struct themis_block *themis_free_blocks;
__attribute__((weak)) uintptr_t themis_heap_end;

#define THEMIS_BLOCK_HEAD 16u
#define THEMIS_PAGE 65536u

__attribute__((weak)) void abort(void) { __builtin_trap(); }

/* More memory from the system, as one free block; NULL when there is no more. */
static inline struct themis_block *themis_more(size_t size) {
  if (themis_heap_end == 0) themis_heap_end = ((uintptr_t)&__heap_base + 15) & ~(uintptr_t)15;
  const uint64_t wanted = (uint64_t)themis_heap_end + size;
  const uint64_t there = (uint64_t)__builtin_wasm_memory_size(0) * THEMIS_PAGE;
  if (wanted > there) {
    const uint64_t pages = (wanted - there + THEMIS_PAGE - 1) / THEMIS_PAGE;
    if (pages > 65536 || __builtin_wasm_memory_grow(0, (size_t)pages) == (size_t)-1) return NULL;
  }
  struct themis_block *block = (struct themis_block *)themis_heap_end;
  themis_heap_end += size;
  block->size = size;
  return block;
}

__attribute__((weak)) void free(void *memory) {
  if (memory == NULL) return;
  struct themis_block *block = (struct themis_block *)((char *)memory - THEMIS_BLOCK_HEAD);
  struct themis_block **place = &themis_free_blocks;
  struct themis_block *before = NULL;
  while (*place != NULL && *place < block) {
    before = *place;
    place = &before->next;
  }
  block->next = *place;
  *place = block;
  if (block->next != NULL && (char *)block + block->size == (char *)block->next) {
    block->size += block->next->size;
    block->next = block->next->next;
  }
  if (before != NULL && (char *)before + before->size == (char *)block) {
    before->size += block->size;
    before->next = block->next;
  }
}

__attribute__((weak)) void *malloc(size_t len) {
  if (len > SIZE_MAX - 2 * THEMIS_BLOCK_HEAD) return NULL;
  const size_t size = (len + THEMIS_BLOCK_HEAD + 15) & ~(size_t)15;
  struct themis_block **place = &themis_free_blocks;
  for (; *place != NULL; place = &(*place)->next) {
    struct themis_block *block = *place;
    if (block->size < size) continue;
    if (block->size - size >= 2 * THEMIS_BLOCK_HEAD) {
      struct themis_block *rest = (struct themis_block *)((char *)block + size);
      rest->size = block->size - size;
      rest->next = block->next;
      *place = rest;
      block->size = size;
    } else {
      *place = block->next;
    }
    return (char *)block + THEMIS_BLOCK_HEAD;
  }
  struct themis_block *block = themis_more(size);
  return block == NULL ? NULL : (char *)block + THEMIS_BLOCK_HEAD;
}

__attribute__((weak)) void *calloc(size_t count, size_t len) {
  size_t whole;
  if (__builtin_mul_overflow(count, len, &whole)) return NULL;
  void *memory = malloc(whole);
  if (memory != NULL) memset(memory, 0, whole);
  return memory;
}

__attribute__((weak)) void *realloc(void *memory, size_t len) {
  if (memory == NULL) return malloc(len);
  const struct themis_block *block =
      (const struct themis_block *)((char *)memory - THEMIS_BLOCK_HEAD);
  const size_t had = block->size - THEMIS_BLOCK_HEAD;
  if (len <= had) return memory;
  void *larger = malloc(len);
  if (larger == NULL) return NULL;
  memcpy(larger, memory, had);
  free(memory);
  return larger;
}

#endif /* THEMIS_WASM_STDLIB_H */
