/* The work folder: private to this user, locked by whoever serves, with models and blobs named after their hashes. */
#ifndef EDGEKD_FOLDER_H
#define EDGEKD_FOLDER_H

#include <stdbool.h>
#include <stddef.h>

#include "reason.h"

typedef struct {
    unsigned char *data; /* aligned to 64 bytes, as the runtime wants its buffers */
    size_t size;
} Stored;

/* Lock the folder for the life of this process, or end it: busy when another holds it, fatal when it cannot be used. */
void folder_lock(const char *folder, const char *owner, double wait_s);
/* Read models/HASH.SUFFIX and check that it is the file it is named after; its data is the caller's to free. */
bool folder_read(const char *folder, const char *sha256, const char *suffix, Stored *stored, Reason *reason);

#endif
