// The keyboard controller, and key names.
#include "vmm/dev/i8042.hpp"

#include "tests/fakes/fake_irq_line.hpp"
#include "tests/fakes/fake_power_control.hpp"
#include "tests/fuzz/device.hpp"
#include "vmm/dev/keys.hpp"

using namespace bulkhead;

namespace {

struct Bench : fuzz::BenchBase {
    static constexpr u64 span = 3;
    Device& device() { return chip; }
    u64 signal(u8 what, u64 value) {
        switch (what % 4) {
            case 0: {
                const u8 codes[3] = {what, static_cast<u8>(value), static_cast<u8>(value >> 8)};
                return chip.press({codes, what / 4U % 4}) ? 1 : 0;
            }
            case 1: {
                const auto codes = scan_codes_of(static_cast<char>(value));
                return codes && chip.press(*codes) ? 1 : 0;
            }
            case 2: return chip.space();
            default: return chip.leds();
        }
    }
    void keep(Bench& other) { power.resets = other.power.resets; }
    u64 visible() {
        MUST(chip.space() <= 64 && chip.leds() < 8);
        return power.resets * 4U + (keyboard.level ? 2U : 0U) + (auxiliary.level ? 1U : 0U);
    }
    FakeIrqLine keyboard, auxiliary;
    FakePowerControl power;
    I8042 chip{keyboard, auxiliary, power};
};

}  // namespace

void fuzz_one(fuzz::Input& in) {
    if (in.rarely(16)) {
        const auto codes = scan_codes_of_key(in.text(32));
        if (codes) MUST(!codes->empty());
        return;
    }
    fuzz::run_device<Bench>(in);
}
