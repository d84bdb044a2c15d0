// A guest clock that stands still until told to move.
#pragma once

#include "vmm/clock.hpp"
#include "vmm/dev/device.hpp"

namespace bulkhead {

class FakeClock final : public Clock {
  public:
    explicit FakeClock(u64 hz = 2'400'000'000) : Clock(hz) {}

    [[nodiscard]] Ticks now() const override { return ticks; }

    void advance(Ticks by) { ticks += by; }
    void advance_ns(u64 ns) { ticks += scale(ns, hz(), 1'000'000'000); }
    void advance_us(u64 us) { ticks += scale(us, hz(), 1'000'000); }
    void advance_seconds(u64 seconds) { ticks += seconds * hz(); }

    // Moves to `target`, calling expire() at each deadline of `device` on the way, as a well-served VM does.
    // Returns the number of calls.
    u64 run_until(Ticks target, Device& device) {
        u64 calls = 0;
        while (device.deadline() <= target) {
            if (device.deadline() > ticks) ticks = device.deadline();
            device.expire();
            ++calls;
        }
        ticks = target;
        return calls;
    }
    u64 run_for_us(u64 us, Device& device) { return run_until(ticks + scale(us, hz(), 1'000'000), device); }

    Ticks ticks = 0;
};

}  // namespace bulkhead
