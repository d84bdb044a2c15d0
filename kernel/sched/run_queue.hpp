// What one core runs: weighted fair shares with caps. Each Runnable has a virtual time that advances by run
// time divided by weight; whoever is furthest behind runs next.
//
// Time is in ticks of a clock that never goes back, given to every call. One core owns the queue; others post
// their wishes to it. No call loops over more than the queue's length.
#pragma once

#include "kernel/base/fixed_vector.hpp"
#include "kernel/base/result.hpp"
#include "kernel/sched/runnable.hpp"

namespace bulkhead {

class RunQueue {
  public:
    static constexpr usize max_runnables = 64;
    static constexpr u64 forever = ~u64{0};

    struct Choice {
        Runnable* next = nullptr;  // null: nothing to run
        // When pick() wants to be called again at the latest. `forever`: no timer is needed; the only one
        // that can run runs until something happens.
        u64 until = forever;
    };

    // `latency`: the span in which everyone gets a turn; `granularity`: the least slice, below `latency`.
    // Ticks.
    constexpr RunQueue(u64 latency, u64 granularity)
        : latency_(latency), granularity_(granularity == 0 ? 1 : granularity) {}
    RunQueue(const RunQueue&) = delete;
    RunQueue& operator=(const RunQueue&) = delete;

    // Blocked at first. Fails when the queue is full or the Runnable is in a queue.
    [[nodiscard]] Result<> add(Runnable& runnable, u64 now);
    void remove(Runnable& runnable, u64 now);

    // To what is so already: no effect. wake() returns true if pick() should be called soon, because the
    // woken one is entitled to run now.
    bool wake(Runnable& runnable, u64 now);
    void block(Runnable& runnable, u64 now);

    // Charges the one that ran until now and chooses the next.
    [[nodiscard]] Choice pick(u64 now);

    // The one chosen last, unless it was removed.
    [[nodiscard]] Runnable* current() const { return current_; }
    [[nodiscard]] usize size() const { return queue_.size(); }
    [[nodiscard]] usize runnable_count() const { return runnable_count_; }

  private:
    // Virtual time of a Runnable of default weight passes as fast as real time.
    [[nodiscard]] static u64 to_virtual(u64 ticks, const Runnable& runnable) {
        return static_cast<u64>(static_cast<u128>(ticks) * Runnable::default_weight / runnable.weight_);
    }
    void charge(u64 now);
    void catch_up(Runnable& runnable) const;
    static void begin_period(Runnable& runnable, u64 now);
    [[nodiscard]] static bool is_throttled(const Runnable& runnable);
    [[nodiscard]] u64 slice_of(const Runnable& runnable, u64 weights) const;

    u64 latency_;
    u64 granularity_;
    FixedVector<Runnable*, max_runnables> queue_;
    usize runnable_count_ = 0;
    Runnable* current_ = nullptr;
    u64 charged_until_ = 0;
    u64 floor_ = 0;  // the least virtual time of those that can run; never goes back
};

}  // namespace bulkhead
