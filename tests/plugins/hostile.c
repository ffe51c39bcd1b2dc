/* Tries what a plugin must not be able to do: every attempt has a number, which is the method that makes it.
 * A system call answers "ok" or "errno N"; what is refused for good has no answer. Method 1 echoes.
 * CTOR=n: a constructor makes attempt n before anything else can; method 2 answers how that went.
 * HOOK_ATTACK=n: the hook named by HOOK (1 init, 2 health, 3 save_state, 4 reload, 5 shutdown) makes attempt n. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>

#include "fixture.h"

#ifndef NAME
#define NAME "hostile"
#endif

#define PATH(text) ((long)(text))
#define ANYWHERE ((long)scratch)
#define TIB (1L << 40)

/* One system call, as data. */
struct call {
  uint32_t number;
  long nr, a, b, c, d, e;
};

static char scratch[8192] __attribute__((aligned(4096)));
static const themis_host *the_host;

static const struct call CALLS[] = {
    {100, SYS_open, PATH("/etc/passwd"), O_RDONLY, 0, 0, 0},
    {101, SYS_openat, AT_FDCWD, PATH("/etc/passwd"), O_RDONLY, 0, 0},
    {102, SYS_openat, AT_FDCWD, PATH("/tmp/made"), O_WRONLY | O_CREAT, 0600, 0},
    {103, SYS_openat2, AT_FDCWD, PATH("/etc/passwd"), ANYWHERE, 24, 0},
    {104, SYS_unlink, PATH("/etc/passwd"), 0, 0, 0, 0},
    {300, SYS_execve, PATH("/bin/true"), 0, 0, 0, 0},
    {400, SYS_execveat, 6, PATH(""), 0, 0, AT_EMPTY_PATH},
    {500, SYS_fork, 0, 0, 0, 0, 0},
    {501, SYS_vfork, 0, 0, 0, 0, 0},
    {600, SYS_clone, SIGCHLD | CLONE_NEWUSER, 0, 0, 0, 0},
    {601, SYS_clone, SIGCHLD, 0, 0, 0, 0},
    {602, SYS_clone, CLONE_UNTRACED | SIGCHLD, 0, 0, 0, 0},
    {700, SYS_clone3, ANYWHERE, 88, 0, 0, 0},
    {800, SYS_unshare, CLONE_NEWUSER, 0, 0, 0, 0},
    {801, SYS_setns, 0, CLONE_NEWNET, 0, 0, 0},
    {900, SYS_ptrace, PTRACE_TRACEME, 0, 0, 0, 0},
    {901, SYS_ptrace, PTRACE_ATTACH, 1, 0, 0, 0},
    {1000, SYS_process_vm_readv, 1, ANYWHERE, 1, ANYWHERE, 1},
    {1001, SYS_process_vm_writev, 1, ANYWHERE, 1, ANYWHERE, 1},
    {1100, SYS_kill, 1, SIGKILL, 0, 0, 0},
    {1101, SYS_kill, -1, SIGKILL, 0, 0, 0},
    {1102, SYS_tgkill, 2, 2, SIGKILL, 0, 0},
    {1103, SYS_tkill, 2, SIGKILL, 0, 0, 0},
    {1104, SYS_getppid, 0, 0, 0, 0, 0},
    {1105, SYS_rt_sigqueueinfo, 1, SIGTERM, ANYWHERE, 0, 0},
    {1200, SYS_socket, AF_INET, SOCK_STREAM, 0, 0, 0},
    {1201, SYS_socket, AF_UNIX, SOCK_STREAM, 0, 0, 0},
    {1202, SYS_socket, AF_NETLINK, SOCK_RAW, 0, 0, 0},
    {1203, SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, ANYWHERE, 0},
    {1204, SYS_connect, 6, ANYWHERE, 16, 0, 0},
    {1205, SYS_sendto, 6, ANYWHERE, 1, 0, 0},
    {1300, SYS_io_uring_setup, 8, ANYWHERE, 0, 0, 0},
    {1301, SYS_io_uring_enter, 6, 1, 0, 0, 0},
    {1302, SYS_io_uring_register, 6, 0, 0, 0, 0},
    {1400, SYS_userfaultfd, 0, 0, 0, 0, 0},
    {1500, SYS_bpf, 0, ANYWHERE, 48, 0, 0},
    {1501, SYS_perf_event_open, ANYWHERE, 0, -1, -1, 0},
    {1600, SYS_keyctl, 0, 0, 0, 0, 0},
    {1601, SYS_add_key, PATH("user"), PATH("x"), ANYWHERE, 1, 0},
    {1602, SYS_request_key, PATH("user"), PATH("x"), 0, 0, 0},
    {1700, SYS_ioctl, 0, TIOCSTI, ANYWHERE, 0, 0},
    {1800, SYS_ioctl, 0, TIOCSTI | (1L << 32), ANYWHERE, 0, 0},
    {1900, SYS_mount, PATH("x"), PATH("/"), PATH("tmpfs"), 0, 0},
    {1901, SYS_chroot, PATH("/"), 0, 0, 0, 0},
    {1902, SYS_pivot_root, PATH("/"), PATH("/"), 0, 0, 0},
    {1903, SYS_umount2, PATH("/proc"), 2, 0, 0, 0},
    {1904, SYS_fsopen, PATH("tmpfs"), 0, 0, 0, 0},
    {2000, SYS_prctl, PR_SET_DUMPABLE, 1, 0, 0, 0},
    {2001, SYS_prctl, PR_SET_PDEATHSIG, 0, 0, 0, 0},
    {2002, SYS_prctl, PR_SET_SECCOMP, 1, 0, 0, 0},
    {2100, SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, ANYWHERE, 0, 0},
    {2101, SYS_seccomp, SECCOMP_SET_MODE_STRICT, 0, 0, 0, 0},
    {2200, SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, ANYWHERE, 0, 0},
    {2300, SYS_mmap, 0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1},
    {2301, SYS_mprotect, ANYWHERE, 4096, PROT_READ | PROT_EXEC, 0, 0},
    {2302, SYS_pkey_mprotect, ANYWHERE, 4096, PROT_READ | PROT_EXEC, -1, 0},
    {2303, SYS_personality, 0x0400000, 0, 0, 0, 0},
    {2304, SYS_mmap, 0, 4096, PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1},
    {2305, SYS_mmap, 0, 4096, PROT_READ | PROT_EXEC, MAP_SHARED, 6},
    {2600, SYS_shmget, 0, 4096, 0, 0, 0},
    {2601, SYS_msgget, 0, 0, 0, 0, 0},
    {2602, SYS_memfd_create, PATH("x"), 0, 0, 0, 0},
    {2603, SYS_semget, 0, 1, 0, 0, 0},
    {2604, SYS_mq_open, PATH("x"), 0, 0, 0, 0},
    {2700, SYS_pidfd_open, 1, 0, 0, 0, 0},
    {2701, SYS_pidfd_getfd, 6, 0, 0, 0, 0},
    {2702, SYS_pidfd_send_signal, 6, 9, 0, 0, 0},
    {2800, SYS_setuid, 0, 0, 0, 0, 0},
    {2801, SYS_capset, ANYWHERE, ANYWHERE, 0, 0, 0},
    {2802, SYS_setpriority, 0, 0, -20, 0, 0},
    {2803, SYS_sched_setscheduler, 0, 1, ANYWHERE, 0, 0},
    {2804, SYS_sched_setaffinity, 0, 8, ANYWHERE, 0, 0},
    {2805, SYS_setresuid, 0, 0, 0, 0, 0},
    {2806, SYS_setgroups, 0, 0, 0, 0, 0},
    {2900, SYS_modify_ldt, 0, ANYWHERE, 16, 0, 0},
    {2901, SYS_arch_prctl, 0x1001, 0, 0, 0, 0},
    {3000, SYS_dup, 6, 0, 0, 0, 0},
    {3001, SYS_fcntl, 6, F_DUPFD, 0, 0, 0},
    {3002, SYS_close, 6, 0, 0, 0, 0},
    {3003, SYS_ftruncate, 6, 0, 0, 0, 0},
    {3004, SYS_dup2, 6, 2, 0, 0, 0},
    {3005, SYS_close_range, 0, 64, 0, 0, 0},
    {3100, SYS_sendmsg, 3, ANYWHERE, 0, 0, 0},
    {3101, SYS_recvmsg, 3, ANYWHERE, 0, 0, 0},
    {3200, SYS_write, 3, PATH("x"), 1, 0, 0},
    {3201, SYS_write, 4, PATH("x"), 1, 0, 0},
    {3202, SYS_read, 0, ANYWHERE, 1, 0, 0},
    {3300, SYS_reboot, 0, 0, 0, 0, 0},
    {3301, SYS_init_module, 0, 0, 0, 0, 0},
    {3302, SYS_kexec_load, 0, 0, 0, 0, 0},
    {3303, SYS_clock_settime, 0, ANYWHERE, 0, 0, 0},
    {3304, SYS_sethostname, PATH("x"), 1, 0, 0, 0},
    {3305, SYS_swapon, PATH("x"), 0, 0, 0, 0},
    {3500, SYS_getpid | 0x40000000, 0, 0, 0, 0, 0},
    {3600, 9999, 0, 0, 0, 0, 0},
    {3700, SYS_timer_create, 0, 0, ANYWHERE, 0, 0},
    {3701, SYS_setitimer, 0, ANYWHERE, 0, 0, 0},
    {3702, SYS_alarm, 1, 0, 0, 0, 0},
    {3703, SYS_inotify_init1, 0, 0, 0, 0, 0},
    {3704, SYS_fanotify_init, 0, 0, 0, 0, 0},
    {3705, SYS_signalfd4, -1, ANYWHERE, 8, 0, 0},
    {3706, SYS_timerfd_create, 1, 0, 0, 0, 0},
    {3707, SYS_epoll_create1, 0, 0, 0, 0, 0},
    {3708, SYS_eventfd2, 0, 0, 0, 0, 0},
    {3800, SYS_name_to_handle_at, AT_FDCWD, PATH("/"), ANYWHERE, ANYWHERE, 0},
    {3801, SYS_open_by_handle_at, AT_FDCWD, ANYWHERE, 0, 0, 0},
    {3900, SYS_splice, 6, 0, 2, 0, 1},
    {3901, SYS_vmsplice, 2, ANYWHERE, 1, 0, 0},
    {3902, SYS_tee, 6, 2, 1, 0, 0},
    {3903, SYS_sendfile, 2, 6, 0, 1, 0},
    {4000, SYS_futex, ANYWHERE, FUTEX_LOCK_PI, 0, 0, 0},
    {4001, SYS_futex, ANYWHERE, FUTEX_CMP_REQUEUE_PI, 1, 1, ANYWHERE},
    {4100, SYS_mlock, ANYWHERE, 4096, 0, 0, 0},
    {4101, SYS_mremap, ANYWHERE, 4096, 4096, MREMAP_MAYMOVE | MREMAP_FIXED, ANYWHERE},
    {4102, SYS_remap_file_pages, ANYWHERE, 4096, 0, 0, 0},
    {4103, SYS_madvise, ANYWHERE, 4096, 100, 0, 0},
    {4104, SYS_membarrier, 0, 0, 0, 0, 0},
    {4105, SYS_mlockall, 3, 0, 0, 0, 0},
    /* Whatever it would let through: only one filter can be put on, and it is not this one. */
    {4106, SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, ANYWHERE, 0, 0},
    {4107, SYS_prctl, PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ANYWHERE, 0, 0},
    {4200, SYS_landlock_create_ruleset, 0, 0, 1, 0, 0},
    {4300, SYS_mmap, 0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1},
    {4400, SYS_openat, AT_FDCWD, PATH("/proc/1/environ"), O_RDONLY, 0, 0},
    {4401, SYS_openat, AT_FDCWD, PATH("/proc/self/mem"), O_RDONLY, 0, 0},
    {4402, SYS_openat, AT_FDCWD, PATH("/proc/self/exe"), O_RDONLY, 0, 0},
    {4403, SYS_openat, AT_FDCWD, PATH("/"), O_RDONLY | O_DIRECTORY, 0, 0},
    {4404, SYS_openat, AT_FDCWD, PATH("/proc/self/maps"), O_RDONLY, 0, 0},
    {4500, SYS_openat, AT_FDCWD, PATH("/proc/self/mem"), O_RDWR, 0, 0},
    {5600, SYS_mmap, 0, TIB, PROT_READ | PROT_WRITE,
     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1},
    {6000, SYS_rt_sigaction, SIGSYS, ANYWHERE, 0, 8, 0},
    {6200, SYS_write, 6, ANYWHERE, 8, 0, 0},
};

