#define _GNU_SOURCE
#include "wire.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "json.h"

/* A link that was cut without a word must not keep the lock for the hours that TCP waits: the host says every ten
 * seconds that it is there. The code is HOST_SILENT_EXIT of protocol.py. */
enum { HOST_SILENT_MS = 60000, HOST_SILENT_EXIT = 75 };
enum { READ_BYTES = 1 << 16, MAX_QUEUED_BYTES = 64 << 20 };

/* What this process is in the middle of, in memory shared with the one that watches over it. A job's id has at most 500
 * characters, each at most 6 bytes in JSON. */
enum { STEP_BYTES = 4096 };

typedef struct {
    atomic_bool is_noted;
    size_t size;
    char line[STEP_BYTES];
} Step;

typedef struct Queued {
    Line line;
    struct Queued *next;
} Queued;

static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t arrived = PTHREAD_COND_INITIALIZER;
static Queued *first, **last = &first;
static size_t queued_bytes;
static int out = -1;
static Step *step;

static _Noreturn void no_pair(const char *message)
{
    if (write(2, message, strlen(message)) < 0)
        _exit(2);
    _exit(2);
}

static void put(const char *data, size_t size)
{
    Queued *entry = need(sizeof *entry);
    entry->line.data = memcpy(need(size + 1), data, size);
    entry->line.size = size;
    pthread_mutex_lock(&guard);
    queued_bytes += size;
    if (queued_bytes > MAX_QUEUED_BYTES)
        no_pair("edgekd_agent: the host sent more than can wait\n");
    *last = entry;
    last = &entry->next;
    pthread_cond_signal(&arrived);
    pthread_mutex_unlock(&guard);
}

/* Tell whether a line only says that the host is still there; it may come at any time and has no answer. */
static bool is_alive(const char *data, size_t size)
{
    JsonDocument document;
    bool read = json_read(&document, data, size);
    const char *type = read ? json_text(document.root, "type") : NULL;
    bool alive = type != NULL && strcmp(type, "alive") == 0;
    json_free(&document);
    return alive;
}

/* Queue the whole lines of a buffer; returns how many bytes of a begun line are left at its start. */
static size_t put_lines(char *buffer, size_t size)
{
    char *at = buffer, *end = buffer + size, *newline;
    while ((newline = memchr(at, '\n', (size_t)(end - at))) != NULL) {
        if (!is_alive(at, (size_t)(newline - at)))
            put(at, (size_t)(newline - at));
        at = newline + 1;
    }
    memmove(buffer, at, (size_t)(end - at));
    return (size_t)(end - at);
}

/* Wait until the host has said something, or end this process when it stays silent. */
static void await_host(void)
{
    struct pollfd input = {.fd = 0, .events = POLLIN};
    int found;
    do
        found = poll(&input, 1, HOST_SILENT_MS);
    while (found < 0 && errno == EINTR);
    if (found == 0)
        _exit(HOST_SILENT_EXIT);
}

static void *read_lines(void *nothing)
{
    char *buffer = need(MAX_LINE_BYTES + READ_BYTES);
    size_t begun = 0;
    (void)nothing;
    for (;;) {
        await_host();
        ssize_t got = read(0, buffer + begun, READ_BYTES);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            _exit(0); /* the host is gone, and so is the reason to go on */
        begun = put_lines(buffer, begun + (size_t)got);
        if (begun > MAX_LINE_BYTES)
            no_pair("edgekd_agent: a line is too long: host and agent are no pair\n");
    }
}

/* End as a process has ended, after sending what it was in the middle of. */
static _Noreturn void end_as(int status)
{
    int code = WIFEXITED(status) ? WEXITSTATUS(status) : 0;
    bool died = WIFSIGNALED(status) || (code != 0 && code != HOST_SILENT_EXIT);
    if (died && step->is_noted && write(1, step->line, step->size) < 0)
        _exit(code);
    if (WIFSIGNALED(status)) {
        setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0}); /* one core file is enough */
        signal(WTERMSIG(status), SIG_DFL);
        kill(getpid(), WTERMSIG(status));
    }
    _exit(code);
}

void wire_watch(void)
{
    signal(SIGCHLD, SIG_DFL); /* whoever started us may have ignored it, and then no child's end is told */
    step = mmap(NULL, sizeof *step, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t worker = step == MAP_FAILED ? -1 : fork();
    int status;
    if (worker < 0)
        no_pair("edgekd_agent: cannot start a second process\n");
    if (worker == 0)
        return;
    signal(SIGPIPE, SIG_IGN);
    while (waitpid(worker, &status, 0) < 0 && errno == EINTR)
        continue;
    end_as(status);
}

void wire_open(void)
{
    pthread_t thread;
    signal(SIGPIPE, SIG_IGN);
    out = fcntl(1, F_DUPFD_CLOEXEC, 3);
    if (out < 0 || dup2(2, 1) < 0 || pthread_create(&thread, NULL, read_lines, NULL) != 0)
        no_pair("edgekd_agent: cannot set up input and output\n");
    pthread_detach(thread);
}

Line wire_next(void)
{
    pthread_mutex_lock(&guard);
    while (first == NULL)
        pthread_cond_wait(&arrived, &guard);
    Queued *entry = first;
    first = entry->next;
    if (first == NULL)
        last = &first;
    queued_bytes -= entry->line.size;
    pthread_mutex_unlock(&guard);
    Line line = entry->line;
    free(entry);
    return line;
}

void wire_send(Text *text)
{
    text_bytes(text, "\n", 1);
    for (size_t done = 0; done < text->size;) {
        ssize_t wrote = write(out, text->data + done, text->size - done);
        if (wrote < 0 && errno != EINTR)
            _exit(0);
        done += wrote > 0 ? (size_t)wrote : 0;
    }
    text_free(text);
}

void wire_note(Text *text)
{
    text_bytes(text, "\n", 1);
    if (text->size <= STEP_BYTES) {
        memcpy(step->line, text->data, text->size);
        step->size = text->size;
        step->is_noted = true; /* last: a line that is only half there must not be sent */
    }
    text_free(text);
}

void wire_forget(void)
{
    step->is_noted = false;
}

void wire_say(const char *type, const char *key, const char *value)
{
    Text text = {0};
    text_add(&text, "{\"type\":\"%s\",\"%s\":", type, key);
    text_string(&text, value);
    text_add(&text, "}");
    wire_send(&text);
}

_Noreturn void wire_refuse(const char *type, const char *reason)
{
    wire_say(type, "reason", reason);
    _exit(1);
}

void wire_failed(const char *job, const char *reason)
{
    Text text = {0};
    text_add(&text, "{\"type\":\"failed\",\"job\":");
    text_string(&text, job);
    text_add(&text, ",\"error\":");
    text_string(&text, reason);
    text_add(&text, "}");
    wire_send(&text);
}
