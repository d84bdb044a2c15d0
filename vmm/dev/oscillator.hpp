// The PC's 14.31818 MHz crystal (315/22 MHz exactly) and what divides it, counted in guest time without
// rounding: the PIT (a twelfth) and the ACPI PM timer (a quarter) stand in the exact ratio 1:3.
#pragma once

#include "vmm/clock.hpp"

namespace bulkhead {

struct Oscillator {
    u64 numerator = 1;  // numerator / denominator cycles a second
    u64 denominator = 1;

    // Whole cycles in the guest's first `ticks`.
    [[nodiscard]] u64 cycles(const Clock& clock, Ticks ticks) const {
        return scale(ticks, numerator, clock.hz() * denominator);
    }

    // The first tick at which cycles() reaches `count`; `never` if that is past the end of time.
    [[nodiscard]] Ticks first_tick(const Clock& clock, u64 count) const {
        const u128 product = static_cast<u128>(count) * (clock.hz() * denominator) + (numerator - 1);
        const u128 tick = product / numerator;
        return tick < never ? static_cast<Ticks>(tick) : never;
    }
};

constexpr Oscillator pit_oscillator{105'000'000, 88};       // 1.193181... MHz
constexpr Oscillator pm_timer_oscillator{315'000'000, 88};  // 3.579545... MHz

}  // namespace bulkhead
