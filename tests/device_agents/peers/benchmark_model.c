/* Stands in for Google's benchmark_model in tests: the same flags, and the same lines on stdout and stderr.
 *
 * It really runs the model, with the LiteRT library that was compiled into it, so that it is one file as the real one.
 * GENERATION says whose lines it writes, BENCHMARK_MODEL_GENERATION in the environment overrides it:
 *     1  until 2020   no prefix, "Peak memory footprint (MB)"
 *     2  until 2023   no prefix, "Memory footprint delta from the start of the tool (MB)"
 *     3  since 2024   "INFO: " before each line, percentiles after the statistics
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "litert.h"
#include "machine.h"
#include "tensors.h"
#include "text.h"

#ifndef GENERATION
#define GENERATION 3
#endif

/* The library's bytes, between two symbols: global ones, since a linker for aarch64 confuses local ones. */
__asm__(".section .rodata\n"
        ".balign 64\n"
        ".global library_begin\n"
        ".global library_end\n"
        "library_begin: .incbin \"" LITERT_LIBRARY "\"\n"
        "library_end:\n"
        ".previous\n");
extern const char library_begin[], library_end[];

typedef struct {
    const char *graph, *input_layer, *input_shapes, *input_files, *output_file;
    double num_runs, min_secs, max_secs, warmup_runs, warmup_min_secs, num_threads;
    bool use_xnnpack, profile, report_peak;
} Flags;

typedef struct {
    int64_t *us;
    size_t count, room;
} Times;

typedef struct {
    Event *first; /* each node as the first run saw it */
    double *sum_us;
    size_t nodes, runs;
} Profile;

static int generation = GENERATION;

static void info(const char *format, ...) __attribute__((format(printf, 1, 2)));
static _Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

static void info(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs(generation >= 3 ? "INFO: " : "", stdout);
    vprintf(format, arguments);
    va_end(arguments);
    putchar('\n');
}

static _Noreturn void fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fflush(stdout);
    fputs("ERROR: ", stderr);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputs("\nERROR: Benchmarking failed.\n", stderr);
    exit(1);
}

/* --- flags --- */

/* Return what follows --NAME= in an argument, or NULL. */
static const char *value_of(const char *argument, const char *name)
{
    size_t size = strlen(name);
    bool named = strncmp(argument, "--", 2) == 0 && strncmp(argument + 2, name, size) == 0 && argument[2 + size] == '=';
    return named ? argument + 3 + size : NULL;
}

static bool take_text(const char *argument, Flags *flags)
{
    const struct {
        const char *name;
        const char **at;
    } texts[] = {{"graph", &flags->graph},
                 {"input_layer", &flags->input_layer},
                 {"input_layer_shape", &flags->input_shapes},
                 {"input_layer_value_files", &flags->input_files},
                 {"output_filepath", &flags->output_file}};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        const char *value = value_of(argument, texts[i].name);
        if (value != NULL)
            *texts[i].at = value;
        if (value != NULL)
            return true;
    }
    return false;
}

static bool take_number(const char *argument, Flags *flags)
{
    const struct {
        const char *name;
        double *at;
    } numbers[] = {{"num_runs", &flags->num_runs},       {"min_secs", &flags->min_secs},
                   {"max_secs", &flags->max_secs},       {"warmup_runs", &flags->warmup_runs},
                   {"num_threads", &flags->num_threads}, {"warmup_min_secs", &flags->warmup_min_secs}};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        const char *value = value_of(argument, numbers[i].name);
        char *end = NULL;
        if (value == NULL)
            continue;
        *numbers[i].at = strtod(value, &end);
        return end != value && *end == '\0';
    }
    return false;
}

