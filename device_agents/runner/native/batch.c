#include "batch.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "machine.h"
#include "row.h"
#include "tensors.h"
#include "text.h"
#include "wire.h"

/* So large at most are models alive together in one block, with inputs and outputs, and no larger than one in so many
 * parts of the memory that is free: the runtime packs their weights once more. */
static const int64_t BLOCK_BYTES = (int64_t)512 << 20;
static const int64_t BLOCK_SHARE = 8;
/* What a small board has, where the kernel does not say what is free. */
static const int64_t UNKNOWN_BYTES = (int64_t)1 << 30;
/* A block closes once it takes longer on a calm machine. Its jobs need some seconds to meet the machine at its best,
 * but no row of a shorter block comes home before it is complete. */
static const double BLOCK_NS = 8e9;
/* It closes as well once loading it took so long, as on a slow board: no row of it is safe before it is measured. */
static const double BLOCK_LOAD_S = 15;
/* A block begins with so long a look for the sentinel's best: mostly some moment of it is undisturbed. */
static const double SENTINEL_START_S = 0.05;
/* A reading of the sentinel is undisturbed within this factor of its best; who shares caches or execution units slows it
 * down by a tenth and more, and a clock's short boost makes it a little faster than it is otherwise. Of its best in the
 * block before a clock may lack so much, as a whole package warms up. */
static const double UNDISTURBED = 1.07;
static const double USUAL = 1.1;
/* It is read before rounds, and between visits so often, but for slow devices: so many times as rare as it is long. */
static const double LOOK_EVERY_NS = 10000000;
static const double LOOK_LENGTHS = 30;
/* Where a network is the sentinel every visit is compared with its last reading, which must not be of another moment. */
static const double PAIRED_LOOK_LENGTHS = 3;
/* A reading that takes longer, as of a network on a slow board, serves short rounds together, by the same measure. */
static const double LONG_READING_NS = 200000000;
/* By the share of disturbed readings so many visits are wanted that all of them are disturbed with this chance only, if
 * visits were so as often as readings and each for itself; longer ones are more often, which `patience` stands for. */
static const double DOUBT = 0.005;
/* On a disturbed machine a block may take minutes: what is done comes home so often, and the next round waits
 * until the other end has looked at the device and written its table. */
static const double HOME_S = 10;
static const double HOME_PAUSE_S = 0.3;

typedef struct {
    Bench bench;
    uint64_t order; /* the state of the shuffle */
    Candidate *sentinel;
    /* The block: */
    Candidate **candidates;
    size_t count;
    size_t size_bytes;
    size_t most_bytes;
    double expected_ns;
    double began_s;
    BlockFacts facts;
    size_t readings, undisturbed; /* of the sentinel */
    double counted_ns; /* its best when those that are undisturbed began to be counted */
    double reading_s; /* how long the latest reading took */
    double look_at_s; /* when it is to be read again */
    double best_ns;         /* the sentinel's in this block */
    double last_ns;         /* of its latest reading there */
    double earlier_best_ns; /* and in the one before: a clock that has dropped for good is usual */
    int64_t usual_khz; /* allowed to our CPUs when the plan began */
} Batch;

/* Take the first model that loads; with none there is nothing to measure either. */
static void choose_sentinel(Batch *batch, const Job *wanted, const Job *jobs, size_t count)
{
    Reason ignored; /* its own row will say */
    for (size_t i = 0; i <= count && batch->sentinel == NULL; i++) {
        const Job *job = i == 0 ? wanted : &jobs[i - 1];
        batch->bench.is_paired = job->is_network;
        batch->sentinel = candidate_load(&batch->bench, job, "sentinel", &ignored);
    }
    batch->bench.is_paired = batch->bench.is_paired && batch->sentinel != NULL;
}

