/* Returns codes that the ABI does not know: 77 from every call, 78 from health unless WELL is defined, 79 from
 * shutdown. */
#include "fixture.h"

#ifndef NAME
#define NAME "wild_code"
#endif

static int32_t wild_call(void *instance, uint32_t method, themis_slice request,
                         const themis_reply *reply) {
  (void)instance, (void)method, (void)request, (void)reply;
  return 77;
}

static int32_t wild_health(void *instance) {
  (void)instance;
#ifdef WELL
  return THEMIS_OK;
#else
  return 78;
#endif
}

static int32_t wild_shutdown(void *instance) {
  (void)instance;
  return 79;
}

THEMIS_PLUGIN_EXPORT const themis_plugin_descriptor themis_plugin = {
    THEMIS_PLUGIN_HEAD(NAME, VERSION, THEMIS_THREAD_SAFE),
    good_init, wild_call, wild_health, NULL, NULL, wild_shutdown};

THEMIS_WASM_IDENTITY(NAME, VERSION);
THEMIS_WASM_HEALTH;