static bool take_switch(const char *argument, Flags *flags)
{
    const struct {
        const char *name;
        bool *at;
    } switches[] = {{"use_xnnpack", &flags->use_xnnpack},
                    {"enable_op_profiling", &flags->profile},
                    {"report_peak_memory_footprint", &flags->report_peak}};
    for (size_t i = 0; i < sizeof switches / sizeof *switches; i++) {
        const char *value = value_of(argument, switches[i].name);
        if (value == NULL)
            continue;
        *switches[i].at = strcmp(value, "true") == 0 || strcmp(value, "1") == 0;
        return true;
    }
    return false;
}

static Flags read_flags(int count, char **arguments)
{
    Flags flags = {.num_runs = 50, .min_secs = 1, .max_secs = 150, .warmup_runs = 1, .warmup_min_secs = 0.5,
                   .num_threads = 1, .use_xnnpack = true};
    for (int i = 1; i < count; i++)
        if (!take_text(arguments[i], &flags) && !take_number(arguments[i], &flags) &&
            !take_switch(arguments[i], &flags))
            fail("Unconsumed cmdline flags: %s", arguments[i]);
    if (flags.graph == NULL)
        fail("Please specify the name of your TF Lite input file with --graph");
    return flags;
}

static void log_flags(const Flags *flags)
{
    info("Log parameter values verbosely: [0]");
    info("Min num runs: [%g]", flags->num_runs);
    info("Min runs duration (seconds): [%g]", flags->min_secs);
    info("Max runs duration (seconds): [%g]", flags->max_secs);
    info("Num threads: [%g]", flags->num_threads);
    info("Min warmup runs: [%g]", flags->warmup_runs);
    info("Min warmup runs duration (seconds): [%g]", flags->warmup_min_secs);
    info("Graph: [%s]", flags->graph);
    if (flags->profile)
        info("Enable op profiling: [1]");
    info("Use xnnpack: [%d]", flags->use_xnnpack);
}

/* --- the library and the model --- */

static void put_all(int fd, const char *data, size_t size)
{
    for (size_t done = 0; done < size;) {
        ssize_t wrote = write(fd, data + done, size - done);
        if (wrote < 0)
            fail("cannot write: %s", strerror(errno));
        done += (size_t)wrote;
    }
}

static const Runtime *open_library(void)
{
    char path[64];
    Reason reason;
    int fd = memfd_create("libLiteRt.so", 0);
    if (fd < 0)
        fail("no memory file for the library: %s", strerror(errno));
    put_all(fd, library_begin, (size_t)(library_end - library_begin));
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    const Runtime *runtime = runtime_open(path, &reason);
    if (runtime == NULL)
        fail("%s", reason.text);
    return runtime;
}

static unsigned char *read_file(const char *path, size_t *size)
{
    void *memory = NULL;
    FILE *file = fopen(path, "rb");
    if (file == NULL || fseek(file, 0, SEEK_END) != 0)
        fail("Failed to mmap model %s", path);
    long length = ftell(file);
    rewind(file);
    if (length < 0 || posix_memalign(&memory, 64, (size_t)length + 64) != 0 ||
        fread(memory, 1, (size_t)length, file) != (size_t)length)
        fail("cannot read %s", path);
    fclose(file);
    *size = (size_t)length;
    return memory;
}

static void fill_from(const Slot *slot, const char *path)
{
    size_t size;
    unsigned char *content = read_file(path, &size);
    if (size != slot->bytes)
        fail("The size of input file %s is %zu bytes, the tensor has %zu.", path, size, slot->bytes);
    memcpy(slot->data, content, size);
    free(content);
}

/* Count the parts of a text between separators. */
static size_t parts_of(const char *text, char separator)
{
    size_t count = 1;
    for (; *text != '\0'; text++)
        count += *text == separator;
    return count;
}

