/* NVML with two GPUs, for tests of what is read from it and for tools that do nothing without a
 * driver: the functions and structures that `os::gpu::nvml`, nvitop and gpustat ask for, as nvml.h
 * (CUDA 13) declares them.
 *
 * DOUBLE_LOST=1: the second GPU has fallen off the bus. DOUBLE_PROCESS=PID: that process holds 5 GiB
 * of the first. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int nvmlReturn_t; /* 0 is success, 2 invalid argument, 3 not supported */
typedef struct device *nvmlDevice_t;
typedef struct { unsigned long long total, free, used; } nvmlMemory_t;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } nvmlMemory_v2_t;
typedef struct { unsigned gpu, memory; } nvmlUtilization_t;
typedef struct {
    char busIdLegacy[16];
    unsigned domain, bus, device, pciDeviceId, pciSubSystemId;
    char busId[32];
} nvmlPciInfo_t;

#define COUNT 2
#define TOTAL (80ULL << 30)
static char numbers[COUNT];

static unsigned number(nvmlDevice_t device) { return (unsigned)((char *)device - numbers); }

static nvmlReturn_t text(char *to, unsigned length, const char *from) {
    snprintf(to, length, "%s", from);
    return 0;
}

nvmlReturn_t nvmlInit_v2(void) { return 0; }
nvmlReturn_t nvmlInitWithFlags(unsigned flags) { (void)flags; return 0; }
nvmlReturn_t nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(nvmlReturn_t result) { return result ? "Not Supported" : "Success"; }
nvmlReturn_t nvmlSystemGetDriverVersion(char *to, unsigned n) { return text(to, n, "580.95.05"); }
nvmlReturn_t nvmlSystemGetNVMLVersion(char *to, unsigned n) { return text(to, n, "13.580.95.05"); }
nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *version) { return *version = 13000, 0; }
nvmlReturn_t nvmlSystemGetCudaDriverVersion(int *version) { return *version = 13000, 0; }
nvmlReturn_t nvmlDeviceGetCount_v2(unsigned *count) { return *count = COUNT, 0; }

nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned index, nvmlDevice_t *device) {
    if (index >= COUNT) return 2;
    if (index == COUNT - 1 && getenv("DOUBLE_LOST")) return 15; /* NVML_ERROR_GPU_IS_LOST */
    *device = (nvmlDevice_t)(numbers + index);
    return 0;
}

nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *device) {
    return nvmlDeviceGetHandleByIndex_v2((unsigned)(uuid[strlen(uuid) - 1] - '0'), device);
}

nvmlReturn_t nvmlDeviceGetIndex(nvmlDevice_t d, unsigned *index) { return *index = number(d), 0; }
nvmlReturn_t nvmlDeviceGetMinorNumber(nvmlDevice_t d, unsigned *m) { return *m = number(d), 0; }
nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t d, char *to, unsigned n) {
    (void)d;
    return text(to, n, "NVIDIA H100 80GB HBM3");
}

nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t d, char *to, unsigned n) {
    char uuid[] = "GPU-00000000-0000-0000-0000-000000000000";
    uuid[sizeof uuid - 2] = (char)('0' + number(d));
    return text(to, n, uuid);
}

nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t d, nvmlPciInfo_t *info) {
    memset(info, 0, sizeof *info);
    info->bus = 1 + number(d);
    info->pciDeviceId = 0x233010de;
    snprintf(info->busId, sizeof info->busId, "00000000:%02X:00.0", info->bus);
    snprintf(info->busIdLegacy, sizeof info->busIdLegacy, "0000:%02X:00.0", info->bus);
    return 0;
}

nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t d, nvmlMemory_t *m) {
    (void)d;
    m->total = m->free = TOTAL;
    m->used = 0;
    return 0;
}

nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t d, nvmlMemory_v2_t *m) {
    (void)d;
    m->total = m->free = TOTAL;
    m->reserved = m->used = 0;
    return 0;
}

nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t d, nvmlUtilization_t *u) {
    (void)d;
    u->gpu = u->memory = 0;
    return 0;
}

nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t d, int sensor, unsigned *degrees) {
    (void)d, (void)sensor;
    return *degrees = 30, 0;
}

nvmlReturn_t nvmlDeviceGetPowerUsage(nvmlDevice_t d, unsigned *mw) { return (void)d, *mw = 70000, 0; }
nvmlReturn_t nvmlDeviceGetEnforcedPowerLimit(nvmlDevice_t d, unsigned *mw) {
    return (void)d, *mw = 700000, 0;
}

typedef struct {
    unsigned pid;
    unsigned long long used;
    unsigned gpu_instance, compute_instance;
} nvmlProcessInfo_t;

static nvmlReturn_t nobody(nvmlDevice_t d, unsigned *count, void *processes) {
    (void)d, (void)processes;
    return *count = 0, 0;
}

static nvmlReturn_t computing(nvmlDevice_t d, unsigned *count, nvmlProcessInfo_t *processes) {
    const char *pid = getenv("DOUBLE_PROCESS");
    if (!pid || number(d)) return *count = 0, 0;
    if (*count < 1) return *count = 1, 7; /* NVML_ERROR_INSUFFICIENT_SIZE */
    processes[0] = (nvmlProcessInfo_t){(unsigned)atoi(pid), 5ULL << 30, ~0U, ~0U};
    return *count = 1, 0;
}

/* On one board. */
nvmlReturn_t nvmlDeviceGetTopologyCommonAncestor(nvmlDevice_t a, nvmlDevice_t b, unsigned *level) {
    return (void)a, (void)b, *level = 10, 0;
}

nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t d, unsigned *n, void *p) {
    return computing(d, n, p);
}
nvmlReturn_t nvmlDeviceGetGraphicsRunningProcesses_v3(nvmlDevice_t d, unsigned *n, void *p) {
    return nobody(d, n, p);
}
nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v2(nvmlDevice_t d, unsigned *n, void *p) {
    return nobody(d, n, p);
}
nvmlReturn_t nvmlDeviceGetGraphicsRunningProcesses_v2(nvmlDevice_t d, unsigned *n, void *p) {
    return nobody(d, n, p);
}

/* What real GPUs may answer too, and both tools show as unknown. */
#define NOT_SUPPORTED(name) \
    nvmlReturn_t nvmlDeviceGet##name(nvmlDevice_t d) { return (void)d, 3; }
NOT_SUPPORTED(ClockInfo)
NOT_SUPPORTED(ComputeMode)
NOT_SUPPORTED(CudaComputeCapability)
NOT_SUPPORTED(DecoderUtilization)
NOT_SUPPORTED(DisplayActive)
NOT_SUPPORTED(DisplayMode)
NOT_SUPPORTED(DriverModel)
NOT_SUPPORTED(DriverModel_v2)
NOT_SUPPORTED(EncoderUtilization)
NOT_SUPPORTED(FanSpeed)
NOT_SUPPORTED(MaxClockInfo)
NOT_SUPPORTED(PcieThroughput)
NOT_SUPPORTED(PerformanceState)
NOT_SUPPORTED(PersistenceMode)
NOT_SUPPORTED(PowerManagementLimit)
NOT_SUPPORTED(TotalEccErrors)
