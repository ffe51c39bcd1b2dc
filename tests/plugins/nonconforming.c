/* Breaks one behaviour that every plugin owes, chosen when it is built. FORGETFUL: answers otherwise once it has been
 * initialised twice in this process. LEAKS: init leaves 1 MiB behind. CHATTY: answers methods it does not have.
 * BRITTLE: requests over 1,000 bytes end in a wild code. SPOILT: after a request that begins with 0xff it answers
 * nonsense. CLUMSY: answers nonsense when two calls are inside at once. SLOW: init takes three seconds. STUBBORN:
 * shutdown fails. LOSER: hands over a state that spoils the next instance. MOODY: every other call fails. DECAYS: an instance
 * that was handed state fails after its first calls. TIRED: answers nonsense after its first calls. Method 1
 * answers "right". */
#include <stdlib.h>
#include <string.h>

#include "fixture.h"

#ifndef NAME
#define NAME "nonconforming"
#endif

UNUSED static int inits, inside, spoilt, turns, successor;
/* Where everybody can see it, or the compiler leaves it out. */
UNUSED char *volatile left;

static int32_t bad_init(const themis_host *host, themis_slice config_json, void **instance,
                        const themis_reply *message) {
  __atomic_add_fetch(&inits, 1, __ATOMIC_SEQ_CST);
#ifdef LEAKS
  left = malloc(1 << 20);
  if (left != NULL) memset(left, 1, 1 << 20);
#endif
#ifdef SLOW
  pause_for(3000000000);
#endif
  (void)good_init(host, config_json, instance, message);
  *instance = calloc(1, sizeof(int));
  return THEMIS_OK;
}

static const char *answer(void *instance) {
  (void)instance;
#ifdef FORGETFUL
  if (inits > 1) return "other";
#endif
#ifdef SPOILT
  if (__atomic_load_n(&spoilt, __ATOMIC_SEQ_CST)) return "spoilt";
#endif
#ifdef LOSER
  if (__atomic_load_n((int *)instance, __ATOMIC_SEQ_CST)) return "lost";
#endif
  return "right";
}

static int32_t bad_call(void *instance, uint32_t method, themis_slice request,
                        const themis_reply *reply) {
#ifdef BRITTLE
  if (request.len > 1000) return 77;
#endif
#ifdef SPOILT
  if (request.len > 0 && request.ptr[0] == 0xff) __atomic_store_n(&spoilt, 1, __ATOMIC_SEQ_CST);
#endif
  (void)request;
#ifdef CHATTY
  return themis_fail(reply, THEMIS_OK, answer(instance));
#endif
  if (method != 1) return THEMIS_UNKNOWN_METHOD;
#ifdef MOODY
  if (__atomic_add_fetch(&turns, 1, __ATOMIC_SEQ_CST) % 2 == 0)
    return themis_fail(reply, THEMIS_ERROR, "not now");
#endif
#ifdef DECAYS
  if (successor && __atomic_add_fetch(&turns, 1, __ATOMIC_SEQ_CST) > 20)
    return themis_fail(reply, THEMIS_ERROR, "worn out");
#endif
#ifdef TIRED
  if (__atomic_add_fetch(&turns, 1, __ATOMIC_SEQ_CST) > 40)
    return themis_fail(reply, THEMIS_OK, "tired");
#endif
#ifdef CLUMSY
  const int others = __atomic_fetch_add(&inside, 1, __ATOMIC_SEQ_CST);
  pause_for(100000);
  __atomic_sub_fetch(&inside, 1, __ATOMIC_SEQ_CST);
  if (others > 0) return themis_fail(reply, THEMIS_OK, "clash");
#endif
  return themis_fail(reply, THEMIS_OK, answer(instance));
}

UNUSED static int32_t bad_save(void *instance, const themis_reply *state) {
  (void)instance;
  return themis_fail(state, THEMIS_OK, "spoils");
}

UNUSED static int32_t bad_reload(void *instance, themis_slice from_version, themis_slice state,
                                 const themis_reply *message) {
  (void)from_version, (void)state, (void)message;
#ifdef DECAYS
  (void)instance;
  __atomic_store_n(&successor, 1, __ATOMIC_SEQ_CST);
#else
  __atomic_store_n((int *)instance, 1, __ATOMIC_SEQ_CST);
#endif
  return THEMIS_OK;
}

static int32_t bad_shutdown(void *instance) {
  free(instance);
#ifdef STUBBORN
  hang();
#endif
  return THEMIS_OK;
}

#if defined(LOSER) || defined(DECAYS)
#define SAVE bad_save
#define RELOAD bad_reload
#else
#define SAVE NULL
#define RELOAD NULL
#endif

THEMIS_PLUGIN_EXPORT const themis_plugin_descriptor themis_plugin = {
    THEMIS_PLUGIN_HEAD(NAME, VERSION, THEMIS_THREAD_SAFE),
    bad_init, bad_call, NULL, SAVE, RELOAD, bad_shutdown};

THEMIS_WASM_IDENTITY(NAME, VERSION);
#if defined(LOSER) || defined(DECAYS)
THEMIS_WASM_SAVE_STATE;
THEMIS_WASM_RELOAD;
#endif
