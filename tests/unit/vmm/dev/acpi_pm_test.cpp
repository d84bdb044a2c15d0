#include "vmm/dev/acpi_pm.hpp"

#include <catch2/catch.hpp>

#include "tests/fakes/fake_clock.hpp"
#include "tests/fakes/fake_irq_line.hpp"
#include "tests/fakes/fake_power_control.hpp"
#include "vmm/dev/pit_8254.hpp"

using namespace bulkhead;

namespace {

enum : u64 { status = 0, enable = 2, control = 4, timer = 8, smi = 16 };

struct Pm {
    FakeClock clock{1'800'000'000};
    FakeIrqLine sci;
    FakePowerControl power;
    AcpiPm pm{clock, sci, power};

    Pm() { pm.reset(); }
    u64 in(u64 offset, unsigned size = 2) { return pm.read(offset, size); }
    void out(u64 offset, u64 value, unsigned size = 2) { pm.write(offset, size, value); }
};

}  // namespace

TEST_CASE_METHOD(Pm, "the timer counts 3.579545 MHz in 32 bits, three for each cycle of the PIT") {
    clock.advance_seconds(1);
    CHECK(in(timer, 4) == 3579545);
    clock.advance_seconds(87);
    CHECK(in(timer, 4) == 315'000'000);
    for (int i = 0; i < 1000; ++i) {
        clock.advance(12345677);
        REQUIRE(pm.timer() / 3 == static_cast<u32>(pit_oscillator.cycles(clock, clock.ticks)));
    }
    const u32 now = pm.timer();
    CHECK(in(timer + 2, 2) == now >> 16);
    CHECK(in(timer + 1, 1) == (now >> 8 & 0xFF));
    out(timer, 0, 4);
    CHECK(in(timer, 4) == now);
}

TEST_CASE_METHOD(Pm, "the timer's top bit sets TMR_STS when it changes, with an SCI if wanted") {
    out(smi, 0xF1, 1);
    const Ticks half = pm_timer_oscillator.first_tick(clock, u64{1} << 31);
    CHECK(pm.deadline() == never);
    out(enable, 0x0001);
    CHECK(pm.deadline() == half);
    clock.ticks = half - 1;
    CHECK((in(status)&1) == 0);
    clock.ticks = half;
    pm.expire();
    CHECK(sci.level);
    CHECK(pm.deadline() == never);
    CHECK((in(status)&1) == 1);
    out(status, 0x0001);
    CHECK_FALSE(sci.level);
    CHECK(pm.deadline() == pm_timer_oscillator.first_tick(clock, u64{2} << 31));
    clock.ticks = pm.deadline();
    CHECK(in(timer, 4) == 0);  // it wrapped
    CHECK((in(status)&1) == 1);
    CHECK(sci.level);
}

TEST_CASE_METHOD(Pm, "ACPI mode is entered and left through the SMI command port") {
    CHECK((in(control)&1) == 0);
    out(smi, AcpiPm::acpi_enable, 1);
    CHECK((in(control)&1) == 1);
    CHECK(in(smi, 1) == 0xF1);
    out(smi, AcpiPm::acpi_disable, 1);
    CHECK((in(control)&1) == 0);
    out(smi + 1, 0x5A, 1);
    CHECK(in(smi, 2) == 0x5AF0);
    out(smi, 0x99, 1);
    CHECK((in(control)&1) == 0);
}

TEST_CASE_METHOD(Pm, "the power button raises a level SCI until its status is cleared") {
    CHECK_FALSE(pm.press_power_button());
    CHECK(in(status) == 0x0100);
    CHECK_FALSE(sci.level);
    out(smi, 0xF1, 1);
    out(enable, 0x0120);
    CHECK(sci.level);  // it was latched
    out(status, 0xFFFF);
    CHECK(in(status) == 0);
    CHECK_FALSE(sci.level);
    CHECK(pm.press_power_button());
    CHECK(sci.level);
    out(status, 0x00FF);  // not its bit
    CHECK(sci.level);
    out(status + 1, 0x01, 1);
    CHECK_FALSE(sci.level);
}

TEST_CASE_METHOD(Pm, "enable bits that do not exist stay zero") {
    out(enable, 0xFFFF);
    CHECK(in(enable) == 0x0721);
    CHECK(in(status, 4) == 0x07210000);
    out(control, 0xDFFF);
    CHECK(in(control) == 0x1C03);
    CHECK(in(control + 2) == 0);
    CHECK(in(12, 4) == 0);
}

TEST_CASE_METHOD(Pm, "only soft-off's sleep type with SLP_EN switches off") {
    for (unsigned type = 0; type < 8; ++type) {
        out(control, 1 | type << 10);
        CHECK(power.power_offs == 0);
        if (type != 5) out(control, 1 | type << 10 | 1 << 13);
        CHECK(power.power_offs == 0);
    }
    out(control, 1 | 5 << 10 | 1 << 13);
    CHECK(power.power_offs == 1);
    CHECK(in(control) == (1 | 5 << 10));  // SLP_EN reads as zero
    out(control + 1, (5 << 10 | 1 << 13) >> 8, 1);
    CHECK(power.power_offs == 2);
    out(control, 1 | 5 << 10 | 1 << 13, 4);
    CHECK(power.power_offs == 3);
}

TEST_CASE_METHOD(Pm, "reset leaves ACPI mode and lowers the SCI") {
    out(smi, 0xF1, 1);
    out(enable, 0x0100);
    pm.press_power_button();
    CHECK(sci.level);
    pm.reset();
    CHECK_FALSE(sci.level);
    CHECK(in(control) == 0);
    CHECK(in(status) == 0);
    CHECK(in(18, 1) == 0xFF);
}

TEST_CASE_METHOD(Pm, "any sequence of accesses leaves the deadline ahead and the SCI as the registers say") {
    u32 seed = 21;
    const auto random = [&seed] { return (seed = seed * 1664525 + 1013904223) >> 8; };
    for (int i = 0; i < 50'000; ++i) {
        const u32 r = random();
        if ((r & 1) != 0)
            out((r >> 4) % 20, static_cast<u64>(random()) << 20 | random(), 1u << ((r >> 10) & 3));
        else
            (void)in((r >> 4) % 20, 1u << ((r >> 10) & 3));
        clock.advance(u64{random()} << 10);
        if (pm.deadline() <= clock.ticks) pm.expire();
        REQUIRE(pm.deadline() > clock.ticks);
        const bool expected = (in(control)&1) != 0 && (in(status)&in(enable)) != 0;
        REQUIRE(sci.level == expected);
    }
}
