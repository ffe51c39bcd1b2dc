/*
 * Plugin {{name}}: greets whoever it is sent.
 *
 * Method 1, `hello`: any bytes in, "hello, " and the same bytes out.
 */
#define THEMIS_LOG /* As in the manifest's capabilities: what a wasm module may import. */
#include "themis_plugin.h"

#ifndef VERSION
#error "build with make: it takes VERSION from manifest.json"
#endif

#define METHOD_HELLO 1u

static int32_t init(const themis_host *host, themis_slice config_json, void **instance,
                    const themis_reply *message) {
  (void)config_json;
  (void)message;
  /* What has to live between calls goes here, not into statics: those are shared by all instances. As wasm there are
   * several, unless they save their state: what one keeps, another does not know. */
  *instance = NULL;
  themis_log(host, THEMIS_LOG_INFO, "{{name}} " VERSION " is ready");
  return THEMIS_OK;
}

static int32_t hello(themis_slice request, const themis_reply *reply) {
  /* A sink that does not take more has reached the kernel's cap. */
  if (themis_write(reply, "hello, ", 7) != 0) return THEMIS_ERROR;
  if (themis_write(reply, request.ptr, request.len) != 0) return THEMIS_ERROR;
  return THEMIS_OK;
}

static int32_t call(void *instance, uint32_t method, themis_slice request,
                    const themis_reply *reply) {
  (void)instance;
  switch (method) {
    case METHOD_HELLO:
      return hello(request, reply);
    default:
      return THEMIS_UNKNOWN_METHOD;
  }
}

static int32_t shutdown(void *instance) {
  (void)instance;
  return THEMIS_OK;
}

THEMIS_PLUGIN_EXPORT const themis_plugin_descriptor themis_plugin = {
    THEMIS_PLUGIN_HEAD("{{name}}", VERSION, THEMIS_THREAD_SAFE),
    init, call, NULL, NULL, NULL, shutdown};

/* The same for a wasm module, with a line more for each hook: see themis_wasm.h. */
THEMIS_WASM_IDENTITY("{{name}}", VERSION);
