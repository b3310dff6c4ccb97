/* Measure .tflite models with LiteRT's C library, spoken to in JSON lines.
 *
 *     edgekd_agent serve WORK OWNER WAIT_S LIBRARY [VERSION]   hold WORK's lock, answer requests until the input closes
 *     edgekd_agent probe LIBRARY [VERSION]                     print one JSON line: CPUs, clock, the runtime
 *
 * It does what edgekd_runner.py does, for devices without Python. VERSION is the library's, which does not tell it.
 * The lines are described in protocol.py on the host's side; batch.c says how a row comes to be. */
#define _GNU_SOURCE
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "batch.h"
#include "folder.h"
#include "json.h"
#include "machine.h"
#include "questions.h"
#include "wire.h"

enum { PROTOCOL_VERSION = 3, MAX_JOBS = 1000000, MAX_THREADS = 1024, MAX_RUNS = 1000000, MAX_SAMPLES = 20000 };

typedef struct {
    const Runtime *runtime;
    const char *folder;
    cpu_set_t allowed; /* before any plan pins us, to go back to */
} Server;

static _Noreturn void refuse_request(void)
{
    Reason reason;
    because(&reason, "a request that protocol %d does not know", (int)PROTOCOL_VERSION);
    wire_refuse("fatal", reason.text);
}

static JsonDocument next_request(void)
{
    JsonDocument document;
    Line line = wire_next();
    bool read = json_read(&document, line.data, line.size);
    free(line.data);
    if (!read)
        wire_refuse("fatal", "a line that is no JSON");
    return document;
}

static const char *wanted_text(const Json *object, const char *key)
{
    const char *text = json_text(object, key);
    if (text == NULL)
        refuse_request();
    return text;
}

static int64_t wanted_integer(const Json *object, const char *key, int64_t low, int64_t high)
{
    int64_t value;
    if (!json_integer(object, key, low, high, &value))
        refuse_request();
    return value;
}

static double wanted_real(const Json *object, const char *key, double low, double high)
{
    double value;
    if (!json_real(object, key, low, high, &value))
        refuse_request();
    return value;
}

static Job read_job(const Json *object)
{
    bool is_network = strcmp(wanted_text(object, "kind"), "network") == 0;
    return (Job){need_copy(wanted_text(object, "job")), need_copy(wanted_text(object, "sha256")), is_network};
}

static void free_job(Job *job)
{
    free(job->id);
    free(job->sha256);
}

/* Keep to the CPUs of the plan's mask, or go back to all that are allowed. */
static void pin(const Server *server, const Json *settings)
{
    const Json *mask = json_member(settings, "cpu_mask");
    cpu_set_t cpus = server->allowed;
    if (mask == NULL || (mask->kind != JSON_NULL && (mask->kind != JSON_NUMBER || !parse_cpu_mask(mask->text, &cpus))))
        refuse_request();
    if (pin_to(&cpus) || mask->kind == JSON_NULL)
        return;
    Text wanted = {0}, allowed = {0};
    Reason reason;
    text_cpus(&wanted, &cpus);
    text_cpus(&allowed, &server->allowed);
    because(&reason, "cannot pin to CPUs %.*s; allowed are %.*s", (int)wanted.size, wanted.data, (int)allowed.size,
            allowed.data);
    wire_refuse("fatal", reason.text);
}

static Settings read_settings(const Json *object)
{
    return (Settings){
        .threads = (int)wanted_integer(object, "threads", 1, MAX_THREADS),
        .rounds = (int)wanted_integer(object, "rounds", 1, 100),
        .least_rounds = (int)wanted_integer(object, "least_rounds", 1, 100),
        .patience = (int)wanted_integer(object, "patience", 1, 100),
        .agreement = wanted_real(object, "agreement", 0, 1),
        .enough_s = wanted_real(object, "enough_s", 0, 86400),
        .samples_per_round = (int)wanted_integer(object, "samples_per_round", 1, 1000),
        .warmup_runs = wanted_integer(object, "warmup_runs", 1, 100000),
        .min_sample_us = wanted_real(object, "min_sample_us", 0, 1e7),
        .warmup_min_ms = wanted_real(object, "warmup_min_ms", 0, 1e5),
        .time_limit_s = wanted_real(object, "time_limit_s", 0.05, 86400),
        .block_size = (int)wanted_integer(object, "block_size", 1, 4096),
        .seed = (uint64_t)wanted_integer(object, "seed", 0, INT_MAX),
    };
}

static Job read_job_line(void)
{
    JsonDocument document = next_request();
    if (strcmp(wanted_text(document.root, "type"), "job") != 0)
        refuse_request();
    Job job = read_job(document.root);
    json_free(&document);
    return job;
}

