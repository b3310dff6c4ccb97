#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "litert.h"
#include "litert_api.h"
#include "tensors.h"
#include "text.h"

enum { MAX_SLOTS = 256, ALIGNMENT = 64, CPU_ACCELERATOR = 1 };
/* XNNPACK reads some bytes beyond a tensor's end; whatever lies there is not used. */
enum { OVERREAD = 128 };
/* Above this a model's inputs and outputs are no edge device's any more, and sizes could overflow on 32 bits. */
static const size_t MAX_TENSOR_BYTES = (size_t)1 << 30;

/* Options are TOML under an identifier; the library frees the text. */
static bool add_toml(const Runtime *runtime, void *options, const char *identifier, const char *toml, Reason *reason)
{
    void *opaque = NULL;
    char *payload = need_copy(toml);
    int status = runtime->create_opaque(identifier, payload, free, &opaque);
    if (status != STATUS_OK) {
        free(payload);
        return said_ok(status, "CreateOpaqueOptions", reason);
    }
    return said_ok(runtime->add_opaque(options, opaque), "AddOpaqueOptions", reason);
}

static bool set_options(const Runtime *runtime, void *options, ModelOptions wanted, Reason *reason)
{
    char threads[48];
    snprintf(threads, sizeof threads, "num_threads = %d\n", wanted.threads);
    const char *profiling = "enable_profiling = true\n";
    return said_ok(runtime->set_accelerators(options, CPU_ACCELERATOR), "SetOptionsHardwareAccelerators", reason) &&
           add_toml(runtime, options, "xnnpack", threads, reason) &&
           (!wanted.profile || add_toml(runtime, options, "runtime_options_string", profiling, reason));
}

static bool compile(Model *model, size_t size, ModelOptions wanted, Reason *reason)
{
    const Runtime *runtime = model->runtime;
    void *options = NULL;
    int status = runtime->model_wants_environment
                     ? runtime->create_model(runtime->environment, model->content, size, &model->model)
                     : runtime->create_model_alone(model->content, size, &model->model);
    if (!said_ok(status, "cannot read the model", reason) ||
        !said_ok(runtime->create_options(&options), "CreateOptions", reason))
        return false;
    bool done = set_options(runtime, options, wanted, reason) &&
                said_ok(runtime->create_compiled(runtime->environment, model->model, options, &model->compiled),
                        "cannot compile the model", reason);
    runtime->destroy_options(options);
    return done;
}

/* Find the signature of the main graph: the first whose graph it is, as a model without signatures has one too. */
static bool find_signature(Model *model, void **signature, void **graph, Reason *reason)
{
    const Runtime *runtime = model->runtime;
    size_t main_index = 0, count = 0;
    if (!said_ok(runtime->main_subgraph(model->model, &main_index), "GetMainModelSubgraphIndex", reason) ||
        !said_ok(runtime->subgraph(model->model, main_index, graph), "GetModelSubgraph", reason) ||
        !said_ok(runtime->signature_count(model->model, &count), "GetNumModelSignatures", reason))
        return false;
    for (model->signature = 0; model->signature < count; model->signature++) {
        void *its_graph = NULL;
        if (runtime->signature(model->model, model->signature, signature) == STATUS_OK &&
            runtime->signature_subgraph(*signature, &its_graph) == STATUS_OK && its_graph == *graph)
            return true;
    }
    return because(reason, "the model has no signature for its main graph");
}

static bool size_of_type(const TensorType *type, size_t *bytes, Reason *reason)
{
    unsigned rank = type->layout.rank & 0x7f;
    uint64_t elements = 1;
    unsigned bits = type_bits(type->element_type);
    if (bits == 0)
        return because(reason, "a tensor of type %d has no fixed size", (int)type->element_type);
    if (rank > MAX_RANK)
        return because(reason, "a tensor has %u dimensions, at most %d are possible", rank, (int)MAX_RANK);
    for (unsigned i = 0; i < rank; i++) {
        int32_t dimension = type->layout.dimensions[i];
        if (dimension < 0)
            return because(reason, "the model has a dynamic shape: export it with fixed shapes");
        elements *= (uint32_t)dimension;
        if (elements > MAX_TENSOR_BYTES)
            return because(reason, "a tensor has more than %zu elements", MAX_TENSOR_BYTES);
    }
    *bytes = (size_t)((elements * bits + 7) / 8);
    return *bytes <= MAX_TENSOR_BYTES || because(reason, "a tensor has more than %zu bytes", MAX_TENSOR_BYTES);
}

