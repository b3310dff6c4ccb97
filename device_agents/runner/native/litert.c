#define _GNU_SOURCE
#include "litert.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include "litert_api.h"
#include "text.h"

typedef struct {
    const char *name;
    size_t at;
} Symbol;

#define SYMBOL(name, field) {"LiteRt" name, offsetof(Runtime, field)}
static const Symbol SYMBOLS[] = {
    SYMBOL("CreateEnvironment", create_environment),
    SYMBOL("CreateModelFromBuffer", create_model),
    SYMBOL("CreateModelFromBuffer", create_model_alone),
    SYMBOL("DestroyModel", destroy_model),
    SYMBOL("CreateOptions", create_options),
    SYMBOL("DestroyOptions", destroy_options),
    SYMBOL("SetOptionsHardwareAccelerators", set_accelerators),
    SYMBOL("CreateOpaqueOptions", create_opaque),
    SYMBOL("AddOpaqueOptions", add_opaque),
    SYMBOL("CreateCompiledModel", create_compiled),
    SYMBOL("DestroyCompiledModel", destroy_compiled),
    SYMBOL("RunCompiledModel", run),
    SYMBOL("GetMainModelSubgraphIndex", main_subgraph),
    SYMBOL("GetModelSubgraph", subgraph),
    SYMBOL("GetNumModelSignatures", signature_count),
    SYMBOL("GetModelSignature", signature),
    SYMBOL("GetSignatureSubgraph", signature_subgraph),
    SYMBOL("GetNumSignatureInputs", signature_input_count),
    SYMBOL("GetNumSignatureOutputs", signature_output_count),
    SYMBOL("GetSignatureInputTensorByIndex", signature_input),
    SYMBOL("GetSignatureOutputTensorByIndex", signature_output),
    SYMBOL("GetSubgraphInput", subgraph_input),
    SYMBOL("GetSubgraphOutput", subgraph_output),
    SYMBOL("GetTensorIndex", tensor_index),
    SYMBOL("GetRankedTensorType", tensor_type),
    SYMBOL("CreateTensorBufferFromHostMemory", buffer_of_memory),
    SYMBOL("DestroyTensorBuffer", destroy_buffer),
    SYMBOL("CompiledModelGetProfiler", get_profiler),
    SYMBOL("StartProfiler", start_profiler),
    SYMBOL("StopProfiler", stop_profiler),
    SYMBOL("ResetProfiler", reset_profiler),
    SYMBOL("GetNumProfilerEvents", event_count),
    SYMBOL("GetProfilerEvents", events),
};

/* The library has no function that tells its version; what it exports tells one range of versions from the other. */
static const char *version_by_exports(void *library)
{
    if (dlsym(library, "LiteRtCompiledModelIsNonCpuFullyAccelerated") != NULL)
        return "2.3 or later";
    if (dlsym(library, "kLiteRtRuntimeBuiltin") != NULL)
        return "2.2";
    return dlsym(library, "LiteRtCreateModelFromFd") != NULL ? "2.1.6 or later" : "2.1.3 to 2.1.5";
}

const Runtime *runtime_open(const char *path, Reason *reason)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        because(reason, "cannot load the LiteRT library: %.400s", dlerror());
        return NULL;
    }
    /* Until 2.1.2 the library had functions for its options, which are structures there: TOML would crash it. */
    if (dlsym(library, "LiteRtCreateCpuOptions") != NULL) {
        because(reason, "%.200s is older than what is known to work: use libLiteRt.so of LiteRT 2.1.3 or later", path);
        return NULL;
    }
    Runtime *runtime = need(sizeof *runtime);
    for (size_t i = 0; i < sizeof SYMBOLS / sizeof *SYMBOLS; i++) {
        void *found = dlsym(library, SYMBOLS[i].name);
        if (found == NULL) {
            because(reason, "%.200s has no %s: use libLiteRt.so of LiteRT 2.1.3 or later", path, SYMBOLS[i].name);
            return NULL;
        }
        memcpy((char *)runtime + SYMBOLS[i].at, &found, sizeof found);
    }
    /* 2.1.6 put the environment before the arguments of all CreateModel functions, and brought this one. */
    runtime->model_wants_environment = dlsym(library, "LiteRtCreateModelFromFd") != NULL;
    runtime->version = version_by_exports(library);
    int status = runtime->create_environment(0, NULL, &runtime->environment);
    if (status != STATUS_OK) {
        because(reason, "LiteRT has no environment for us: %s", status_name(status));
        return NULL;
    }
    return runtime;
}

const char *runtime_version(const Runtime *runtime)
{
    return runtime->version;
}

const char *status_name(int status)
{
    static const struct {
        int status;
        const char *name;
    } names[] = {
        {1, "invalid argument"}, {2, "out of memory"},          {3, "runtime failure"}, {4, "missing input"},
        {5, "unsupported"},      {6, "not found"},              {7, "timeout"},         {8, "wrong version"},
        {500, "file error"},     {501, "no valid .tflite file"}, {504, "compilation failed"},
    };
    static char other[32];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (names[i].status == status)
            return names[i].name;
    snprintf(other, sizeof other, "status %d", status);
    return other;
}

bool said_ok(int status, const char *what, Reason *reason)
{
    return status == STATUS_OK || because(reason, "%s: %s", what, status_name(status));
}
