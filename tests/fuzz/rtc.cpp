// The real-time clock.
#include "vmm/dev/rtc_mc146818.hpp"

#include "tests/fakes/fake_irq_line.hpp"
#include "tests/fuzz/device.hpp"

using namespace bulkhead;

namespace {

struct Bench : fuzz::BenchBase {
    static constexpr u64 span = 3;
    static constexpr bool reset_forgets = false;  // time and memory have a battery
    Device& device() { return chip; }
    u64 signal(u8 what, u64 value) {
        switch (what % 4) {
            case 0: chip.set_wall_clock(value << (what >> 2) % 48U); break;
            case 1: chip.set_memory(what, static_cast<u8>(value)); break;
            case 2: return chip.memory(static_cast<u8>(value));
            default: chip.set_memory_size(value << 20, value << 12);
        }
        return static_cast<u64>(chip.time());
    }
    u64 visible() { return irq.level ? 1 : 0; }
    FakeIrqLine irq;
    RtcMc146818 chip{clock, irq, 1'700'000'000};
};

}  // namespace

void fuzz_one(fuzz::Input& in) {
    fuzz::run_device<Bench>(in);
}
