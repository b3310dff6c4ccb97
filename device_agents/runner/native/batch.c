#include "batch.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "row.h"
#include "tensors.h"
#include "text.h"
#include "wire.h"

/* Models alive together in one block, with inputs and outputs: a board of 1 GB must hold them, packed once more. */
static const size_t BLOCK_BYTES = (size_t)128 << 20;
/* A block closes once it takes longer. Its jobs need some seconds to meet the machine at its best, but no row comes
 * home before its block is complete. */
static const double BLOCK_NS = 8e9;
/* It closes as well once loading it took so long, as on a slow board: no row of it is safe before it is measured. */
static const double BLOCK_LOAD_S = 15;
/* A reading: the first sample warms the caches up, and the fastest of all readings counts. */
enum { SENTINEL_SAMPLES = 2 };

typedef struct {
    Bench bench;
    uint64_t order; /* the state of the shuffle */
    Candidate *sentinel;
    /* The block: */
    Candidate **candidates;
    size_t count;
    size_t size_bytes;
    double expected_ns;
    double began_s;
    BlockFacts facts;
    int64_t usual_khz; /* allowed to our CPUs when the plan began */
} Batch;

/* Take the first model that loads; with none there is nothing to measure either. */
static void choose_sentinel(Batch *batch, const Job *wanted, const Job *jobs, size_t count)
{
    Reason ignored; /* its own row will say */
    batch->sentinel = candidate_load(&batch->bench, wanted, "sentinel", &ignored);
    for (size_t i = 0; i < count && batch->sentinel == NULL; i++)
        batch->sentinel = candidate_load(&batch->bench, &jobs[i], "sentinel", &ignored);
}

static void read_sentinel(Batch *batch)
{
    if (batch->sentinel == NULL)
        return;
    double ns = candidate_fastest_ns(&batch->bench, batch->sentinel, SENTINEL_SAMPLES);
    batch->facts.sentinel_ns = fmin(batch->facts.sentinel_ns, ns);
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

static void send_answers(Batch *batch)
{
    text_temperatures(&batch->facts.temperatures);
    for (size_t i = 0; i < batch->count; i++) {
        const Candidate *candidate = batch->candidates[i];
        Reason reason;
        if (candidate->status == 0) {
            send_row(&batch->bench, candidate, &batch->facts);
        } else {
            because(&reason, "a run failed while it was measured: %s", status_name(candidate->status));
            wire_failed(candidate->job->id, reason.text);
        }
    }
    text_free(&batch->facts.temperatures);
}

/* List the jobs that are not done; returns how many there are. */
static size_t list_visits(const Batch *batch, Candidate **visits)
{
    size_t count = 0;
    for (size_t i = 0; i < batch->count; i++)
        if (!candidate_is_done(&batch->bench, batch->candidates[i]))
            visits[count++] = batch->candidates[i];
    return count;
}

static void measure_rounds(Batch *batch, Candidate **visits)
{
    for (int round = 0; round < batch->bench.settings->rounds; round++) {
        size_t count = list_visits(batch, visits);
        if (count == 0)
            break;
        read_sentinel(batch);
        shuffle(batch, visits, count);
        for (size_t i = 0; i < count; i++)
            candidate_visit(&batch->bench, visits[i]);
    }
    read_sentinel(batch);
}

/* Visit every job of the block in each round, read the sentinel before each and at the end, and send the rows. */
static void measure_block(Batch *batch)
{
    if (batch->count > 0) {
        Candidate **visits = need(batch->count * sizeof *visits);
        ThrottleSigns before = throttle_signs(batch->usual_khz);
        batch->facts.sentinel_ns = INFINITY;
        measure_rounds(batch, visits);
        batch->facts.throttled = is_throttled(before, throttle_signs(batch->usual_khz));
        send_answers(batch);
        free(visits);
    }
    for (size_t i = 0; i < batch->count; i++)
        candidate_free(batch->candidates[i]);
    batch->count = batch->size_bytes = 0;
    batch->began_s = seconds_now();
    batch->expected_ns = 0;
}

static void add(Batch *batch, Candidate *candidate)
{
    batch->candidates[batch->count++] = candidate;
    batch->size_bytes += candidate->size_bytes;
    batch->expected_ns += candidate_expected_ns(batch->bench.settings, candidate);
}

static bool is_full(const Batch *batch)
{
    return batch->count >= (size_t)batch->bench.settings->block_size || batch->size_bytes >= BLOCK_BYTES ||
           batch->expected_ns >= BLOCK_NS || seconds_now() - batch->began_s >= BLOCK_LOAD_S;
}

void batch_run(const Runtime *runtime, const char *folder, const Settings *settings, const Job *sentinel,
               const Job *jobs, size_t count)
{
    bool on_cpu_clock = settings->threads == 1 && strcmp(single_thread_clock(), "thread_cpu") == 0;
    Batch batch = {.bench = {runtime, folder, settings, on_cpu_clock}, .order = settings->seed};
    batch.usual_khz = top_khz();
    batch.began_s = seconds_now();
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
