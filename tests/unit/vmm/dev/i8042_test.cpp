#include "vmm/dev/i8042.hpp"

#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "tests/fakes/fake_irq_line.hpp"
#include "tests/fakes/fake_power_control.hpp"
#include "vmm/dev/keys.hpp"

using namespace bulkhead;

namespace {

using Codes = std::vector<u8>;

struct Controller {
    FakeIrqLine irq1, irq12;
    FakePowerControl power;
    I8042 chip{irq1, irq12, power};

    Controller() { chip.reset(); }
    u8 status() { return static_cast<u8>(chip.read(1, 1)); }
    u8 data() { return static_cast<u8>(chip.read(0, 1)); }
    void command(u8 value) { chip.write(1, 1, value); }
    void send(u8 value) { chip.write(0, 1, value); }
    Codes drain() {
        Codes all;
        while ((status() & 1) != 0) {
            REQUIRE(all.size() < 200);
            all.push_back(data());
        }
        return all;
    }
    u8 ask(u8 value) {
        command(value);
        REQUIRE((status() & 1) != 0);
        return data();
    }
    void set_control(u8 value) {
        command(0x60);
        send(value);
    }
    bool press(const Codes& codes) { return chip.press(codes); }
};

}  // namespace

TEST_CASE_METHOD(Controller, "after reset the buffer is empty, the keyboard on, translated and not locked") {
    CHECK(status() == 0x14);
    CHECK(ask(0x20) == 0x65);
    CHECK(status() == 0x1C);
    CHECK_FALSE(irq1.level);
    CHECK(chip.read(2, 1) == 0xFF);
}

TEST_CASE_METHOD(Controller, "the controller passes its tests and reports its ports") {
    CHECK(ask(0xAA) == 0x55);
    CHECK(ask(0xAB) == 0x00);
    CHECK(ask(0xA9) == 0x00);
    CHECK(ask(0xA4) == 0xF1);
    CHECK((ask(0xC0) & 0x80) != 0);
    CHECK((ask(0xD0) & 0x03) == 0x03);
    CHECK(ask(0xE0) == 0x00);
}

TEST_CASE_METHOD(Controller, "keys arrive translated, one interrupt a byte") {
    CHECK(press({0x1C, 0xF0, 0x1C}));
    CHECK(irq1.level);
    CHECK(irq1.rises == 1);
    CHECK(data() == 0x1E);
    CHECK(irq1.rises == 2);
    CHECK(data() == 0x9E);
    CHECK_FALSE(irq1.level);
    CHECK(irq1.rises == 2);
    CHECK(data() == 0x9E);
    press({0xE0, 0x75, 0xE0, 0xF0, 0x75});
    CHECK(drain() == Codes{0xE0, 0x48, 0xE0, 0xC8});
    press({0x83, 0xF0, 0x83});
    CHECK(drain() == Codes{0x41, 0xC1});
}

TEST_CASE_METHOD(Controller,
                 "without translation the keyboard's own codes pass, and in set 1 it makes them itself") {
    set_control(0x05);
    press({0x1C, 0xF0, 0x1C});
    CHECK(drain() == Codes{0x1C, 0xF0, 0x1C});
    send(0xF0);
    send(0x01);
    CHECK(drain() == Codes{0xFA, 0xFA});
    press({0x1C, 0xF0, 0x1C});
    CHECK(drain() == Codes{0x1E, 0x9E});
    send(0xF0);
    send(0x00);
    CHECK(drain() == Codes{0xFA, 0xFA, 0x01});
    send(0xF0);
    send(0x03);
    CHECK(drain() == Codes{0xFA, 0xFE});
}

TEST_CASE_METHOD(Controller, "the translation sends every key of set 2 to its code of set 1") {
    // Microsoft's table: the 83 keys of the original keyboard, in the order of set 1.
    const u8 set2[] = {0x76, 0x16, 0x1E, 0x26, 0x25, 0x2E, 0x36, 0x3D, 0x3E, 0x46, 0x45, 0x4E, 0x55, 0x66,
                       0x0D, 0x15, 0x1D, 0x24, 0x2D, 0x2C, 0x35, 0x3C, 0x43, 0x44, 0x4D, 0x54, 0x5B, 0x5A,
                       0x14, 0x1C, 0x1B, 0x23, 0x2B, 0x34, 0x33, 0x3B, 0x42, 0x4B, 0x4C, 0x52, 0x0E, 0x12,
                       0x5D, 0x1A, 0x22, 0x21, 0x2A, 0x32, 0x31, 0x3A, 0x41, 0x49, 0x4A, 0x59, 0x7C, 0x11,
                       0x29, 0x58, 0x05, 0x06, 0x04, 0x0C, 0x03, 0x0B, 0x83, 0x0A, 0x01, 0x09, 0x77, 0x7E,
                       0x6C, 0x75, 0x7D, 0x7B, 0x6B, 0x73, 0x74, 0x79, 0x69, 0x72, 0x7A, 0x70, 0x71};
    for (unsigned i = 0; i < sizeof(set2); ++i) {
        press({set2[i], 0xF0, set2[i]});
        CHECK(drain() == Codes{static_cast<u8>(i + 1), static_cast<u8>((i + 1) | 0x80)});
    }
    press({0x78, 0x07});
    CHECK(drain() == Codes{0x57, 0x58});  // F11, F12
}