/* NAME:FILE,NAME:FILE in the order of the model's inputs, as the names' number must be that of the inputs. */
static void set_inputs(const Flags *flags, const Model *model)
{
    for (size_t i = 0; i < model->inputs.count; i++) {
        const Slot *slot = &model->inputs.slots[i];
        if (!fill_values(slot->type, slot->data, slot->bytes, i + 1))
            fail("Don't know how to populate tensor of type %d", slot->type);
    }
    if (flags->input_layer == NULL)
        return;
    if (parts_of(flags->input_layer, ',') != model->inputs.count || flags->input_shapes == NULL ||
        parts_of(flags->input_shapes, ':') != model->inputs.count)
        fail("Expected %zu input layers with their shapes, got %s", model->inputs.count, flags->input_layer);
    char *files = need_copy(flags->input_files != NULL ? flags->input_files : ""), *rest = files, *part;
    for (size_t place = 0; (part = strsep(&rest, ",")) != NULL && *part != '\0'; place++) {
        char *path = strchr(part, ':');
        const Slot *slot = slot_at(&model->inputs, place);
        if (path == NULL || slot == NULL)
            fail("Expected --input_layer_value_files as name:path, got %s", part);
        fill_from(slot, path + 1);
    }
    free(files);
}

static void write_outputs(const char *path, const Model *model)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd < 0)
        fail("cannot open %s: %s", path, strerror(errno));
    for (size_t place = 0; place < model->outputs.count; place++) {
        const Slot *slot = slot_at(&model->outputs, place);
        put_all(fd, slot->data, slot->bytes);
    }
    close(fd);
}

/* --- runs and their statistics --- */

static void add_time(Times *times, int64_t us)
{
    if (times->count == times->room) {
        times->room = 2 * times->room + 64;
        times->us = realloc(times->us, times->room * sizeof *times->us);
        if (times->us == NULL)
            fail("out of memory");
    }
    times->us[times->count++] = us;
}

static double average(const Times *times)
{
    double sum = 0;
    for (size_t i = 0; i < times->count; i++)
        sum += (double)times->us[i];
    return times->count > 0 ? sum / (double)times->count : 0;
}

static long long deviation(const Times *times)
{
    double mean = average(times), sum = 0;
    for (size_t i = 0; i < times->count; i++)
        sum += ((double)times->us[i] - mean) * ((double)times->us[i] - mean);
    return (long long)sqrt(sum / (double)times->count);
}

static int by_time(const void *left, const void *right)
{
    int64_t a = *(const int64_t *)left, b = *(const int64_t *)right;
    return (a > b) - (a < b);
}

static void log_statistics(const Times *times)
{
    size_t count = times->count;
    int64_t *sorted = need((count + 1) * sizeof *sorted);
    memcpy(sorted, times->us, count * sizeof *sorted);
    qsort(sorted, count, sizeof *sorted, by_time);
    long long first = times->us[0], last = times->us[count - 1], min = sorted[0], max = sorted[count - 1];
    char line[512], percentiles[128] = "";
    if (generation >= 3)
        snprintf(percentiles, sizeof percentiles, " p5=%lld median=%lld p95=%lld", (long long)sorted[count * 5 / 100],
                 (long long)sorted[count * 50 / 100], (long long)sorted[count * 95 / 100]);
    if (count == 1)
        snprintf(line, sizeof line, "count=1 curr=%lld", last);
    else if (min == max)
        snprintf(line, sizeof line, "count=%zu curr=%lld(all same)", count, last);
    else
        snprintf(line, sizeof line, "count=%zu first=%lld curr=%lld min=%lld max=%lld avg=%g std=%lld", count, first,
                 last, min, max, average(times), deviation(times));
    info("%s%s\n", line, percentiles);
    free(sorted);
}

static void add_profile(Profile *profile, const Model *model)
{
    Reason reason;
    size_t count = 0, nodes = 0;
    Event *events = model_profile(model, &count, &reason);
    if (events == NULL)
        fail("%s", reason.text);
    for (size_t i = 0; i < count; i++)
        if (events[i].type == EVENT_OPERATOR || events[i].type == EVENT_DELEGATE_NODE)
            events[nodes++] = events[i];
    if (profile->first == NULL) {
        profile->first = events;
        profile->nodes = nodes;
        profile->sum_us = need(nodes * sizeof *profile->sum_us);
    }
    for (size_t i = 0; i < nodes && i < profile->nodes; i++)
        profile->sum_us[i] += (double)events[i].elapsed_us;
    profile->runs++;
    if (profile->first != events)
        free(events);
}

