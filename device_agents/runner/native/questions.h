/* Questions about one model: its outputs for given inputs, and the times of its nodes. */
#ifndef EDGEKD_QUESTIONS_H
#define EDGEKD_QUESTIONS_H

#include "litert.h"

/* Run a model once on the inputs of a blob and send its outputs, or why there are none. */
void answer_outputs(const Runtime *runtime, const char *folder, const char *job, const char *sha256,
                    const char *inputs_sha256, int threads);
/* Measure a network's nodes inside the network and send their times, or why there are none. */
void answer_nodes(const Runtime *runtime, const char *folder, const char *job, const char *sha256, int64_t runs,
                  int threads);

#endif
