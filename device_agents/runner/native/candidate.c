#include "candidate.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

#include "folder.h"
#include "tensors.h"
#include "text.h"
#include "wire.h"

/* A loop count aims 10 % above the shortest sample, because the estimate comes from the warm-up's fastest run. */
static const double LOOP_MARGIN = 1.1;
/* After other models have had the caches, a model's weights beyond the second level come back over ten runs and more.
   Before each visit a model is run once, and once more for each megabyte, so often and so long at most; the rest of the
   way shows in its samples, of which the fastest count. */
static const int64_t SETTLE_RUNS = 4;
static const int64_t SETTLE_SHIFT = 20; /* a run for each 2^20 bytes */
static const double SETTLE_NS = 20e6;
/* A network that is read beside others drives out of the caches what they had there, and they take up to twenty runs to
 * be as fast again as they are for good: each of their megabytes stands for more runs. The network itself is only compared
 * with itself, and has to be read soon. */
static const int64_t PAIRED_SETTLE_RUNS = 16;
static const int64_t PAIRED_SETTLE_SHIFT = 17;
static const double PAIRED_SETTLE_NS = 160e6;
static const int64_t SENTINEL_SETTLE_RUNS = 2;
/* Of runs that take so long few are undisturbed from end to end on a busy machine. */
static const double LONG_RUN_NS = 1000000;
/* A thread's clock leaves out what a hypervisor says that it took the CPU away for, and now and then that is too much: one
 * sample in 100,000 seemed up to twice as fast as any other. Where the wall shows so many times as much as such a clock,
 * beside what it mostly shows, a sample of the sentinel counts by the wall. What it mostly shows is followed in steps, up
 * after a sample that shows more, down after one that shows less: who shares a CPU for good is usual soon. */
static const double STOLEN = 1.05;
static const double STRETCH_STEP = 1.01;
/* A reading, of which the faster counts: the first one warms the caches up. A network's is a visit. */
enum { SENTINEL_SAMPLES = 2 };
enum { AGREEING_VISITS = 3 }; /* one fast visit may be luck, and two of them chance */
/* Beside a network a visit counts where its reading is within this factor of the block's best: where others slow the
 * machine down, they slow each operator by a factor of its own. */
static const double CALM = 1.15;
/* A network's error is whole, an operator's one of some fifty: a network needs so many times as many visits that count,
 * and an operator has at most such a part of the rounds. */
enum { NETWORK_VISITS = 4 };
enum { OP_PART = 4 };

/* --- samples --- */

/* Time `loops` runs back to back; returns the first status that is not 0. */
static int take_sample(const Model *model, int64_t loops, Sample *sample)
{
    int status = 0;
    int64_t wall = wall_ns();
    int64_t cpu = thread_cpu_ns();
    for (int64_t i = 0; i < loops && status == 0; i++)
        status = model_run(model);
    sample->cpu_ns = thread_cpu_ns() - cpu;
    sample->wall_ns = wall_ns() - wall;
    return status;
}

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Beyond the first run: one for each 2^shift bytes, but not more than `runs`, nor for longer than `ns`. */
typedef struct {
    int64_t runs;
    int shift;
    double ns;
} Settling;

/* Say how often a model is run before a visit, for the job before it left the caches to itself. */
static int64_t settling_runs(const Bench *bench, const Candidate *candidate)
{
    const Settling alone = {SETTLE_RUNS, SETTLE_SHIFT, SETTLE_NS};
    const Settling paired = {PAIRED_SETTLE_RUNS, PAIRED_SETTLE_SHIFT, PAIRED_SETTLE_NS};
    const Settling *settling = bench->is_paired ? &paired : &alone;
    int64_t runs = smaller(settling->runs, (int64_t)(candidate->size_bytes >> settling->shift));
    int64_t large = 1 + smaller(runs, (int64_t)(settling->ns / fmax(1, candidate->run_ns)));
    return candidate->loops / 4 > large ? candidate->loops / 4 : large;
}

