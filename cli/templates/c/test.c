/* Calls the plugin as the kernel does, through its descriptor. */
#include <assert.h>
#include <stdio.h>

#include "themis_plugin.h"

static char text[64];
static size_t length;

static int32_t append(void *ctx, themis_slice chunk) {
  (void)ctx;
  if (length + chunk.len > sizeof text) return 1;
  memcpy(text + length, chunk.ptr, chunk.len);
  length += chunk.len;
  return 0;
}

static void log_line(void *ctx, uint32_t level, themis_slice message) {
  (void)ctx, (void)level, (void)message;
}
static int64_t now(void *ctx) { return ctx == NULL; }
static void count(void *ctx, themis_slice name, uint64_t delta) {
  (void)ctx, (void)name, (void)delta;
}
static int64_t read_nothing(void *ctx, themis_slice path, uint64_t offset, uint8_t *dst, size_t cap) {
  (void)ctx, (void)path, (void)offset, (void)dst, (void)cap;
  return -1;
}

int main(void) {
  const themis_host host = {sizeof host, THEMIS_ABI_MAJOR, THEMIS_ABI_MINOR, NULL,
                            log_line, now, count, read_nothing};
  const themis_reply sink = {sizeof sink, NULL, append};
  void *instance = NULL;
  assert(themis_plugin.init(&host, themis_str("{}"), &instance, &sink) == THEMIS_OK);
  assert(themis_plugin.call(instance, 1, themis_str("world"), &sink) == THEMIS_OK);
  assert(length == 12 && memcmp(text, "hello, world", 12) == 0);
  assert(themis_plugin.call(instance, 2, themis_str(""), &sink) == THEMIS_UNKNOWN_METHOD);

  length = 0;
  assert(themis_plugin.save_state(instance, &sink) == THEMIS_OK);
  const themis_slice state = {(const uint8_t *)text, length};
  assert(themis_plugin.reload(instance, themis_str("0.0.1"), state, &sink) == THEMIS_OK);
  assert(themis_plugin.health(instance) == THEMIS_OK);
  assert(themis_plugin.shutdown(instance) == THEMIS_OK);
  puts("{{name}}: all tests passed");
  return 0;
}
