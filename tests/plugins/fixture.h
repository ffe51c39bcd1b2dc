/*
 * What the test plugins have in common: a well-behaved init and shutdown, and a way to hang.
 * NAME and VERSION can be set on the command line; each plugin has defaults.
 *
 *   cc -shared -fPIC -fvisibility=hidden -Wl,--build-id -Wl,-z,noexecstack -I sdk/include \
 *      -DVERSION='"2.0.0"' -o libcounter.so tests/plugins/counter.c
 */
#ifndef FIXTURE_H
#define FIXTURE_H

#ifndef __wasm__
#include <fcntl.h>
#include <time.h>
#include <unistd.h>
#endif

#include "themis_plugin.h"

#ifndef VERSION
#define VERSION "1.0.0"
#endif

#define UNUSED __attribute__((unused))

/* Hangs until somebody opens the FIFO for writing; for ever when none was named. */
UNUSED static void hang(void) {
#ifdef __wasm__
  for (volatile int round = 0;; round++) {
  }
#elif defined(HANG_FIFO)
  (void)open(HANG_FIFO, O_RDONLY);
#else
  for (;;) sleep(3600);
#endif
}

/* Takes so long. */
UNUSED static void pause_for(int64_t nanos) {
#ifdef __wasm__
  const int64_t start = themis_wasm_now_ns();
  while (themis_wasm_now_ns() - start < nanos) {
  }
#else
  const struct timespec pause = {nanos / 1000000000, nanos % 1000000000};
  (void)nanosleep(&pause, NULL);
#endif
}

UNUSED static int32_t good_init(const themis_host *host, themis_slice config_json, void **instance,
                                const themis_reply *message) {
  (void)host, (void)config_json, (void)message;
  *instance = NULL;
  return THEMIS_OK;
}

/* Method 1 echoes. */
UNUSED static int32_t good_call(void *instance, uint32_t method, themis_slice request,
                                const themis_reply *reply) {
  (void)instance;
  if (method != 1) return THEMIS_UNKNOWN_METHOD;
  return themis_write(reply, request.ptr, request.len) == 0 ? THEMIS_OK : THEMIS_ERROR;
}

UNUSED static int32_t good_shutdown(void *instance) {
  (void)instance;
  return THEMIS_OK;
}

#endif