TEST_CASE_METHOD(Controller, "the keyboard answers its commands") {
    send(0xFF);
    CHECK(drain() == Codes{0xFA, 0xAA});
    send(0xF2);
    CHECK(drain() == Codes{0xFA, 0xAB, 0x41});  // translated
    send(0xED);
    CHECK(drain() == Codes{0xFA});
    send(0x07);
    CHECK(drain() == Codes{0xFA});
    CHECK(chip.leds() == 7);
    send(0xEE);
    CHECK(drain() == Codes{0xEE});
    send(0xF3);
    send(0x20);
    CHECK(drain() == Codes{0xFA, 0xFA});
    send(0xF5);
    CHECK(drain() == Codes{0xFA});
    CHECK_FALSE(press({0x1C}));
    send(0xF4);
    CHECK(drain() == Codes{0xFA});
    CHECK(press({0x1C}));
    CHECK(drain() == Codes{0x1E});
    send(0xFE);
    CHECK(drain() == Codes{0x1E});
    send(0x12);
    CHECK(drain() == Codes{0xFE});
    send(0xED);
    send(0xF4);  // a command in place of a parameter
    CHECK(drain() == Codes{0xFA, 0xFA});
    CHECK(chip.leds() == 7);
}

TEST_CASE_METHOD(Controller, "a disabled keyboard keeps its bytes until it is enabled") {
    command(0xAD);
    CHECK(press({0x1C}));
    CHECK((status() & 1) == 0);
    CHECK((ask(0x20) & 0x10) != 0);
    command(0xAE);
    CHECK(drain() == Codes{0x1E});
    command(0xAD);
    send(0xF4);  // sending enables
    CHECK(drain() == Codes{0xFA});
    CHECK((ask(0x20) & 0x10) == 0);
}

TEST_CASE_METHOD(Controller, "a response of the controller overtakes keys without losing one") {
    press({0x1C, 0x32, 0x21});
    command(0x20);
    CHECK(data() == 0x65);
    CHECK(drain() == Codes{0x1E, 0x30, 0x2E});
}

TEST_CASE_METHOD(Controller, "the interrupt follows the command byte") {
    set_control(0x44);
    press({0x1C});
    CHECK_FALSE(irq1.level);
    set_control(0x45);
    CHECK(irq1.level);
    command(0xD2);
    send(0x77);
    CHECK(data() == 0x77);
    command(0xD3);
    send(0x5A);
    CHECK_FALSE(irq12.level);
    CHECK((status() & 0x21) == 0x21);
    set_control(0x47);
    CHECK(irq12.level);
    CHECK(data() == 0x5A);
    CHECK_FALSE(irq12.level);
}

TEST_CASE_METHOD(Controller, "Linux's driver finds a sound controller with an empty second port") {
    // drivers/input/serio/i8042.c of Linux 6.1: i8042_controller_init(), i8042_check_aux().
    drain();
    const u8 first = ask(0x20);
    CHECK(ask(0x20) == first);
    CHECK((status() & 0x10) != 0);  // else "i8042: Warning: Keylock active"
    CHECK((first & 0x40) != 0);
    set_control(static_cast<u8>((first | 0x10) & ~0x01));
    CHECK(ask(0x20) == ((first | 0x10) & ~0x01));
    command(0xD3);
    send(0x5A);
    CHECK((status() & 0x20) != 0);
    CHECK(data() == 0x5A);
    CHECK(ask(0xA9) == 0x00);
    command(0xA7);
    CHECK((ask(0x20) & 0x20) != 0);
    command(0xA8);
    CHECK((ask(0x20) & 0x20) == 0);
    // Its interrupt test: the echo must arrive by IRQ 12.
    set_control(static_cast<u8>(ask(0x20) | 0x02));
    command(0xD3);
    send(0xA5);
    CHECK(irq12.level);
    CHECK(data() == 0xA5);
    // No active multiplexer: its magic comes back unchanged.
    for (const u8 magic : {0xF0, 0x56, 0xA4}) {
        command(0xD3);
        send(magic);
        CHECK(data() == magic);
    }
    // psmouse asks who is there; a time-out says nobody.
    command(0xD4);
    send(0xF2);
    CHECK(irq12.level);
    CHECK((status() & 0x61) == 0x61);
    CHECK(data() == 0xFE);
    CHECK((status() & 0x61) == 0x00);
}

