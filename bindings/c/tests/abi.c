/* The ABI, to the byte, and what programs in C have relied on since the first version. */
#include <chronos/chronos_c.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define FIELD(type, field, at, size)                                                          \
    _Static_assert(offsetof(type, field) == (at), #type "." #field " has moved");             \
    _Static_assert(sizeof(((type *)0)->field) == (size), #type "." #field " has another size")

_Static_assert(sizeof(ChronosPartitionInfo) == 344, "ChronosPartitionInfo has another size");
FIELD(ChronosPartitionInfo, partition_id, 0, 64);
FIELD(ChronosPartitionInfo, device_index, 64, 4);
FIELD(ChronosPartitionInfo, memory_fraction, 68, 4);
FIELD(ChronosPartitionInfo, duration_seconds, 72, 4);
FIELD(ChronosPartitionInfo, time_remaining_seconds, 76, 4);
FIELD(ChronosPartitionInfo, username, 80, 256);
FIELD(ChronosPartitionInfo, process_id, 336, 4);
FIELD(ChronosPartitionInfo, active, 340, 4);
_Static_assert(CHRONOS_MODE_CONCURRENT == 0 && CHRONOS_MODE_TIME_SLICED == 1 &&
                   CHRONOS_MODE_STUB == 2,
               "a mode has another number");
#if UINTPTR_MAX == UINT64_MAX
_Static_assert(sizeof(chronos_v1_request) == 96, "chronos_v1_request has another size");
FIELD(chronos_v1_request, gpus, 8, 8);
FIELD(chronos_v1_request, memory_bytes, 16, 8);
FIELD(chronos_v1_request, duration_ms, 32, 8);
FIELD(chronos_v1_request, priority, 56, 4);
FIELD(chronos_v1_request, name, 64, 8);
FIELD(chronos_v1_request, detached, 72, 4);
FIELD(chronos_v1_request, reserved, 76, 4);
FIELD(chronos_v1_request, warn_ms, 80, 8);
FIELD(chronos_v1_request, warn_signal, 88, 4);
FIELD(chronos_v1_request, reserved_2, 92, 4);
#endif

/* The functions, by their exact types: a change does not compile. */
static ChronosPartitionerHandle (*const f1)(void) = chronos_partitioner_create;
static void (*const f2)(ChronosPartitionerHandle) = chronos_partitioner_destroy;
static int (*const f3)(ChronosPartitionerHandle, int, float, int, const char *, char *,
                       size_t) = chronos_create_partition;
static int (*const f4)(ChronosPartitionerHandle, const char *) = chronos_release_partition;
static int (*const f5)(ChronosPartitionerHandle, ChronosPartitionInfo *,
                       size_t *) = chronos_list_partitions;
static float (*const f6)(ChronosPartitionerHandle, int) = chronos_get_available_percentage;
static void (*const f7)(ChronosPartitionerHandle) = chronos_show_device_stats;
static const char *(*const f8)(void) = chronos_get_last_error;
static ChronosExecutionMode (*const f9)(ChronosPartitionerHandle) = chronos_get_execution_mode;
static const char *(*const f10)(ChronosPartitionerHandle) = chronos_get_backend_name;
static int (*const f11)(void) = chronos_check_concurrent_support;

#define CHECK(condition)                                                                      \
    do {                                                                                      \
        if (!(condition)) {                                                                   \
            fprintf(stderr, "%s:%d: %s (last error: %s)\n", __FILE__, __LINE__, #condition,   \
                    chronos_get_last_error());                                                \
            exit(1);                                                                          \
        }                                                                                     \
    } while (0)

static size_t count(ChronosPartitionerHandle h) {
    size_t n = 0;
    CHECK(chronos_list_partitions(h, NULL, &n) == 0);
    return n;
}

static void create_is_listed_and_released(ChronosPartitionerHandle h) {
    char id[64];
    float before = chronos_get_available_percentage(h, 1);
    CHECK(before == 100.0f);
    CHECK(chronos_create_partition(h, 1, 0.5f, 3600, NULL, id, sizeof id) == 0);
    CHECK(strncmp(id, "partition_", 10) == 0);
    ChronosPartitionInfo info[4];
    size_t n = 4;
    CHECK(chronos_list_partitions(h, info, &n) == 0 && n == 1);
    CHECK(strcmp(info[0].partition_id, id) == 0);
    CHECK(info[0].device_index == 1 && info[0].memory_fraction == 0.5f);
    CHECK(info[0].duration_seconds == 3600 && info[0].active == 1);
    CHECK(info[0].time_remaining_seconds > 3500 && info[0].time_remaining_seconds <= 3600);
    CHECK(info[0].process_id == (int)getpid());
    CHECK(strlen(info[0].username) > 0);
    CHECK(fabsf(chronos_get_available_percentage(h, 1) - 50.0f) < 0.01f);
    CHECK(chronos_get_available_percentage(h, 0) == 100.0f);
    CHECK(chronos_release_partition(h, id) == 0);
    CHECK(count(h) == 0 && chronos_get_available_percentage(h, 1) == before);
    CHECK(chronos_release_partition(h, id) == -1 && strlen(chronos_get_last_error()) > 0);
    CHECK(chronos_release_partition(h, "no such partition") == -1);
}

static void several_are_counted_and_released_in_reverse(ChronosPartitionerHandle h) {
    char id[10][64];
    for (int i = 0; i < 10; i++)
        CHECK(chronos_create_partition(h, 0, 0.1f, 600, NULL, id[i], 64) == 0);
    CHECK(chronos_create_partition(h, 0, 0.1f, 600, NULL, id[0], 1) == -1);
    CHECK(strstr(chronos_get_last_error(), "no capacity") != NULL);
    ChronosPartitionInfo info[2];
    size_t n = 2;
    CHECK(chronos_list_partitions(h, info, &n) == 0 && n == 10);
    for (int i = 9; i >= 0; i--)
        CHECK(strcmp(id[i], "") == 0 || chronos_release_partition(h, id[i]) == 0);
    CHECK(count(h) == 0);
}

static void bad_input_is_refused(ChronosPartitionerHandle h) {
    char id[64];
    const float fractions[] = {0.0f, -0.1f, 1.5f, NAN, INFINITY};
    for (size_t i = 0; i < sizeof fractions / sizeof *fractions; i++)
        CHECK(chronos_create_partition(h, 0, fractions[i], 60, NULL, id, sizeof id) == -1);
    const int seconds[] = {0, -1, -2147483647};
    for (size_t i = 0; i < sizeof seconds / sizeof *seconds; i++)
        CHECK(chronos_create_partition(h, 0, 0.5f, seconds[i], NULL, id, sizeof id) == -1);
    CHECK(chronos_create_partition(h, -1, 0.5f, 60, NULL, id, sizeof id) == -1);
    CHECK(chronos_create_partition(h, 999, 0.5f, 60, NULL, id, sizeof id) == -1);
    CHECK(chronos_create_partition(h, 0, 0.5f, 60, "no_such_user_x", id, sizeof id) == -1);
    CHECK(chronos_create_partition(NULL, 0, 0.5f, 60, NULL, id, sizeof id) == -1);
    CHECK(chronos_create_partition(h, 0, 0.5f, 60, NULL, NULL, 0) == -1);
    CHECK(chronos_release_partition(h, NULL) == -1);
    CHECK(chronos_list_partitions(h, NULL, NULL) == -1);
    CHECK(chronos_get_available_percentage(h, 999) == -1.0f);
    chronos_partitioner_destroy(NULL);
    CHECK(count(h) == 0);
}

/* A partition ends by its duration, within a second (the deadline itself is exact). */
static void it_expires(ChronosPartitionerHandle h) {
    char id[64];
    struct timespec asked, ended;
    clock_gettime(CLOCK_BOOTTIME, &asked);
    CHECK(chronos_create_partition(h, 0, 0.5f, 1, NULL, id, sizeof id) == 0);
    while (count(h) == 1)
        ;
    clock_gettime(CLOCK_BOOTTIME, &ended);
    double held = (double)(ended.tv_sec - asked.tv_sec) + (double)(ended.tv_nsec - asked.tv_nsec) / 1e9;
    printf("c: a lease of 1 s was over %.3f s after it was asked for\n", held);
    CHECK(held >= 1.0 && held < 2.0);
    CHECK(chronos_get_available_percentage(h, 0) == 100.0f);
}

/* Three processes at once, each with a handle that it inherited. */
static void processes_do_not_collide(ChronosPartitionerHandle h) {
    for (int i = 0; i < 3; i++) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            char id[64];
            _exit(chronos_create_partition(h, 0, 0.4f, 600, NULL, id, sizeof id) == 0 ? 0 : 1);
        }
    }
    int granted = 0;
    for (int i = 0; i < 3; i++) {
        int status;
        CHECK(wait(&status) > 0 && WIFEXITED(status));
        granted += WEXITSTATUS(status) == 0;
    }
    printf("c: %d of 3 processes got 40%%\n", granted);
    CHECK(granted == 2);
}

