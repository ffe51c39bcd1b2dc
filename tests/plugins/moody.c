/* Starts well and may turn bad. Method 1 answers VERSION; with CALL_CODE it ends with that code instead, after the
 * first GOOD_CALLS calls; with SLOW_MICROS every call takes so long. Health answers HEALTH_CODE when the file named
 * by SICK exists, hangs when the one named by HUNG does. */
#include "fixture.h"


#ifndef NAME
#define NAME "moody"
#endif
#ifndef GOOD_CALLS
#define GOOD_CALLS 0
#endif
#ifndef HEALTH_CODE
#define HEALTH_CODE THEMIS_ERROR
#endif

UNUSED static uint64_t calls;

static int32_t moody_call(void *instance, uint32_t method, themis_slice request,
                          const themis_reply *reply) {
  (void)instance, (void)request;
  if (method != 1) return THEMIS_UNKNOWN_METHOD;
#ifdef SLOW_MICROS
  pause_for(SLOW_MICROS * 1000L);
#endif
#ifdef CALL_CODE
  if (__atomic_add_fetch(&calls, 1, __ATOMIC_RELAXED) > GOOD_CALLS)
    return themis_fail(reply, CALL_CODE, "in a bad mood");
#endif
  return themis_fail(reply, THEMIS_OK, VERSION);
}

static int32_t moody_health(void *instance) {
  (void)instance;
#ifdef HUNG
  if (access(HUNG, F_OK) == 0) hang();
#endif
#ifdef SICK
  if (access(SICK, F_OK) == 0) return HEALTH_CODE;
#endif
  return THEMIS_OK;
}

THEMIS_PLUGIN_EXPORT const themis_plugin_descriptor themis_plugin = {
    THEMIS_PLUGIN_HEAD(NAME, VERSION, THEMIS_THREAD_SAFE),
    good_init, moody_call, moody_health, NULL, NULL, good_shutdown};

THEMIS_WASM_IDENTITY(NAME, VERSION);
THEMIS_WASM_HEALTH;