/* Count a reading of the sentinel. */
static void take_reading(Batch *batch, double ns)
{
    batch->last_ns = ns;
    batch->best_ns = fmin(batch->best_ns, ns);
    if (batch->best_ns * UNDISTURBED < batch->counted_ns) {
        batch->undisturbed = 0; /* now it shows that those before were slow */
        batch->counted_ns = batch->best_ns;
    }
    batch->readings++;
    batch->undisturbed += ns <= fmin(UNDISTURBED * batch->best_ns, USUAL * batch->earlier_best_ns);
    batch->facts.sentinel_ns = fmin(batch->facts.sentinel_ns, ns);
}

/* Take a short reading of the sentinel, if there is one; before a block's first one look for its best. */
static void read_sentinel(Batch *batch, Telling telling)
{
    if (batch->sentinel == NULL)
        return;
    double limit_s = batch->bench.settings->time_limit_s / 4; /* within the sentinel's own limit */
    double look_s = batch->readings == 0 ? fmin(SENTINEL_START_S, limit_s) : 0;
    Look look = {look_s, telling};
    double began_s = seconds_now();
    double ns = candidate_fastest_ns(&batch->bench, batch->sentinel, look, &batch->best_ns);
    double now_s = seconds_now();
    if (isfinite(ns)) /* else its runs fail, and nothing is known of the machine */
        take_reading(batch, ns);
    double lengths = batch->bench.is_paired ? PAIRED_LOOK_LENGTHS : LOOK_LENGTHS;
    batch->reading_s = now_s - began_s - look_s;
    batch->look_at_s = now_s + fmax(LOOK_EVERY_NS / 1e9, lengths * batch->reading_s);
}

/* Say how many visits are wanted, see DOUBT. The share is Laplace's, who knows little of few readings. */
static double visits_wanted(const Batch *batch)
{
    double disturbed = (double)(batch->readings - batch->undisturbed + 1) / (double)(batch->readings + 2);
    return log(DOUBT) / log(disturbed);
}

static void shuffle(Batch *batch, Candidate **visits, size_t count)
{
    for (size_t left = count; left > 1; left--) {
        size_t other = (size_t)(next_random(&batch->order) % left);
        Candidate *swapped = visits[left - 1];
        visits[left - 1] = visits[other];
        visits[other] = swapped;
    }
}

/* Answer a job that is done. */
static void send_answer(const Batch *batch, const Candidate *candidate)
{
    if (candidate->status == 0) {
        send_row(&batch->bench, candidate, &batch->facts);
        return;
    }
    Reason reason;
    because(&reason, "a run failed while it was measured: %s", status_name(candidate->status));
    wire_failed(candidate->job->id, reason.text);
}

/* Answer the jobs of the block that are done, and let go of their models. */
static void send_answers(Batch *batch)
{
    text_temperatures(&batch->facts.temperatures);
    size_t left = 0;
    for (size_t i = 0; i < batch->count; i++) {
        Candidate *candidate = batch->candidates[i];
        if (!candidate->is_done) {
            batch->candidates[left++] = candidate;
            continue;
        }
        send_answer(batch, candidate);
        candidate_free(candidate);
    }
    batch->count = left;
    text_free(&batch->facts.temperatures);
}

/* Visit the jobs that are not done, and find out which are now; returns how many are, sent or not. */
static size_t go_round(Batch *batch, Candidate **visits)
{
    size_t count = 0, done = 0;
    for (size_t i = 0; i < batch->count; i++)
        if (!batch->candidates[i]->is_done)
            visits[count++] = batch->candidates[i];
    bool is_long = batch->reading_s > LONG_READING_NS / 1e9; /* then no round may tell the host that we are alive */
    if (!batch->bench.is_paired || !is_long || seconds_now() >= batch->look_at_s)
        read_sentinel(batch, TELL_NOW);
    shuffle(batch, visits, count);
    for (size_t i = 0; i < count; i++) {
        if (seconds_now() >= batch->look_at_s)
            read_sentinel(batch, is_long ? TELL_NOW : TELL_IF_IT_DIES);
        int64_t beside_ns = batch->readings > 0 ? (int64_t)fmax(1, round(batch->last_ns)) : 0;
        candidate_visit(&batch->bench, visits[i], beside_ns);
    }
    Seen seen = {batch->best_ns, visits_wanted(batch)};
    for (size_t i = 0; i < count; i++)
        visits[i]->is_done = candidate_had_enough(&batch->bench, visits[i], seen);
    for (size_t i = 0; i < batch->count; i++)
        done += batch->candidates[i]->is_done;
    return done;
}

