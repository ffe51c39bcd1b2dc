/* Init fails with INIT_CODE (1 if not set) and a text; with LONG_TEXT, one of 10,000 bytes. */
#include "fixture.h"

#ifndef NAME
#define NAME "fail_init"
#endif
#ifndef INIT_CODE
#define INIT_CODE THEMIS_ERROR
#endif

static int32_t failing_init(const themis_host *host, themis_slice config_json, void **instance,
                            const themis_reply *message) {
  (void)host, (void)config_json, (void)instance;
#ifdef LONG_TEXT
  char text[10000];
  memset(text, 'x', sizeof text);
  (void)themis_write(message, text, sizeof text);
  return INIT_CODE;
#else
  return themis_fail(message, INIT_CODE, "the licence has run out");
#endif
}

THEMIS_PLUGIN_EXPORT const themis_plugin_descriptor themis_plugin = {
    THEMIS_PLUGIN_HEAD(NAME, VERSION, THEMIS_THREAD_SAFE),
    failing_init, good_call, NULL, NULL, NULL, good_shutdown};

THEMIS_WASM_IDENTITY(NAME, VERSION);
