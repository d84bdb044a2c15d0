// Tells a storm of interrupts from many interrupts.
#pragma once

#include "kernel/base/types.hpp"

namespace bulkhead {

// Counts interrupts; more than 100000 within a second are a storm. For one core.
class StormGuard {
  public:
    static constexpr u32 most_in_a_second = 100'000;

    explicit constexpr StormGuard(u64 tsc_hz) : hz_(tsc_hz) {}

    // For each interrupt, at the time `tsc`: true once, when it has become a storm.
    [[nodiscard]] constexpr bool strikes(u64 tsc) {
        if (tsc - window_start_ > hz_) {
            window_start_ = tsc;
            count_ = 0;
        }
        if (count_ > most_in_a_second) return false;
        return ++count_ == most_in_a_second + 1;
    }

  private:
    u64 hz_;
    u64 window_start_ = 0;
    u32 count_ = 0;
};

}  // namespace bulkhead
