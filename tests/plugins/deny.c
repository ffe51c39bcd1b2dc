/* Runs a program on a machine that refuses system calls: deny NUMBER=ERRNO ... -- PROGRAM ARGUMENTS
 * What containers, old kernels and hardened hosts refuse is refused in the same way: by a filter. */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

int main(int count, char **arguments) {
  struct sock_filter steps[64];
  unsigned short used = 0;
  int at = 1;
  steps[used++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
                                               offsetof(struct seccomp_data, nr));
  for (; at < count && strcmp(arguments[at], "--") != 0; at++) {
    char *error = NULL;
    const unsigned number = (unsigned)strtoul(arguments[at], &error, 10);
    if (*error != '=' || used > 60) return 2;
    const unsigned code = (unsigned)strtoul(error + 1, NULL, 10);
    steps[used++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1);
    steps[used++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | code);
  }
  if (at + 1 >= count) return 2;
  steps[used++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
  const struct sock_fprog program = {used, steps};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return 3;
  if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) return 3;
  execv(arguments[at + 1], arguments + at + 1);
  perror(arguments[at + 1]);
  return 4;
}
