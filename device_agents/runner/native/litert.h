/* LiteRT's C library, found at run time, and models compiled with it for the CPU.
 *
 * No header of LiteRT is needed: litert_api.h declares what is. litert.c opens the library, model.c loads and runs
 * models, profile.c reads what happened inside a run. */
#ifndef EDGEKD_LITERT_H
#define EDGEKD_LITERT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "reason.h"

typedef struct Runtime Runtime;

/* One input or output of a model, in memory of our own that the runtime reads or writes. */
typedef struct {
    int type;      /* an ElementType */
    size_t bytes;
    void *data;
    size_t place;  /* among the model's inputs or outputs; a signature may name them in another order */
} Slot;

typedef struct {
    Slot *slots; /* in the signature's order */
    void **buffers;
    size_t count;
} Side;

typedef struct {
    const Runtime *runtime;
    unsigned char *content; /* of the file, which the runtime goes on reading */
    void *model;
    void *compiled;
    void *profiler; /* NULL unless asked for */
    size_t signature;
    Side inputs;
    Side outputs;
} Model;

typedef struct {
    int threads;
    bool profile;
} ModelOptions;

/* What happened inside one run. */
typedef struct {
    char name[128];
    int type; /* an EventType */
    uint64_t elapsed_us;
} Event;

enum EventType { EVENT_OPERATOR = 2, EVENT_DELEGATE_NODE = 8 };

/* Load the library; the runtime lives as long as the process. NULL and a reason when it cannot serve us. */
const Runtime *runtime_open(const char *path, Reason *reason);
/* Name the version as far as what the library exports tells it. */
const char *runtime_version(const Runtime *runtime);

/* Compile a model for the CPU. It owns `content` from here on, also when it fails: there is nothing to free then. */
bool model_load(const Runtime *runtime, unsigned char *content, size_t size, ModelOptions options, Model *model,
                Reason *reason);
void model_free(Model *model);
/* Run it once on its slots; 0, or the runtime's status. */
int model_run(const Model *model);
const char *status_name(int status);
/* Return the slot at a place, or NULL. */
Slot *slot_at(const Side *side, size_t place);
size_t side_bytes(const Side *side);

/* Run it once and return what the profiler saw in the order of execution, to be freed; NULL and a reason otherwise. */
Event *model_profile(const Model *model, size_t *count, Reason *reason);

#endif
