// The interval timer.
#include "vmm/dev/pit_8254.hpp"

#include "tests/fakes/fake_irq_line.hpp"
#include "tests/fuzz/device.hpp"

using namespace bulkhead;

namespace {

struct Bench : fuzz::BenchBase {
    static constexpr u64 span = 6;
    // Of very short periods the next interrupt is a fixed time after the last that was served: when the line
    // rises depends on who serves it.
    static constexpr bool same_deadline = false;
    Device& device() { return chip; }
    FakeIrqLine irq;
    Pit8254 chip{clock, irq};
};

}  // namespace

void fuzz_one(fuzz::Input& in) {
    fuzz::run_device<Bench>(in);
}
