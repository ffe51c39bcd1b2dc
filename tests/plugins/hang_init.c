/* Never returns from init; with HANG_FIFO, until that is opened. */
#include "fixture.h"

#ifndef NAME
#define NAME "hang_init"
#endif

static int32_t hanging_init(const themis_host *host, themis_slice config_json, void **instance,
                            const themis_reply *message) {
  hang();
  return good_init(host, config_json, instance, message);
}

THEMIS_PLUGIN_EXPORT const themis_plugin_descriptor themis_plugin = {
    THEMIS_PLUGIN_HEAD(NAME, VERSION, THEMIS_THREAD_SAFE),
    hanging_init, good_call, NULL, NULL, NULL, good_shutdown};

THEMIS_WASM_IDENTITY(NAME, VERSION);
