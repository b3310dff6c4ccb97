/* How LiteRT's C library is called: its structures as far as they are stable, and its functions. Private to litert.c,
 * model.c and profile.c. The declarations hold for libLiteRt.so 2.1.3 to 2.3.0. */
#ifndef EDGEKD_LITERT_API_H
#define EDGEKD_LITERT_API_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "litert.h"

enum { MAX_RANK = 8, STATUS_OK = 0 };

/* The library's structures, as far as they are stable. Enumerations are ints, handles are pointers. */
typedef struct {
    uint32_t rank; /* in the lowest seven bits */
    int32_t dimensions[MAX_RANK];
    uint32_t strides[MAX_RANK];
} Layout;

typedef struct {
    int32_t element_type;
    Layout layout;
} TensorType;

struct Runtime {
    const char *version;
    void *environment;
    bool model_wants_environment;
    int (*create_environment)(int, const void *, void **);
    /* From 2.1.6 on with the environment first, before without. */
    int (*create_model)(void *, const void *, size_t, void **);
    int (*create_model_alone)(const void *, size_t, void **);
    void (*destroy_model)(void *);
    int (*create_options)(void **);
    void (*destroy_options)(void *);
    int (*set_accelerators)(void *, int);
    int (*create_opaque)(const char *, void *, void (*)(void *), void **);
    int (*add_opaque)(void *, void *);
    int (*create_compiled)(void *, void *, void *, void **);
    void (*destroy_compiled)(void *);
    int (*run)(void *, size_t, size_t, void **, size_t, void **);
    int (*main_subgraph)(void *, size_t *);
    int (*subgraph)(void *, size_t, void **);
    int (*signature_count)(void *, size_t *);
    int (*signature)(void *, size_t, void **);
    int (*signature_subgraph)(void *, void **);
    int (*signature_input_count)(void *, size_t *);
    int (*signature_output_count)(void *, size_t *);
    int (*signature_input)(void *, size_t, void **);
    int (*signature_output)(void *, size_t, void **);
    int (*subgraph_input)(void *, size_t, void **);
    int (*subgraph_output)(void *, size_t, void **);
    int (*tensor_index)(void *, uint32_t *);
    int (*tensor_type)(void *, TensorType *);
    int (*buffer_of_memory)(const TensorType *, void *, size_t, void (*)(void *), void **);
    void (*destroy_buffer)(void *);
    int (*get_profiler)(void *, void **);
    int (*start_profiler)(void *);
    int (*stop_profiler)(void *);
    int (*reset_profiler)(void *);
    int (*event_count)(void *, int *);
    int (*events)(void *, int, void *);
};

/* Tell whether a call went well; if not, the reason says which did not. */
bool said_ok(int status, const char *what, Reason *reason);

#endif
