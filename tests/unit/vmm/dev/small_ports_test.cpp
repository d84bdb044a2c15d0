// The chips of one register: CF9h, 92h, 80h; and the interrupt wires.
#include <catch2/catch.hpp>

#include "tests/fakes/fake_irq_line.hpp"
#include "tests/fakes/fake_power_control.hpp"
#include "vmm/dev/irq_router.hpp"
#include "vmm/dev/pic_8259.hpp"
#include "vmm/dev/post_port.hpp"
#include "vmm/dev/reset_control.hpp"
#include "vmm/dev/system_control_a.hpp"

using namespace bulkhead;

TEST_CASE("CF9h resets when bit 2 rises, by whatever path") {
    FakePowerControl power;
    ResetControl chip(power);
    chip.reset();
    // Linux: 02h, then 06h; or 0Ah and 0Eh.
    chip.write(1, 1, 0x02);
    CHECK(power.resets == 0);
    chip.write(1, 1, 0x06);
    CHECK(power.resets == 1);
    chip.write(1, 1, 0x0E);  // no transition
    CHECK(power.resets == 1);
    CHECK(chip.read(1, 1) == 0x0E);
    chip.reset();
    CHECK(chip.read(1, 1) == 0x00);
    chip.write(1, 1, 0x0E);
    CHECK(power.resets == 2);
    chip.write(1, 1, 0x00);
    chip.write(0, 1, 0xFF);
    chip.write(2, 2, 0xFFFF);
    CHECK(power.resets == 2);
    CHECK(chip.read(0, 1) == 0xFF);
    chip.write(0, 2, 0x0400);  // a word at CF8h reaches CF9h with its second byte
    CHECK(power.resets == 3);
}

TEST_CASE("port 92h resets when bit 0 rises and shows A20 on") {
    FakePowerControl power;
    SystemControlA chip(power);
    chip.reset();
    CHECK(chip.read(0, 1) == 0x02);
    chip.write(0, 1, 0x00);
    CHECK(chip.read(0, 1) == 0x02);
    chip.write(0, 1, 0x03);
    chip.write(0, 1, 0x01);
    CHECK(power.resets == 1);
    CHECK(chip.read(0, 1) == 0x03);
    chip.write(0, 1, 0x02);
    chip.write(0, 1, 0x01);
    CHECK(power.resets == 2);
}

TEST_CASE("port 80h keeps the last value") {
    PostPort port;
    port.reset();
    port.write(0, 1, 0xAB);
    CHECK(port.value() == 0xAB);
    CHECK(port.read(0, 1) == 0xAB);
    port.write(0, 4, 0x11223344);
    CHECK(port.value() == 0x44);
}

TEST_CASE("a device's one line reaches the PIC's input and the I/O APIC's pin") {
    FakeIrqLine intr;
    Pic8259 pic(intr);
    pic.reset();
    FakeIrqLine pins[24];
    IrqLine* pic_lines[16];
    IrqLine* apic_lines[24];
    for (unsigned i = 0; i < 16; ++i) pic_lines[i] = &pic.input(i);
    for (unsigned i = 0; i < 24; ++i) apic_lines[i] = &pins[i];
    IrqRouter router(pic_lines, apic_lines);

    for (const unsigned irq : {0u, 1u, 3u, 4u, 7u}) {
        router.line(irq).set(true);
        CHECK(pic.acknowledge() == irq);
        pic.write(0, 1, 0x20);
        const unsigned pin = irq == 0 ? 2 : irq;
        for (unsigned i = 0; i < 24; ++i) CHECK(pins[i].level == (i == pin));
        router.line(irq).set(false);
        CHECK_FALSE(pins[pin].level);
    }
    router.line(2).set(true);
    router.line(16).set(true);
    router.line(99).set(true);
    CHECK_FALSE(intr.level);
    for (const FakeIrqLine& pin : pins) CHECK_FALSE(pin.level);

    IrqRouter alone({}, {});
    alone.line(4).set(true);
}
