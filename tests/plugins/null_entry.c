/* A descriptor that lacks an entry: INIT, CALL or SHUTDOWN can be set to NULL. */
#include "fixture.h"

#ifndef NAME
#define NAME "null_entry"
#endif
#ifndef INIT
#define INIT good_init
#endif
#ifndef CALL
#define CALL good_call
#endif
#ifndef SHUTDOWN
#define SHUTDOWN good_shutdown
#endif

THEMIS_PLUGIN_EXPORT const themis_plugin_descriptor themis_plugin = {
    THEMIS_PLUGIN_HEAD(NAME, VERSION, THEMIS_THREAD_SAFE),
    INIT, CALL, NULL, NULL, NULL, SHUTDOWN};
