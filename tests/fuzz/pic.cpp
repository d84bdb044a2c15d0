// The two 8259A. At most one request of each input is in service, and an acknowledged vector is one of
// theirs.
#include "vmm/dev/pic_8259.hpp"

#include "tests/fakes/fake_irq_line.hpp"
#include "tests/fuzz/device.hpp"

using namespace bulkhead;

namespace {

struct Bench : fuzz::BenchBase {
    static constexpr u64 span = 7;
    Device& device() { return chip; }
    u64 signal(u8 what, u64 value) {
        switch (what % 4) {
            case 0:
            case 1: chip.set_irq(static_cast<unsigned>(value % 20), (what & 4) != 0); return 0;
            case 2: return chip.acknowledge();
            default: chip.input(static_cast<unsigned>(value)).pulse(); return 0;
        }
    }
    // Inputs are wires: their levels are not the chip's to forget.
    static constexpr bool reset_forgets = false;
    u64 visible() {
        MUST(chip.output() == output.level);
        return output.level ? 1 : 0;
    }
    FakeIrqLine output;
    Pic8259 chip{output};
};

}  // namespace

void fuzz_one(fuzz::Input& in) {
    fuzz::run_device<Bench>(in);
}
