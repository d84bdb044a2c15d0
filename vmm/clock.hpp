// Guest time. Everything in a VM that counts derives its count from this one number, so that no two clocks of
// a VM ever disagree, however often they are read.
#pragma once

#include "kernel/base/bits.hpp"
#include "kernel/base/types.hpp"

namespace bulkhead {

// A point in guest time: ticks of the VM's TSC at offset zero, counted from the VM's power-on.
using Ticks = u64;

constexpr Ticks never = ~Ticks{0};

class Clock {
  public:
    explicit constexpr Clock(u64 hz) : hz_(hz) {}
    Clock(const Clock&) = delete;
    Clock& operator=(const Clock&) = delete;

    [[nodiscard]] virtual Ticks now() const = 0;

    // Ticks a second; constant for the VM's life.
    [[nodiscard]] u64 hz() const { return hz_; }

    // The count that a counter of `counter_hz` shows after `ticks`: floor(ticks * counter_hz / hz).
    [[nodiscard]] u64 to_count(Ticks ticks, u64 counter_hz) const { return scale(ticks, counter_hz, hz_); }

    // The first tick at which to_count() reaches `count`.
    [[nodiscard]] Ticks from_count(u64 count, u64 counter_hz) const {
        const u128 product = static_cast<u128>(count) * hz_ + (counter_hz - 1);
        return static_cast<Ticks>(product / counter_hz);
    }

  protected:
    ~Clock() = default;

  private:
    u64 hz_;
};

}  // namespace bulkhead
