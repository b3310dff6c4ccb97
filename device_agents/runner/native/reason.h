/* Why something could not be done: one line for a person, filled in by whoever found out. */
#ifndef EDGEKD_REASON_H
#define EDGEKD_REASON_H

#include <stdbool.h>

typedef struct {
    char text[512];
} Reason;

/* Write the reason and return false, so that a function can `return because(...)`. */
bool because(Reason *reason, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
