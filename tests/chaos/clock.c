/* A wall clock that can be made to jump: cc -shared -fPIC -O1 -o clock.so clock.c -ldl, then LD_PRELOAD.
 *
 * The file CHAOS_CLOCK holds 8 bytes, by how many seconds the clock is off. Python processes alone see it: whatever asks for the time, and
 * whatever waits until one, which the kernel is asked for by its own clock. Monotonic clocks and time stamps of files stay.
 * (libfaketime 0.9.10 makes time.sleep of Python 3.11 fail; a time namespace has no wall clock.) */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile const int64_t *off;

__attribute__((constructor)) static void begin(void) {
  const char *path = getenv("CHAOS_CLOCK");
  int file = path && !strncmp(program_invocation_short_name, "python", 6) ? open(path, O_RDONLY | O_CLOEXEC) : -1;
  if (file < 0) return;
  void *at = mmap(0, 8, PROT_READ, MAP_SHARED, file, 0);
  if (at != MAP_FAILED) off = at;
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
static int64_t skew(void) { return off ? *off : 0; }

int clock_gettime(clockid_t id, struct timespec *t) {
  int failed = syscall(SYS_clock_gettime, (long)id, t, 0L, 0L, 0L, 0L);
  if (!failed && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) t->tv_sec += skew();
  return failed;
}
int gettimeofday(struct timeval *restrict t, void *restrict zone) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  t->tv_sec = now.tv_sec, t->tv_usec = now.tv_nsec / 1000;
  return 0;
}
time_t time(time_t *t) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  return t ? *t = now.tv_sec : now.tv_sec;
}

/* A deadline by the kernel's clock. One of a monotonic clock is small. */
static struct timespec kernels(const struct timespec *t) {
  struct timespec found = *t;
  if (found.tv_sec > 1000000000) found.tv_sec -= skew();
  return found;
}
int pthread_cond_timedwait(pthread_cond_t *restrict c, pthread_mutex_t *restrict m, const struct timespec *restrict t) {
  struct timespec until = kernels(t);
  return NEXT(pthread_cond_timedwait)(c, m, &until);
}
int sem_timedwait(sem_t *restrict s, const struct timespec *restrict t) {
  struct timespec until = kernels(t);
  return NEXT(sem_timedwait)(s, &until);
}
long syscall(long number, ...) {
  static long (*next)(long, ...);
  if (!next) next = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
  __builtin_va_list list;
  long a[6];
  __builtin_va_start(list, number);
  for (int i = 0; i < 6; i++) a[i] = __builtin_va_arg(list, long);
  __builtin_va_end(list);
  struct timespec until;
  if (number == SYS_futex && (a[1] & FUTEX_CLOCK_REALTIME) && a[3]) until = kernels((void *)a[3]), a[3] = (long)&until;
  return next(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
