/* A thread's CPU clock that loses time, to be preloaded: every eighth interval between a first and a second reading seems
 * to have taken two fifths of what it took, as under a hypervisor that charges too much. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <time.h>

enum { NS_PER_S = 1000000000, EVERY = 8 };

int clock_gettime(clockid_t clock, struct timespec *now)
{
    static int (*real)(clockid_t, struct timespec *);
    static _Thread_local int64_t readings, before_ns, lost_ns;
    if (real == NULL)
        real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int status = real(clock, now);
    if (status != 0 || clock != CLOCK_THREAD_CPUTIME_ID)
        return status;
    int64_t ns = (int64_t)now->tv_sec * NS_PER_S + now->tv_nsec;
    if (++readings % (2 * EVERY) == 0)
        lost_ns += (ns - before_ns) * 3 / 5;
    before_ns = ns;
    now->tv_sec = (ns - lost_ns) / NS_PER_S;
    now->tv_nsec = (ns - lost_ns) % NS_PER_S;
    return 0;
}
