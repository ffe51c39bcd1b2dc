/* What nobody wants in a database: one method eats memory, one never returns. Both cost the plugin its worker process,
 * and its caller an error; nobody else notices. Methods: 1 eats memory, 2 hangs, 3 answers "at your service". */
#include <stdlib.h>
#ifndef __wasm__
#include <unistd.h>
#endif

#include "themis_plugin.h"

static int32_t init(const themis_host *host, themis_slice config_json, void **instance,
                    const themis_reply *message) {
  (void)host, (void)config_json, (void)message;
  *instance = NULL;
  return THEMIS_OK;
}

static void eat(void) {
  for (;;) {
    volatile char *mebibyte = malloc(1 << 20);
    for (size_t at = 0; mebibyte != NULL && at < 1 << 20; at += 4096) mebibyte[at] = 1;
  }
}

static int32_t call(void *instance, uint32_t method, themis_slice request,
                    const themis_reply *reply) {
  (void)instance, (void)request;
  switch (method) {
    case 1: eat(); return THEMIS_ERROR;
    case 2:
#ifdef __wasm__
      for (volatile int round = 0;; round++) {
      }
#else
      for (;;) sleep(3600);
#endif
    case 3: return themis_fail(reply, THEMIS_OK, "at your service");
    default: return THEMIS_UNKNOWN_METHOD;
  }
}

static int32_t shutdown(void *instance) {
  (void)instance;
  return THEMIS_OK;
}

THEMIS_PLUGIN_EXPORT const themis_plugin_descriptor themis_plugin = {
    THEMIS_PLUGIN_HEAD("rogue", "1.0.0", THEMIS_THREAD_SAFE), init, call, NULL, NULL, NULL, shutdown};

THEMIS_WASM_IDENTITY("rogue", "1.0.0");
