/* Ill-mannered in one way, chosen when it is built. BIG=n: method 1 writes n bytes in chunks of 1 MiB, ignoring
 * refusals. THREADS=n: init starts n threads that live on. TLS: every call uses a thread-local that has a
 * destructor. EXIT, CRASH, ABORT: method 1 does that to the process. HOG:
 * method 1 touches memory for ever, and counts "touched_at_ns" up to the monotonic clock at each mebibyte. INIT_CODE, HEALTH_CODE, SHUTDOWN_CODE: the hook answers that.
 * INIT_HANG, HEALTH_HANG, SHUTDOWN_HANG, CALL_HANG: it hangs. LIAR: claims to be thread-safe, and method 3 says
 * whether two calls were inside at once. Method 2 answers VERSION. */
#ifndef __wasm__
#include <pthread.h>
#endif
#include <stdlib.h>

#include "fixture.h"

#ifndef NAME
#define NAME "rude"
#endif
#ifndef INIT_CODE
#define INIT_CODE THEMIS_OK
#endif
#ifndef HEALTH_CODE
#define HEALTH_CODE THEMIS_OK
#endif
#ifndef SHUTDOWN_CODE
#define SHUTDOWN_CODE THEMIS_OK
#endif

#ifdef THREADS
static volatile uint64_t ticks;

static void *live_on(void *nothing) {
  for (;;) {
    __atomic_add_fetch(&ticks, 1, __ATOMIC_RELAXED);
    usleep(1000);
  }
  return nothing;
}
#endif

#ifdef TLS
static pthread_key_t key;
static uint64_t ended;

static void end_of_thread(void *value) {
  free(value);
  __atomic_add_fetch(&ended, 1, __ATOMIC_SEQ_CST);
}
#endif

#ifdef HOG
#include <time.h>

static const themis_host *the_host;

static void hog(void) {
  static const char name[] = "touched_at_ns";
  uint64_t before = 0;
  for (;;) {
    struct timespec now;
    volatile char *mebibyte = malloc(1 << 20);
    for (int at = 0; mebibyte != NULL && at < 1 << 20; at += 4096) mebibyte[at] = 1;
    clock_gettime(CLOCK_MONOTONIC, &now);
    const uint64_t at = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    the_host->counter_add(the_host->ctx, (themis_slice){(const uint8_t *)name, sizeof name - 1},
                          at - before);
    before = at;
  }
}
#endif

static int32_t rude_init(const themis_host *host, themis_slice config_json, void **instance,
                         const themis_reply *message) {
#ifdef INIT_HANG
  hang();
#endif
#ifdef THREADS
  for (int i = 0; i < THREADS; i++) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, live_on, NULL) != 0) return THEMIS_ERROR;
    pthread_detach(thread);
  }
#endif
#ifdef TLS
  if (pthread_key_create(&key, end_of_thread) != 0) return THEMIS_ERROR;
#endif
#ifdef HOG
  the_host = host;
#endif
  (void)good_init(host, config_json, instance, message);
  return INIT_CODE;
}

static int32_t rude_call(void *instance, uint32_t method, themis_slice request,
                         const themis_reply *reply) {
  (void)instance, (void)request;
#ifdef CALL_HANG
  hang();
#endif
#ifdef TLS
  if (pthread_getspecific(key) == NULL) pthread_setspecific(key, malloc(64));
  if (method == 4) return themis_write(reply, &ended, sizeof ended) == 0 ? THEMIS_OK : THEMIS_ERROR;
#endif
#ifdef EXIT
#ifdef __wasm__
  if (method == 1) __builtin_trap();
#else
  if (method == 1) exit(7);
#endif
#endif
#ifdef HOG
  if (method == 1) hog();
#endif
#ifdef CRASH
  if (method == 1) *(volatile int *)NULL = 1;
#endif
#ifdef ABORT
  if (method == 1) abort();
#endif
#ifdef BIG
  if (method == 1) {
    char *chunk = calloc(1, 1 << 20);
    for (uint64_t written = 0; written < BIG; written += 1 << 20)
      (void)themis_write(reply, chunk, 1 << 20);
    free(chunk);
    return THEMIS_OK;
  }
#endif
#ifdef LIAR
  static int inside;
  if (method == 3) {
    const int others = __atomic_fetch_add(&inside, 1, __ATOMIC_SEQ_CST);
    usleep(2000);
    __atomic_sub_fetch(&inside, 1, __ATOMIC_SEQ_CST);
    const char met = others > 0;
    return themis_write(reply, &met, 1) == 0 ? THEMIS_OK : THEMIS_ERROR;
  }
#endif
#ifdef THREADS
  if (method == 3) {
    const uint64_t seen = ticks;
    return themis_write(reply, &seen, sizeof seen) == 0 ? THEMIS_OK : THEMIS_ERROR;
  }
#endif
  if (method == 2) return themis_fail(reply, THEMIS_OK, VERSION);
  return THEMIS_UNKNOWN_METHOD;
}

static int32_t rude_health(void *instance) {
  (void)instance;
#ifdef HEALTH_HANG
  hang();
#endif
  return HEALTH_CODE;
}

static int32_t rude_shutdown(void *instance) {
  (void)instance;
#ifdef SHUTDOWN_HANG
  hang();
#endif
  return SHUTDOWN_CODE;
}

THEMIS_PLUGIN_EXPORT const themis_plugin_descriptor themis_plugin = {
    THEMIS_PLUGIN_HEAD(NAME, VERSION, THEMIS_THREAD_SAFE),
    rude_init, rude_call, rude_health, NULL, NULL, rude_shutdown};

THEMIS_WASM_IDENTITY(NAME, VERSION);
THEMIS_WASM_HEALTH;