static size_t most_samples(const Settings *settings, const Candidate *candidate)
{
    return (size_t)settings->rounds * candidate->visit_samples;
}

/* --- the time limit --- */

void say_start(const char *job, const char *phase, Telling telling)
{
    Text text = {0};
    text_add(&text, "{\"type\":\"start\",\"job\":");
    text_string(&text, job);
    text_add(&text, ",\"phase\":\"%s\"}", phase);
    if (telling == TELL_IF_IT_DIES)
        wire_note(&text);
    else
        wire_send(&text);
}

/* SIGALRM keeps its default action, so that the limit holds inside library code that never returns. */
static void set_alarm(double seconds)
{
    struct itimerval timer = {0};
    timer.it_value.tv_sec = (time_t)seconds;
    timer.it_value.tv_usec = (suseconds_t)((seconds - floor(seconds)) * 1e6);
    setitimer(ITIMER_REAL, &timer, NULL);
}

/* Announce a risky step and let the kernel end this process when the job's time is up; returns when it began. */
static double begin_limited(const Job *job, const char *phase, double left_s, Telling telling)
{
    say_start(job->id, phase, telling);
    set_alarm(left_s > 0.001 ? left_s : 0.001);
    return seconds_now();
}

static double end_limited(double began_s)
{
    set_alarm(0);
    wire_forget();
    return seconds_now() - began_s;
}

/* --- loading --- */

bool fill_inputs(const Model *model, uint64_t seed, Reason *reason)
{
    for (size_t i = 0; i < model->inputs.count; i++) {
        const Slot *slot = &model->inputs.slots[i];
        uint64_t mixed = seed << 16 | slot->place;
        if (!fill_values(slot->type, slot->data, slot->bytes, next_random(&mixed)))
            return because(reason, "cannot fill an input of type %d", slot->type);
    }
    return true;
}

static bool any_denormals(const Model *model)
{
    for (size_t i = 0; i < model->outputs.count; i++)
        if (has_denormals(model->outputs.slots[i].type, model->outputs.slots[i].data, model->outputs.slots[i].bytes))
            return true;
    return false;
}

/* Run by count and by time; the fastest chunk tells how long one run takes. Returns the status of the runs. */
static int warm_up(const Bench *bench, Candidate *candidate)
{
    const Settings *settings = bench->settings;
    double goal_ns = settings->warmup_min_ms * 1e6;
    int64_t chunk = 1;
    candidate->run_ns = INFINITY;
    while (candidate->warmup_runs < settings->warmup_runs || (double)candidate->warmup_ns < goal_ns) {
        Sample sample;
        int status = take_sample(&candidate->model, chunk, &sample);
        if (status != 0)
            return status;
        candidate->warmup_runs += chunk;
        candidate->warmup_ns += sample.wall_ns > 0 ? sample.wall_ns : 1;
        candidate->run_ns = fmax(1, fmin(candidate->run_ns, (double)sample.wall_ns / (double)chunk));
        candidate->stretch = fmax(1, (double)sample.wall_ns) / fmax(1, (double)sample.cpu_ns);
        double wanted = ceil((goal_ns - (double)candidate->warmup_ns) / candidate->run_ns);
        chunk = (int64_t)fmax(1, fmin(2.0 * (double)chunk, wanted));
    }
    candidate->loops = (int64_t)fmax(1, ceil(LOOP_MARGIN * settings->min_sample_us * 1e3 / candidate->run_ns));
    candidate->takes_patience = candidate->job->is_network || candidate->run_ns >= LONG_RUN_NS;
    bool is_long = candidate->takes_patience && !bench->is_paired;
    candidate->visit_samples = (size_t)settings->samples_per_round * (is_long ? LONG_VISIT : 1);
    return 0;
}

double candidate_expected_ns(const Bench *bench, const Candidate *candidate)
{
    const Settings *settings = bench->settings;
    int64_t rounds = smaller(settings->rounds, settings->least_rounds);
    int64_t runs = settling_runs(bench, candidate) + (int64_t)candidate->visit_samples * candidate->loops;
    return (double)(rounds * runs) * candidate->run_ns;
}

