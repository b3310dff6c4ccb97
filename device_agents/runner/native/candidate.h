/* A job with its live model: loaded, filled, warm, and visited for samples, all under the job's time limit. */
#ifndef EDGEKD_CANDIDATE_H
#define EDGEKD_CANDIDATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "litert.h"
#include "machine.h"

/* A network's runs speak for all operators in it, and of long runs few are undisturbed: a visit of either takes so many
 * times as many samples. */
enum { LONG_VISIT = 4 };

typedef struct {
    char *id;
    char *sha256;
    bool is_network;
} Job;

typedef struct {
    int threads;
    int rounds;
    int least_rounds;
    int patience;
    double agreement;
    double enough_s;
    int samples_per_round;
    int64_t warmup_runs;
    double min_sample_us;
    double warmup_min_ms;
    double time_limit_s;
    int block_size;
    uint64_t seed;
} Settings;

/* When the host is told of a step: a line wakes it, and says that we are alive. */
typedef enum { TELL_NOW, TELL_IF_IT_DIES } Telling;

/* How the sentinel is read: after looking for its best for so long. */
typedef struct {
    double before_s;
    Telling telling;
} Look;

/* What all jobs of a plan share. */
typedef struct {
    const Runtime *runtime;
    const char *folder;
    const Settings *settings;
    bool on_cpu_clock; /* only one thread's work can be read on that thread's own clock */
    bool is_paired;    /* the sentinel is a network, and jobs are compared with it */
} Bench;

typedef struct {
    int64_t cpu_ns;
    int64_t wall_ns;
} Sample;

typedef struct {
    const Job *job;
    Model model;
    size_t size_bytes;
    double run_ns; /* the fastest estimate of one run, which sets `loops` */
    int64_t loops;
    double stretch; /* wall over CPU time, mostly: clocks may be slow to read, and others may share the CPU */
    bool takes_patience; /* a network, or a job of long runs */
    size_t visit_samples; /* samples_per_round, more of what takes patience by itself */
    int64_t warmup_ns, warmup_runs, init_ns, peak_rss_bytes;
    bool denormal;
    Sample *samples;
    size_t taken;
    int64_t *beside_ns; /* what the sentinel took last before each visit, 0 where nothing serves as one */
    size_t visits;
    int64_t switches; /* involuntary ones while it was visited, where the clock cannot tell of them */
    double spent_s;
    char started_at[UTC_SIZE];
    int status; /* of a run that failed while it was measured, else 0 */
    bool is_done;
} Candidate;

/* Load a model, fill its inputs and warm it up; NULL and a reason when it cannot be. */
Candidate *candidate_load(const Bench *bench, const Job *job, const char *phase, Reason *reason);
void candidate_free(Candidate *candidate);
/* Take the samples of one job in one round, and keep what the sentinel took last before. */
void candidate_visit(const Bench *bench, Candidate *candidate, int64_t beside_ns);
/* What was seen of the machine in a block: what the sentinel took at best, and how many visits are wanted for it. */
typedef struct {
    double best_ns;
    double visits_wanted;
} Seen;

/* Tell whether a job's visits say enough, or it has had its time, or it failed. Beside a network as sentinel they do when
 * enough were on a calm machine. Else the best of them have to agree, after as many as are wanted: while others disturb
 * the machine visits agree on what those leave it, and a long run needs many to be undisturbed from end to end. */
bool candidate_had_enough(const Bench *bench, const Candidate *candidate, Seen seen);
/* Time a few samples and return the fastest single run in ns, or infinity. The fastest of those before lowers `best_ns`. */
double candidate_fastest_ns(const Bench *bench, Candidate *candidate, Look look, double *best_ns);

/* Estimate how long a job will take at least. */
double candidate_expected_ns(const Bench *bench, const Candidate *candidate);

/* Fill every input once with values of a real range: zeros would let kernels take short cuts. */
bool fill_inputs(const Model *model, uint64_t seed, Reason *reason);
/* Announce a risky step: what kills this process from now on is this job's doing. */
void say_start(const char *job, const char *phase, Telling telling);

#endif