/* Say how large the models of a block may be together. */
static size_t block_bytes(void)
{
    int64_t available = available_bytes(), bytes = BLOCK_BYTES;
    int64_t known[] = {available > 0 ? available : UNKNOWN_BYTES, limit_bytes()};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (known[i] > 0 && known[i] / BLOCK_SHARE < bytes)
            bytes = known[i] / BLOCK_SHARE;
    return (size_t)bytes;
}

static void begin_block(Batch *batch)
{
    batch->size_bytes = 0;
    batch->most_bytes = block_bytes();
    batch->began_s = seconds_now();
    batch->expected_ns = 0;
}

/* Visit every job of the block in each round, after a reading of the sentinel, and answer those that are done. */
static void measure_block(Batch *batch)
{
    Candidate **visits = need((batch->count + 1) * sizeof *visits);
    ThrottleSigns before = throttle_signs(batch->usual_khz);
    double sent_s = seconds_now();
    batch->facts.sentinel_ns = batch->best_ns = batch->counted_ns = INFINITY;
    batch->readings = batch->undisturbed = 0;
    batch->reading_s = batch->look_at_s = 0;
    batch->facts.throttled = false;
    while (batch->count > 0) {
        size_t done = go_round(batch, visits);
        bool is_over = done == batch->count;
        if (!is_over && (done == 0 || seconds_now() - sent_s < HOME_S))
            continue;
        read_sentinel(batch, TELL_NOW);
        batch->facts.throttled =
            batch->facts.throttled || is_throttled(before, throttle_signs(batch->usual_khz));
        send_answers(batch);
        if (!is_over)
            pause_for(HOME_PAUSE_S);
        sent_s = seconds_now();
    }
    if (batch->readings > 0)
        batch->earlier_best_ns = batch->best_ns;
    free(visits);
    begin_block(batch);
}

static void add(Batch *batch, Candidate *candidate)
{
    batch->candidates[batch->count++] = candidate;
    batch->size_bytes += candidate->size_bytes;
    batch->expected_ns += candidate_expected_ns(&batch->bench, candidate);
}

static bool is_full(const Batch *batch)
{
    return batch->count >= (size_t)batch->bench.settings->block_size || batch->size_bytes >= batch->most_bytes ||
           batch->expected_ns >= BLOCK_NS || seconds_now() - batch->began_s >= BLOCK_LOAD_S;
}

void batch_run(const Runtime *runtime, const char *folder, const Settings *settings, const Job *sentinel,
               const Job *jobs, size_t count)
{
    bool on_cpu_clock = settings->threads == 1 && strcmp(single_thread_clock(), "thread_cpu") == 0;
    Batch batch = {.bench = {runtime, folder, settings, on_cpu_clock, false}, .order = settings->seed};
    batch.earlier_best_ns = INFINITY;
    batch.usual_khz = top_khz();
    begin_block(&batch);
    batch.candidates = need((size_t)settings->block_size * sizeof *batch.candidates);
    choose_sentinel(&batch, sentinel, jobs, count);
    for (size_t i = 0; i < count; i++) {
        Reason reason;
        Candidate *candidate = candidate_load(&batch.bench, &jobs[i], "load", &reason);
        if (candidate != NULL)
            add(&batch, candidate);
        else
            wire_failed(jobs[i].id, reason.text);
        if (is_full(&batch))
            measure_block(&batch);
    }
    measure_block(&batch);
    free(batch.candidates);
    if (batch.sentinel != NULL)
        candidate_free(batch.sentinel);
}
