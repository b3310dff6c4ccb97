#define _GNU_SOURCE
#include "folder.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "json.h"
#include "machine.h"
#include "sha256.h"
#include "text.h"
#include "wire.h"

enum { MAX_PATH = 4096, MAX_OWNER = 300, ALIGNMENT = 64, LOCK_POLL_MS = 20 };

static _Noreturn void unusable(const char *folder, const char *why)
{
    Reason reason;
    because(&reason, "cannot use work folder %.300s: %s", folder, why);
    wire_refuse("fatal", reason.text);
}

/* Write a path into the folder; a folder whose name is too long is refused. */
static void path_in(const char *folder, const char *name, char path[MAX_PATH])
{
    if (snprintf(path, MAX_PATH, "%s/%s", folder, name) >= MAX_PATH)
        unusable(folder, "its name is too long");
}

/* Make the work folder, or refuse one that others can write to, because they could swap our files. */
static void make_private(const char *folder)
{
    char models[MAX_PATH];
    struct stat status;
    path_in(folder, "models", models);
    if ((mkdir(folder, 0700) != 0 && errno != EEXIST) || lstat(folder, &status) != 0)
        unusable(folder, strerror(errno));
    if (!S_ISDIR(status.st_mode) || status.st_uid != geteuid() || (status.st_mode & 022) != 0)
        unusable(folder, "others can write to it");
    if (mkdir(models, 0700) != 0 && errno != EEXIST)
        unusable(folder, strerror(errno));
}

static bool lock_before(int fd, double deadline_s)
{
    const struct timespec pause = {0, LOCK_POLL_MS * 1000000L};
    while (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        if ((errno != EWOULDBLOCK && errno != EINTR) || seconds_now() >= deadline_s)
            return false;
        nanosleep(&pause, NULL);
    }
    return true;
}

static bool is_file_at(int fd, const char *path)
{
    struct stat opened, found;
    return fstat(fd, &opened) == 0 && stat(path, &found) == 0 && opened.st_dev == found.st_dev &&
           opened.st_ino == found.st_ino;
}

/* What is written only tells a person who owns the lock: the lock itself is the kernel's and dies with us. */
static void write_owner(int fd, const char *owner)
{
    char shown[MAX_OWNER];
    Text text = {0};
    snprintf(shown, sizeof shown, "%s", owner);
    text_add(&text, "{\"pid\":%ld,\"since\":%lld,\"owner\":", (long)getpid(), (long long)time(NULL));
    text_string(&text, shown);
    text_add(&text, "}");
    if (ftruncate(fd, 0) != 0 || write(fd, text.data, text.size) < 0)
        fputs("edgekd_agent: cannot write the lock's owner\n", stderr);
    text_free(&text);
}

static _Noreturn void refuse_busy(const char *path)
{
    char content[2048];
    JsonDocument document = {0};
    Reason reason;
    int64_t pid, since;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t size = fd >= 0 ? read(fd, content, sizeof content) : -1;
    because(&reason, "another session is measuring");
    if (size > 0 && json_read(&document, content, (size_t)size)) {
        const char *owner = json_text(document.root, "owner");
        if (owner != NULL && json_integer(document.root, "pid", 1, INT32_MAX, &pid) &&
            json_integer(document.root, "since", 0, INT64_MAX / 2, &since)) {
            char held[64] = "since a time that the device's clock has not reached";
            if (time(NULL) >= since)
                snprintf(held, sizeof held, "for %lld s", (long long)time(NULL) - (long long)since);
            because(&reason, "%.300s has been measuring %s (process %d on the device)", owner, held, (int)pid);
        }
    }
    wire_refuse("busy", reason.text);
}

void folder_lock(const char *folder, const char *owner, double wait_s)
{
    char path[MAX_PATH];
    double deadline_s = seconds_now() + wait_s;
    path_in(folder, "lock", path);
    for (;;) {
        make_private(folder); /* in each turn: a cleaner may have removed it while we waited */
        int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0)
            unusable(folder, strerror(errno));
        if (!lock_before(fd, deadline_s))
            refuse_busy(path);
        if (is_file_at(fd, path)) {
            write_owner(fd, owner);
            return; /* fd stays open as long as this process lives */
        }
        close(fd); /* a cleaner removed the file while we waited for it: lock the one that is there now */
    }
}

static bool is_hash(const char *text)
{
    return strlen(text) == SHA256_HEX && strspn(text, "0123456789abcdef") == SHA256_HEX;
}

static bool read_all(int fd, Stored *stored, Reason *reason)
{
    struct stat status;
    void *memory = NULL;
    if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode) || status.st_size < 0)
        return because(reason, "the stored file is no plain file");
    if ((uintmax_t)status.st_size > SIZE_MAX - ALIGNMENT ||
        posix_memalign(&memory, ALIGNMENT, (size_t)status.st_size + ALIGNMENT) != 0)
        return because(reason, "no memory for a file of %jd bytes", (intmax_t)status.st_size);
    *stored = (Stored){memory, (size_t)status.st_size};
    for (size_t done = 0; done < stored->size;) {
        ssize_t got = read(fd, stored->data + done, stored->size - done);
        if (got == 0)
            return because(reason, "the stored file became shorter while it was read");
        if (got < 0 && errno != EINTR)
            return because(reason, "cannot read the stored file: %s", strerror(errno));
        done += got > 0 ? (size_t)got : 0;
    }
    return true;
}

bool folder_read(const char *folder, const char *sha256, const char *suffix, Stored *stored, Reason *reason)
{
    char path[MAX_PATH], name[128], found[SHA256_HEX + 1];
    *stored = (Stored){0};
    if (!is_hash(sha256))
        return because(reason, "%.80s is no SHA-256", sha256);
    snprintf(name, sizeof name, "models/%s.%s", sha256, suffix);
    path_in(folder, name, path);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return because(reason, "cannot open %s: %s", name, strerror(errno));
    bool whole = read_all(fd, stored, reason);
    close(fd);
    if (whole) {
        sha256_hex(stored->data, stored->size, found);
        whole = strcmp(found, sha256) == 0 || because(reason, "the file does not have the hash it is named after");
    }
    if (!whole) {
        free(stored->data);
        *stored = (Stored){0};
    }
    return whole;
}