static Times run(const Model *model, double runs, double min_s, double max_s, Profile *profile)
{
    Times times = {0};
    info("Running benchmark for at least %g iterations and at least %g seconds but terminate if exceeding %g seconds.",
         runs, min_s, max_s);
    double began = seconds_now(), now = began;
    while (((double)times.count < runs || now < began + min_s) && now <= began + max_s) {
        int64_t start = wall_ns();
        int status = 0;
        if (profile != NULL)
            add_profile(profile, model);
        else
            status = model_run(model);
        add_time(&times, (wall_ns() - start) / 1000);
        if (status != 0)
            fail("Failed to invoke: %s", status_name(status));
        now = seconds_now();
    }
    if (times.count == 0) {
        info("count=0\n");
        add_time(&times, 0);
        times.count = 0;
    } else {
        log_statistics(&times);
    }
    return times;
}

/* --- the table of nodes --- */

static double total_us(const Profile *profile)
{
    double sum = 0;
    for (size_t i = 0; i < profile->nodes; i++)
        sum += profile->sum_us[i];
    return sum;
}

static void print_node(const Profile *profile, size_t at, double *shown_us)
{
    const Event *node = &profile->first[at];
    double total = fmax(total_us(profile), 1e-9);
    *shown_us += profile->sum_us[at];
    double mean_ms = profile->sum_us[at] / (double)profile->runs / 1e3;
    printf("\t%40s\t%9.3f\t%9.3f\t%7.3f%%\t%7.3f%%\t%10.3f\t%9d\t", node->name, (double)node->elapsed_us / 1e3,
           mean_ms, 100 * profile->sum_us[at] / total, 100 * *shown_us / total, 0.0, 1);
    printf(node->type == EVENT_DELEGATE_NODE ? "Delegate/%s:%zu\n" : "[%s]:%zu\n", node->name, at);
}

static void print_table(const Profile *profile, const char *title, const size_t *order)
{
    double shown_us = 0;
    printf("============================== %s ==============================\n", title);
    printf("\t%40s\t%9s\t%9s\t%8s\t%8s\t%10s\t%s\t%s\n", "[node type]", "[first]", "[avg ms]", "[%]", "[cdf%]",
           "[mem KB]", "[times called]", "[Name]");
    for (size_t i = 0; i < profile->nodes; i++)
        print_node(profile, order[i], &shown_us);
    putchar('\n');
}

static void print_summary(const Profile *profile)
{
    double total = fmax(total_us(profile), 1e-9), shown_us = 0;
    printf("Number of nodes executed: %zu\n", profile->nodes);
    puts("============================== Summary by node type ==============================");
    printf("\t%40s\t%9s\t%10s\t%11s\t%11s\t%10s\t%s\n", "[Node type]", "[count]", "[avg ms]", "[avg %]", "[cdf %]",
           "[mem KB]", "[times called]");
    bool *seen = need(profile->nodes * sizeof *seen);
    for (size_t i = 0; i < profile->nodes; i++) {
        int count = 0;
        double sum_us = 0;
        for (size_t j = i; j < profile->nodes && !seen[i]; j++) {
            if (strcmp(profile->first[i].name, profile->first[j].name) != 0)
                continue;
            count++;
            sum_us += profile->sum_us[j];
            seen[j] = j > i;
        }
        if (count == 0)
            continue;
        shown_us += sum_us;
        printf("\t%40s\t%9d\t%10.3f\t%10.3f%%\t%10.3f%%\t%10.3f\t%9d\n", profile->first[i].name, count,
               sum_us / (double)profile->runs / 1e3, 100 * sum_us / total, 100 * shown_us / total, 0.0, count);
    }
    free(seen);
    putchar('\n');
}

