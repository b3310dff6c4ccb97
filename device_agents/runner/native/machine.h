/* What the machine tells: clocks, CPUs, temperatures, and whether its own clock is held down. */
#ifndef EDGEKD_MACHINE_H
#define EDGEKD_MACHINE_H

#include <sched.h>
#include <stdbool.h>
#include <stdint.h>

#include "text.h"

enum { MAX_CPUS = 1024, UTC_SIZE = 32 };

int64_t wall_ns(void);
int64_t thread_cpu_ns(void);
double seconds_now(void);
/* Sleep less than a second. */
void pause_for(double seconds);
/* "thread_cpu" where that clock is fine enough for one thread's work, else "wall". */
const char *single_thread_clock(void);
/* Write the time as RFC 3339 does, in UTC with milliseconds. */
void utc_now(char text[UTC_SIZE]);

/* The CPUs that this process may use; empty when the kernel does not tell. */
cpu_set_t allowed_cpus(void);
bool pin_to(const cpu_set_t *cpus);
/* Read a decimal mask (bit n is CPU n) of any length; false when it has a CPU out of range, or none. */
bool parse_cpu_mask(const char *decimal, cpu_set_t *cpus);
/* Add CPUs as a JSON array. */
void text_cpus(Text *text, const cpu_set_t *cpus);

/* Add every thermal zone that answers as a JSON array of degrees Celsius. */
void text_temperatures(Text *text);
int64_t involuntary_switches(void);
/* How much memory is free for the asking, and how much this process is limited to; 0 where the kernel does not say. */
int64_t available_bytes(void);
int64_t limit_bytes(void);
int64_t peak_rss_bytes(void);

typedef struct {
    bool held;      /* now */
    int64_t events; /* since boot */
} ThrottleSigns;

/* Sum up the top frequencies that our CPUs are allowed to have now. */
int64_t top_khz(void);
/* Read the signs of the CPUs that this process runs on. A cap is one only below the usual one, that of the plan's
   start: many devices are always capped. */
ThrottleSigns throttle_signs(int64_t usual_khz);
bool is_throttled(ThrottleSigns before, ThrottleSigns after);

#endif