static bool prepare(const Bench *bench, Candidate *candidate, Stored stored, Reason *reason)
{
    const Settings *settings = bench->settings;
    int64_t began = wall_ns();
    if (!model_load(bench->runtime, stored.data, stored.size, (ModelOptions){settings->threads, false},
                    &candidate->model, reason))
        return false;
    int64_t took = wall_ns() - began;
    candidate->init_ns = took > 0 ? took : 1;
    candidate->size_bytes = stored.size + side_bytes(&candidate->model.inputs) + side_bytes(&candidate->model.outputs);
    if (!fill_inputs(&candidate->model, settings->seed, reason))
        return false;
    int status = warm_up(bench, candidate);
    if (status != 0)
        return because(reason, "the model cannot run: %s", status_name(status));
    candidate->denormal = any_denormals(&candidate->model);
    return true;
}

void candidate_free(Candidate *candidate)
{
    model_free(&candidate->model);
    free(candidate->samples);
    free(candidate->beside_ns);
    free(candidate);
}

Candidate *candidate_load(const Bench *bench, const Job *job, const char *phase, Reason *reason)
{
    Stored stored;
    const Settings *settings = bench->settings;
    if (!folder_read(bench->folder, job->sha256, "tflite", &stored, reason))
        return NULL;
    Candidate *candidate = need(sizeof *candidate);
    *candidate = (Candidate){.job = job, .model.runtime = bench->runtime};
    double began_s = begin_limited(job, phase, settings->time_limit_s, TELL_NOW);
    bool ready = prepare(bench, candidate, stored, reason);
    end_limited(began_s);
    candidate->peak_rss_bytes = peak_rss_bytes();
    double expected_s = ready ? candidate_expected_ns(bench, candidate) / 1e9 : 0;
    if (expected_s > settings->time_limit_s)
        ready = because(reason, "would take about %.1f s, the time limit is %g s", expected_s, settings->time_limit_s);
    if (ready) {
        candidate->samples = need(most_samples(settings, candidate) * sizeof *candidate->samples);
        candidate->beside_ns = need((size_t)settings->rounds * sizeof *candidate->beside_ns);
        return candidate;
    }
    candidate_free(candidate);
    return NULL;
}

/* --- measuring --- */

/* Where the clock cannot tell of them, involuntary switches are counted: `is_contended` asks only then. */
static int64_t switches_now(const Bench *bench)
{
    return bench->on_cpu_clock ? 0 : involuntary_switches();
}

void candidate_visit(const Bench *bench, Candidate *candidate, int64_t beside_ns)
{
    Sample ignored;
    candidate->beside_ns[candidate->visits++] = beside_ns;
    double left_s = bench->settings->time_limit_s - candidate->spent_s;
    double began_s = begin_limited(candidate->job, "measure", left_s, TELL_IF_IT_DIES);
    if (candidate->started_at[0] == '\0')
        utc_now(candidate->started_at);
    int status = take_sample(&candidate->model, settling_runs(bench, candidate), &ignored);
    int64_t switches = switches_now(bench);
    for (size_t i = 0; i < candidate->visit_samples && status == 0; i++)
        status = take_sample(&candidate->model, candidate->loops, &candidate->samples[candidate->taken++]);
    candidate->switches += switches_now(bench) - switches;
    candidate->status = status;
    candidate->spent_s += end_limited(began_s);
}

static double clock_ns(const Bench *bench, const Sample *sample)
{
    return (double)(bench->on_cpu_clock ? sample->cpu_ns : sample->wall_ns);
}

/* Give the fastest sample of a job's visit. */
static double visit_ns(const Bench *bench, const Candidate *candidate, size_t visit)
{
    size_t size = candidate->visit_samples;
    double ns = INFINITY;
    for (size_t i = visit * size; i < (visit + 1) * size; i++)
        ns = fmin(ns, clock_ns(bench, &candidate->samples[i]));
    return ns;
}

