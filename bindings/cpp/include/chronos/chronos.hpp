// Chronos for C++17: the C ABI with owners and exceptions. Header only.
//
// License: Apache-2.0
#ifndef CHRONOS_HPP
#define CHRONOS_HPP

#include <chronos/chronos_c.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace chronos {

/// A call that failed; `code()` is the negated exit code of the tool, or -1.
class Error : public std::runtime_error {
public:
    Error(std::int32_t code, const std::string &message)
        : std::runtime_error(message), code_(code) {}
    std::int32_t code() const noexcept { return code_; }

    /// Throws the last failure of this thread when `code` is one.
    static void check(std::int32_t code) {
        if (code != 0)
            throw Error(code, chronos_get_last_error());
    }

private:
    std::int32_t code_;
};

/// What is known of a partition.
struct GPUPartition {
    std::string partitionId;
    int deviceIndex = 0;
    float memoryFraction = 0;
    int duration = 0;
    int timeRemaining = 0;
    std::string username;
    int processId = 0;
    bool active = false;

    bool isExpired() const { return !active; }
    int getRemainingTime() const { return timeRemaining; }
};

/// A string that the library made.
class Text {
public:
    explicit Text(char *text) : text_(text, chronos_v1_free) {}
    std::string str() const { return text_.get(); }

private:
    std::unique_ptr<char, void (*)(char *)> text_;
};

/// What is asked for beyond device, fraction and seconds.
struct Request {
    std::string gpus;
    std::uint32_t count = 1;
    std::uint64_t memoryBytes = 0;
    double memoryFraction = 0;
    double compute = 0;
    std::chrono::milliseconds duration{std::chrono::hours(1)};
    std::chrono::milliseconds wait{0};
    std::chrono::milliseconds grace{0};
    int priority = 0;
    int onExpire = 0;
    std::string name;
    bool detached = false;
    /// Before the deadline; 0 is what the configuration says.
    std::chrono::milliseconds warn{0};
    /// To every process then: 0 none, 1 USR1, 2 USR2, 3 HUP, 4 INT.
    int warnSignal = 0;
};

/// A way to the partitions of this machine. Movable, not copyable.
class ChronosPartitioner {
public:
    ChronosPartitioner() : handle_(chronos_partitioner_create(), chronos_partitioner_destroy) {
        if (!handle_)
            throw Error(-1, chronos_get_last_error());
    }

    /// Takes a partition; returns its id. It ends with this process.
    std::string createPartition(int device, float fraction, int seconds,
                                const std::string &targetUser = "") {
        char id[64];
        Error::check(chronos_create_partition(handle_.get(), device, fraction, seconds,
                                              targetUser.empty() ? nullptr : targetUser.c_str(),
                                              id, sizeof id));
        return id;
    }

    /// Takes a partition; returns it as a JSON object of kind Lease.
    std::string create(const Request &wanted) {
        char *out = nullptr;
        const auto request = raw(wanted);
        Error::check(chronos_v1_create(handle_.get(), &request, &out));
        return Text(out).str();
    }

    /// When and where a request would fit, as a JSON object of kind Suggestion.
    std::string suggest(const Request &wanted) {
        char *out = nullptr;
        const auto request = raw(wanted);
        Error::check(chronos_v1_suggest_json(handle_.get(), &request, &out));
        return Text(out).str();
    }

    /// Live partitions of the machine.
    std::vector<GPUPartition> listPartitions(bool print = false) {
        if (print)
            showDeviceStats();
        std::size_t count = 0;
        Error::check(chronos_list_partitions(handle_.get(), nullptr, &count));
        std::vector<ChronosPartitionInfo> infos;
        // Somebody may take one between two calls: ask until all fit.
        do {
            infos.resize(count + 8);
            count = infos.size();
            Error::check(chronos_list_partitions(handle_.get(), infos.data(), &count));
        } while (count > infos.size());
        std::vector<GPUPartition> partitions;
        for (std::size_t i = 0; i < count; i++) {
            const auto &info = infos[i];
            partitions.push_back({info.partition_id, info.device_index, info.memory_fraction,
                                  info.duration_seconds, info.time_remaining_seconds,
                                  info.username, info.process_id, info.active != 0});
        }
        return partitions;
    }

