// The serial port.
#include "vmm/dev/uart_16550.hpp"

#include "tests/fakes/fake_irq_line.hpp"
#include "tests/fuzz/device.hpp"

using namespace bulkhead;

namespace {

struct CountingSink final : CharacterSink {
    void write(u8 character) override { hash = hash * 31 + character + 1; }
    u64 hash = 0;
};

struct Bench : fuzz::BenchBase {
    static constexpr u64 span = 10;
    Device& device() { return chip; }
    u64 signal(u8 what, u64 value) {
        switch (what % 3) {
            case 0: return chip.receive(static_cast<u8>(value)) ? 1 : 0;
            case 1: return chip.receive_break() ? 1 : 0;
            default: return chip.space();
        }
    }
    void keep(Bench& other) { output.hash = other.output.hash; }
    u64 visible() { return output.hash * 2 + (irq.level ? 1 : 0); }
    FakeIrqLine irq;
    CountingSink output;
    Uart16550 chip{clock, irq, output};
};

}  // namespace

void fuzz_one(fuzz::Input& in) {
    fuzz::run_device<Bench>(in);
}
