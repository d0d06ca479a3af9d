#!/bin/sh
# Closing many uprobes from many threads takes as long as closing them one after the other.
#
# Guess: a close of a uprobe's perf event waits for a grace period of the kernel, so that closes from many threads wait for
# the same one. Seen on Linux 6.18 (x86-64, 2 CPUs): 40 events are opened in 12 ms, closed by one thread in 3.3 s and by 40
# threads in 3.4 s, 82 ms each: perf_uprobe_destroy (kernel/trace/trace_event_perf.c) waits while it holds event_mutex, of
# which the kernel has one. A link of `uprobe_multi` (Linux 6.6) detaches all of its places with one wait.
#
# Needs root, gcc, and a kernel with CONFIG_UPROBE_EVENTS. Fails if closing in parallel takes less than half the time.
set -eu
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; cd "$folder"
[ -r /sys/bus/event_source/devices/uprobe/type ] || { echo "skipped: this kernel offers no perf uprobes"; exit 0; }
printf '.globl main\nmain:\n ret\n.fill 8192, 1, 0x90\n' > probed.s
gcc -o probed probed.s 2> /dev/null
text=$(objdump -h probed | awk '$2 == ".text" { print $6 }')
cat > close.c <<'C'
#define _GNU_SOURCE
#include <linux/perf_event.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
enum { MANY = 20 };
static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec + t.tv_nsec / 1e9; }
static void *closes(void *fd) { close((int)(intptr_t)fd); return 0; }
static double round_trip(int type, const char *path, unsigned long text, int threads) {
  int fds[MANY];
  for (int i = 0; i < MANY; i++) {
    struct perf_event_attr attr = { .type = type, .size = sizeof attr };
    attr.config1 = (uint64_t)(uintptr_t)path;
    attr.config2 = text + 1024 + i;
    fds[i] = syscall(SYS_perf_event_open, &attr, -1, 0, -1, 8);
    if (fds[i] < 0) { perror("perf_event_open"); exit(2); }
  }
  double start = now();
  pthread_t thread[MANY];
  for (int i = 0; i < MANY; i++)
    if (threads) pthread_create(&thread[i], 0, closes, (void *)(intptr_t)fds[i]); else close(fds[i]);
  for (int i = 0; threads && i < MANY; i++) pthread_join(thread[i], 0);
  return now() - start;
}
int main(int argc, char **argv) {
  int type; FILE *f = fopen("/sys/bus/event_source/devices/uprobe/type", "r");
  if (!f || fscanf(f, "%d", &type) != 1) return 2;
  unsigned long text = strtoul(argv[2], 0, 16);
  double serial = round_trip(type, argv[1], text, 0), parallel = round_trip(type, argv[1], text, 1);
  printf("%d uprobes: closed by one thread in %.3f s, by %d threads in %.3f s\n", MANY, serial, MANY, parallel);
  return parallel < serial / 2;
}
C
gcc -O1 -o close close.c -lpthread
uname -r
./close "$folder/probed" "$text"