static const struct call *find(uint32_t number) {
  for (size_t at = 0; at < sizeof CALLS / sizeof *CALLS; at++)
    if (CALLS[at].number == number) return &CALLS[at];
  return NULL;
}

static void make(const struct call *it, char *told, size_t cap) {
  errno = 0;
  const long result = syscall(it->nr, it->a, it->b, it->c, it->d, it->e, 0);
  if (result < 0)
    snprintf(told, cap, "errno %d", errno);
  else
    snprintf(told, cap, "ok");
}

/* The host's words in shared memory begin below the requests: the layout is no secret. */
#define ARENAS (256L << 10)
#define ARENA (64L << 20)
static uint8_t *shared_words(const uint8_t *request) {
  const long slots = 5;
  const uintptr_t at = (uintptr_t)request;
  /* A short request is on the first page, a long one where the first slot for calls has its own. */
  const uint8_t *down = at % 4096 == 0 ? request - ARENAS - ARENA : (const uint8_t *)(at & ~4095UL);
  return (uint8_t *)down - (ARENAS + slots * ARENA);
}

/* Answers how many of the words are there when read again. */
static size_t fill(uint8_t *words, size_t size, uint32_t seed) {
  size_t stand = 0;
  for (size_t at = 0; at + 4 <= size; at += 4) {
    seed = seed * 1664525 + 1013904223;
    memcpy(words + at, &seed, 4);
    stand += *(volatile uint32_t *)(words + at) == seed;
  }
  return stand;
}

