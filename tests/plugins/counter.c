/* Methods: 1 answers VERSION, 2 echoes, 3 fails with a text, 4 claims not to exist, 5 calls the request
 * bad, 6 answers how often any instance of this image was called (8 bytes, little-endian). */
#include "fixture.h"

#ifndef NAME
#define NAME "counter"
#endif

#ifdef PADDING /* Makes the file about as large. */
__attribute__((used)) static const char padding[PADDING] = {1};
#endif

static uint64_t calls;

static int32_t counter_call(void *instance, uint32_t method, themis_slice request,
                            const themis_reply *reply) {
  (void)instance;
  const uint64_t count = __atomic_add_fetch(&calls, 1, __ATOMIC_RELAXED);
  switch (method) {
    case 1: return themis_fail(reply, THEMIS_OK, VERSION);
    case 2: return good_call(instance, 1, request, reply);
    case 3: return themis_fail(reply, THEMIS_ERROR, "counter is out of order");
    case 4: return THEMIS_UNKNOWN_METHOD;
    case 5: return THEMIS_BAD_REQUEST;
    case 6: return themis_write(reply, &count, sizeof count) == 0 ? THEMIS_OK : THEMIS_ERROR;
    default: return THEMIS_UNKNOWN_METHOD;
  }
}

THEMIS_PLUGIN_EXPORT const themis_plugin_descriptor themis_plugin = {
    THEMIS_PLUGIN_HEAD(NAME, VERSION, THEMIS_THREAD_SAFE),
    good_init, counter_call, NULL, NULL, NULL, good_shutdown};

THEMIS_WASM_IDENTITY(NAME, VERSION);