TEST_CASE_METHOD(Controller, "the CPU is reset by even pulses and by the output port") {
    command(0xFE);
    CHECK(power.resets == 1);
    command(0xF0);
    CHECK(power.resets == 2);
    command(0xFF);
    command(0xFD);
    CHECK(power.resets == 2);
    command(0xD1);
    send(0xDF);
    CHECK(power.resets == 2);
    command(0xD1);
    send(0xDE);
    CHECK(power.resets == 3);
    CHECK(power.power_offs == 0);
}

TEST_CASE_METHOD(Controller, "the queue is bounded and takes a sequence whole or not at all") {
    command(0xAD);
    const unsigned room = chip.space();
    REQUIRE(room >= 16);
    for (unsigned i = 0; i < room; ++i) CHECK(press({0x1C}));
    CHECK(chip.space() == 0);
    CHECK_FALSE(press({0x1C}));
    command(0xAE);
    data();
    CHECK(chip.space() > 0);
    CHECK_FALSE(press(Codes(20, 0x1C)));
    CHECK(drain() == Codes(room - 1, 0x1E));
}

TEST_CASE_METHOD(Controller, "any sequence of accesses ends, and the interrupts follow the buffer") {
    u32 seed = 5;
    const auto random = [&seed] { return (seed = seed * 1664525 + 1013904223) >> 8; };
    for (int i = 0; i < 100'000; ++i) {
        const u32 r = random();
        switch (r & 3) {
            case 0: chip.write((r >> 2) & 3, 1u << ((r >> 4) & 1), r >> 8); break;
            case 1: (void)chip.read((r >> 2) & 3, 1u << ((r >> 4) & 3)); break;
            case 2: press({static_cast<u8>(r >> 8), 0xF0, static_cast<u8>(r >> 12)}); break;
            default: chip.write(0, 1, 0xE8 + ((r >> 8) & 23)); break;
        }
        REQUIRE((!irq1.level || !irq12.level));
        if (irq1.level || irq12.level) REQUIRE((status() & 1) != 0);
        REQUIRE(chip.space() <= 64);
    }
}

TEST_CASE_METHOD(Controller, "characters and names become the scan codes of their keys") {
    const auto typed = [this](char c) {
        const auto codes = scan_codes_of(c);
        REQUIRE(codes);
        REQUIRE(chip.press(*codes));
        return drain();
    };
    CHECK(typed('a') == Codes{0x1E, 0x9E});
    CHECK(typed('A') == Codes{0x2A, 0x1E, 0x9E, 0xAA});
    CHECK(typed('\n') == Codes{0x1C, 0x9C});
    CHECK(typed('?') == Codes{0x2A, 0x35, 0xB5, 0xAA});
    for (char c = ' '; c < '\x7F'; ++c) CHECK(scan_codes_of(c).has_value());
    CHECK_FALSE(scan_codes_of('\x01'));
    CHECK_FALSE(scan_codes_of('\xE9'));

    const auto named = [this](std::string_view name) {
        const auto codes = scan_codes_of_key(name);
        REQUIRE(codes);
        REQUIRE(chip.press(*codes));
        return drain();
    };
    CHECK(named("x") == Codes{0x2D, 0xAD});
    CHECK(named("up") == Codes{0xE0, 0x48, 0xE0, 0xC8});
    CHECK(named("ctrl-alt-delete") == Codes{0x1D, 0x38, 0xE0, 0x53, 0xE0, 0xD3, 0xB8, 0x9D});
    CHECK(named("alt-f2") == Codes{0x38, 0x3C, 0xBC, 0xB8});
    CHECK(named("-") == Codes{0x0C, 0x8C});
    CHECK(named("ctrl--") == Codes{0x1D, 0x0C, 0x8C, 0x9D});
    CHECK(named("shift-ctrl-alt-pagedown").size() == 10);
    CHECK_FALSE(scan_codes_of_key(""));
    CHECK_FALSE(scan_codes_of_key("ctrl-"));
    CHECK_FALSE(scan_codes_of_key("ctrl-ctrl-a"));
    CHECK_FALSE(scan_codes_of_key("hyper-x"));
}