static void *fill_on(void *words) {
  for (uint32_t seed = 1;; seed++) fill(words, 16384, seed);
  return NULL;
}

static void *spin(void *nothing) {
  for (;;) __asm__ volatile("");
  return nothing;
}

static void *touch(void *nothing) {
  for (;;) {
    volatile char *mebibyte = malloc(1 << 20);
    for (int at = 0; mebibyte != NULL && at < 1 << 20; at += 4096) mebibyte[at] = 1;
  }
  return nothing;
}

static void leave(int signal) {
  (void)signal;
  _exit(9);
}

static int (*volatile next_depth)(int);
static int deeper(int depth) {
  volatile char frame[4096];
  frame[0] = (char)depth;
  return next_depth(depth + 1) + frame[0];
}

static int threads(void *(*run)(void *), int count) {
  int started = 0;
  for (; started < count; started++) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, run, NULL) != 0) break;
  }
  return started;
}

static void flood_log(void) {
  static const char line[] = "a line that nobody asked for";
  for (int count = 0; count < 100000; count++)
    the_host->log(the_host->ctx, THEMIS_LOG_INFO, (themis_slice){(const uint8_t *)line, 28});
}

static void flood_counters(void) {
  char name[32];
  for (int count = 0; count < 10000; count++) {
    const int len = snprintf(name, sizeof name, "name_%d", count);
    the_host->counter_add(the_host->ctx, (themis_slice){(const uint8_t *)name, (size_t)len}, 1);
  }
}

