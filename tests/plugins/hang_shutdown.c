/* Never returns from shutdown; with HANG_FIFO, until that is opened. */
#include "fixture.h"

#ifndef NAME
#define NAME "hang_shutdown"
#endif

static int32_t hanging_shutdown(void *instance) {
  hang();
  return good_shutdown(instance);
}

THEMIS_PLUGIN_EXPORT const themis_plugin_descriptor themis_plugin = {
    THEMIS_PLUGIN_HEAD(NAME, VERSION, THEMIS_THREAD_SAFE),
    good_init, good_call, NULL, NULL, NULL, hanging_shutdown};

THEMIS_WASM_IDENTITY(NAME, VERSION);
