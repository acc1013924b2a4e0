/*
 * Chronos: time-limited partitions of the GPUs of one machine.
 *
 * Two interfaces. The first one, from the first version on, has eleven functions and one struct
 * whose layout does not change. The second one (chronos_v1_*) carries its version, and its structs
 * carry their size, so that fields can be added.
 *
 * Thread safety: every function may be called from any thread. A handle may be shared, and a call
 * that waits in the queue holds up no other; destroy it when no call on it is under way.
 *
 * A partition that was created through this library ends when the process that created it ends, at
 * the latest at its deadline.
 *
 * License: Apache-2.0
 */
#ifndef CHRONOS_C_H
#define CHRONOS_C_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef void *ChronosPartitionerHandle;
typedef void *ChronosPartitionHandle;

/* What is known of a partition. The layout is the ABI: 344 bytes on all supported platforms. */
typedef struct {
    char partition_id[64];
    int device_index;           /* the first GPU, where it has several */
    float memory_fraction;      /* of each GPU, above 0 and at most 1 */
    int duration_seconds;
    int time_remaining_seconds; /* rounded up */
    char username[256];
    int process_id;             /* the process that asked for it */
    int active;                 /* 0 once it is ending or suspended */
} ChronosPartitionInfo;

typedef enum {
    CHRONOS_MODE_CONCURRENT = 0,  /* partitions of one GPU run side by side */
    CHRONOS_MODE_TIME_SLICED = 1, /* they take turns */
    CHRONOS_MODE_STUB = 2         /* there is no GPU, or a fake one */
} ChronosExecutionMode;

/* A way to the partitions of this machine; NULL on failure. */
ChronosPartitionerHandle chronos_partitioner_create(void);

/* Gives the handle back. Its partitions live on until the process ends or releases them. */
void chronos_partitioner_destroy(ChronosPartitionerHandle handle);

/* 0, or -1 with the reason in chronos_get_last_error(). `user` may be NULL; only root may name
 * another user. `partition_id_out` receives the id and a zero, at most `id_size` bytes. */
int chronos_create_partition(ChronosPartitionerHandle handle, int device_index,
                             float memory_fraction, int duration_seconds, const char *user,
                             char *partition_id_out, size_t id_size);

/* 0, or -1. The owner and root may release. */
int chronos_release_partition(ChronosPartitionerHandle handle, const char *partition_id);

/* 0, or -1. `*count` is the room in `infos` on entry and the number of live partitions of the
 * machine on return, also where that is more; with `infos` NULL nothing but the number is told. */
int chronos_list_partitions(ChronosPartitionerHandle handle, ChronosPartitionInfo *infos,
                            size_t *count);

/* Memory that is not leased, 0 to 100; -1 on failure. */
float chronos_get_available_percentage(ChronosPartitionerHandle handle, int device_index);

/* Prints the GPUs to standard output; nothing else in this library prints. */
void chronos_show_device_stats(ChronosPartitionerHandle handle);

/* The last failure of this thread, or an empty string. Valid until the next call of this thread. */
const char *chronos_get_last_error(void);

ChronosExecutionMode chronos_get_execution_mode(ChronosPartitionerHandle handle);

/* The backend that finds the GPUs; a static string. */
const char *chronos_get_backend_name(ChronosPartitionerHandle handle);

/* 1 when a GPU of this machine can run partitions side by side, else 0. */
int chronos_check_concurrent_support(void);

/* ---- second interface ------------------------------------------------------------------- */

#define CHRONOS_ABI 1

/* What is asked for. Zero or NULL is the default of each field. Set `struct_size` first. */
typedef struct {
    uint32_t struct_size;  /* sizeof(chronos_v1_request) */
    uint32_t count;        /* GPUs to choose, where `gpus` is NULL; default 1 */
    const char *gpus;      /* numbers or ids, separated by commas: all or none */
    uint64_t memory_bytes; /* on each GPU; 0 is by `memory_ppm` */
    uint32_t memory_ppm;   /* part of each GPU, in millionths; default the whole */
    uint32_t compute_ppm;  /* share of the compute, in millionths; default no share */
    uint64_t duration_ms;  /* default one hour */
    uint64_t wait_ms;      /* in the queue; default not at all */
    uint64_t grace_ms;     /* from SIGTERM to SIGKILL; default 10 s */
    int32_t priority;      /* -1 low, 0 normal, 1 high */
    int32_t on_expire;     /* 0 term, 1 suspend, 2 notify */
    const char *name;      /* a word of yours */
    int32_t detached;      /* 1: it outlives this process, to its deadline */
    int32_t reserved;      /* 0 */
    /* Fields are only ever appended. A program that was compiled with fewer says so by
     * `struct_size`; what it lacks has its default. From here on: 96 bytes where it was 80. */
    uint64_t warn_ms;      /* before the deadline; default that of the configuration */
    int32_t warn_signal;   /* to every process then: 0 none, 1 USR1, 2 USR2, 3 HUP, 4 INT */
    int32_t reserved_2;    /* 0 */
} chronos_v1_request;

/* The ABI of this library; compare it with CHRONOS_ABI before anything else. */
uint32_t chronos_v1_abi(void);

/* All of these return 0 or a negative code: -1 failed, and the exit codes of the tool negated
 * (-2 bad input, -65 no such partition, -69 tier unavailable, -73 no capacity, -74 machine,
 * -75 waited in vain, -77 not permitted, -78 configuration). Strings that are returned through
 * `out` belong to the caller and go back with chronos_v1_free(). */
int32_t chronos_v1_create(ChronosPartitionerHandle handle, const chronos_v1_request *request,
                          char **out_lease_json);
int32_t chronos_v1_extend(ChronosPartitionerHandle handle, const char *partition_id, uint64_t by_ms);
int32_t chronos_v1_suspend(ChronosPartitionerHandle handle, const char *partition_id);
int32_t chronos_v1_resume(ChronosPartitionerHandle handle, const char *partition_id,
                          uint64_t for_ms, uint64_t wait_ms);
int32_t chronos_v1_attach(ChronosPartitionerHandle handle, const char *partition_id, int32_t pid);
int32_t chronos_v1_remaining_ms(ChronosPartitionerHandle handle, const char *partition_id,
                                int64_t *out);
/* A descriptor that becomes readable `before_ms` before the deadline as it stands now, for poll(),
 * select() or an event loop; a negative code on failure, -69 on systems other than Linux. It is
 * yours to close. After an extension or a resume, ask for another one. */
int32_t chronos_v1_warning_fd(ChronosPartitionerHandle handle, const char *partition_id,
                              uint64_t before_ms);
/* One JSON object of kind LeaseList; `chronos schema` prints its schema. */
int32_t chronos_v1_list_json(ChronosPartitionerHandle handle, char **out);
/* The environment of a process in the partition, as a JSON object of strings. */
int32_t chronos_v1_env_json(ChronosPartitionerHandle handle, const char *partition_id, char **out);
/* What would become of a request, as one JSON object of kind Suggestion. */
int32_t chronos_v1_suggest_json(ChronosPartitionerHandle handle, const chronos_v1_request *request,
                                char **out);
void chronos_v1_free(char *text);

#ifdef __cplusplus
}
#endif
#endif
