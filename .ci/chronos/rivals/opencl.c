/* OpenCL with one platform of one 80 GiB GPU, for chronos-gpu, which does nothing without: the six
 * functions that its library links, as CL/cl.h (OpenCL 1.0) declares them. */
#include <stdint.h>
#include <string.h>

static char platform, gpu, context;

int clGetPlatformIDs(uint32_t room, void **platforms, uint32_t *count) {
    if (platforms && room) platforms[0] = &platform;
    if (count) *count = 1;
    return 0;
}

int clGetDeviceIDs(void *of, uint64_t type, uint32_t room, void **devices, uint32_t *count) {
    (void)of, (void)type;
    if (devices && room) devices[0] = &gpu;
    if (count) *count = 1;
    return 0;
}

static int answer(const void *from, size_t length, size_t room, void *to, size_t *size) {
    if (to && room < length) return -30; /* CL_INVALID_VALUE */
    if (to) memcpy(to, from, length);
    if (size) *size = length;
    return 0;
}

int clGetDeviceInfo(void *device, uint32_t what, size_t room, void *to, size_t *size) {
    const uint64_t type = 4, memory = 80ULL << 30; /* CL_DEVICE_TYPE_GPU */
    const uint32_t vendor = 0x10de;
    (void)device;
    switch (what) {
    case 0x1000: return answer(&type, sizeof type, room, to, size);
    case 0x1001: return answer(&vendor, sizeof vendor, room, to, size);
    case 0x101f: /* CL_DEVICE_GLOBAL_MEM_SIZE */
    case 0x1010: return answer(&memory, sizeof memory, room, to, size);
    case 0x102b: return answer("NVIDIA H100 80GB HBM3", 22, room, to, size);
    case 0x102c: return answer("NVIDIA Corporation", 19, room, to, size);
    case 0x102d:
    case 0x102f: return answer("OpenCL 3.0 CUDA", 16, room, to, size);
    default: return -30;
    }
}

void *clCreateContext(const intptr_t *properties, uint32_t count, void *const *devices,
                      void (*notify)(const char *, const void *, size_t, void *), void *data,
                      int *error) {
    (void)properties, (void)count, (void)devices, (void)notify, (void)data;
    if (error) *error = 0;
    return &context;
}

int clReleaseContext(void *released) { return (void)released, 0; }
int clReleaseMemObject(void *released) { return (void)released, 0; }
