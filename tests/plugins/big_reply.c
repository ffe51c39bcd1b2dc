/* Method 1 writes until it is refused, tries once more, and then says that all went well; method 2 writes
 * exactly 64 MiB. */
#include "fixture.h"

#ifndef NAME
#define NAME "big_reply"
#endif

#define CHUNK (1 << 20)

static const uint8_t chunk[CHUNK];

static int32_t big_call(void *instance, uint32_t method, themis_slice request,
                        const themis_reply *reply) {
  (void)instance, (void)request;
  if (method == 1) {
    while (themis_write(reply, chunk, CHUNK) == 0) {
    }
    (void)themis_write(reply, chunk, 1);
    return THEMIS_OK;
  }
  if (method == 2) {
    for (int i = 0; i < 64; i++) {
      if (themis_write(reply, chunk, CHUNK) != 0) return THEMIS_ERROR;
    }
    return THEMIS_OK;
  }
  return THEMIS_UNKNOWN_METHOD;
}

THEMIS_PLUGIN_EXPORT const themis_plugin_descriptor themis_plugin = {
    THEMIS_PLUGIN_HEAD(NAME, VERSION, THEMIS_THREAD_SAFE),
    good_init, big_call, NULL, NULL, NULL, good_shutdown};

THEMIS_WASM_IDENTITY(NAME, VERSION);
