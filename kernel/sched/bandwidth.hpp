// The upper limit of a group, as cgroup v2's cpu.max: all members together, on whatever cores they run, get
// one `quota` of run time in every `period`.
//
// How it works. The run queues are the only ones to use the lower part of the interface. A queue that is
// about to run a member takes a part of what is left of the quota (at most the member's fair part, so that
// members on several cores that start together each get the same), lets it run no longer than that, and gives
// back what it did not use. What a member ran beyond its part, because the core's timer was late, is a debt
// that the following periods pay. So over any number of whole periods the group runs for at most one quota
// each, plus one debt, which is bounded by the lateness of the cores' timers and by `least_part` for each
// core; and a group that always wants to run gets no less than that either. Unused quota is lost at the
// period's end.
//
// Periods of all groups begin at multiples of the period on the common clock. Whoever comes first in a new
// period begins it; that two cores do so at once is harmless, as the number of the period and what was used
// of it are one word. No lock; every step is one compare-and-swap, repeated only when another core's
// succeeded.
//
// Memory: to be placed where every core that runs a member can reach it.
#pragma once

#include <atomic>

#include "kernel/base/result.hpp"
#include "kernel/base/types.hpp"

namespace bulkhead {

class Bandwidth {
  public:
    static constexpr u64 longest_period = (u64{1} << 38) - 1, greatest_quota = (u64{1} << 39) - 1;

    // Unlimited at first.
    constexpr Bandwidth() = default;
    Bandwidth(const Bandwidth&) = delete;
    Bandwidth& operator=(const Bandwidth&) = delete;

    // On one core at a time, at any time. Both in ticks, neither zero. A quota of several periods is as many
    // cores' worth; with as many as there are Runnables, or more, there is no limit and no timer. The new
    // limit begins with nothing used. It counts for a core from its next pick() on: the caller makes the
    // cores that run members pick again, or a member that runs without limit may go on doing so.
    [[nodiscard]] Result<> set(u64 quota, u64 period);
    void set_unlimited();

    // Zero: unlimited. On any core.
    [[nodiscard]] u64 quota() const { return quota_.load(std::memory_order_acquire); }
    [[nodiscard]] u64 period() const { return period_.load(std::memory_order_relaxed); }
    // How often a member that wanted to run found the quota used up. On any core.
    [[nodiscard]] u64 throttled_count() const { return throttled_count_.load(std::memory_order_relaxed); }

    // --- For Runnable: how many there are. All of a VM are to be made before the first one runs, or those
    // that run must pick again.

    void join() { members_.fetch_add(1, std::memory_order_relaxed); }
    void leave() { members_.fetch_sub(1, std::memory_order_relaxed); }

    // --- For RunQueue. `now` may lag behind what other cores gave by some periods.

    // What a member may run for: a part of the quota taken in advance.
    struct Part {
        u64 ticks = 0;
        u32 period = 0;  // whose quota it is part of
        bool is_limited = false;
    };

    // When to look again, where nothing is left: after `now`. Zero: something is left.
    [[nodiscard]] u64 throttled_until(u64 now) const;
    // At most `wanted` (not zero) ticks, at least one, and no more than remain of the period. To be called
    // after throttled_until() was zero; if others took all since, it is the least part and becomes a debt.
    [[nodiscard]] Part take(u64 now, u64 wanted, u64 granularity);
    // Takes back what is left of a part. No effect on one of a past period.
    void give_back(const Part& part);
    // What a member ran until `now` in excess of its part.
    void charge(u64 now, u64 ticks);
    void count_throttled() { throttled_count_.fetch_add(1, std::memory_order_relaxed); }

  private:
    // What word_ says. A number of a period may come back after 2^18 periods of nothing, when it makes a
    // group wait for at most one more.
    struct State {
        u64 used = 0;   // 40 bits, saturated; parts taken, and debts
        u32 parts = 0;  // 6 bits, saturated; that are taken in this period
        u32 period = 0;
    };
    static constexpr unsigned used_bits = 40, parts_bits = 6, period_bits = 18;
    static constexpr u64 greatest_used = (u64{1} << used_bits) - 1;
    static constexpr u32 greatest_parts = (1U << parts_bits) - 1, period_mask = (1U << period_bits) - 1;
    static constexpr u32 latest_by = 8;  // periods
    [[nodiscard]] static State unpack(u64 word);
    [[nodiscard]] static u64 pack(const State& state);

    struct Limit {
        u64 quota = 0;  // zero: none
        u64 period = 0;
        u64 members = 0;
        [[nodiscard]] u32 number_at(u64 now) const { return static_cast<u32>(now / period) & period_mask; }
        // Begins the period of `now`, if `state` is of an earlier one. `late` ticks belong to the time
        // before.
        void advance(State& state, u64 now, u64 late) const;
    };
    [[nodiscard]] Limit limit() const;

    std::atomic<u64> quota_{0};
    std::atomic<u64> period_{0};
    std::atomic<u64> word_{0};
    std::atomic<u64> throttled_count_{0};
    std::atomic<u32> members_{0};
};

}  // namespace bulkhead
