/* Keeps a count and hands it on. Methods: 1 answers VERSION, 2 echoes, 6 adds one to the count and answers it,
 * 7 answers it (8 bytes, little-endian). What it saves is "COUNT" and the count. Options: SAVE_CODE and RELOAD_CODE
 * are returned instead of doing anything, with the text "not today"; SAVE_BYTES saves so many bytes of nothing;
 * SAVE_HANG and RELOAD_HANG hang, with HANG_FIFO until that is opened; GARBAGE saves something else;
 * NO_SAVE and NO_RELOAD leave the hook out, SAVE and RELOAD put something else there; NOT_THREAD_SAFE takes one call
 * at a time. With TELLS, while a state hook of the instance is under way, health answers 1 and any other hook 98. */
#include <stdlib.h>
#include <string.h>

#include "fixture.h"

#ifndef NAME
#define NAME "stateful"
#endif

#ifdef NOT_THREAD_SAFE
#define FEATURES 0
#else
#define FEATURES THEMIS_THREAD_SAFE
#endif

static const char MAGIC[] = "COUNT";

typedef struct {
  uint64_t count;
  int inside;
} stateful;

/* Each hook but health is between these two. */
static void enter(void *instance) {
  __atomic_add_fetch(&((stateful *)instance)->inside, 1, __ATOMIC_SEQ_CST);
}

static int32_t leave(void *instance, int32_t code) {
  const int were_inside = __atomic_fetch_sub(&((stateful *)instance)->inside, 1, __ATOMIC_SEQ_CST);
#ifdef TELLS
  if (were_inside != 1) return 98;
#endif
  (void)were_inside;
  return code;
}

#ifdef TELLS
static int32_t health(void *instance) {
  const int inside = __atomic_load_n(&((stateful *)instance)->inside, __ATOMIC_SEQ_CST);
  return inside == 0 ? THEMIS_OK : THEMIS_ERROR;
}
#define HEALTH health
#else
#define HEALTH NULL
#endif

static int32_t stateful_init(const themis_host *host, themis_slice config_json, void **instance,
                             const themis_reply *message) {
  (void)host, (void)config_json, (void)message;
  *instance = calloc(1, sizeof(stateful));
  return *instance == NULL ? THEMIS_ERROR : THEMIS_OK;
}

static int32_t stateful_call(void *instance, uint32_t method, themis_slice request,
                             const themis_reply *reply) {
  uint64_t *shared = &((stateful *)instance)->count, count;
  switch (method) {
    case 1: return themis_fail(reply, THEMIS_OK, VERSION);
    case 2: return good_call(instance, 1, request, reply);
    case 6: count = __atomic_add_fetch(shared, 1, __ATOMIC_SEQ_CST); break;
    case 7: count = __atomic_load_n(shared, __ATOMIC_SEQ_CST); break;
    default: return THEMIS_UNKNOWN_METHOD;
  }
  return themis_write(reply, &count, sizeof count) == 0 ? THEMIS_OK : THEMIS_ERROR;
}

UNUSED static int32_t save(void *instance, const themis_reply *state) {
  (void)instance;
#ifdef SAVE_HANG
  hang();
#endif
#ifdef SAVE_CODE
  return themis_fail(state, SAVE_CODE, "not today");
#endif
#ifdef SAVE_BYTES
  static const char nothing[1 << 16];
  for (uint64_t left = SAVE_BYTES; left > 0;) {
    const uint64_t chunk = left < sizeof nothing ? left : sizeof nothing;
    /* A refusal is ignored on purpose: the host has to notice by itself. */
    (void)themis_write(state, nothing, chunk);
    left -= chunk;
  }
  return THEMIS_OK;
#endif
#ifdef GARBAGE
  return themis_fail(state, THEMIS_OK, "garbage");
#endif
  const uint64_t count = __atomic_load_n(&((stateful *)instance)->count, __ATOMIC_SEQ_CST);
  themis_write(state, MAGIC, 5);
  return themis_write(state, &count, sizeof count) == 0 ? THEMIS_OK : THEMIS_ERROR;
}

UNUSED static int32_t stateful_save(void *instance, const themis_reply *state) {
  enter(instance);
  return leave(instance, save(instance, state));
}

UNUSED static int32_t take(void *instance, themis_slice state, const themis_reply *message) {
#ifdef RELOAD_HANG
  hang();
#endif
#ifdef RELOAD_CODE
  return themis_fail(message, RELOAD_CODE, "not today");
#endif
  uint64_t count;
  if (state.len != 5 + sizeof count || memcmp(state.ptr, MAGIC, 5) != 0)
    return themis_fail(message, THEMIS_ERROR, "this is no count");
  memcpy(&count, state.ptr + 5, sizeof count);
  __atomic_store_n(&((stateful *)instance)->count, count, __ATOMIC_SEQ_CST);
  return THEMIS_OK;
}

UNUSED static int32_t stateful_reload(void *instance, themis_slice from_version, themis_slice state,
                                      const themis_reply *message) {
  (void)from_version;
  enter(instance);
  return leave(instance, take(instance, state, message));
}

static int32_t stateful_shutdown(void *instance) {
  enter(instance);
  const int32_t code = leave(instance, THEMIS_OK);
  free(instance);
  return code;
}

#ifdef NO_SAVE
#define SAVE NULL
#elif !defined(SAVE)
#define SAVE stateful_save
#endif
#ifdef NO_RELOAD
#define RELOAD NULL
#elif !defined(RELOAD)
#define RELOAD stateful_reload
#endif

THEMIS_PLUGIN_EXPORT const themis_plugin_descriptor themis_plugin = {
    THEMIS_PLUGIN_HEAD(NAME, VERSION, FEATURES),
    stateful_init, stateful_call, HEALTH, SAVE, RELOAD, stateful_shutdown};

THEMIS_WASM_IDENTITY(NAME, VERSION);
#ifndef NO_SAVE
THEMIS_WASM_SAVE_STATE;
#endif
#ifndef NO_RELOAD
THEMIS_WASM_RELOAD;
#endif
#ifdef TELLS
THEMIS_WASM_HEALTH;
#endif