    /// Gives a partition back; false with the reason in `chronos_get_last_error()`.
    bool releasePartition(const std::string &id) {
        return chronos_release_partition(handle_.get(), id.c_str()) == 0;
    }

    void extend(const std::string &id, std::chrono::milliseconds by) {
        Error::check(chronos_v1_extend(handle_.get(), id.c_str(), millis(by)));
    }
    void suspend(const std::string &id) {
        Error::check(chronos_v1_suspend(handle_.get(), id.c_str()));
    }
    void resume(const std::string &id, std::chrono::milliseconds for_ = {},
                std::chrono::milliseconds wait = {}) {
        Error::check(chronos_v1_resume(handle_.get(), id.c_str(), millis(for_), millis(wait)));
    }
    std::chrono::milliseconds remaining(const std::string &id) const {
        std::int64_t left = 0;
        Error::check(chronos_v1_remaining_ms(handle_.get(), id.c_str(), &left));
        return std::chrono::milliseconds(left);
    }
    /// A descriptor that becomes readable that long before the deadline as it stands now; it is
    /// yours to close.
    int warningDescriptor(const std::string &id, std::chrono::milliseconds before) const {
        const auto fd = chronos_v1_warning_fd(handle_.get(), id.c_str(), millis(before));
        if (fd < 0)
            Error::check(fd);
        return fd;
    }

    void showDeviceStats() { chronos_show_device_stats(handle_.get()); }
    /// 0 to 100.
    float getGPUAvailablePercentage(int device) {
        const float free = chronos_get_available_percentage(handle_.get(), device);
        if (free < 0)
            throw Error(-1, chronos_get_last_error());
        return free;
    }
    int getExecutionMode() const { return chronos_get_execution_mode(handle_.get()); }
    std::string getBackendName() const { return chronos_get_backend_name(handle_.get()); }

private:
    static std::uint64_t millis(std::chrono::milliseconds span) {
        return span.count() < 0 ? 0 : static_cast<std::uint64_t>(span.count());
    }
    static std::uint32_t millionths(double part) {
        return part <= 0 ? 0 : static_cast<std::uint32_t>(part * 1e6 + 0.5);
    }
    static chronos_v1_request raw(const Request &wanted) {
        chronos_v1_request request{};
        request.struct_size = sizeof request;
        request.gpus = wanted.gpus.empty() ? nullptr : wanted.gpus.c_str();
        request.count = wanted.count;
        request.memory_bytes = wanted.memoryBytes;
        request.memory_ppm = millionths(wanted.memoryFraction);
        request.compute_ppm = millionths(wanted.compute);
        request.duration_ms = millis(wanted.duration);
        request.wait_ms = millis(wanted.wait);
        request.grace_ms = millis(wanted.grace);
        request.priority = wanted.priority;
        request.on_expire = wanted.onExpire;
        request.name = wanted.name.empty() ? nullptr : wanted.name.c_str();
        request.detached = wanted.detached;
        request.warn_ms = millis(wanted.warn);
        request.warn_signal = wanted.warnSignal;
        return request;
    }

    std::unique_ptr<void, void (*)(void *)> handle_;
};

/// A partition for as long as a scope lasts.
class ScopedPartition {
public:
    ScopedPartition(ChronosPartitioner &partitioner, int device, float fraction, int seconds)
        : partitioner_(&partitioner), id_(partitioner.createPartition(device, fraction, seconds)) {}
    ScopedPartition(ScopedPartition &&other) noexcept
        : partitioner_(std::exchange(other.partitioner_, nullptr)), id_(std::move(other.id_)) {}
    ScopedPartition &operator=(ScopedPartition &&) = delete;
    /// One that has expired is gone already, which is no failure here.
    ~ScopedPartition() {
        if (partitioner_ != nullptr)
            partitioner_->releasePartition(id_);
    }
    const std::string &id() const { return id_; }
    std::chrono::milliseconds remaining() const { return partitioner_->remaining(id_); }

private:
    ChronosPartitioner *partitioner_;
    std::string id_;
};

} // namespace chronos

#endif
