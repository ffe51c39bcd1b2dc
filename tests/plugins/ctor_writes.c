/* A good plugin whose ELF constructor writes a file, named by WITNESS when it is built or by
 * THEMIS_CTOR_WITNESS when it runs: proof that code ran. Other macros make it one that must be refused. */
#include <stdlib.h>

#include "fixture.h"

#ifndef NAME
#define NAME "ctor_writes"
#endif

#ifdef TEXT_RELOCATION /* An address in code, which the loader would have to write there. */
__asm__(".text\n.quad witness_of_text\n.data\nwitness_of_text: .quad 0\n.text\n");
#endif

#ifdef UNIQUE_SYMBOL
__asm__(".globl themis_unique\n.type themis_unique, %gnu_unique_object\n.size themis_unique, 4\n"
        ".data\nthemis_unique: .long 0\n.text\n");
#endif

__attribute__((constructor)) static void witness(void) {
#ifdef WITNESS
  const char *path = WITNESS;
#else
  const char *path = getenv("THEMIS_CTOR_WITNESS");
  if (path == NULL) return;
#endif
#ifdef STATIC_TLS
  static __thread int runs;
  runs++;
#endif
  const int file = open(path, O_WRONLY | O_CREAT | O_APPEND, 0600);
  if (file < 0) return;
  if (write(file, "ran\n", 4) != 4) abort();
  close(file);
}

THEMIS_PLUGIN_EXPORT const themis_plugin_descriptor themis_plugin = {
    THEMIS_PLUGIN_HEAD(NAME, VERSION, THEMIS_THREAD_SAFE),
    good_init, good_call, NULL, NULL, NULL, good_shutdown};
