/* Uses what the host offers. Methods: 1 answers the data file named by the request, read 5 bytes at a time,
 * or fails; 2 answers now_ns (8 bytes, little-endian); 3 logs the request at level 2; 4 adds 7 to the
 * counter named by the request; 5 logs and counts with a NULL slice. Init and shutdown log a line each. */
#include <stdlib.h>

#include "fixture.h"

#ifndef NAME
#define NAME "uses_host"
#endif

static int32_t host_init(const themis_host *host, themis_slice config_json, void **instance,
                         const themis_reply *message) {
  (void)message;
  host->log(host->ctx, THEMIS_LOG_INFO, config_json);
  *instance = malloc(sizeof host);
  if (*instance == NULL) return THEMIS_ERROR;
  memcpy(*instance, &host, sizeof host);
  return THEMIS_OK;
}

static int32_t read_all(const themis_host *host, themis_slice path, const themis_reply *reply) {
  uint8_t piece[5];
  uint64_t offset = 0;
  for (;;) {
    const int64_t got = host->resource_read(host->ctx, path, offset, piece, sizeof piece);
    if (got < 0) return themis_fail(reply, THEMIS_ERROR, "no such file");
    if (got == 0) return THEMIS_OK;
    if (themis_write(reply, piece, (size_t)got) != 0) return THEMIS_ERROR;
    offset += (uint64_t)got;
  }
}

static int32_t host_call(void *instance, uint32_t method, themis_slice request,
                         const themis_reply *reply) {
  const themis_host *host;
  const themis_slice nothing = {NULL, 3};
  memcpy(&host, instance, sizeof host);
  switch (method) {
    case 1: return read_all(host, request, reply);
    case 2: {
      const int64_t now = host->now_ns(host->ctx);
      return themis_write(reply, &now, sizeof now) == 0 ? THEMIS_OK : THEMIS_ERROR;
    }
    case 3: host->log(host->ctx, THEMIS_LOG_WARN, request); return THEMIS_OK;
    case 4: host->counter_add(host->ctx, request, 7); return THEMIS_OK;
    case 5:
      host->log(host->ctx, 99, nothing);
      host->counter_add(host->ctx, nothing, 1);
      return THEMIS_OK;
    default: return THEMIS_UNKNOWN_METHOD;
  }
}

static int32_t host_shutdown(void *instance) {
  const themis_host *host;
  memcpy(&host, instance, sizeof host);
  themis_log(host, THEMIS_LOG_INFO, "bye");
  free(instance);
  return THEMIS_OK;
}

THEMIS_PLUGIN_EXPORT const themis_plugin_descriptor themis_plugin = {
    THEMIS_PLUGIN_HEAD(NAME, VERSION, THEMIS_THREAD_SAFE),
    host_init, host_call, NULL, NULL, NULL, host_shutdown};

THEMIS_WASM_IDENTITY(NAME, VERSION);