/* What takes more than one system call; 0 when there is no such attempt. */
static int other(uint32_t number, themis_slice request, char *told, size_t cap) {
  uint32_t word = 0;
  if (request.len >= 4) memcpy(&word, request.ptr, 4);
  snprintf(told, cap, "ok");
  switch (number) {
#if defined(__x86_64__)
    case 3400: {
      long result;
      __asm__ volatile("int $0x80" : "=a"(result) : "a"(20) : "memory");
      snprintf(told, cap, "ok");
      return 1;
    }
#endif
    case 4900: spin(NULL); return 1;
    case 5000: *(volatile int *)NULL = 1; return 1;
    case 5001: __builtin_trap();
    case 5002: next_depth = deeper; return deeper(0) + 1;
    case 5100: abort();
    case 5300: exit(7);
    case 5301: _exit(0);
    case 5400: touch(NULL); return 1;
    case 5401: threads(touch, 8); spin(NULL); return 1;
    case 5403: memset(shared_words(request.ptr), 1, (size_t)(ARENAS + 5 * ARENA)); return 1;
    case 5700: snprintf(told, cap, "%d", threads(spin, 100)); return 1;
    case 5900: threads(spin, 4); spin(NULL); return 1;
    case 6001: signal(SIGSEGV, leave); *(volatile int *)NULL = 1; return 1;
    case 6003: {
      /* Nobody is to hear of it: the system then kills at once. */
      sigset_t all;
      sigfillset(&all);
      pthread_sigmask(SIG_SETMASK, &all, NULL);
      syscall(SYS_socket, AF_INET, SOCK_STREAM, 0);
      return 1;
    }
    case 6004: {
      /* Whoever hears of it has no stack to stand on. */
      stack_t nowhere = {.ss_sp = (void *)4096, .ss_size = 65536};
      sigaltstack(&nowhere, NULL);
      syscall(SYS_socket, AF_INET, SOCK_STREAM, 0);
      return 1;
    }
    case 6100: memset(shared_words(request.ptr), (int)word, 256 << 10); return 1;
    case 6101:
      snprintf(told, cap, "%zu stand", fill(shared_words(request.ptr), 16384, word));
      return 1;
    case 6102:
      snprintf(told, cap, "%zu stand", fill(shared_words(request.ptr), 256 << 10, word));
      return 1;
    case 6103: {
      pthread_t thread;
      pthread_create(&thread, NULL, fill_on, shared_words(request.ptr));
      return 1;
    }
    case 6104: *(volatile uint8_t *)request.ptr = 1; return 1;
    case 6201:
      for (int count = 0; count < 100000; count++) (void)!write(6, "\1\0\0\0\0\0\0\0", 8);
      return 1;
    case 6300:
      for (int count = 0; count < 100000; count++) (void)!write(2, "flood\n", 6);
      return 1;
    case 6301: flood_log(); return 1;
    case 6302: flood_counters(); return 1;
    case 6400: {
      /* Slow, and not at fault: the request says how many milliseconds. */
      const struct timespec pause = {word / 1000, (word % 1000) * 1000000L};
      nanosleep(&pause, NULL);
      return 1;
    }
    case 6303: printf("printed\n"); return 1;
    case 6304: fprintf(stderr, "complained\n"); return 1;
    case 7300:
      if (munmap(shared_words(request.ptr), 4096) != 0) snprintf(told, cap, "errno %d", errno);
      return 1;
    case 7301:
      if (mprotect(shared_words(request.ptr), 4096, PROT_NONE) != 0)
        snprintf(told, cap, "errno %d", errno);
      return 1;
    default: return 0;
  }
}

