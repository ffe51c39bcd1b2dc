/* Its ELF constructor makes the descriptor in memory another one than the signed one in the file: FIELD is
 * assigned VALUE. */
#include "fixture.h"

#ifndef NAME
#define NAME "changes_descriptor"
#endif
#ifndef FIELD
#define FIELD name[0]
#define VALUE 'x'
#endif

THEMIS_PLUGIN_EXPORT const themis_plugin_descriptor themis_plugin = {
    THEMIS_PLUGIN_HEAD(NAME, VERSION, THEMIS_THREAD_SAFE),
    good_init, good_call, NULL, NULL, NULL, good_shutdown};

__attribute__((constructor)) static void change(void) {
  /* The section is writable, because the loader fills the entries in. */
  themis_plugin_descriptor *mine;
  const void *address = &themis_plugin;
  memcpy(&mine, &address, sizeof mine);
  ((volatile themis_plugin_descriptor *)mine)->FIELD = VALUE;
}
