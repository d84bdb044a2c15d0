// What a core can run, as far as the scheduler is concerned: nothing about what it is.
#pragma once

#include <optional>

#include "kernel/base/types.hpp"

namespace bulkhead {

class Runnable {
  public:
    enum class State : u8 {
        runnable,  // wants to run; it may be running
        blocked,   // waits for something
    };

    // An upper limit: `quota` of run time in every `period`, both in the clock's ticks; as cgroup v2's
    // cpu.max.
    struct Cap {
        u64 quota = 0;
        u64 period = 0;
    };

    static constexpr u32 default_weight = 100, least_weight = 1,
                         greatest_weight = 10000;  // as cgroup v2's cpu.weight

    explicit constexpr Runnable(u32 id, u32 weight = default_weight, std::optional<Cap> cap = {})
        : id_(id),
          weight_(weight < least_weight      ? least_weight
                  : weight > greatest_weight ? greatest_weight
                                             : weight),
          cap_(cap && cap->quota != 0 && cap->period > cap->quota ? cap : std::nullopt) {}
    Runnable(const Runnable&) = delete;
    Runnable& operator=(const Runnable&) = delete;

    [[nodiscard]] u32 id() const { return id_; }
    [[nodiscard]] u32 weight() const { return weight_; }
    // None also where the quota is zero, which would be no running at all, or the whole period.
    [[nodiscard]] const std::optional<Cap>& cap() const { return cap_; }
    [[nodiscard]] State state() const { return state_; }
    // All it has run, in ticks.
    [[nodiscard]] u64 run_time() const { return run_time_; }

  private:
    friend class RunQueue;
    u32 id_;
    u32 weight_;
    std::optional<Cap> cap_;
    State state_ = State::blocked;
    u64 run_time_ = 0;
    u64 virtual_time_ = 0;  // run time divided by weight, on the queue's scale
    u64 period_start_ = 0;  // of the cap
    u64 period_used_ = 0;   // may exceed the quota; the excess counts in the next period
    bool queued_ = false;
};

}  // namespace bulkhead
