/* A growing text, and JSON written into it. Out of memory ends the process: a line half written helps nobody. */
#ifndef EDGEKD_TEXT_H
#define EDGEKD_TEXT_H

#include <stddef.h>

typedef struct {
    char *data; /* not terminated; `size` bytes are used */
    size_t size;
    size_t capacity;
} Text;

/* Allocate or end the process. */
void *need(size_t size);
char *need_copy(const char *text);

void text_bytes(Text *text, const void *data, size_t size);
void text_add(Text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Add a JSON string with its quotes. */
void text_string(Text *text, const char *value);
/* Add bytes as a JSON string in base64 (RFC 4648). */
void text_base64(Text *text, const void *data, size_t size);
void text_free(Text *text);

#endif
