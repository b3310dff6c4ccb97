#include "row.h"

#include <math.h>
#include <stdlib.h>

#include "wire.h"

static const double CONTENDED = 1.3; /* wall over CPU time: a quiet machine stays below 1.01 */

static int64_t per_run(int64_t ns, int64_t loops)
{
    int64_t mean = llround((double)ns / (double)loops);
    return mean > 0 ? mean : 1;
}

static int by_value(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

static double median(double *values, size_t count)
{
    qsort(values, count, sizeof *values, by_value);
    return (values[(count - 1) / 2] + values[count / 2]) / 2;
}

/* Tell whether others took the CPU while a job was measured. */
static bool is_contended(const Bench *bench, const Candidate *candidate)
{
    if (!bench->on_cpu_clock) /* the wall alone cannot tell: count how often others pushed us off a CPU */
        return candidate->switches > (int64_t)candidate->taken;
    double *stretch = need(candidate->taken * sizeof *stretch);
    for (size_t i = 0; i < candidate->taken; i++)
        stretch[i] = (double)candidate->samples[i].wall_ns / fmax(1, (double)candidate->samples[i].cpu_ns);
    bool contended = median(stretch, candidate->taken) > CONTENDED;
    free(stretch);
    return contended;
}

static void text_samples(Text *text, const char *key, const Candidate *candidate, bool cpu)
{
    text_add(text, ",\"%s\":[", key);
    for (size_t i = 0; i < candidate->taken; i++) {
        int64_t ns = cpu ? candidate->samples[i].cpu_ns : candidate->samples[i].wall_ns;
        text_add(text, "%s%lld", i > 0 ? "," : "", (long long)per_run(ns, candidate->loops));
    }
    text_add(text, "]");
}

/* Write what the sentinel took beside each visit, nothing where it was not read before all of them. */
static void text_beside(Text *text, const Candidate *candidate)
{
    bool known = candidate->visits > 0 && candidate->beside_ns[0] > 0;
    text_add(text, ",\"beside_ns\":[");
    for (size_t i = 0; known && i < candidate->visits; i++)
        text_add(text, "%s%lld", i > 0 ? "," : "", (long long)candidate->beside_ns[i]);
    text_add(text, "]");
}

static void text_flags(Text *text, const Bench *bench, const Candidate *candidate, bool throttled)
{
    const char *separator = "";
    const struct {
        const char *name;
        bool seen;
    } signs[] = {{"contended", is_contended(bench, candidate)},
                 {"denormal", candidate->denormal},
                 {"throttled", throttled}};
    text_add(text, ",\"flags\":[");
    for (size_t i = 0; i < sizeof signs / sizeof *signs; i++) {
        if (signs[i].seen) {
            text_add(text, "%s\"%s\"", separator, signs[i].name);
            separator = ",";
        }
    }
    text_add(text, "]");
}

void send_row(const Bench *bench, const Candidate *candidate, const BlockFacts *facts)
{
    Text text = {0};
    double sentinel_ns = isfinite(facts->sentinel_ns) ? fmax(1, round(facts->sentinel_ns)) : 0;
    text_add(&text, "{\"type\":\"row\",\"job\":");
    text_string(&text, candidate->job->id);
    text_samples(&text, "samples_ns", candidate, bench->on_cpu_clock);
    text_samples(&text, "wall_samples_ns", candidate, false);
    text_add(&text, ",\"clock\":\"%s\",\"loops\":%lld", bench->on_cpu_clock ? "thread_cpu" : "wall",
             (long long)candidate->loops);
    text_add(&text, ",\"warmup_ns\":%lld,\"warmup_runs\":%lld", (long long)candidate->warmup_ns,
             (long long)candidate->warmup_runs);
    text_add(&text, ",\"init_ns\":%lld,\"peak_rss_bytes\":%lld", (long long)candidate->init_ns,
             (long long)candidate->peak_rss_bytes);
    text_add(&text, ",\"started_at\":\"%s\",\"sentinel_ns\":%lld", candidate->started_at,
             (long long)sentinel_ns);
    text_beside(&text, candidate);
    text_flags(&text, bench, candidate, facts->throttled);
    text_add(&text, ",\"temperatures_c\":");
    text_bytes(&text, facts->temperatures.data, facts->temperatures.size);
    text_add(&text, "}");
    wire_send(&text);
}