static void the_second_interface(ChronosPartitionerHandle h) {
    CHECK(chronos_v1_abi() == CHRONOS_ABI);
    chronos_v1_request request = {.struct_size = sizeof request, .gpus = "1", .memory_ppm = 250000,
                                  .duration_ms = 60000, .detached = 1, .name = "c"};
    char *json = NULL;
    CHECK(chronos_v1_create(h, &request, &json) == 0);
    CHECK(strstr(json, "\"kind\":\"Lease\"") != NULL);
    char id[64];
    CHECK(sscanf(strstr(json, "\"id\":\"") + 6, "%63[A-Za-z0-9_]", id) == 1);
    chronos_v1_free(json);
    int64_t left = 0;
    CHECK(chronos_v1_remaining_ms(h, id, &left) == 0 && left > 50000 && left <= 60000);
    CHECK(chronos_v1_extend(h, id, 60000) == 0);
    CHECK(chronos_v1_remaining_ms(h, id, &left) == 0 && left > 110000);
    struct pollfd soon = {.fd = chronos_v1_warning_fd(h, id, 119000), .events = POLLIN};
    struct pollfd late = {.fd = chronos_v1_warning_fd(h, id, 0), .events = POLLIN};
    CHECK(soon.fd >= 0 && late.fd >= 0);
    CHECK(poll(&soon, 1, 10000) == 1 && (soon.revents & POLLIN) != 0);
    CHECK(poll(&late, 1, 0) == 0);
    CHECK(close(soon.fd) == 0 && close(late.fd) == 0);
    CHECK(chronos_v1_warning_fd(h, "partition_none", 0) == -65);
    CHECK(chronos_v1_env_json(h, id, &json) == 0);
    CHECK(strstr(json, "\"CUDA_VISIBLE_DEVICES\":\"1\"") != NULL);
    chronos_v1_free(json);
    request.memory_ppm = 1000000;
    CHECK(chronos_v1_create(h, &request, &json) == -73);
    CHECK(chronos_v1_suggest_json(h, &request, &json) == 0);
    CHECK(strstr(json, "startsInSeconds") != NULL);
    chronos_v1_free(json);
    request.memory_ppm = 1000001;
    CHECK(chronos_v1_create(h, &request, &json) == -2);
    request.struct_size = 8;
    CHECK(chronos_v1_create(h, &request, &json) == -2);
    CHECK(chronos_v1_extend(h, "partition_none", 1) == -65);
    CHECK(chronos_v1_suspend(h, id) == -69); /* nobody has joined it */
    CHECK(chronos_v1_list_json(h, &json) == 0);
    chronos_v1_free(json);
    CHECK(chronos_release_partition(h, id) == 0);
}

