/* Takes one call at a time. Method 1 blocks until the FIFO named by the request is opened for writing;
 * method 2 answers how many calls overlapped with another one so far, as one byte. */
#include <limits.h>

#include "fixture.h"

#ifndef NAME
#define NAME "slow_serial"
#endif

static int inside;
static uint8_t overlapped;

static int32_t block(themis_slice request) {
  char path[PATH_MAX];
  if (request.len >= sizeof path) return THEMIS_BAD_REQUEST;
  memcpy(path, request.ptr, request.len);
  path[request.len] = '\0';
  const int file = open(path, O_RDONLY);
  if (file < 0) return THEMIS_BAD_REQUEST;
  close(file);
  return THEMIS_OK;
}

static int32_t serial_call(void *instance, uint32_t method, themis_slice request,
                           const themis_reply *reply) {
  (void)instance;
  if (__atomic_add_fetch(&inside, 1, __ATOMIC_SEQ_CST) != 1) {
    __atomic_add_fetch(&overlapped, 1, __ATOMIC_SEQ_CST);
  }
  int32_t code = THEMIS_UNKNOWN_METHOD;
  if (method == 1) code = block(request);
  if (method == 2) code = themis_write(reply, &overlapped, 1) == 0 ? THEMIS_OK : THEMIS_ERROR;
  __atomic_sub_fetch(&inside, 1, __ATOMIC_SEQ_CST);
  return code;
}

THEMIS_PLUGIN_EXPORT const themis_plugin_descriptor themis_plugin = {
    THEMIS_PLUGIN_HEAD(NAME, VERSION, 0),
    good_init, serial_call, NULL, NULL, NULL, good_shutdown};
