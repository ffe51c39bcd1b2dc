/* Two processes that wait for each other through shared memory, as bare as it gets: ping_pong ROUNDS LOOKS
 * Each looks so often for its turn before it sleeps. Prints the nanoseconds of each round trip. */
#define _GNU_SOURCE
#include <linux/futex.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

/* One direction: a word that counts, and whether somebody sleeps. */
struct way {
  _Alignas(128) _Atomic uint32_t word;
  _Alignas(128) _Atomic uint32_t asleep;
};

static void tell(struct way *way, uint32_t turn) {
  atomic_store(&way->word, turn);
  if (atomic_exchange(&way->asleep, 0) != 0)
    syscall(SYS_futex, &way->asleep, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static void wait_for(struct way *way, uint32_t turn, unsigned long looks) {
  for (; looks > 0; looks--) {
    if (atomic_load_explicit(&way->word, memory_order_acquire) == turn) return;
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
  }
  for (;;) {
    atomic_store(&way->asleep, 1);
    if (atomic_load(&way->word) == turn) {
      atomic_store(&way->asleep, 0);
      return;
    }
    syscall(SYS_futex, &way->asleep, FUTEX_WAIT, 1, NULL, NULL, 0);
  }
}

static uint64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

int main(int count, char **arguments) {
  if (count != 3) return 2;
  const uint32_t rounds = (uint32_t)strtoul(arguments[1], NULL, 10);
  const unsigned long looks = strtoul(arguments[2], NULL, 10);
  struct way *ways = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  uint64_t *times = calloc(rounds, sizeof *times);
  if (ways == MAP_FAILED || times == NULL) return 3;
  const pid_t other = fork();
  if (other < 0) return 4;
  if (other == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (uint32_t turn = 1; turn <= rounds; turn++) {
      wait_for(&ways[0], turn, looks);
      tell(&ways[1], turn);
    }
    _exit(0);
  }
  for (uint32_t turn = 1; turn <= rounds; turn++) {
    const uint64_t began = now();
    tell(&ways[0], turn);
    wait_for(&ways[1], turn, looks);
    times[turn - 1] = now() - began;
  }
  waitpid(other, NULL, 0);
  for (uint32_t turn = 0; turn < rounds; turn++) printf("%llu\n", (unsigned long long)times[turn]);
}
