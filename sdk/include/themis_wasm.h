/*
 * What makes a wasm module of a plugin written against themis_plugin.h: included by it when the target is wasm32.
 *
 *     clang --target=wasm32 -O2 -nostdlib -mbulk-memory -Wl,--no-entry -I include -I include/wasm -o example.wasm example.c
 *
 * The same source, with one line more, which says nothing to a native compiler:
 *
 *     THEMIS_WASM_IDENTITY("example", "1.0.0");
 *
 * and one for each hook that the descriptor has: THEMIS_WASM_HEALTH; THEMIS_WASM_SAVE_STATE; THEMIS_WASM_RELOAD;
 *
 * Rules
 *   - Calls come to any of several instances, each initialised with the same configuration: what one keeps, another does not
 *     know. With THEMIS_WASM_SAVE_STATE there is one instance, and its calls come in turn.
 *   - What the host offers is imported only on request, since a module may import no more than its manifest's
 *     capabilities: define THEMIS_LOG, THEMIS_CLOCK, THEMIS_METRICS, THEMIS_RESOURCES as the manifest lists them.
 *   - include/wasm has as much of a C library as plugins without one need. Leave it out where there is one.
 */
#ifndef THEMIS_WASM_H
#define THEMIS_WASM_H

#include <stdlib.h>

#define THEMIS_WASM_IMPORT(name) __attribute__((import_module("themis"), import_name(name)))
#define THEMIS_WASM_EXPORT(name) __attribute__((weak, export_name(name)))

/* The custom section by which the kernel knows the module. */
#define THEMIS_WASM_IDENTITY(name, version)                                                      \
  __asm__(".section .custom_section.themis,\"\",@\n"                                             \
          ".ascii \"{\\\"name\\\":\\\"" name "\\\",\\\"version\\\":\\\"" version                 \
          "\\\",\\\"abi\\\":\\\"1.0\\\"}\"\n"                                                    \
          ".text\n")

#ifdef __cplusplus
extern "C" {
#endif

THEMIS_WASM_IMPORT("reply") void themis_wasm_reply(const uint8_t *ptr, size_t len);
THEMIS_WASM_IMPORT("log") void themis_wasm_log(uint32_t level, const uint8_t *ptr, size_t len);
THEMIS_WASM_IMPORT("now_ns") int64_t themis_wasm_now_ns(void);
THEMIS_WASM_IMPORT("counter_add")
void themis_wasm_counter_add(const uint8_t *ptr, size_t len, uint64_t delta);
THEMIS_WASM_IMPORT("resource_read")
int64_t themis_wasm_resource_read(const uint8_t *path, size_t len, uint64_t offset, uint8_t *dst,
                                  size_t cap);

/* Bytes replied since the guest was last entered. */
__attribute__((weak)) uint64_t themis_wasm_written;

static inline int32_t themis_wasm_write(void *ctx, themis_slice chunk) {
  (void)ctx;
  if (chunk.len > 0) themis_wasm_reply(chunk.ptr, chunk.len);
  themis_wasm_written += chunk.len;
  return themis_wasm_written > THEMIS_MESSAGE_MAX;
}

static inline void themis_wasm_host_log(void *ctx, uint32_t level, themis_slice message) {
  (void)ctx, (void)level, (void)message;
#ifdef THEMIS_LOG
  themis_wasm_log(level, message.ptr, message.len);
#endif
}

static inline int64_t themis_wasm_host_now_ns(void *ctx) {
  (void)ctx;
#ifdef THEMIS_CLOCK
  return themis_wasm_now_ns();
#else
  return 0;
#endif
}

static inline void themis_wasm_host_counter_add(void *ctx, themis_slice name, uint64_t delta) {
  (void)ctx, (void)name, (void)delta;
#ifdef THEMIS_METRICS
  themis_wasm_counter_add(name.ptr, name.len, delta);
#endif
}

static inline int64_t themis_wasm_host_resource_read(void *ctx, themis_slice path, uint64_t offset,
                                                     uint8_t *dst, size_t cap) {
  (void)ctx, (void)path, (void)offset, (void)dst, (void)cap;
#ifdef THEMIS_RESOURCES
  return themis_wasm_resource_read(path.ptr, path.len, offset, dst, cap);
#else
  return -1;
#endif
}

static const themis_host themis_wasm_host = {
    sizeof(themis_host),    THEMIS_ABI_MAJOR,             THEMIS_ABI_MINOR,
    NULL,                   themis_wasm_host_log,         themis_wasm_host_now_ns,
    themis_wasm_host_counter_add, themis_wasm_host_resource_read};
static const themis_reply themis_wasm_sink = {sizeof(themis_reply), NULL, themis_wasm_write};

/* Weak, like everything below: several sources of one plugin share them. */
__attribute__((weak)) void *themis_wasm_instance;

/* What the kernel passes lies in memory it had made here; it is given back after the call. */
THEMIS_WASM_EXPORT("themis_alloc") void *themis_alloc(size_t len) { return malloc(len); }

static inline themis_slice themis_wasm_slice(uint8_t *ptr, size_t len) {
  themis_slice slice;
  slice.ptr = ptr;
  slice.len = len;
  return slice;
}

THEMIS_WASM_EXPORT("themis_init") int32_t themis_init(uint8_t *ptr, size_t len) {
  const int32_t code = themis_plugin.init(&themis_wasm_host, themis_wasm_slice(ptr, len),
                                          &themis_wasm_instance, &themis_wasm_sink);
  free(ptr);
  return code;
}

THEMIS_WASM_EXPORT("themis_call")
int32_t themis_call(uint32_t method, uint8_t *ptr, size_t len) {
  themis_wasm_written = 0;
  const int32_t code = themis_plugin.call(themis_wasm_instance, method, themis_wasm_slice(ptr, len),
                                          &themis_wasm_sink);
  free(ptr);
  return code;
}

THEMIS_WASM_EXPORT("themis_shutdown") int32_t themis_shutdown(void) {
  return themis_plugin.shutdown(themis_wasm_instance);
}

#define THEMIS_WASM_HEALTH                                                 \
  THEMIS_WASM_EXPORT("themis_health") int32_t themis_health(void) {        \
    return themis_plugin.health(themis_wasm_instance);                     \
  }                                                                        \
  extern const themis_plugin_descriptor themis_plugin

#define THEMIS_WASM_SAVE_STATE                                             \
  THEMIS_WASM_EXPORT("themis_save_state") int32_t themis_save_state(void) { \
    themis_wasm_written = 0;                                               \
    return themis_plugin.save_state(themis_wasm_instance, &themis_wasm_sink); \
  }                                                                        \
  extern const themis_plugin_descriptor themis_plugin

#define THEMIS_WASM_RELOAD                                                 \
  THEMIS_WASM_EXPORT("themis_reload")                                      \
  int32_t themis_reload(uint8_t *from, size_t from_len, uint8_t *state, size_t len) { \
    const int32_t code = themis_plugin.reload(                             \
        themis_wasm_instance, themis_wasm_slice(from, from_len),           \
        themis_wasm_slice(state, len), &themis_wasm_sink);                 \
    free(from);                                                            \
    free(state);                                                           \
    return code;                                                           \
  }                                                                        \
  extern const themis_plugin_descriptor themis_plugin

#ifdef __cplusplus
}
#endif

#endif /* THEMIS_WASM_H */
