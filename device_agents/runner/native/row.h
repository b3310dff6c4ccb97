/* What is answered for a measured job, as a line. */
#ifndef EDGEKD_ROW_H
#define EDGEKD_ROW_H

#include "candidate.h"
#include "text.h"

/* What was seen while the job's block was measured. */
typedef struct {
    double sentinel_ns; /* of one run, the fastest reading; infinite when there was none */
    bool throttled;
    Text temperatures; /* a JSON array of degrees Celsius */
} BlockFacts;

void send_row(const Bench *bench, const Candidate *candidate, const BlockFacts *facts);

#endif
