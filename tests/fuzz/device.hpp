// One chip under a guest that does anything: reads, writes, time, signals from outside, resets. Claims:
//   - time: a deadline that is due is gone after a few calls of expire(), so that the core is never held;
//   - two views: a chip that was served at each of its deadlines reads as one that was served late;
//   - reset: a used chip after reset() reads as a new one (unless reset_forgets is false).
// A bench has: clock, device(), span (of offsets), signal(u8, u64) -> u64 for what comes from outside,
// visible() -> u64 for what goes out, and late_is_same: whether the second claim is to hold.
#pragma once

#include <memory>

#include "tests/fakes/fake_clock.hpp"
#include "tests/fuzz/fuzz.hpp"

namespace bulkhead::fuzz {

// Calls expire() while something is due.
inline void serve(Device& device, const FakeClock& clock) {
    for (unsigned calls = 0; device.deadline() <= clock.now(); ++calls) {
        MUST(calls < 4);
        device.expire();
    }
}

// Moves the clock, serving each deadline on the way as long as there are not too many.
inline void advance_promptly(Device& device, FakeClock& clock, Ticks target) {
    for (unsigned calls = 0; calls < 64 && device.deadline() <= target; ++calls) {
        if (device.deadline() > clock.ticks) clock.ticks = device.deadline();
        serve(device, clock);
    }
    clock.ticks = target;
    serve(device, clock);
}

template <class Bench>
void run_device(Input& in) {
    auto used = std::make_unique<Bench>();
    auto other = std::make_unique<Bench>();
    used->device().reset();
    other->device().reset();
    bool same = Bench::late_is_same;
    while (!in.empty()) {
        const u8 operation = in.byte();
        switch (operation % 8) {
            case 0:
            case 1: {
                const u64 offset = in.byte() % Bench::span;
                const unsigned size = 1U << (operation >> 3 & 3);
                const u64 value = used->device().read(offset, size) & all_ones(size);
                const u64 view = other->device().read(offset, size) & all_ones(size);
                if (same) MUST(value == view);
                break;
            }
            case 2:
            case 3:
            case 4: {
                const u64 offset = in.byte() % Bench::span;
                const unsigned size = 1U << (operation >> 6 & 3);
                const u64 value = (operation & 8) != 0 ? in.byte() : in.number();
                used->device().write(offset, size, value);
                other->device().write(offset, size, value);
                break;
            }
            case 5: {
                Ticks by = 0;
                switch (operation >> 6) {
                    case 0: by = in.byte(); break;
                    case 1: by = in.value<u16>(); break;
                    case 2: by = u64{in.byte()} << 16; break;
                    default: by = u64{in.byte()} << (8 + in.byte() % 44U);
                }
                if (used->clock.ticks > bit(61)) by = 1;
                const Ticks target = used->clock.ticks + by;
                advance_promptly(used->device(), used->clock, target);
                other->clock.ticks = target;
                serve(other->device(), other->clock);
                break;
            }
            case 6: {
                const u8 what = in.byte();
                const u64 value = in.value<u16>();
                const u64 result = used->signal(what, value), view = other->signal(what, value);
                if (same) MUST(result == view);
                break;
            }
            default: {
                used->device().reset();
                if (!Bench::reset_forgets) {
                    other->device().reset();
                    break;
                }
                auto fresh = std::make_unique<Bench>();
                fresh->clock.ticks = used->clock.ticks;
                fresh->keep(*used);
                fresh->device().reset();
                other = std::move(fresh);
                same = Bench::late_is_same;
            }
        }
        serve(used->device(), used->clock);
        serve(other->device(), other->clock);
        if (same) {
            if (Bench::same_deadline) MUST(used->device().deadline() == other->device().deadline());
            MUST(used->visible() == other->visible());
        }
    }
}

// What every bench begins with.
struct BenchBase {
    static constexpr bool late_is_same = true, same_deadline = true, reset_forgets = true;
    // What survives a reset, taken over by a new chip.
    template <class Bench>
    void keep(Bench&) {}
    u64 signal(u8, u64) { return 0; }
    u64 visible() { return 0; }
    FakeClock clock{2'000'000'000};
};

}  // namespace bulkhead::fuzz
