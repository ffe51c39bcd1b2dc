/* Its ELF constructor never returns and keeps the system loader's lock; with HANG_FIFO, until that is
 * opened. */
#include "fixture.h"

#ifndef NAME
#define NAME "hang_ctor"
#endif

__attribute__((constructor)) static void hang_while_loading(void) { hang(); }

THEMIS_PLUGIN_EXPORT const themis_plugin_descriptor themis_plugin = {
    THEMIS_PLUGIN_HEAD(NAME, VERSION, THEMIS_THREAD_SAFE),
    good_init, good_call, NULL, NULL, NULL, good_shutdown};
