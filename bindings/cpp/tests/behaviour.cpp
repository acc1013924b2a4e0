// What programs in C++ rely on.
#include <chronos/chronos.h>
#include <chronos/chronos.hpp>

#include <cstdlib>
#include <iostream>
#include <unistd.h>

#define CHECK(condition)                                                                      \
    do {                                                                                      \
        if (!(condition)) {                                                                   \
            std::cerr << __FILE__ << ':' << __LINE__ << ": " #condition " ("                   \
                      << chronos_get_last_error() << ")\n";                                   \
            std::exit(1);                                                                     \
        }                                                                                     \
    } while (0)

template <typename F> int code(F f) {
    try {
        f();
        return 0;
    } catch (const chronos::Error &error) {
        CHECK(*error.what() != 0);
        return error.code();
    }
}

int main() {
    chronos::ChronosPartitioner partitioner;
    CHECK(partitioner.getBackendName() == "fake" && partitioner.getExecutionMode() == 2);
    CHECK(partitioner.getGPUAvailablePercentage(0) == 100.0f);
    const auto id = partitioner.createPartition(1, 0.25f, 600);
    const auto all = partitioner.listPartitions();
    CHECK(all.size() == 1 && all[0].partitionId == id && all[0].deviceIndex == 1);
    CHECK(all[0].memoryFraction == 0.25f && !all[0].isExpired());
    CHECK(all[0].getRemainingTime() > 590 && all[0].getRemainingTime() <= 600);
    partitioner.extend(id, std::chrono::minutes(1));
    CHECK(partitioner.remaining(id) > std::chrono::seconds(650));
    const int warning = partitioner.warningDescriptor(id, std::chrono::minutes(1));
    CHECK(warning >= 0 && close(warning) == 0);
    CHECK(partitioner.releasePartition(id) && !partitioner.releasePartition(id));
    {
        chronos::ScopedPartition scoped(partitioner, 0, 0.5f, 600);
        CHECK(partitioner.getGPUAvailablePercentage(0) == 50.0f);
        chronos::ScopedPartition moved(std::move(scoped));
        CHECK(!moved.id().empty());
    }
    CHECK(partitioner.getGPUAvailablePercentage(0) == 100.0f);
    CHECK(code([&] { partitioner.createPartition(0, 1.5f, 60); }) == -1);
    CHECK(code([&] { partitioner.createPartition(999, 0.5f, 60); }) == -1);
    CHECK(code([&] { partitioner.getGPUAvailablePercentage(-1); }) == -1);
    chronos::Request gang;
    gang.gpus = "0,1";
    gang.memoryFraction = 0.5;
    gang.name = "gang";
    gang.warn = std::chrono::minutes(5);
    gang.warnSignal = 3;
    const auto lease = partitioner.create(gang);
    CHECK(lease.find("\"index\":1") != std::string::npos);
    CHECK(lease.find("\"warnSeconds\":300.0,\"warnSignal\":\"hup\"") != std::string::npos);
    gang.warnSignal = 9;
    CHECK(code([&] { partitioner.create(gang); }) == -2);
    gang.warnSignal = 0;
    gang.memoryFraction = 0.75;
    CHECK(code([&] { partitioner.create(gang); }) == -73);
    CHECK(partitioner.suggest(gang).find("startsInSeconds") != std::string::npos);
    for (const auto &partition : partitioner.listPartitions())
        CHECK(partitioner.releasePartition(partition.partitionId));
    std::cout << "c++: ok\n";
    return 0;
}
