/* A plan: load jobs block by block; visit each block's jobs in rounds of shuffled order, and the sentinel among them.
 *
 * It does what `Batch` in edgekd_runner.py does, with the same constants. */
#ifndef EDGEKD_BATCH_H
#define EDGEKD_BATCH_H

#include "candidate.h"

/* Answer every job with one row, or with the reason why there is none. */
void batch_run(const Runtime *runtime, const char *folder, const Settings *settings, const Job *sentinel,
               const Job *jobs, size_t count);

#endif
