/*
 * The native plugin ABI of the Themis kernel, in C. This file is all a plugin needs.
 *
 *     #include "themis_plugin.h"
 *
 *     static int32_t init(const themis_host *host, themis_slice config_json, void **instance,
 *                         const themis_reply *message) { ... return THEMIS_OK; }
 *     static int32_t call(void *instance, uint32_t method, themis_slice request,
 *                         const themis_reply *reply) { ... }
 *     static int32_t shutdown(void *instance) { ... }
 *
 *     THEMIS_PLUGIN_EXPORT const themis_plugin_descriptor themis_plugin = {
 *       THEMIS_PLUGIN_HEAD("example", "1.0.0", THEMIS_THREAD_SAFE),
 *       init, call, NULL, NULL, NULL, shutdown
 *     };
 *
 *     cc -shared -fPIC -fvisibility=hidden -O2 -Wl,--build-id -Wl,-z,noexecstack \
 *        -I include -o libexample.so example.c
 *
 * With one line more the same source is a wasm module, too: see themis_wasm.h.
 *
 * Rules
 *   - Declare your entries static. A global function called `shutdown` would be resolved to libc's.
 *   - Strings are UTF-8 and not NUL-terminated. Memory is freed by the side that allocated it.
 *   - Slices and sinks are valid only during the call that got them; the host until shutdown returns. A write
 *     after the call, or from another thread than the call's, is refused.
 *   - Calls may come from any thread: many at once with THEMIS_THREAD_SAFE, else one after another. Whoever
 *     says THEMIS_THREAD_SAFE is taken at his word.
 *   - init, reload, save_state and shutdown never overlap each other; save_state and shutdown never
 *     overlap a call. health may run beside anything else; the kernel waits for it before shutdown.
 *   - shutdown is owed exactly once after a successful init, and never after a failed one.
 *   - init, reload, save_state, health and shutdown have a deadline of five seconds.
 *   - While state goes from one version to the next, callers wait: save_state and reload together have 100 ms. A
 *     hand-over that takes longer is called off, callers go on with the old version, and a save_state that is still
 *     running then may find calls beside it.
 *   - A version that just took over is watched: it is swapped back when it fails or hangs more than the one before.
 *   - No C++ exception and no panic may leave an entry: it would end the whole host. So do exit and abort.
 *   - The code stays mapped for good; statics survive a reload of the same file.
 *
 * C99, C11 and C++11; 64-bit little-endian machines.
 */
#ifndef THEMIS_PLUGIN_H
#define THEMIS_PLUGIN_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define THEMIS_ABI_MAJOR 1
#define THEMIS_ABI_MINOR 0

/* The most bytes of a request, and of a reply. */
#define THEMIS_MESSAGE_MAX (64u << 20)

/* features: the kernel may ignore low bits it does not know, and refuses unknown high ones (32 to 63) */
#define THEMIS_THREAD_SAFE ((uint64_t)1) /* call may run on many threads at once */

/* what an entry returns; 4 to 63 are reserved, anything else is a fault of the plugin */
#define THEMIS_OK 0
#define THEMIS_ERROR 1          /* the plugin's own error; reply or message holds its text */
#define THEMIS_UNKNOWN_METHOD 2
#define THEMIS_BAD_REQUEST 3

/* levels of themis_host.log */
#define THEMIS_LOG_ERROR 1u
#define THEMIS_LOG_WARN 2u
#define THEMIS_LOG_INFO 3u
#define THEMIS_LOG_DEBUG 4u
#define THEMIS_LOG_TRACE 5u

