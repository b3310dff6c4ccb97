#include "questions.h"

#include <stdlib.h>
#include <string.h>

#include "candidate.h"
#include "folder.h"
#include "text.h"
#include "wire.h"

enum { WARMUP_RUNS = 3, MAX_LINE_NODES = 5000 };
/* Base64 of these fits one line together with all that is around it. */
static const size_t MAX_OUTPUT_BYTES = (size_t)MAX_LINE_BYTES / 4 * 3 - 4096;

static bool load_model(const Runtime *runtime, const char *folder, const char *sha256, ModelOptions options,
                       Model *model, Reason *reason)
{
    Stored stored;
    return folder_read(folder, sha256, "tflite", &stored, reason) &&
           model_load(runtime, stored.data, stored.size, options, model, reason);
}

static void begin_answer(Text *text, const char *type, const char *job)
{
    text_add(text, "{\"type\":\"%s\",\"job\":", type);
    text_string(text, job);
    text_add(text, ",\"%s\":[", type);
}

/* --- outputs --- */

static bool set_inputs(const Model *model, const Stored *blob, Reason *reason)
{
    size_t wanted = side_bytes(&model->inputs), at = 0;
    if (blob->size != wanted)
        return because(reason, "the inputs have %zu bytes, the model takes %zu", blob->size, wanted);
    for (size_t place = 0; place < model->inputs.count; place++) {
        const Slot *slot = slot_at(&model->inputs, place);
        if (slot == NULL)
            return because(reason, "the model has no input %zu", place);
        memcpy(slot->data, blob->data + at, slot->bytes);
        at += slot->bytes;
    }
    return true;
}

static bool run_on(const Model *model, const char *folder, const char *inputs_sha256, Reason *reason)
{
    Stored blob;
    if (!folder_read(folder, inputs_sha256, "bin", &blob, reason))
        return false;
    bool set = set_inputs(model, &blob, reason);
    free(blob.data);
    if (!set)
        return false;
    int status = model_run(model);
    return status == 0 || because(reason, "the model cannot run: %s", status_name(status));
}

static bool add_outputs(Text *text, const Model *model, Reason *reason)
{
    size_t bytes = side_bytes(&model->outputs);
    if (bytes > MAX_OUTPUT_BYTES)
        return because(reason, "the outputs have %zu bytes, at most %zu fit an answer", bytes, MAX_OUTPUT_BYTES);
    for (size_t place = 0; place < model->outputs.count; place++) {
        const Slot *slot = slot_at(&model->outputs, place);
        if (slot == NULL)
            return because(reason, "the model has no output %zu", place);
        text_bytes(text, ",", place > 0);
        text_base64(text, slot->data, slot->bytes);
    }
    text_add(text, "]}");
    return true;
}

/* Send the answer, or the reason why there is none. */
static void send_or_fail(Text *text, bool done, const char *job, const Reason *reason)
{
    if (done) {
        wire_send(text);
    } else {
        text_free(text);
        wire_failed(job, reason->text);
    }
}

void answer_outputs(const Runtime *runtime, const char *folder, const char *job, const char *sha256,
                    const char *inputs_sha256, int threads)
{
    Text text = {0};
    Model model;
    Reason reason;
    say_start(job, "load", TELL_NOW);
    bool loaded = load_model(runtime, folder, sha256, (ModelOptions){threads, false}, &model, &reason);
    begin_answer(&text, "outputs", job);
    bool done = loaded && run_on(&model, folder, inputs_sha256, &reason) && add_outputs(&text, &model, &reason);
    send_or_fail(&text, done, job, &reason);
    if (loaded)
        model_free(&model);
}

/* --- nodes --- */

typedef struct {
    Event *events; /* of the first run, with the time of all runs in elapsed_us */
    size_t count;
} Nodes;

static bool is_node(const Event *event)
{
    return event->type == EVENT_OPERATOR || event->type == EVENT_DELEGATE_NODE;
}

/* XNNPACK says of itself which nodes are its own; the runtime's own operators are named like CONV_2D. */
static const char *kind_of(const Event *event)
{
    if (event->type == EVENT_DELEGATE_NODE)
        return "xnnpack";
    size_t size = strlen(event->name);
    bool upper = event->name[0] >= 'A' && event->name[0] <= 'Z' &&
                 strspn(event->name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789") == size;
    return upper ? "builtin" : "other";
}

static size_t keep_nodes(Event *events, size_t count)
{
    size_t kept = 0;
    for (size_t i = 0; i < count; i++)
        if (is_node(&events[i]))
            events[kept++] = events[i];
    return kept;
}

/* Add one run's nodes to those of the runs before; false when they are not the same nodes. */
static bool add_run(Nodes *nodes, Event *events, size_t count)
{
    if (nodes->events == NULL) {
        *nodes = (Nodes){events, count};
        return count > 0;
    }
    bool same = count == nodes->count;
    for (size_t i = 0; i < count && same; i++) {
        same = events[i].type == nodes->events[i].type && strcmp(events[i].name, nodes->events[i].name) == 0;
        nodes->events[i].elapsed_us += events[i].elapsed_us;
    }
    free(events);
    return same;
}

static bool profile_runs(const Model *model, int64_t runs, Nodes *nodes, Reason *reason)
{
    for (int i = 0; i < WARMUP_RUNS; i++) {
        int status = model_run(model);
        if (status != 0)
            return because(reason, "the model cannot run: %s", status_name(status));
    }
    for (int64_t run = 0; run < runs; run++) {
        size_t count = 0;
        Event *events = model_profile(model, &count, reason);
        if (events == NULL)
            return false;
        /* A run's first event is never a node's, unless the profiler's ring was too small (2,048 events in 2.1.6). */
        bool lost = is_node(&events[0]);
        if (!add_run(nodes, events, keep_nodes(events, count)))
            return because(reason, "the runtime's profiler did not tell the same nodes in every run");
        if (lost)
            return because(reason, "the runtime's profiler lost events of a run; has it room for so many nodes?");
    }
    return nodes->count <= MAX_LINE_NODES ||
           because(reason, "the network has %zu nodes, at most %d fit an answer", nodes->count, (int)MAX_LINE_NODES);
}

static void add_nodes(Text *text, const Nodes *nodes, int64_t runs)
{
    for (size_t i = 0; i < nodes->count; i++) {
        const Event *node = &nodes->events[i];
        uint64_t mean_ns = (node->elapsed_us * 1000 + (uint64_t)runs / 2) / (uint64_t)runs;
        text_add(text, "%s{\"name\":", i > 0 ? "," : "");
        text_string(text, node->name);
        text_add(text, ",\"kind\":\"%s\",\"mean_ns\":%llu,\"runs\":%lld}", kind_of(node),
                 (unsigned long long)mean_ns, (long long)runs);
    }
    text_add(text, "]}");
}

void answer_nodes(const Runtime *runtime, const char *folder, const char *job, const char *sha256, int64_t runs,
                  int threads)
{
    Text text = {0};
    Model model;
    Nodes nodes = {0};
    Reason reason;
    say_start(job, "load", TELL_NOW);
    bool loaded = load_model(runtime, folder, sha256, (ModelOptions){threads, true}, &model, &reason);
    bool done = loaded && fill_inputs(&model, 0, &reason) && profile_runs(&model, runs, &nodes, &reason);
    begin_answer(&text, "nodes", job);
    if (done)
        add_nodes(&text, &nodes, runs);
    send_or_fail(&text, done, job, &reason);
    free(nodes.events);
    if (loaded)
        model_free(&model);
}