static void answer_plan(const Server *server, const Json *request)
{
    if (wanted_integer(request, "protocol", 0, INT_MAX) != PROTOCOL_VERSION)
        refuse_request();
    Settings settings = read_settings(json_member(request, "settings"));
    if ((int64_t)settings.rounds * settings.samples_per_round * LONG_VISIT > MAX_SAMPLES)
        refuse_request();
    Job sentinel = read_job(json_member(request, "sentinel"));
    size_t count = (size_t)wanted_integer(request, "jobs", 0, MAX_JOBS);
    Job *jobs = need(count * sizeof *jobs);
    for (size_t i = 0; i < count; i++)
        jobs[i] = read_job_line();
    pin(server, json_member(request, "settings"));
    batch_run(server->runtime, server->folder, &settings, &sentinel, jobs, count);
    for (size_t i = 0; i < count; i++)
        free_job(&jobs[i]);
    free(jobs);
    free_job(&sentinel);
}

static void answer(const Server *server, const Json *request)
{
    const char *type = wanted_text(request, "type");
    if (strcmp(type, "plan") == 0) {
        answer_plan(server, request);
    } else if (strcmp(type, "outputs") == 0) {
        answer_outputs(server->runtime, server->folder, wanted_text(request, "job"), wanted_text(request, "sha256"),
                       wanted_text(request, "inputs"), (int)wanted_integer(request, "threads", 1, MAX_THREADS));
    } else if (strcmp(type, "nodes") == 0) {
        answer_nodes(server->runtime, server->folder, wanted_text(request, "job"), wanted_text(request, "sha256"),
                     wanted_integer(request, "runs", 1, MAX_RUNS),
                     (int)wanted_integer(request, "threads", 1, MAX_THREADS));
    } else {
        refuse_request();
    }
    Text end = {0};
    text_add(&end, "{\"type\":\"end\"}");
    wire_send(&end);
}

static void say_hello(const Server *server, const char *version)
{
    Text text = {0};
    text_add(&text, "{\"type\":\"hello\",\"protocol\":%d,\"engine\":\"native\",\"runtime\":\"litert_c\",\"version\":",
             (int)PROTOCOL_VERSION);
    text_string(&text, version);
    text_add(&text, ",\"clock\":\"%s\",\"cpus\":", single_thread_clock());
    text_cpus(&text, &server->allowed);
    text_add(&text, ",\"pid\":%ld}", (long)getpid());
    wire_send(&text);
}

/* A shell may have left SIGALRM ignored or blocked; the time limit needs its default action. */
static void let_alarms_kill(void)
{
    sigset_t alarms;
    sigemptyset(&alarms);
    sigaddset(&alarms, SIGALRM);
    sigprocmask(SIG_UNBLOCK, &alarms, NULL);
    signal(SIGALRM, SIG_DFL);
}

static _Noreturn void serve(char **arguments)
{
    Reason reason;
    char *end;
    double wait_s = strtod(arguments[2], &end);
    let_alarms_kill();
    wire_watch();
    wire_open();
    if (*end != '\0' || end == arguments[2] || !(wait_s >= 0))
        wire_refuse("fatal", "the time to wait for the lock is no number of seconds");
    folder_lock(arguments[0], arguments[1], wait_s);
    Server server = {runtime_open(arguments[3], &reason), arguments[0], allowed_cpus()};
    if (server.runtime == NULL)
        wire_refuse("fatal", reason.text);
    say_hello(&server, arguments[4] != NULL ? arguments[4] : runtime_version(server.runtime));
    for (;;) {
        JsonDocument request = next_request();
        answer(&server, request.root);
        json_free(&request);
    }
}

static int probe(char **arguments)
{
    Reason reason;
    Text text = {0};
    cpu_set_t allowed = allowed_cpus();
    const Runtime *runtime = runtime_open(arguments[0], &reason);
    text_add(&text, "{\"python\":\"\",\"cpus\":");
    text_cpus(&text, &allowed);
    text_add(&text, ",\"clock\":\"%s\",\"runtimes\":{", single_thread_clock());
    if (runtime != NULL) {
        text_add(&text, "\"litert_c\":");
        text_string(&text, arguments[1] != NULL ? arguments[1] : runtime_version(runtime));
    } else {
        fprintf(stderr, "edgekd_agent: %s\n", reason.text);
    }
    text_add(&text, "}}\n");
    bool wrote = fwrite(text.data, 1, text.size, stdout) == text.size && fflush(stdout) == 0;
    return wrote ? 0 : 1;
}

int main(int count, char **arguments)
{
    if ((count == 6 || count == 7) && strcmp(arguments[1], "serve") == 0)
        serve(arguments + 2);
    if ((count == 3 || count == 4) && strcmp(arguments[1], "probe") == 0)
        return probe(arguments + 2);
    fputs("usage: edgekd_agent serve WORK OWNER WAIT_S LIBRARY [VERSION]\n"
          "       edgekd_agent probe LIBRARY [VERSION]\n",
          stderr);
    return 2;
}
