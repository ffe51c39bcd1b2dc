/* Keeps the reply it was lent, as a pointer and as a copy, and misuses both. Methods: 1 answers VERSION and keeps
 * its reply; 2 writes "late" by the kept pointer and by the copy, then "own" to its own reply; 3 writes "foreign" to
 * its own reply from a thread of its own, then "own" itself; 4 has a thread write by the kept pointer. Each adds the
 * number of writes that were refused, as one digit. */
#include <pthread.h>

#include "fixture.h"

#ifndef NAME
#define NAME "late_writer"
#endif

static const themis_reply *kept;
static themis_reply copied;

static void *write_foreign(void *reply) {
  return themis_write(reply, "foreign", 7) == 0 ? NULL : reply;
}

static int refused_on_a_thread(const themis_reply *reply) {
  pthread_t thread;
  void *refused = NULL;
  if (pthread_create(&thread, NULL, write_foreign, (void *)reply) != 0) return 9;
  pthread_join(thread, &refused);
  return refused != NULL;
}

static int32_t late_call(void *instance, uint32_t method, themis_slice request,
                         const themis_reply *reply) {
  (void)instance, (void)request;
  char refused = '0';
  switch (method) {
    case 1:
      kept = reply;
      copied = *reply;
      return themis_fail(reply, THEMIS_OK, VERSION);
    case 2:
      refused += themis_write(kept, "late", 4) != 0;
      refused += themis_write(&copied, "late", 4) != 0;
      break;
    case 3: refused += refused_on_a_thread(reply); break;
    case 4: refused += refused_on_a_thread(kept); break;
    default: return THEMIS_UNKNOWN_METHOD;
  }
  themis_write(reply, "own", 3);
  return themis_write(reply, &refused, 1) == 0 ? THEMIS_OK : THEMIS_ERROR;
}

THEMIS_PLUGIN_EXPORT const themis_plugin_descriptor themis_plugin = {
    THEMIS_PLUGIN_HEAD(NAME, VERSION, THEMIS_THREAD_SAFE),
    good_init, late_call, NULL, NULL, NULL, good_shutdown};