/* Put the fastest samples of a job's best visits in order; the rest is infinity. */
static void find_best(const Bench *bench, const Candidate *candidate, double best_ns[AGREEING_VISITS])
{
    for (int place = 0; place < AGREEING_VISITS; place++)
        best_ns[place] = INFINITY;
    for (size_t visit = 0; visit < candidate->taken / candidate->visit_samples; visit++) {
        double ns = visit_ns(bench, candidate, visit);
        for (int place = 0; place < AGREEING_VISITS; place++) {
            double better = fmin(ns, best_ns[place]);
            ns = fmax(ns, best_ns[place]);
            best_ns[place] = better;
        }
    }
}

/* Tell whether enough visits were on a calm machine, as told by the readings before them, or no more are due. */
static bool is_told(const Bench *bench, const Candidate *candidate, double best_ns)
{
    size_t rounds = (size_t)bench->settings->rounds, least = (size_t)bench->settings->least_rounds, calm = 0;
    size_t wanted = candidate->takes_patience ? NETWORK_VISITS * least : least;
    size_t most = candidate->takes_patience ? rounds : rounds / OP_PART;
    most = most > wanted ? most : wanted;
    for (size_t i = 0; i < candidate->visits; i++)
        calm += candidate->beside_ns[i] > 0 && (double)candidate->beside_ns[i] <= CALM * best_ns;
    return calm >= wanted || candidate->visits >= (most < rounds ? most : rounds);
}

bool candidate_had_enough(const Bench *bench, const Candidate *candidate, Seen seen)
{
    const Settings *settings = bench->settings;
    if (candidate->status != 0)
        return true;
    size_t visits = candidate->taken / candidate->visit_samples, rounds = (size_t)settings->rounds;
    if (visits < rounds && visits < (size_t)settings->least_rounds)
        return false;
    if (candidate->spent_s >= fmin(settings->enough_s, settings->time_limit_s / 2))
        return true;
    if (bench->is_paired)
        return is_told(bench, candidate, seen.best_ns);
    double patience = candidate->takes_patience ? settings->patience : 1;
    if ((double)visits < fmin(seen.visits_wanted * patience, (double)rounds))
        return false;
    double best_ns[AGREEING_VISITS];
    find_best(bench, candidate, best_ns);
    return visits >= rounds || best_ns[AGREEING_VISITS - 1] <= best_ns[0] * (1 + settings->agreement);
}

/* Time one sample and return a single run of it in ns, or the fastest so far where that was faster or this one failed.
 * A clock that loses time does not make it less; see STOLEN. */
static double faster_ns(const Bench *bench, Candidate *candidate, double fastest_ns)
{
    Sample sample;
    if (take_sample(&candidate->model, candidate->loops, &sample) != 0)
        return fastest_ns;
    double wall_ns = (double)sample.wall_ns, usual_ns = (double)sample.cpu_ns * candidate->stretch;
    double ns = wall_ns > STOLEN * usual_ns ? wall_ns / candidate->stretch : (double)sample.cpu_ns;
    candidate->stretch *= wall_ns > usual_ns ? STRETCH_STEP : 1 / STRETCH_STEP;
    return fmin(fastest_ns, (bench->on_cpu_clock ? ns : wall_ns) / (double)candidate->loops);
}

double candidate_fastest_ns(const Bench *bench, Candidate *candidate, Look look, double *best_ns)
{
    double fastest_ns = INFINITY;
    double began_s = begin_limited(candidate->job, "sentinel", bench->settings->time_limit_s, look.telling);
    for (double until_s = seconds_now() + look.before_s; seconds_now() < until_s;)
        *best_ns = faster_ns(bench, candidate, *best_ns);
    Sample ignored;
    if (bench->is_paired)
        take_sample(&candidate->model, SENTINEL_SETTLE_RUNS, &ignored);
    size_t samples = bench->is_paired ? candidate->visit_samples : SENTINEL_SAMPLES;
    for (size_t i = 0; i < samples; i++)
        fastest_ns = faster_ns(bench, candidate, fastest_ns);
    end_limited(began_s);
    return fastest_ns;
}
