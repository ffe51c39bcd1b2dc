/*
 * Loads the built library as the kernel does, calls it and checks what it answers.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include "themis_plugin.h"

static int failures = 0;

static void check(int holds, const char *what) {
  if (holds) return;
  fprintf(stderr, "failed: %s\n", what);
  failures++;
}

/* A host that offers nothing, as the kernel's does without capabilities. */
static void no_log(void *ctx, uint32_t level, themis_slice message) {
  (void)ctx;
  (void)level;
  (void)message;
}

static int64_t no_clock(void *ctx) {
  (void)ctx;
  return 0;
}

static void no_counter(void *ctx, themis_slice name, uint64_t delta) {
  (void)ctx;
  (void)name;
  (void)delta;
}

static int64_t no_resource(void *ctx, themis_slice path, uint64_t offset, uint8_t *dst, size_t cap) {
  (void)ctx;
  (void)path;
  (void)offset;
  (void)dst;
  (void)cap;
  return -1;
}

typedef struct answer {
  char bytes[256];
  size_t len;
} answer;

static int32_t take(void *ctx, themis_slice chunk) {
  answer *into = ctx;
  if (chunk.len > sizeof into->bytes - into->len) return 1;
  if (chunk.len > 0) memcpy(into->bytes + into->len, chunk.ptr, chunk.len);
  into->len += chunk.len;
  return 0;
}

static int answers(const answer *got, const char *want) {
  return got->len == strlen(want) && memcmp(got->bytes, want, got->len) == 0;
}

static void exercise(const themis_plugin_descriptor *plugin) {
  const themis_host host = {sizeof host, THEMIS_ABI_MAJOR, THEMIS_ABI_MINOR, NULL,
                            no_log,      no_clock,         no_counter,       no_resource};
  answer got = {{0}, 0};
  const themis_reply sink = {sizeof sink, &got, take};
  void *instance = NULL;

  check(strcmp(plugin->name, "{{name}}") == 0, "the descriptor has the plugin's name");
  check(plugin->init(&host, themis_str("{}"), &instance, &sink) == THEMIS_OK, "init succeeds");

  got.len = 0;
  check(plugin->call(instance, 1, themis_str("world"), &sink) == THEMIS_OK, "hello is answered");
  check(answers(&got, "hello, world"), "hello greets the world");

  got.len = 0;
  check(plugin->call(instance, 1, themis_str(""), &sink) == THEMIS_OK, "hello takes nothing too");
  check(answers(&got, "hello, "), "hello greets nobody");

  check(plugin->call(instance, 99, themis_str(""), &sink) == THEMIS_UNKNOWN_METHOD,
        "an unknown method is refused");
  check(plugin->shutdown(instance) == THEMIS_OK, "shutdown succeeds");
}

int main(int argc, char **argv) {
  if (argc != 2) {
    fprintf(stderr, "usage: %s LIBRARY\n", argv[0]);
    return 2;
  }
  void *library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
  const themis_plugin_descriptor *plugin = library == NULL ? NULL : dlsym(library, "themis_plugin");
  if (plugin == NULL) {
    fprintf(stderr, "failed: %s\n", dlerror());
    return 1;
  }
  exercise(plugin);
  if (failures == 0) printf("{{name}}: all answers are right\n");
  return failures == 0 ? 0 : 1;
}
