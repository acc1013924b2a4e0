/* The four calls of the driver's checkpoint interface, as cuda.h (CUDA 12.8) declares them. Each is
 * written to the file DOUBLE_CALLS as "NAME PID"; DOUBLE_REFUSES names one that fails. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int called(const char *name, int pid) {
    const char *refuses = getenv("DOUBLE_REFUSES");
    FILE *calls = fopen(getenv("DOUBLE_CALLS"), "a");
    if (calls) {
        fprintf(calls, "%s %d\n", name, pid);
        fclose(calls);
    }
    return refuses && !strcmp(refuses, name) ? 801 : 0; /* CUDA_ERROR_NOT_SUPPORTED */
}

int cuCheckpointProcessLock(int pid, void *arguments) { return (void)arguments, called("lock", pid); }
int cuCheckpointProcessCheckpoint(int pid, void *arguments) {
    return (void)arguments, called("checkpoint", pid);
}
int cuCheckpointProcessRestore(int pid, void *arguments) {
    return (void)arguments, called("restore", pid);
}
int cuCheckpointProcessUnlock(int pid, void *arguments) {
    return (void)arguments, called("unlock", pid);
}
