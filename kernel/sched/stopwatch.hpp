// Time that something ran, exact also while it is running, in one word: its owner starts and stops it, any
// core reads it at any time.
#pragma once

#include <atomic>

#include "kernel/base/types.hpp"

namespace bulkhead {

class Stopwatch {
  public:
    // Owner only. Starting what runs, or stopping what does not: no effect.
    void start(u64 now) {
        const u64 word = word_.load(std::memory_order_relaxed);
        if ((word & running_bit) == 0)
            word_.store(running_bit | ((word - now) & ticks_mask), std::memory_order_relaxed);
    }
    void stop(u64 now) {
        const u64 word = word_.load(std::memory_order_relaxed);
        if ((word & running_bit) != 0) word_.store((word + now) & ticks_mask, std::memory_order_relaxed);
    }

    // Ticks up to `now`, on any core. A reader whose clock lags behind the owner's start gets zero, or the
    // total less by that lag.
    [[nodiscard]] u64 total(u64 now) const {
        const u64 word = word_.load(std::memory_order_relaxed);
        if ((word & running_bit) == 0) return word;
        const u64 ticks = (word + now) & ticks_mask;
        return ticks > ticks_mask / 2 ? 0 : ticks;
    }

  private:
    static constexpr u64 running_bit = u64{1} << 63, ticks_mask = running_bit - 1;
    // Stopped: the total. Running: the total less the time of the start, modulo 2^63, so that adding the
    // present time gives the total so far.
    std::atomic<u64> word_{0};
};

}  // namespace bulkhead
