/* Does in a call what a wasm guest must not get away with: method 1 echoes; 10 loops, 11 calls itself, 12 gives up, 13 reads
 * outside of its memory, 14 divides by zero, 15 fills all of its memory again and again, 16 wants more memory for ever,
 * 17 replies from outside of its memory, 18 calls what is no function, 19 replies more than it may. */
#include "fixture.h"

#ifndef NAME
#define NAME "guest"
#endif

static volatile uint32_t sum;

__attribute__((noinline)) static uint32_t deeper(uint32_t depth) {
  volatile uint32_t here = depth;
  return deeper(depth + 1) + here;
}

static void endless(void) {
  for (;;) sum++;
}

static void memory(int32_t grow) {
#ifdef __wasm__
  const size_t all = __builtin_wasm_memory_size(0) * 65536u;
  while (!grow) memset((void *)(all / 2), (int)sum++, all / 2);
  while (grow)
    if (__builtin_wasm_memory_grow(0, 1) == (size_t)-1) __builtin_trap();
#else
  (void)grow;
#endif
}

static int32_t guest_call(void *instance, uint32_t method, themis_slice request,
                          const themis_reply *reply) {
  static const uint8_t block[1 << 16];
  switch (method) {
    case 10: endless(); break;
    case 11: sum = deeper(0); break;
    case 12: __builtin_trap();
    case 13: sum = *(volatile uint8_t *)(uintptr_t)0xfffffff0u; break;
    case 14: sum = 1 / (sum - sum); break;
    case 15: memory(0); break;
    case 16: memory(1); break;
    case 17: (void)themis_write(reply, (const void *)(uintptr_t)0xfffffff0u, 8); break;
    case 18: ((void (*)(uint64_t))(uintptr_t)0xffff)(1); break;
    case 19:
      for (int count = 0; count < 1025; count++) (void)themis_write(reply, block, sizeof block);
      break;
    default: return good_call(instance, method, request, reply);
  }
  return THEMIS_OK;
}

THEMIS_PLUGIN_EXPORT const themis_plugin_descriptor themis_plugin = {
    THEMIS_PLUGIN_HEAD(NAME, VERSION, THEMIS_THREAD_SAFE),
    good_init, guest_call, NULL, NULL, NULL, good_shutdown};

THEMIS_WASM_IDENTITY(NAME, VERSION);