static const double *sort_key;

static int by_cost(const void *left, const void *right)
{
    double a = sort_key[*(const size_t *)left], b = sort_key[*(const size_t *)right];
    return (a < b) - (a > b);
}

static void print_profile(const Profile *profile, double init_us)
{
    Event compiled = {.name = "ModifyGraphWithDelegate", .type = EVENT_OPERATOR, .elapsed_us = (uint64_t)init_us};
    Profile beginning = {&compiled, &init_us, 1, 1};
    size_t *order = need((profile->nodes + 1) * sizeof *order), zero = 0;
    puts("Profiling Info for Benchmark Initialization:");
    print_table(&beginning, "Run Order", &zero);
    print_table(&beginning, "Top by Computation Time", &zero);
    print_summary(&beginning);
    puts("Operator-wise Profiling Info for Regular Benchmark Runs:");
    for (size_t i = 0; i < profile->nodes; i++)
        order[i] = i;
    print_table(profile, "Run Order", order);
    sort_key = profile->sum_us;
    qsort(order, profile->nodes, sizeof *order, by_cost);
    print_table(profile, "Top by Computation Time", order);
    print_summary(profile);
    free(order);
}

/* --- the whole --- */

static void log_end(const Flags *flags, double init_us, const Times *warmup, const Times *regular, double before_mb)
{
    double now_mb = (double)peak_rss_bytes() / 1048576;
    info("Inference timings in us: Init: %.0f, First inference: %lld, Warmup (avg): %g, Inference (avg): %g", init_us,
         (long long)warmup->us[0], average(warmup), average(regular));
    info("Note: as the benchmark tool itself affects memory footprint, the following is only APPROXIMATE to the actual "
         "memory footprint of the model at runtime. Take the information at your discretion.");
    info("%s init=%g overall=%g",
         generation == 1 ? "Peak memory footprint (MB):" : "Memory footprint delta from the start of the tool (MB):",
         now_mb - before_mb, now_mb - before_mb);
    if (flags->report_peak && generation >= 2)
        info("Overall peak memory footprint (MB) via periodic monitoring: %g", now_mb);
}

static double load(const Runtime *runtime, const Flags *flags, Model *model)
{
    Reason reason;
    size_t size;
    unsigned char *content = read_file(flags->graph, &size);
    double megabytes = (double)size / 1e6;
    int64_t began = wall_ns();
    info("Loaded model %s", flags->graph);
    if (!model_load(runtime, content, size, (ModelOptions){(int)flags->num_threads, flags->profile}, model, &reason))
        fail("Failed to construct interpreter: %s", reason.text);
    double init_us = (double)((wall_ns() - began) / 1000);
    info("The input model file size (MB): %g", megabytes);
    info("Initialized session in %gms.", init_us / 1e3);
    return init_us;
}

int main(int count, char **arguments)
{
    const char *wanted = getenv("BENCHMARK_MODEL_GENERATION");
    generation = wanted != NULL ? atoi(wanted) : GENERATION;
    setvbuf(stdout, NULL, _IOLBF, 0);
    info("STARTING!");
    Flags flags = read_flags(count, arguments);
    log_flags(&flags);
    const Runtime *runtime = open_library();
    double before_mb = (double)peak_rss_bytes() / 1048576;
    Model model;
    Profile profile = {0};
    double init_us = load(runtime, &flags, &model);
    set_inputs(&flags, &model);
    Times warmup = run(&model, flags.warmup_runs, flags.warmup_min_secs, flags.max_secs, NULL);
    Times regular = run(&model, flags.num_runs, flags.min_secs, flags.max_secs, flags.profile ? &profile : NULL);
    if (flags.output_file != NULL)
        write_outputs(flags.output_file, &model);
    log_end(&flags, init_us, &warmup, &regular, before_mb);
    if (flags.profile)
        print_profile(&profile, init_us);
    return 0;
}