static int attempt(uint32_t number, themis_slice request, char *told, size_t cap) {
  const struct call *call = find(number);
  if (call == NULL) return other(number, request, told, cap);
  make(call, told, cap);
  return 1;
}

static char constructed[64] = "none";

#ifdef CTOR
#if CTOR == 4700
/* Lives on into the second stage, and tries to open a file there, again and again. */
static void *open_on(void *nothing) {
  for (;;) (void)!open("/etc/passwd", O_RDONLY);
  return nothing;
}
#endif

__attribute__((constructor)) static void construct(void) {
#if CTOR == 4700
  threads(open_on, 1);
#elif CTOR == 4701
  threads(spin, 1);
#elif CTOR == 2500
  /* Whatever else is open must not be a way to code that can be changed. */
  int mapped = 0;
  for (int fd = 0; fd < 64; fd++) {
    void *at = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);
    mapped += at != MAP_FAILED;
  }
  snprintf(constructed, sizeof constructed, "%d", mapped);
#elif CTOR == 6500
  /* Which descriptors are open. */
  char *to = constructed;
  for (int fd = 0; fd < 64; fd++)
    if (lseek(fd, 0, SEEK_CUR) != -1 || errno != EBADF) to += sprintf(to, "%d ", fd);
#else
  static const themis_slice nothing;
  attempt(CTOR, nothing, constructed, sizeof constructed);
#endif
}
#endif

#ifdef HOOK_ATTACK
static void attack(int hook) {
  static const themis_slice nothing;
  char told[64];
  if (hook == HOOK) attempt(HOOK_ATTACK, nothing, told, sizeof told);
}
#else
#define attack(hook) (void)0
#endif

static int32_t hostile_init(const themis_host *host, themis_slice config_json, void **instance,
                            const themis_reply *message) {
  the_host = host;
  memset(scratch, 0xff, 8);
  scratch[0] = (char)0xfe;
  attack(1);
  return good_init(host, config_json, instance, message);
}

static int32_t hostile_call(void *instance, uint32_t method, themis_slice request,
                            const themis_reply *reply) {
  char told[64];
  if (method == 1) return good_call(instance, method, request, reply);
  if (method == 2) return themis_fail(reply, THEMIS_OK, constructed);
  if (method == 5402) {
    for (;;)
      if (themis_write(reply, scratch, sizeof scratch) != 0) return THEMIS_OK;
  }
  if (!attempt(method, request, told, sizeof told)) return THEMIS_UNKNOWN_METHOD;
  return themis_fail(reply, THEMIS_OK, told);
}

static int32_t hostile_health(void *instance) {
  (void)instance;
  attack(2);
  return THEMIS_OK;
}

static int32_t hostile_save(void *instance, const themis_reply *state) {
  (void)instance;
  attack(3);
  return themis_fail(state, THEMIS_OK, "state");
}

static int32_t hostile_reload(void *instance, themis_slice from_version, themis_slice state,
                              const themis_reply *message) {
  (void)instance, (void)from_version, (void)state, (void)message;
  attack(4);
  return THEMIS_OK;
}

static int32_t hostile_shutdown(void *instance) {
  (void)instance;
  attack(5);
  return THEMIS_OK;
}

#ifdef PARALLEL
#define FEATURES THEMIS_THREAD_SAFE
#else
#define FEATURES 0
#endif

THEMIS_PLUGIN_EXPORT const themis_plugin_descriptor themis_plugin = {
    THEMIS_PLUGIN_HEAD(NAME, VERSION, FEATURES), hostile_init,  hostile_call,
    hostile_health,                              hostile_save,  hostile_reload,
    hostile_shutdown};
