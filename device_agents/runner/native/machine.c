#define _GNU_SOURCE
#include "machine.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

enum { MAX_ZONES = 256 };

static int64_t read_clock(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int64_t wall_ns(void)
{
    return read_clock(CLOCK_MONOTONIC);
}

int64_t thread_cpu_ns(void)
{
    return read_clock(CLOCK_THREAD_CPUTIME_ID);
}

double seconds_now(void)
{
    return (double)wall_ns() / 1e9;
}

void pause_for(double seconds)
{
    struct timespec left = {0, (long)(seconds * 1e9)};
    nanosleep(&left, NULL);
}

const char *single_thread_clock(void)
{
    struct timespec resolution;
    bool fine = clock_getres(CLOCK_THREAD_CPUTIME_ID, &resolution) == 0 && resolution.tv_sec == 0 &&
                resolution.tv_nsec <= 1000;
    return fine ? "thread_cpu" : "wall";
}

void utc_now(char text[UTC_SIZE])
{
    struct timespec now;
    struct tm utc;
    char seconds[UTC_SIZE - 8];
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    strftime(seconds, sizeof seconds, "%Y-%m-%dT%H:%M:%S", &utc);
    snprintf(text, UTC_SIZE, "%s.%03dZ", seconds, (int)(now.tv_nsec / 1000000) % 1000);
}

cpu_set_t allowed_cpus(void)
{
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    if (sched_getaffinity(0, sizeof cpus, &cpus) != 0)
        CPU_ZERO(&cpus);
    return cpus;
}

bool pin_to(const cpu_set_t *cpus)
{
    return sched_setaffinity(0, sizeof *cpus, cpus) == 0;
}

/* Halve a decimal number in place; returns its lowest bit. */
static int halve(char *digits)
{
    int rest = 0;
    for (char *at = digits; *at != '\0'; at++) {
        int value = 10 * rest + (*at - '0');
        *at = (char)('0' + value / 2);
        rest = value % 2;
    }
    return rest;
}

bool parse_cpu_mask(const char *decimal, cpu_set_t *cpus)
{
    enum { MAX_DIGITS = 309 }; /* of 2^1024 */
    char digits[MAX_DIGITS + 1];
    size_t size = strlen(decimal);
    CPU_ZERO(cpus);
    if (size > MAX_DIGITS || strspn(decimal, "0123456789") != size)
        return false;
    memcpy(digits, decimal, size + 1);
    for (int cpu = 0; cpu < CPU_SETSIZE && cpu < MAX_CPUS; cpu++)
        if (halve(digits))
            CPU_SET(cpu, cpus);
    return strspn(digits, "0") == size && CPU_COUNT(cpus) > 0;
}

void text_cpus(Text *text, const cpu_set_t *cpus)
{
    const char *separator = "[";
    for (int cpu = 0; cpu < CPU_SETSIZE && cpu < MAX_CPUS; cpu++) {
        if (CPU_ISSET(cpu, cpus)) {
            text_add(text, "%s%d", separator, cpu);
            separator = ",";
        }
    }
    text_add(text, *separator == '[' ? "[]" : "]");
}

/* Read a file of one integer; false when it is missing or holds something else. */
static bool read_integer(const char *path, int base, long long *value)
{
    char content[64], *end;
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return false;
    size_t size = fread(content, 1, sizeof content - 1, file);
    fclose(file);
    content[size] = '\0';
    errno = 0;
    *value = strtoll(content, &end, base);
    bool digits = end != content;
    while (isspace((unsigned char)*end))
        end++;
    return digits && *end == '\0' && errno == 0;
}

void text_temperatures(Text *text)
{
    const char *separator = "";
    text_add(text, "[");
    for (int zone = 0; zone < MAX_ZONES; zone++) {
        char path[80];
        long long millidegrees; /* many zones are denied or asleep */
        snprintf(path, sizeof path, "/sys/class/thermal/thermal_zone%d/temp", zone);
        if (read_integer(path, 10, &millidegrees) && millidegrees > -100000 && millidegrees < 200000) {
            text_add(text, "%s%.3f", separator, (double)millidegrees / 1000);
            separator = ",";
        }
    }
    text_add(text, "]");
}

int64_t available_bytes(void)
{
    FILE *file = fopen("/proc/meminfo", "r");
    if (file == NULL)
        return 0;
    char line[256];
    long long kb = 0;
    while (kb == 0 && fgets(line, sizeof line, file) != NULL)
        if (sscanf(line, "MemAvailable: %lld kB", &kb) != 1)
            kb = 0;
    fclose(file);
    return kb > 0 ? (int64_t)kb * 1024 : 0;
}

int64_t limit_bytes(void)
{
    long long bytes;
    if (read_integer("/sys/fs/cgroup/memory.max", 10, &bytes) && bytes > 0)
        return bytes;
    if (read_integer("/sys/fs/cgroup/memory/memory.limit_in_bytes", 10, &bytes) && bytes > 0)
        return bytes;
    return 0;
}

int64_t involuntary_switches(void)
{
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) == 0 ? usage.ru_nivcsw : 0;
}

int64_t peak_rss_bytes(void)
{
    struct rusage usage;
    int64_t peak = getrusage(RUSAGE_SELF, &usage) == 0 ? (int64_t)usage.ru_maxrss * 1024 : 0;
    return peak > 0 ? peak : 1;
}

static long long cpu_file(int cpu, const char *name)
{
    char path[128];
    long long value;
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/%s", cpu, name);
    return read_integer(path, 10, &value) ? value : 0;
}

static int64_t sum_over_cpus(const char *name)
{
    cpu_set_t cpus = allowed_cpus();
    int64_t sum = 0;
    for (int cpu = 0; cpu < CPU_SETSIZE && cpu < MAX_CPUS; cpu++)
        if (CPU_ISSET(cpu, &cpus))
            sum += cpu_file(cpu, name);
    return sum;
}

int64_t top_khz(void)
{
    return sum_over_cpus("cpufreq/scaling_max_freq");
}

ThrottleSigns throttle_signs(int64_t usual_khz)
{
    ThrottleSigns signs = {top_khz() < usual_khz, sum_over_cpus("thermal_throttle/core_throttle_count")};
    long long pi;
    /* A Raspberry Pi's own word: bits 0 to 3 tell of now. */
    if (read_integer("/sys/devices/platform/soc/soc:firmware/get_throttled", 16, &pi))
        signs.held = signs.held || (pi & 15) != 0;
    return signs;
}

bool is_throttled(ThrottleSigns before, ThrottleSigns after)
{
    return before.held || after.held || after.events > before.events;
}