#ifdef __cplusplus
extern "C" {
#endif

typedef struct themis_slice {
  const uint8_t *ptr;
  size_t len;
} themis_slice;

/* handed to init, valid until shutdown returns; no function is NULL, all may be called from any thread,
 * and do nothing when the manifest does not list the capability */
typedef struct themis_host {
  uint32_t struct_size;
  uint16_t abi_major, abi_minor;
  void *ctx; /* first argument of each function */
  void (*log)(void *ctx, uint32_t level, themis_slice message);             /* capability "log" */
  int64_t (*now_ns)(void *ctx);                                             /* "clock": monotonic */
  void (*counter_add)(void *ctx, themis_slice name, uint64_t delta);        /* "metrics" */
  int64_t (*resource_read)(void *ctx, themis_slice path, uint64_t offset,   /* "resources": */
                           uint8_t *dst, size_t cap); /* bytes read, 0 at the end, -1 = no such file */
} themis_host;

/* sink for the bytes of one reply or error text */
typedef struct themis_reply {
  uint32_t struct_size;
  void *ctx;
  int32_t (*write)(void *ctx, themis_slice chunk); /* appends; not 0 = the cap is reached: stop */
} themis_reply;

typedef struct themis_plugin_descriptor {
  char magic[8];        /* "THEMIS1" and a NUL */
  uint32_t struct_size; /* sizeof(themis_plugin_descriptor) */
  uint16_t abi_major, abi_minor;
  uint64_t features;
  char name[64];    /* NUL-padded, equal to the manifest's */
  char version[32]; /* NUL-padded, equal to the manifest's */
  int32_t (*init)(const themis_host *host, themis_slice config_json, void **instance,
                  const themis_reply *message);
  int32_t (*call)(void *instance, uint32_t method, themis_slice request, const themis_reply *reply);
  int32_t (*health)(void *instance);                                 /* may be NULL */
  int32_t (*save_state)(void *instance, const themis_reply *state);  /* may be NULL */
  int32_t (*reload)(void *instance, themis_slice from_version, themis_slice state,
                    const themis_reply *message);                    /* may be NULL */
  int32_t (*shutdown)(void *instance);
} themis_plugin_descriptor;

/* the descriptor is kept by the linker, and in a section of its own so that it can be read without running
 * anything; the declaration below makes it visible */
#if defined(__wasm__)
#define THEMIS_PLUGIN_EXPORT __attribute__((used))
#elif defined(__APPLE__)
#define THEMIS_PLUGIN_EXPORT __attribute__((used, section("__DATA,__themis")))
#else
#define THEMIS_PLUGIN_EXPORT __attribute__((used, section(".themis")))
#endif

/* the first fields of the descriptor */
#define THEMIS_PLUGIN_HEAD(name, version, features)                        \
  "THEMIS1", (uint32_t)sizeof(themis_plugin_descriptor), THEMIS_ABI_MAJOR, \
      THEMIS_ABI_MINOR, (features), name, version

/* what every plugin defines */
extern __attribute__((visibility("default"))) const themis_plugin_descriptor themis_plugin;

#ifdef __cplusplus
}
#endif

/* A slice of a NUL-terminated string. */
static inline themis_slice themis_str(const char *text) {
  themis_slice slice;
  slice.ptr = (const uint8_t *)text;
  slice.len = strlen(text);
  return slice;
}

/* Appends len bytes; 0 = taken. */
static inline int32_t themis_write(const themis_reply *reply, const void *bytes, size_t len) {
  themis_slice slice;
  slice.ptr = (const uint8_t *)bytes;
  slice.len = len;
  return reply->write(reply->ctx, slice);
}

/* Appends a NUL-terminated string and returns `code`: `return themis_fail(reply, THEMIS_ERROR, "why");` */
static inline int32_t themis_fail(const themis_reply *reply, int32_t code, const char *text) {
  (void)reply->write(reply->ctx, themis_str(text));
  return code;
}

/* Writes one log line. */
static inline void themis_log(const themis_host *host, uint32_t level, const char *text) {
  host->log(host->ctx, level, themis_str(text));
}

