// What a core can run, as far as the scheduler is concerned: nothing about what it is.
//
// It belongs to the core whose RunQueue it is in: only that one writes it. What other cores may read says so.
#pragma once

#include <atomic>

#include "kernel/base/types.hpp"
#include "kernel/sched/bandwidth.hpp"
#include "kernel/sched/gang.hpp"
#include "kernel/sched/stopwatch.hpp"

namespace bulkhead {

class Runnable {
  public:
    enum class State : u8 {
        runnable,  // wants to run; it may be running
        blocked,   // waits for something
    };

    static constexpr u32 default_weight = 100, least_weight = 1,
                         greatest_weight = 10000;  // as cgroup v2's cpu.weight

    // `bandwidth` and `gang` are those of the VM, which its other vCPUs share; they outlive the Runnable. A
    // weight out of range becomes the nearest one in it.
    explicit constexpr Runnable(u32 id, u32 weight = default_weight, Bandwidth* bandwidth = nullptr,
                                Gang* gang = nullptr)
        : id_(id), weight_(in_range(weight)), bandwidth_(bandwidth), gang_(gang) {
        if (bandwidth_ != nullptr) bandwidth_->join();
    }
    // It must be out of its queue.
    constexpr ~Runnable() {
        if (bandwidth_ != nullptr) bandwidth_->leave();
    }
    Runnable(const Runnable&) = delete;
    Runnable& operator=(const Runnable&) = delete;

    // On any core.
    [[nodiscard]] u32 id() const { return id_; }
    [[nodiscard]] u32 weight() const { return weight_.load(std::memory_order_relaxed); }
    [[nodiscard]] State state() const { return state_.load(std::memory_order_relaxed); }
    [[nodiscard]] Bandwidth* bandwidth() const { return bandwidth_; }
    [[nodiscard]] Gang* gang() const { return gang_; }
    // On any core: all it has run until `now`, in ticks, with the present turn.
    [[nodiscard]] u64 run_time(u64 now) const { return run_time_.total(now); }

    // On its core.
    [[nodiscard]] bool is_queued() const { return queued_; }

  private:
    friend class RunQueue;
    [[nodiscard]] static constexpr u32 in_range(u32 weight) {
        return weight < least_weight ? least_weight : weight > greatest_weight ? greatest_weight : weight;
    }

    const u32 id_;
    std::atomic<u32> weight_;
    std::atomic<State> state_{State::blocked};
    bool queued_ = false;
    bool throttled_ = false;  // when last looked at: it wanted to run, but its group's quota was used up
    Bandwidth* const bandwidth_;
    Gang* const gang_;
    Stopwatch run_time_;
    // Run time divided by weight, on the queue's scale. In no queue: how far it is ahead of others.
    u64 virtual_time_ = 0;
    u64 virtual_rest_ = 0;  // the remainder of that division
    u64 woken_at_ = 0;
    u64 followed_ = 0, declined_ = 0;  // the last of the gang's calls that it did so to; calls count from 1
    Bandwidth::Part part_;             // what it may still run of its group's quota
};

}  // namespace bulkhead
