/* Leaves pointers into itself with the host. Methods: 1 answers VERSION; 2 answers address and length of a text of its
 * own (8 bytes each, little-endian); 3 has the signal SIGUSR1 counted; 4 has the file named by the request written
 * when the process exits; 5 answers how many signals came (8 bytes). With WITNESS, shutdown writes its thread's name
 * to that file. */
#define _GNU_SOURCE
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

#include "fixture.h"

#ifndef NAME
#define NAME "leaves_traces"
#endif

static const char text[] = "a text for as long as the process lives";
static uint64_t signals;
static char path_at_exit[PATH_MAX];

UNUSED static void write_file(const char *path, const char *content) {
  const int file = open(path, O_WRONLY | O_CREAT, 0600);
  if (file < 0) return;
  if (write(file, content, strlen(content)) < 0) abort();
  close(file);
}

static void count_signal(int signal) {
  (void)signal;
  __atomic_add_fetch(&signals, 1, __ATOMIC_SEQ_CST);
}

/* Unlike what `atexit` registers, this is not run when a library is unloaded. */
static void at_exit(int code, void *path) {
  (void)code;
  write_file((const char *)path, VERSION);
}

static int32_t register_exit(themis_slice request) {
  if (request.len >= sizeof path_at_exit) return THEMIS_BAD_REQUEST;
  memcpy(path_at_exit, request.ptr, request.len);
  return on_exit(at_exit, path_at_exit) == 0 ? THEMIS_OK : THEMIS_ERROR;
}

static int32_t traces_call(void *instance, uint32_t method, themis_slice request,
                           const themis_reply *reply) {
  (void)instance;
  const uint64_t place[2] = {(uint64_t)(uintptr_t)text, sizeof text - 1};
  switch (method) {
    case 1: return themis_fail(reply, THEMIS_OK, VERSION);
    case 2: return themis_write(reply, place, sizeof place) == 0 ? THEMIS_OK : THEMIS_ERROR;
    case 3: return signal(SIGUSR1, count_signal) == SIG_ERR ? THEMIS_ERROR : THEMIS_OK;
    case 4: return register_exit(request);
    case 5: return themis_write(reply, &signals, sizeof signals) == 0 ? THEMIS_OK : THEMIS_ERROR;
    default: return THEMIS_UNKNOWN_METHOD;
  }
}

static int32_t traces_shutdown(void *instance) {
  (void)instance;
#ifdef WITNESS
  char name[16] = "";
  (void)pthread_getname_np(pthread_self(), name, sizeof name);
  write_file(WITNESS, name);
#endif
  return THEMIS_OK;
}

THEMIS_PLUGIN_EXPORT const themis_plugin_descriptor themis_plugin = {
    THEMIS_PLUGIN_HEAD(NAME, VERSION, THEMIS_THREAD_SAFE),
    good_init, traces_call, NULL, NULL, NULL, traces_shutdown};
