// Counts in a static of a template, as C++ libraries do: the compiler makes that unique in the process, unless
// -fno-gnu-unique is given. Method 1 adds one and answers the count, as one byte.
#include "fixture.h"

#ifndef NAME
#define NAME "unique"
#endif

template <int N>
struct __attribute__((visibility("default"))) Shared {
  static uint8_t count;
};
template <int N>
uint8_t Shared<N>::count = 0;

static int32_t unique_call(void *, uint32_t method, themis_slice, const themis_reply *reply) {
  if (method != 1) return THEMIS_UNKNOWN_METHOD;
  const uint8_t count = __atomic_add_fetch(&Shared<1>::count, 1, __ATOMIC_SEQ_CST);
  return themis_write(reply, &count, sizeof count) == 0 ? THEMIS_OK : THEMIS_ERROR;
}

extern "C" {
THEMIS_PLUGIN_EXPORT extern const themis_plugin_descriptor themis_plugin = {
    THEMIS_PLUGIN_HEAD(NAME, VERSION, THEMIS_THREAD_SAFE),
    good_init, unique_call, NULL, NULL, NULL, good_shutdown};
}
