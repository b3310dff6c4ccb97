/* Lines in and out. A thread reads the input, and its end, or a minute without a line, ends this process whatever it is
 * doing. Lines that only say that the host is still there are not handed on. */
#ifndef EDGEKD_WIRE_H
#define EDGEKD_WIRE_H

#include <stddef.h>

#include "text.h"

enum { MAX_LINE_BYTES = 1 << 20 };

typedef struct {
    char *data;
    size_t size;
} Line;

/* Go on in a new process, while this one waits to send the noted line if that one dies, and to end as it has ended. */
void wire_watch(void);
/* Take standard input and output over; what a library prints goes to stderr from here on. */
void wire_open(void);
/* Wait for a line of the host; its data is the caller's to free. */
Line wire_next(void);
/* Write the text as one line, at once, and free it. */
void wire_send(Text *text);
/* Remember the text as the line to send if this process dies before it is forgotten, and free it. A line sent wakes the
 * other end, and on the device what carries it: once a visit, beside the samples. */
void wire_note(Text *text);
void wire_forget(void);
/* Send a line of a type with one text in it. */
void wire_say(const char *type, const char *key, const char *value);
/* Say why this agent cannot serve ("busy" or "fatal"), and end it. */
_Noreturn void wire_refuse(const char *type, const char *reason);
/* Answer a job with the reason why it cannot be done. */
void wire_failed(const char *job, const char *reason);

#endif
