/* Plugin {{name}}: greets, and remembers how often. */
#include <stdlib.h>

#include "themis_plugin.h"

/* What one instance remembers. The kernel makes an instance for each version that is loaded. */
typedef struct {
  uint64_t greeted;
} greeter;

static int32_t init(const themis_host *host, themis_slice config_json, void **instance,
                    const themis_reply *message) {
  (void)config_json;
  greeter *own = calloc(1, sizeof *own);
  if (own == NULL) return themis_fail(message, THEMIS_ERROR, "no memory");
  themis_log(host, 3, "{{name}} is ready");
  *instance = own;
  return THEMIS_OK;
}

/* May run on many threads at once: the descriptor says THEMIS_THREAD_SAFE. */
static int32_t call(void *instance, uint32_t method, themis_slice request,
                    const themis_reply *reply) {
  greeter *own = instance;
  if (method != 1) return THEMIS_UNKNOWN_METHOD;
  if (request.len > 1000) return THEMIS_BAD_REQUEST;
  __atomic_add_fetch(&own->greeted, 1, __ATOMIC_RELAXED);
  if (themis_write(reply, "hello, ", 7) != 0) return THEMIS_ERROR;
  return themis_write(reply, request.ptr, request.len) == 0 ? THEMIS_OK : THEMIS_ERROR;
}

static int32_t health(void *instance) {
  (void)instance;
  return THEMIS_OK;
}

/* The state goes to the next version: no call is under way meanwhile. */
static int32_t save_state(void *instance, const themis_reply *state) {
  const greeter *own = instance;
  return themis_write(state, &own->greeted, sizeof own->greeted) == 0 ? THEMIS_OK : THEMIS_ERROR;
}

static int32_t reload(void *instance, themis_slice from_version, themis_slice state,
                      const themis_reply *message) {
  greeter *own = instance;
  (void)from_version;
  if (state.len != sizeof own->greeted) return themis_fail(message, THEMIS_ERROR, "not our state");
  memcpy(&own->greeted, state.ptr, sizeof own->greeted);
  return THEMIS_OK;
}

static int32_t shutdown(void *instance) {
  free(instance);
  return THEMIS_OK;
}

THEMIS_PLUGIN_EXPORT const themis_plugin_descriptor themis_plugin = {
    THEMIS_PLUGIN_HEAD("{{name}}", "0.1.0", THEMIS_THREAD_SAFE),
    init, call, health, save_state, reload, shutdown};
