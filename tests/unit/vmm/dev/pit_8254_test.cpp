#include "vmm/dev/pit_8254.hpp"

#include <catch2/catch.hpp>

#include "tests/fakes/fake_clock.hpp"
#include "tests/fakes/fake_irq_line.hpp"

using namespace bulkhead;

namespace {

constexpr u64 port61 = 4;

struct Timer {
    FakeClock clock{2'100'000'000};
    FakeIrqLine irq;
    Pit8254 pit{clock, irq};

    Timer() {
        clock.ticks = 1'000'000'007;
        pit.reset();
    }
    u8 in(u64 offset) { return static_cast<u8>(pit.read(offset, 1)); }
    void out(u64 offset, unsigned value) { pit.write(offset, 1, value); }
    u64 cycle() const { return pit_oscillator.cycles(clock, clock.ticks); }
    // To the first tick of a cycle, without serving the timer.
    void to_cycle(u64 target) { clock.ticks = pit_oscillator.first_tick(clock, target); }
    void forward(u64 cycles) { to_cycle(cycle() + cycles); }
    void program(unsigned counter, unsigned mode, unsigned count, bool bcd = false) {
        out(3, counter << 6 | 0x30 | mode << 1 | (bcd ? 1 : 0));
        out(counter, count & 0xFF);
        out(counter, count >> 8);
    }
    unsigned count(unsigned counter) {
        out(3, counter << 6);
        const unsigned low = in(counter);
        return low | in(counter) << 8;
    }
    u8 status(unsigned counter) {
        out(3, 0xE0 | 2u << counter);
        return in(counter);
    }
    bool out_pin(unsigned counter) { return (status(counter) & 0x80) != 0; }
    void gate2(bool level) { out(port61, level ? 1 : 0); }
};

}  // namespace

TEST_CASE("the crystal's counts are exact and invert") {
    FakeClock clock(2'933'437'219);
    for (const u64 count :
         {u64{0}, u64{1}, u64{2}, u64{1193181}, u64{1193182}, u64{1} << 40, u64{123456789012345}}) {
        const Ticks first = pit_oscillator.first_tick(clock, count);
        CHECK(pit_oscillator.cycles(clock, first) == count);
        if (count > 0) CHECK(pit_oscillator.cycles(clock, first - 1) == count - 1);
        CHECK(pm_timer_oscillator.cycles(clock, first) / 3 == count);
    }
    CHECK(pit_oscillator.first_tick(clock, never) == never);
    CHECK(pit_oscillator.cycles(clock, clock.hz() * 88) == 105'000'000);
}

TEST_CASE_METHOD(Timer, "mode 0 counts down, raises OUT at its end and counts on from FFFFh") {
    program(0, 0, 5);
    CHECK_FALSE(out_pin(0));
    CHECK((status(0) & 0x7F) == 0x70);  // null count until the next cycle; both bytes; mode 0
    forward(1);
    CHECK(count(0) == 5);
    CHECK((status(0) & 0x40) == 0);
    forward(1);
    CHECK(count(0) == 4);
    forward(3);
    CHECK(count(0) == 1);
    CHECK_FALSE(out_pin(0));
    forward(1);
    CHECK(count(0) == 0);
    CHECK(out_pin(0));  // N + 1 cycles after it was written
    forward(1);
    CHECK(count(0) == 0xFFFF);
    CHECK(out_pin(0));
    forward(65536 * 3);
    CHECK(count(0) == 0xFFFF);
}

TEST_CASE_METHOD(Timer, "mode 0 interrupts once, at the tick at which its count reads zero") {
    program(0, 0, 1000);
    const Ticks due = pit.deadline();
    REQUIRE(due != never);
    clock.ticks = due - 1;
    CHECK(count(0) == 1);
    pit.expire();
    CHECK_FALSE(irq.level);
    clock.ticks = due;
    CHECK(count(0) == 0);
    pit.expire();
    CHECK(irq.level);
    CHECK(irq.rises == 1);
    CHECK(pit.deadline() == never);
    program(0, 0, 1000);  // OUT goes low with the new control word
    CHECK_FALSE(irq.level);
}

TEST_CASE_METHOD(Timer, "in mode 0 the first of two bytes stops the count") {
    program(0, 0, 10);
    forward(3);
    out(0, 7);
    CHECK(pit.deadline() == never);
    forward(100);
    CHECK_FALSE(out_pin(0));
    out(0, 0);
    forward(8);
    CHECK(out_pin(0));
}

TEST_CASE_METHOD(Timer, "mode 2 divides, low for one cycle in N") {
    program(0, 2, 3);
    forward(1);
    const u8 expected_count[] = {3, 2, 1, 3, 2, 1, 3};
    const bool expected_out[] = {true, true, false, true, true, false, true};
    for (int i = 0; i < 7; ++i) {
        CHECK(count(0) == expected_count[i]);
        CHECK(out_pin(0) == expected_out[i]);
        forward(1);
    }
}

TEST_CASE_METHOD(Timer, "a new count in mode 2 waits for the end of the period") {
    program(2, 2, 4);
    gate2(true);
    forward(1);
    CHECK(count(2) == 4);
    forward(1);
    out(2, 6);
    out(2, 0);
    CHECK((status(2) & 0x40) != 0);
    CHECK(count(2) == 3);
    forward(2);
    CHECK(count(2) == 1);
    forward(1);
    CHECK(count(2) == 6);
    CHECK((status(2) & 0x40) == 0);
    forward(6);
    CHECK(count(2) == 6);
}

TEST_CASE_METHOD(Timer, "mode 3 is a square wave, even and odd") {
    program(0, 3, 4);
    forward(1);
    const unsigned even_counts[] = {4, 2, 4, 2, 4};
    const bool even_out[] = {true, true, false, false, true};
    for (int i = 0; i < 5; ++i) {
        CHECK(count(0) == even_counts[i]);
        CHECK(out_pin(0) == even_out[i]);
        forward(1);
    }
    program(0, 3, 5);
    forward(1);
    const unsigned odd_counts[] = {4, 2, 0, 4, 2, 4};
    const bool odd_out[] = {true, true, true, false, false, true};
    for (int i = 0; i < 6; ++i) {
        CHECK(count(0) == odd_counts[i]);
        CHECK(out_pin(0) == odd_out[i]);
        forward(1);
    }
}

TEST_CASE_METHOD(Timer, "a new count in mode 3 waits for the end of the half period") {
    program(0, 3, 8);
    const u64 loaded = cycle() + 1;
    to_cycle(loaded + 1);
    out(0, 4);
    out(0, 0);
    to_cycle(loaded + 3);
    CHECK(out_pin(0));
    to_cycle(loaded + 4);
    CHECK_FALSE(out_pin(0));
    CHECK(count(0) == 4);
    to_cycle(loaded + 5);
    CHECK_FALSE(out_pin(0));
    to_cycle(loaded + 6);
    CHECK(out_pin(0));
    // The interrupt comes with that rise.
    CHECK(pit.deadline() == pit_oscillator.first_tick(clock, loaded + 6));
}

TEST_CASE_METHOD(Timer, "mode 4 strobes once after its count") {
    program(0, 4, 3);
    const Ticks due = pit.deadline();
    CHECK(due == pit_oscillator.first_tick(clock, cycle() + 5));
    CHECK(out_pin(0));
    forward(4);
    CHECK(count(0) == 0);
    CHECK_FALSE(out_pin(0));
    forward(1);
    CHECK(count(0) == 0xFFFF);
    CHECK(out_pin(0));
    pit.expire();
    CHECK(irq.rises == 1);
    CHECK(pit.deadline() == never);
}

TEST_CASE_METHOD(Timer, "modes 1 and 5 wait for the gate's edge and can be triggered again") {
    program(2, 1, 3);
    CHECK(out_pin(2));
    CHECK((status(2) & 0x40) != 0);
    forward(10);
    CHECK(out_pin(2));
    gate2(true);
    forward(1);
    CHECK_FALSE(out_pin(2));
    CHECK(count(2) == 3);
    forward(2);
    CHECK_FALSE(out_pin(2));
    gate2(false);
    gate2(true);  // retriggers
    forward(3);
    CHECK_FALSE(out_pin(2));
    forward(1);
    CHECK(out_pin(2));

    gate2(false);
    program(2, 5, 2);
    gate2(true);
    forward(2);
    CHECK(out_pin(2));
    forward(1);
    CHECK_FALSE(out_pin(2));
    CHECK((in(port61)&0x20) == 0);
    forward(1);
    CHECK(out_pin(2));
    // Counter 0's gate never moves: no interrupt ever.
    program(0, 1, 3);
    CHECK(pit.deadline() == never);
    program(0, 5, 3);
    CHECK(pit.deadline() == never);
}

TEST_CASE_METHOD(Timer, "gate 2 low holds modes 0 and 4, and forces modes 2 and 3 high") {
    gate2(true);
    program(2, 0, 10);
    forward(4);
    CHECK(count(2) == 7);
    gate2(false);
    forward(100);
    CHECK(count(2) == 7);
    gate2(true);
    forward(7);
    CHECK(count(2) == 0);
    CHECK(out_pin(2));

    program(2, 3, 10);
    forward(7);
    CHECK_FALSE(out_pin(2));
    gate2(false);
    CHECK(out_pin(2));
    forward(3);
    CHECK(out_pin(2));
    gate2(true);
    forward(1);
    CHECK(count(2) == 10);

    gate2(false);
    program(2, 0, 5);  // written with the gate low: loaded, but held
    forward(50);
    CHECK(count(2) == 5);
    gate2(true);
    forward(5);
    CHECK(count(2) == 0);
}

TEST_CASE_METHOD(Timer, "BCD counts in decades") {
    program(0, 0, 0x1000, true);
    forward(2);
    CHECK(count(0) == 0x0999);
    forward(999);
    CHECK(count(0) == 0x0000);
    forward(1);
    CHECK(count(0) == 0x9999);
    program(0, 2, 0, true);
    forward(1);
    CHECK(count(0) == 0x0000);  // ten thousand
    forward(1);
    CHECK(count(0) == 0x9999);
    program(0, 2, 0xFFFF, true);  // no decimal digits: harmless
    forward(100);
    CHECK(count(0) <= 0x9999);
}

TEST_CASE_METHOD(Timer, "a count of zero is 65536") {
    program(0, 2, 0);
    forward(1);
    CHECK(count(0) == 0);
    forward(1);
    CHECK(count(0) == 0xFFFF);
    CHECK(pit.deadline() == pit_oscillator.first_tick(clock, cycle() - 1 + 65536));
}

TEST_CASE_METHOD(Timer, "single-byte access fills the other byte with zero") {
    out(3, 0x14);  // counter 0, low byte, mode 2
    out(0, 0x12);
    forward(1);
    CHECK(in(0) == 0x12);
    CHECK(in(0) == 0x12);
    out(3, 0x24);  // high byte
    out(0, 0x12);
    forward(1);
    CHECK(in(0) == 0x12);
    forward(0x100);
    CHECK(in(0) == 0x11);
}

TEST_CASE_METHOD(Timer, "a latched count stays until both its bytes are read") {
    program(0, 2, 0x1234);
    forward(1);
    out(3, 0x00);
    forward(0x100);
    out(3, 0x00);  // ignored, the first is not read yet
    CHECK(in(0) == 0x34);
    forward(0x10);
    CHECK(in(0) == 0x12);
    CHECK(in(0) == ((0x1234 - 0x110) & 0xFF));  // the running count again
    CHECK(in(0) == (0x1234 - 0x110) >> 8);
}

TEST_CASE_METHOD(Timer, "read-back latches status and count of several counters, status comes first") {
    program(0, 2, 0x2000);
    program(2, 3, 0x4000);
    gate2(true);
    forward(1);
    out(3, 0xC0 | 0x02 | 0x08);
    forward(0x20);
    CHECK(in(0) == 0xB4);
    CHECK(in(0) == 0x00);
    CHECK(in(0) == 0x20);
    CHECK(in(2) == 0xB6);
    CHECK(in(2) == 0x00);
    CHECK(in(2) == 0x40);
    // Modes 6 and 7 are 2 and 3.
    out(3, 0x3C);
    CHECK((status(0) & 0x0E) == 0x04);
    out(3, 0x3E);
    CHECK((status(0) & 0x0E) == 0x06);
}

TEST_CASE_METHOD(Timer, "periodic interrupts come at the exact ticks, for ever without drift") {
    program(0, 2, 11932);  // HZ=100
    const u64 start = cycle() + 1;
    for (u64 i = 1; i <= 1000; ++i) {
        REQUIRE(pit.deadline() == pit_oscillator.first_tick(clock, start + i * 11932));
        clock.ticks = pit.deadline();
        pit.expire();
        REQUIRE(irq.rises == i);
        REQUIRE(irq.level);
    }
}

TEST_CASE_METHOD(Timer, "mode 3 interrupts once a period") {
    program(0, 3, 0);
    const Ticks second = clock.ticks + clock.hz();
    CHECK(clock.run_until(second, pit) == 18);
    CHECK(irq.rises == 18);
}

TEST_CASE_METHOD(Timer, "periods that nobody served are one edge") {
    program(0, 2, 1193);
    const u64 start = cycle() + 1;
    clock.advance_seconds(100);
    pit.expire();
    CHECK(irq.rises == 1);
    pit.expire();
    CHECK(irq.rises == 1);
    CHECK(pit.deadline() > clock.ticks);
    CHECK((cycle() - start) / 1193 + 1 == (pit_oscillator.cycles(clock, pit.deadline()) - start) / 1193);
}

TEST_CASE_METHOD(Timer, "tiny periods cannot flood, and their counts run on") {
    for (const unsigned n : {1u, 2u, 3u, 7u, 100u, 119u}) {
        program(0, 2, n);
        const u64 calls = clock.run_for_us(100'000, pit);
        CHECK(calls <= 100'000 * 1193182ull / 1'000'000 / Pit8254::shortest_period + 2);
        CHECK(calls >= 400);
        CHECK(count(0) <= n);
    }
    program(0, 3, 1);
    CHECK(clock.run_for_us(100'000, pit) <= 1000);
    // One-shots cost the guest a write each.
    program(0, 0, 1);
    CHECK(clock.run_for_us(100'000, pit) == 1);
}

TEST_CASE_METHOD(Timer, "port 61h shows the gate, OUT 2 and a refresh toggle every 15 microseconds") {
    out(port61, 0xFF);
    CHECK((in(port61)&0xCF) == 0x0F);
    out(port61, 0x02);
    CHECK((in(port61)&0x0F) == 0x02);
    unsigned toggles = 0;
    u8 last = in(port61)&0x10;
    for (int i = 0; i < 1000; ++i) {
        clock.advance_us(1);
        const u8 now = in(port61)&0x10;
        if (now != last) ++toggles;
        last = now;
    }
    CHECK(toggles >= 65);
    CHECK(toggles <= 67);
    CHECK(pit.read(5, 1) == 0xFF);
    CHECK(pit.read(3, 1) == 0xFF);  // the control register cannot be read
}

TEST_CASE_METHOD(Timer, "Linux's quick calibration sees each high byte last 256 cycles") {
    // arch/x86/kernel/tsc.c, quick_pit_calibrate() of Linux 6.1.
    out(port61, (in(port61) & ~2u) | 1);
    out(3, 0xB0);
    out(2, 0xFF);
    out(2, 0xFF);
    const auto high_byte = [this] {
        in(2);
        return in(2);
    };
    forward(1);
    CHECK(high_byte() == 0xFF);
    u64 previous = 0;
    for (u8 msb = 0xFE; msb > 0xE0; --msb) {
        while (high_byte() != msb) clock.advance(50);
        if (previous != 0) {
            const u64 expected = clock.hz() * 256 / 1193182;
            CHECK(clock.ticks - previous >= expected - 100);
            CHECK(clock.ticks - previous <= expected + 100);
        }
        previous = clock.ticks;
    }
}

TEST_CASE_METHOD(Timer, "Linux's slow calibration waits 10 ms for OUT 2 in port 61h") {
    // pit_calibrate_tsc(CAL_LATCH): mode 0, 11931 cycles.
    for (int round = 0; round < 3; ++round) {
        out(port61, (in(port61) & ~2u) | 1);
        out(3, 0xB0);
        out(2, 11931 & 0xFF);
        out(2, 11931 >> 8);
        const Ticks begin = clock.ticks;
        u64 reads = 0;
        while ((in(port61)&0x20) == 0) {
            clock.advance(2000);
            REQUIRE(++reads < 100'000);
        }
        const u64 us = (clock.ticks - begin) * 1'000'000 / clock.hz();
        CHECK(us >= 9'998);
        CHECK(us <= 10'002);
    }
}

TEST_CASE_METHOD(Timer, "firmware's settings tick 18.2 times a second, and a reset stops them") {
    program(0, 3, 0);
    CHECK(clock.run_for_us(10'000'000, pit) == 182);
    pit.reset();
    CHECK(pit.deadline() == never);
    CHECK_FALSE(irq.level);
}

TEST_CASE_METHOD(Timer, "any sequence of accesses leaves the deadline ahead and the counts in range") {
    u32 seed = 7;
    const auto random = [&seed] { return (seed = seed * 1664525 + 1013904223) >> 8; };
    for (int i = 0; i < 100'000; ++i) {
        const u32 r = random();
        switch (r & 3) {
            case 0:
                pit.write((r >> 4) & 7, 1u << ((r >> 8) & 3), static_cast<u64>(random()) << 16 | random());
                break;
            case 1: (void)pit.read((r >> 4) & 7, 1u << ((r >> 8) & 3)); break;
            case 2: clock.advance((r >> 4) & 0xFFFFF); break;
            default:
                if (pit.deadline() <= clock.ticks) {
                    pit.expire();
                    REQUIRE(pit.deadline() > clock.ticks);
                }
                break;
        }
    }
    clock.ticks = never / 2;
    pit.expire();
    (void)pit.read(0, 4);
}
