#include "vmm/dev/rtc_mc146818.hpp"

#include <catch2/catch.hpp>
#include <ctime>

#include "tests/fakes/fake_clock.hpp"
#include "tests/fakes/fake_irq_line.hpp"

using namespace bulkhead;

namespace {

// 2024-02-28 23:59:58 UTC, a Wednesday before a leap day.
constexpr u64 leap_eve = 1709164798;

struct Chip {
    FakeClock clock{2'000'000'000};
    FakeIrqLine irq;
    RtcMc146818 rtc;

    explicit Chip(u64 wall_clock = leap_eve) : rtc((clock.ticks = 5'000'000'003, clock), irq, wall_clock) {
        rtc.reset();
    }
    u8 in(unsigned index) {
        rtc.write(0, 1, index);
        return static_cast<u8>(rtc.read(1, 1));
    }
    void out(unsigned index, unsigned value) {
        rtc.write(0, 1, index);
        rtc.write(1, 1, value);
    }
};

}  // namespace

TEST_CASE_METHOD(Chip, "the time reads in BCD and 24 hours, and follows guest time over a leap day") {
    CHECK(in(0x00) == 0x58);
    CHECK(in(0x02) == 0x59);
    CHECK(in(0x04) == 0x23);
    CHECK(in(0x06) == 0x04);
    CHECK(in(0x07) == 0x28);
    CHECK(in(0x08) == 0x02);
    CHECK(in(0x09) == 0x24);
    CHECK(in(0x32) == 0x20);
    clock.advance_seconds(2);
    CHECK(in(0x00) == 0x00);
    CHECK(in(0x02) == 0x00);
    CHECK(in(0x04) == 0x00);
    CHECK(in(0x06) == 0x05);
    CHECK(in(0x07) == 0x29);
    clock.advance_seconds(86400);
    CHECK(in(0x07) == 0x01);
    CHECK(in(0x08) == 0x03);
    CHECK(rtc.time() == static_cast<i64>(leap_eve) + 86402);
}

TEST_CASE("every date from 1970 to 2199 agrees with the C library's calendar") {
    for (u64 day = 0; day < 84006; day += 13) {
        const std::time_t when = static_cast<std::time_t>(day * 86400 + day % 86400);
        Chip chip(static_cast<u64>(when));
        chip.out(0x0B, 0x06);  // binary
        std::tm tm{};
        gmtime_r(&when, &tm);
        REQUIRE(chip.in(0x00) == tm.tm_sec);
        REQUIRE(chip.in(0x02) == tm.tm_min);
        REQUIRE(chip.in(0x04) == tm.tm_hour);
        REQUIRE(chip.in(0x06) == tm.tm_wday + 1);
        REQUIRE(chip.in(0x07) == tm.tm_mday);
        REQUIRE(chip.in(0x08) == tm.tm_mon + 1);
        REQUIRE(chip.in(0x09) == tm.tm_year % 100);
        REQUIRE(chip.in(0x32) == (tm.tm_year + 1900) / 100);
    }
}

TEST_CASE("twelve-hour time marks the afternoon, and twelve is twelve") {
    const struct {
        unsigned hour;
        u8 bcd;
        u8 binary;
    } cases[] = {{0, 0x12, 12},    {1, 0x01, 1},     {11, 0x11, 11},
                 {12, 0x92, 0x8C}, {13, 0x81, 0x81}, {23, 0x91, 0x8B}};
    for (const auto& c : cases) {
        Chip chip(c.hour * 3600);
        chip.out(0x0B, 0x00);
        CHECK(chip.in(0x04) == c.bcd);
        chip.out(0x0B, 0x04);
        CHECK(chip.in(0x04) == c.binary);
        chip.out(0x0B, 0x80);
        chip.out(0x04, c.bcd);
        chip.out(0x0B, 0x00);
        CHECK(chip.rtc.time() == c.hour * 3600);
    }
}

TEST_CASE_METHOD(Chip, "registers A to D come up as firmware leaves them") {
    CHECK(in(0x0A) == 0x26);
    CHECK(in(0x0B) == 0x02);
    CHECK(in(0x0C) == 0x00);
    CHECK(in(0x0D) == 0x80);
    out(0x0C, 0xFF);
    out(0x0D, 0x00);
    CHECK(in(0x0C) == 0x00);
    CHECK(in(0x0D) == 0x80);
    CHECK(rtc.read(0, 1) == 0xFF);
    CHECK(in(0x80 | 0x0D) == 0x80);  // the NMI mask does not count
}

TEST_CASE_METHOD(Chip, "UIP announces an update 244 microseconds ahead") {
    CHECK((in(0x0A) & 0x80) == 0);
    clock.advance_us(1'000'000 - 250);
    CHECK((in(0x0A) & 0x80) == 0);
    clock.advance_us(10);
    CHECK((in(0x0A) & 0x80) != 0);
    CHECK(in(0x00) == 0x58);
    clock.advance_us(240);
    CHECK((in(0x0A) & 0x80) == 0);
    CHECK(in(0x00) == 0x59);
}

TEST_CASE_METHOD(Chip, "Linux's read loop gets one consistent time") {
    // mc146818_avoid_UIP() of Linux 6.1: UIP clear before and after, and the seconds unchanged.
    for (int i = 0; i < 5000; ++i) {
        clock.advance_us(397);
        if ((in(0x0A) & 0x80) != 0) continue;
        const u8 seconds = in(0x00);
        clock.advance_us(100);
        if ((in(0x0A) & 0x80) != 0) continue;
        REQUIRE(in(0x00) == seconds);
    }
}

TEST_CASE_METHOD(Chip, "setting the time with SET moves this clock and keeps its phase") {
    clock.advance_us(300'000);
    out(0x0B, 0x82);
    CHECK(in(0x0B) == 0x82);
    clock.advance_seconds(10);
    CHECK(in(0x00) == 0x58);  // stands still
    CHECK((in(0x0A) & 0x80) == 0);
    out(0x09, 0x99);
    out(0x32, 0x19);
    out(0x08, 0x12);
    out(0x07, 0x31);
    out(0x04, 0x23);
    out(0x02, 0x59);
    out(0x00, 0x59);
    CHECK(in(0x07) == 0x31);
    out(0x0B, 0x02);
    CHECK(rtc.time() == 946684799);
    clock.advance_us(699'000);
    CHECK(in(0x00) == 0x59);
    clock.advance_us(1'001);
    CHECK(rtc.time() == 946684800);
    CHECK(in(0x32) == 0x20);
    CHECK(in(0x09) == 0x00);
    CHECK(in(0x06) == 0x07);  // 2000-01-01 was a Saturday
}

TEST_CASE_METHOD(Chip, "a divider reset holds the time; the first update comes half a second after it") {
    // mc146818_set_time() of Linux 6.1: SET, divider reset, fields, and both back.
    out(0x0B, 0x82);
    out(0x0A, 0x76);
    clock.advance_us(123'456);
    out(0x00, 0x30);
    out(0x0B, 0x02);
    clock.advance_seconds(3);
    CHECK(in(0x00) == 0x30);
    out(0x0A, 0x26);
    clock.advance_us(499'999);
    CHECK(in(0x00) == 0x30);
    clock.advance_us(2);
    CHECK(in(0x00) == 0x31);
}

TEST_CASE_METHOD(Chip, "a field written while the clock runs counts at once") {
    clock.advance_us(400'000);
    out(0x04, 0x05);
    CHECK(in(0x04) == 0x05);
    CHECK(in(0x00) == 0x58);
    clock.advance_us(600'001);
    CHECK(in(0x00) == 0x59);
}

TEST_CASE_METHOD(Chip, "the update-ended interrupt comes once a second until register C is read") {
    out(0x0B, 0x12);
    CHECK(rtc.deadline() == clock.ticks + clock.hz());
    clock.run_for_us(3'500'000, rtc);
    CHECK(irq.level);
    CHECK(irq.rises == 1);
    CHECK(rtc.deadline() == never);  // nothing to do until the guest reads
    CHECK((in(0x0C) & 0x90) == 0x90);
    CHECK_FALSE(irq.level);
    CHECK(in(0x0C) == 0x00);
    clock.run_for_us(600'000, rtc);
    CHECK(irq.rises == 2);
    // SET clears the enable.
    out(0x0B, 0x92);
    CHECK(in(0x0B) == 0x82);
    CHECK_FALSE(irq.level);
}

TEST_CASE_METHOD(Chip, "flags are set without their interrupts being enabled") {
    in(0x0C);
    clock.advance_seconds(1);
    CHECK(in(0x0C) == 0x50);  // update and periodic: rate 6 is selected
    CHECK(rtc.deadline() == never);
    CHECK_FALSE(irq.level);
}

TEST_CASE("the periodic interrupt has the rates of the data sheet's table") {
    const unsigned hz[16] = {0, 256, 128, 8192, 4096, 2048, 1024, 512, 256, 128, 64, 32, 16, 8, 4, 2};
    for (unsigned rate = 0; rate < 16; ++rate) {
        Chip chip;
        chip.out(0x0A, 0x20 | rate);
        chip.out(0x0B, 0x42);
        const Ticks end = chip.clock.ticks + 2 * chip.clock.hz();
        unsigned interrupts = 0;
        while (chip.rtc.deadline() <= end) {
            chip.clock.ticks = chip.rtc.deadline();
            chip.rtc.expire();
            REQUIRE(chip.irq.level);
            REQUIRE((chip.in(0x0C) & 0xC0) == 0xC0);
            REQUIRE_FALSE(chip.irq.level);
            ++interrupts;
        }
        CHECK(interrupts == 2 * hz[rate]);
    }
}

TEST_CASE_METHOD(Chip, "the alarm rings at its time, every day") {
    out(0x01, 0x01);
    out(0x03, 0x00);
    out(0x05, 0x00);
    out(0x0B, 0x22);
    CHECK(rtc.deadline() == clock.ticks + 3 * clock.hz());
    clock.run_for_us(2'999'000, rtc);
    CHECK_FALSE(irq.level);
    clock.run_for_us(1'001, rtc);
    CHECK(irq.level);
    CHECK((in(0x0C) & 0xA0) == 0xA0);
    const Ticks into_second = (clock.ticks - 5'000'000'003) % clock.hz();
    CHECK(rtc.deadline() == clock.ticks - into_second + 86400 * clock.hz());
}

TEST_CASE("an alarm's don't-care codes repeat it every hour, minute or second") {
    const struct {
        u8 second, minute, hour;
        u64 expected;
    } cases[] = {
        {0x00, 0x00, 0xC0, 2},     {0x57, 0x59, 0xFF, 3599}, {0x05, 0xC0, 0xC0, 7}, {0xFF, 0xFF, 0xFF, 1},
        {0x58, 0x59, 0x23, 86400}, {0xC0, 0x00, 0x00, 2},    {0xC0, 0x59, 0x23, 1}, {0x59, 0x59, 0x23, 1},
    };
    for (const auto& c : cases) {
        Chip chip;
        chip.out(0x01, c.second);
        chip.out(0x03, c.minute);
        chip.out(0x05, c.hour);
        chip.out(0x0B, 0x22);
        CHECK(chip.rtc.deadline() == chip.clock.ticks + c.expected * chip.clock.hz());
    }
}

TEST_CASE("the next alarm agrees with a search second by second") {
    u32 seed = 3;
    const auto random = [&seed](u32 n) { return ((seed = seed * 1664525 + 1013904223) >> 8) % n; };
    for (int round = 0; round < 300; ++round) {
        const u64 start = random(86400);
        Chip chip(start);
        chip.out(0x0B, 0x06);
        const unsigned second = random(3) == 0 ? 0xC0 : random(60);
        const unsigned minute = random(3) == 0 ? 0xC0 : random(60);
        const unsigned hour = random(3) == 0 ? 0xC0 : random(24);
        chip.out(0x01, second);
        chip.out(0x03, minute);
        chip.out(0x05, hour);
        chip.out(0x0B, 0x26);
        u64 expected = 1;
        for (;; ++expected) {
            const u64 t = (start + expected) % 86400;
            if ((second == 0xC0 || second == t % 60) && (minute == 0xC0 || minute == t / 60 % 60) &&
                (hour == 0xC0 || hour == t / 3600)) {
                break;
            }
        }
        REQUIRE(chip.rtc.deadline() == chip.clock.ticks + expected * chip.clock.hz());
    }
}

TEST_CASE_METHOD(Chip, "an alarm that is no time never rings, however long nobody looks") {
    out(0x01, 0x75);
    out(0x03, 0xC0);
    out(0x05, 0xC0);
    out(0x0B, 0x22);
    CHECK(rtc.deadline() == never);
    clock.advance_seconds(400ull * 86400);
    rtc.expire();
    CHECK((in(0x0C) & 0x20) == 0);
}

TEST_CASE_METHOD(Chip, "memory keeps its bytes over a reset, and time does too") {
    out(0x40, 0xA5);
    out(0x7F, 0x5A);
    out(0x0B, 0x72);
    clock.advance_seconds(1);
    rtc.expire();
    CHECK(irq.level);
    rtc.reset();
    CHECK_FALSE(irq.level);
    CHECK(in(0x0B) == 0x02);
    CHECK(in(0x0C) == 0x00);
    CHECK(in(0x40) == 0xA5);
    CHECK(in(0x7F) == 0x5A);
    CHECK(in(0x00) == 0x59);
    rtc.set_memory(0x0A, 0x11);
    rtc.set_memory(0x80, 0x11);
    rtc.set_memory(0x3D, 0x23);
    CHECK(in(0x0A) == 0x26);
    CHECK(in(0x3D) == 0x23);
    CHECK(rtc.memory(0x3D) == 0x23);
    CHECK(rtc.memory(0xFF) == 0);
}

TEST_CASE_METHOD(Chip, "the clock survives a restart of guest time, with the guest's own setting") {
    clock.advance_seconds(1000);
    CHECK(rtc.time() == static_cast<i64>(leap_eve) + 1000);
    out(0x0B, 0x82);
    out(0x02, 0x00);  // 00:16:38 becomes 00:00:38
    out(0x0B, 0x02);
    CHECK(rtc.time() == static_cast<i64>(leap_eve) + 1000 - 16 * 60);
    clock.ticks = 0;
    rtc.reset();
    CHECK(rtc.time() == static_cast<i64>(leap_eve) + 1000 - 16 * 60);
    clock.advance_seconds(1);
    CHECK(rtc.time() == static_cast<i64>(leap_eve) + 1001 - 16 * 60);
    rtc.set_wall_clock(leap_eve + 5000);
    CHECK(rtc.time() == static_cast<i64>(leap_eve) + 5000 - 16 * 60);
    out(0x0A, 0x2F);
    CHECK(in(0x0C) == 0x50);
    out(0x0B, 0x42);
    CHECK(rtc.deadline() > clock.ticks);
    CHECK(rtc.deadline() <= clock.ticks + clock.hz() / 2);
    clock.advance_seconds(10);
    CHECK((in(0x0C) & 0x40) != 0);
    clock.ticks = 0;
    rtc.reset();
    out(0x0B, 0x42);
    CHECK(rtc.deadline() <= clock.hz() / 2);
}

TEST_CASE_METHOD(Chip, "setting the wall clock loses no event that came before, seen or not") {
    clock.advance_seconds(3);
    rtc.set_wall_clock(leap_eve + 5000);
    CHECK(in(0x0C) == 0x70);  // second, alarm at midnight, period
    CHECK(in(0x0C) == 0x00);
    out(0x0B, 0x12);
    clock.advance_seconds(1);
    rtc.set_wall_clock(leap_eve + 6000);
    CHECK(irq.level);
    CHECK(in(0x0C) == 0xD0);
}

TEST_CASE_METHOD(Chip, "the memory-size bytes say what firmware expects there") {
    rtc.set_memory_size(3 * gib, 5 * gib);
    CHECK((in(0x15) | in(0x16) << 8) == 640);
    CHECK((in(0x17) | in(0x18) << 8) == 0xFFFF);
    CHECK((in(0x34) | in(0x35) << 8) == (3 * 1024 - 16) * 16);
    CHECK((in(0x5B) | in(0x5C) << 8 | in(0x5D) << 16) == 5 * 1024 * 16);
    rtc.set_memory_size(8 * mib, 0);
    CHECK((in(0x30) | in(0x31) << 8) == 7 * 1024);
    CHECK((in(0x34) | in(0x35) << 8) == 0);
    rtc.set_memory_size(512 * kib, 0);
    CHECK((in(0x15) | in(0x16) << 8) == 512);
    CHECK((in(0x30) | in(0x31) << 8) == 0);
}

TEST_CASE_METHOD(Chip, "nonsense in the time registers becomes a valid date") {
    for (const unsigned value : {0x00u, 0xFFu, 0x7Fu, 0x31u, 0x99u}) {
        out(0x0B, 0x82);
        for (const unsigned index : {0u, 2u, 4u, 6u, 7u, 8u, 9u, 0x32u}) out(index, value);
        out(0x0B, 0x02);
        CHECK(in(0x08) >= 0x01);
        CHECK(in(0x08) <= 0x12);
        CHECK(in(0x07) >= 0x01);
        CHECK(in(0x07) <= 0x31);
        clock.advance_seconds(1);
        CHECK(in(0x00) <= 0x59);
    }
}

TEST_CASE_METHOD(Chip, "any sequence of accesses leaves a deadline ahead of the present") {
    u32 seed = 11;
    const auto random = [&seed] { return (seed = seed * 1664525 + 1013904223) >> 8; };
    for (int i = 0; i < 30'000; ++i) {
        const u32 r = random();
        if ((r & 3) == 0) rtc.write(1, 1, r >> 8);
        if ((r & 3) == 1) rtc.write(0, 1 + (r >> 4 & 1), r >> 8 & 0xFF0F);
        if ((r & 3) == 2) (void)rtc.read((r >> 4) & 3, 1u << ((r >> 6) & 3));
        if ((r & 3) == 3) clock.advance(u64{random()} << ((r >> 4) & 15));
        if (rtc.deadline() <= clock.ticks) {
            rtc.expire();
            REQUIRE(rtc.deadline() > clock.ticks);
        }
    }
}
