/* A good plugin whose ELF constructor writes the file named by THEMIS_CTOR_WITNESS: proof that code ran. */
#include <stdlib.h>

#include "fixture.h"

#ifndef NAME
#define NAME "ctor_writes"
#endif

__attribute__((constructor)) static void witness(void) {
  const char *path = getenv("THEMIS_CTOR_WITNESS");
  if (path == NULL) return;
  const int file = open(path, O_WRONLY | O_CREAT | O_APPEND, 0600);
  if (file < 0) return;
  if (write(file, "ran\n", 4) != 4) abort();
  close(file);
}

THEMIS_PLUGIN_EXPORT const themis_plugin_descriptor themis_plugin = {
    THEMIS_PLUGIN_HEAD(NAME, VERSION, THEMIS_THREAD_SAFE),
    good_init, good_call, NULL, NULL, NULL, good_shutdown};
