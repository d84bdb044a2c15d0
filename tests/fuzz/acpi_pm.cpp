// ACPI's fixed hardware.
#include "vmm/dev/acpi_pm.hpp"

#include "tests/fakes/fake_irq_line.hpp"
#include "tests/fakes/fake_power_control.hpp"
#include "tests/fuzz/device.hpp"

using namespace bulkhead;

namespace {

struct Bench : fuzz::BenchBase {
    static constexpr u64 span = 20;
    Device& device() { return chip; }
    u64 signal(u8 what, u64) { return (what & 1) != 0 ? chip.timer() : chip.press_power_button() ? 1 : 0; }
    void keep(Bench& other) { power.power_offs = other.power.power_offs; }
    u64 visible() { return power.power_offs * 2U + (sci.level ? 1U : 0U); }
    FakeIrqLine sci;
    FakePowerControl power;
    AcpiPm chip{clock, sci, power};
};

}  // namespace

void fuzz_one(fuzz::Input& in) {
    fuzz::run_device<Bench>(in);
}