/* A program that was compiled with fewer fields, and one with more than this library has. */
static void a_request_of_another_size(ChronosPartitionerHandle h) {
    char *json = NULL;
    struct {
        chronos_v1_request known;
        uint64_t unknown;
    } newer = {.known = {.struct_size = sizeof newer, .gpus = "1", .memory_ppm = 1}, .unknown = 0};
    CHECK(chronos_v1_suggest_json(h, &newer.known, &json) == 0);
    chronos_v1_free(json);
    newer.unknown = 1;
    CHECK(chronos_v1_suggest_json(h, &newer.known, &json) == -2);
    CHECK(strstr(chronos_get_last_error(), "knows 96 bytes of a request, not 104") != NULL);
    /* What lies behind an older one means nothing. */
    chronos_v1_request older = {.struct_size = 80, .memory_ppm = 1, .warn_signal = 77};
    CHECK(chronos_v1_suggest_json(h, &older, &json) == 0);
    chronos_v1_free(json);
    older.struct_size = 79;
    CHECK(chronos_v1_suggest_json(h, &older, &json) == -2);
    older.struct_size = 4097;
    CHECK(chronos_v1_suggest_json(h, &older, &json) == -2);
}

static int warned[2];

static void on_warning(int signal) {
    char byte = signal == SIGUSR2 ? 'w' : '?';
    _exit(write(warned[1], &byte, 1) == 1 ? 0 : 1);
}