/* Find where a tensor stands among the main graph's inputs or outputs. */
static bool find_place(const Model *model, void *graph, bool input, void *tensor, size_t count, size_t *place)
{
    const Runtime *runtime = model->runtime;
    uint32_t wanted, index;
    if (runtime->tensor_index(tensor, &wanted) != STATUS_OK)
        return false;
    for (*place = 0; *place < count; ++*place) {
        void *found = NULL;
        int status = (input ? runtime->subgraph_input : runtime->subgraph_output)(graph, *place, &found);
        if (status == STATUS_OK && runtime->tensor_index(found, &index) == STATUS_OK && index == wanted)
            return true;
    }
    return false;
}

static bool open_slot(const Model *model, Side *side, size_t at, void *tensor, Reason *reason)
{
    const Runtime *runtime = model->runtime;
    Slot *slot = &side->slots[at];
    TensorType type = {0};
    if (!said_ok(runtime->tensor_type(tensor, &type), "a tensor has no fixed rank", reason) ||
        !size_of_type(&type, &slot->bytes, reason))
        return false;
    slot->type = type.element_type;
    size_t rounded = (slot->bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    if (posix_memalign(&slot->data, ALIGNMENT, rounded + OVERREAD) != 0) {
        slot->data = NULL;
        return because(reason, "no memory for a tensor of %zu bytes", slot->bytes);
    }
    memset(slot->data, 0, rounded + OVERREAD);
    size_t size = rounded > 0 ? rounded : ALIGNMENT;
    return said_ok(runtime->buffer_of_memory(&type, slot->data, size, NULL, &side->buffers[at]),
                   "CreateTensorBufferFromHostMemory", reason);
}

static bool open_side(Model *model, void *signature, void *graph, bool input, Reason *reason)
{
    const Runtime *runtime = model->runtime;
    Side *side = input ? &model->inputs : &model->outputs;
    size_t count = 0;
    int status = (input ? runtime->signature_input_count : runtime->signature_output_count)(signature, &count);
    if (!said_ok(status, "GetNumSignature", reason))
        return false;
    if (count > MAX_SLOTS)
        return because(reason, "the model has %zu inputs or outputs, at most %d are possible", count, (int)MAX_SLOTS);
    side->slots = need(count * sizeof *side->slots);
    side->buffers = need(count * sizeof *side->buffers);
    side->count = count;
    for (size_t i = 0; i < count; i++) {
        void *tensor = NULL;
        status = (input ? runtime->signature_input : runtime->signature_output)(signature, i, &tensor);
        if (!said_ok(status, "GetSignatureTensorByIndex", reason) || !open_slot(model, side, i, tensor, reason))
            return false;
        if (!find_place(model, graph, input, tensor, count, &side->slots[i].place))
            return because(reason, "the model's signature leaves out some of its inputs or outputs");
    }
    return true;
}

static bool open_profiler(Model *model, Reason *reason)
{
    int status = model->runtime->get_profiler(model->compiled, &model->profiler);
    return (status == STATUS_OK && model->profiler != NULL) ||
           because(reason, "LiteRT %s gives no times of nodes: use a newer libLiteRt.so", model->runtime->version);
}

bool model_load(const Runtime *runtime, unsigned char *content, size_t size, ModelOptions options, Model *model,
                Reason *reason)
{
    void *signature = NULL, *graph = NULL;
    *model = (Model){.runtime = runtime, .content = content};
    bool done = compile(model, size, options, reason) && find_signature(model, &signature, &graph, reason) &&
                open_side(model, signature, graph, true, reason) && open_side(model, signature, graph, false, reason) &&
                (!options.profile || open_profiler(model, reason));
    if (!done)
        model_free(model);
    return done;
}

static void close_side(const Runtime *runtime, Side *side)
{
    for (size_t i = 0; i < side->count; i++) {
        if (side->buffers[i] != NULL)
            runtime->destroy_buffer(side->buffers[i]);
        free(side->slots[i].data);
    }
    free(side->slots);
    free(side->buffers);
}

void model_free(Model *model)
{
    if (model->compiled != NULL)
        model->runtime->destroy_compiled(model->compiled);
    if (model->model != NULL)
        model->runtime->destroy_model(model->model);
    close_side(model->runtime, &model->inputs);
    close_side(model->runtime, &model->outputs);
    free(model->content);
    *model = (Model){.runtime = model->runtime};
}

int model_run(const Model *model)
{
    return model->runtime->run(model->compiled, model->signature, model->inputs.count, model->inputs.buffers,
                               model->outputs.count, model->outputs.buffers);
}

Slot *slot_at(const Side *side, size_t place)
{
    for (size_t i = 0; i < side->count; i++)
        if (side->slots[i].place == place)
            return &side->slots[i];
    return NULL;
}

size_t side_bytes(const Side *side)
{
    size_t bytes = 0;
    for (size_t i = 0; i < side->count; i++)
        bytes += side->slots[i].bytes;
    return bytes;
}