#if defined(__cplusplus)
#define THEMIS_ASSERT_(what, condition) static_assert(condition, #what)
#elif defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L
#define THEMIS_ASSERT_(what, condition) _Static_assert(condition, #what)
#else
#define THEMIS_ASSERT_(what, condition) typedef char themis_assert_##what[(condition) ? 1 : -1]
#endif

#if defined(__wasm__)
/* A module is called through exports; the structures never leave it. */
#include "themis_wasm.h"
#else
/* For wasm: see themis_wasm.h. A native library says all this in its descriptor. */
#define THEMIS_WASM_IDENTITY(name, version) THEMIS_ASSERT_(identity, sizeof(name) > 1)
#define THEMIS_WASM_HEALTH THEMIS_ASSERT_(health, 1)
#define THEMIS_WASM_SAVE_STATE THEMIS_ASSERT_(save_state, 1)
#define THEMIS_WASM_RELOAD THEMIS_ASSERT_(reload, 1)
THEMIS_ASSERT_(pointers_are_64_bit, sizeof(void *) == 8 && sizeof(size_t) == 8);
#if defined(__BYTE_ORDER__) && defined(__ORDER_LITTLE_ENDIAN__)
THEMIS_ASSERT_(little_endian, __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__);
#endif
THEMIS_ASSERT_(slice_size, sizeof(themis_slice) == 16);
THEMIS_ASSERT_(slice_len, offsetof(themis_slice, len) == 8);
THEMIS_ASSERT_(host_size, sizeof(themis_host) == 48);
THEMIS_ASSERT_(host_abi_major, offsetof(themis_host, abi_major) == 4);
THEMIS_ASSERT_(host_abi_minor, offsetof(themis_host, abi_minor) == 6);
THEMIS_ASSERT_(host_ctx, offsetof(themis_host, ctx) == 8);
THEMIS_ASSERT_(host_log, offsetof(themis_host, log) == 16);
THEMIS_ASSERT_(host_now_ns, offsetof(themis_host, now_ns) == 24);
THEMIS_ASSERT_(host_counter_add, offsetof(themis_host, counter_add) == 32);
THEMIS_ASSERT_(host_resource_read, offsetof(themis_host, resource_read) == 40);
THEMIS_ASSERT_(reply_size, sizeof(themis_reply) == 24);
THEMIS_ASSERT_(reply_ctx, offsetof(themis_reply, ctx) == 8);
THEMIS_ASSERT_(reply_write, offsetof(themis_reply, write) == 16);
THEMIS_ASSERT_(descriptor_size, sizeof(themis_plugin_descriptor) == 168);
THEMIS_ASSERT_(descriptor_struct_size, offsetof(themis_plugin_descriptor, struct_size) == 8);
THEMIS_ASSERT_(descriptor_abi_major, offsetof(themis_plugin_descriptor, abi_major) == 12);
THEMIS_ASSERT_(descriptor_abi_minor, offsetof(themis_plugin_descriptor, abi_minor) == 14);
THEMIS_ASSERT_(descriptor_features, offsetof(themis_plugin_descriptor, features) == 16);
THEMIS_ASSERT_(descriptor_name, offsetof(themis_plugin_descriptor, name) == 24);
THEMIS_ASSERT_(descriptor_version, offsetof(themis_plugin_descriptor, version) == 88);
THEMIS_ASSERT_(descriptor_init, offsetof(themis_plugin_descriptor, init) == 120);
THEMIS_ASSERT_(descriptor_call, offsetof(themis_plugin_descriptor, call) == 128);
THEMIS_ASSERT_(descriptor_health, offsetof(themis_plugin_descriptor, health) == 136);
THEMIS_ASSERT_(descriptor_save_state, offsetof(themis_plugin_descriptor, save_state) == 144);
THEMIS_ASSERT_(descriptor_reload, offsetof(themis_plugin_descriptor, reload) == 152);
THEMIS_ASSERT_(descriptor_shutdown, offsetof(themis_plugin_descriptor, shutdown) == 160);
#endif

#endif /* THEMIS_PLUGIN_H */