/* The signal comes to a process of the partition, 59.9 s before its deadline. */
static void a_job_is_warned(ChronosPartitionerHandle h) {
    CHECK(pipe(warned) == 0);
    signal(SIGUSR2, on_warning);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0)
        for (;;)
            pause();
    signal(SIGUSR2, SIG_DFL);
    chronos_v1_request request = {.struct_size = sizeof request, .duration_ms = 60000,
                                  .warn_ms = 59900, .warn_signal = 2, .detached = 1};
    char *json = NULL, id[64], byte = 0;
    CHECK(chronos_v1_create(h, &request, &json) == 0);
    CHECK(strstr(json, "\"warnSeconds\":59.9") && strstr(json, "\"warnSignal\":\"usr2\""));
    CHECK(sscanf(strstr(json, "\"id\":\"") + 6, "%63[A-Za-z0-9_]", id) == 1);
    chronos_v1_free(json);
    CHECK(chronos_v1_attach(h, id, child) == 0);
    struct pollfd heard = {.fd = warned[0], .events = POLLIN};
    for (int tries = 0; poll(&heard, 1, 20) == 0; tries++)
        CHECK(tries < 1000 && count(h) == 1); /* whoever looks gives the warning */
    CHECK(read(warned[0], &byte, 1) == 1 && byte == 'w');
    int status;
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    CHECK(close(warned[0]) == 0 && close(warned[1]) == 0);
    CHECK(chronos_release_partition(h, id) == 0);
    request.warn_signal = 5;
    CHECK(chronos_v1_create(h, &request, &json) == -2);
    request.warn_signal = 1;
    request.warn_ms = 0;
    CHECK(chronos_v1_create(h, &request, &json) == -2); /* a signal without a warning */
}

int main(void) {
    ChronosPartitionerHandle h = f1();
    CHECK(h != NULL);
    CHECK(f9(h) == CHRONOS_MODE_STUB && strcmp(f10(h), "fake") == 0 && f11() == 0);
    CHECK(f3 && f4 && f5 && f6 && f7 && f8);
    create_is_listed_and_released(h);
    several_are_counted_and_released_in_reverse(h);
    bad_input_is_refused(h);
    it_expires(h);
    the_second_interface(h);
    a_request_of_another_size(h);
    a_job_is_warned(h);
    processes_do_not_collide(h);
    f2(h);
    printf("c: ok\n");
    return 0;
}
