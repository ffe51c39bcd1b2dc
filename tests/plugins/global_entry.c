/* Forgets `static`: built without -fvisibility=hidden, its shutdown is resolved to libc's. */
#include "fixture.h"

#ifndef NAME
#define NAME "global_entry"
#endif

int32_t shutdown(void *instance) {
  (void)instance;
  return THEMIS_OK;
}

THEMIS_PLUGIN_EXPORT const themis_plugin_descriptor themis_plugin = {
    THEMIS_PLUGIN_HEAD(NAME, VERSION, THEMIS_THREAD_SAFE),
    good_init, good_call, NULL, NULL, NULL, shutdown};
