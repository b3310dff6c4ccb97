#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "litert.h"
#include "litert_api.h"
#include "text.h"

/* An event has a C++ part in its middle whose size differs between versions and machines. Its first four fields are
 * stable; where the next one begins is seen from how far the library writes. */
enum { MAX_EVENT_BYTES = 256, MAX_EVENTS = 1 << 16, UNTOUCHED = 0xa5 };

typedef struct {
    const char *tag;
    int32_t type;
    uint64_t start_us;
    uint64_t elapsed_us;
} EventHead;

static size_t event_stride(const unsigned char *raw, size_t count)
{
    size_t written = count * MAX_EVENT_BYTES;
    while (written > 0 && raw[written - 1] == UNTOUCHED)
        written--;
    size_t each = (written + count - 1) / count;
    return (each + 7) / 8 * 8;
}

static Event *decode_events(const unsigned char *raw, size_t count, Reason *reason)
{
    size_t stride = event_stride(raw, count);
    if (stride < sizeof(EventHead) || stride > MAX_EVENT_BYTES) {
        because(reason, "this LiteRT writes profiler events that cannot be read (%zu bytes each)", stride);
        return NULL;
    }
    Event *events = need(count * sizeof *events);
    for (size_t i = 0; i < count; i++) {
        EventHead head;
        memcpy(&head, raw + i * stride, sizeof head);
        snprintf(events[i].name, sizeof events[i].name, "%s", head.tag != NULL ? head.tag : "");
        events[i].type = head.type;
        events[i].elapsed_us = head.elapsed_us;
    }
    return events;
}

Event *model_profile(const Model *model, size_t *count, Reason *reason)
{
    const Runtime *runtime = model->runtime;
    int number = 0;
    runtime->reset_profiler(model->profiler);
    if (!said_ok(runtime->start_profiler(model->profiler), "StartProfiler", reason))
        return NULL;
    int status = model_run(model);
    runtime->stop_profiler(model->profiler);
    if (!said_ok(status, "the model cannot run", reason) ||
        !said_ok(runtime->event_count(model->profiler, &number), "GetNumProfilerEvents", reason))
        return NULL;
    if (number <= 0 || number > MAX_EVENTS) {
        because(reason, "the runtime's profiler saw %d events in a run", number);
        return NULL;
    }
    *count = (size_t)number;
    unsigned char *raw = need(*count * MAX_EVENT_BYTES);
    memset(raw, UNTOUCHED, *count * MAX_EVENT_BYTES);
    Event *events = NULL;
    if (said_ok(runtime->events(model->profiler, number, raw), "GetProfilerEvents", reason))
        events = decode_events(raw, *count, reason);
    free(raw);
    return events;
}
