#include "vmm/dev/io_apic.hpp"

#include <catch2/catch.hpp>
#include <random>

#include "tests/unit/vmm/dev/apic_bench.hpp"

using namespace bulkhead;

namespace {

constexpr u32 masked = 1U << 16, level = 1U << 15, remote_irr = 1U << 14;

struct IoApicBench {
    u32 read(u8 index) {
        apic.write(0, 4, index);
        return static_cast<u32>(apic.read(0x10, 4));
    }
    void write(u8 index, u32 value) {
        apic.write(0, 4, index);
        apic.write(0x10, 4, value);
    }
    void entry(unsigned pin, u32 low, u32 high = 0) {
        write(static_cast<u8>(0x11 + 2 * pin), high);
        write(static_cast<u8>(0x10 + 2 * pin), low);
    }
    u32 low(unsigned pin) { return read(static_cast<u8>(0x10 + 2 * pin)); }
    std::vector<InterruptMessage> take() { return std::exchange(bus.messages, {}); }

    RecordingBus bus;
    IoApic apic{bus};
};

}  // namespace

TEST_CASE("the I/O APIC's registers after reset") {
    IoApicBench bench;
    REQUIRE(bench.read(0) == 0);
    REQUIRE(bench.read(1) == 0x00170020);
    REQUIRE(bench.read(2) == 0);
    for (unsigned pin = 0; pin < 24; ++pin) {
        REQUIRE(bench.low(pin) == masked);
        REQUIRE(bench.read(static_cast<u8>(0x11 + 2 * pin)) == 0);
    }
    for (unsigned index = 3; index < 0x10; ++index) REQUIRE(bench.read(static_cast<u8>(index)) == 0);
    for (unsigned index = 0x40; index < 0x100; ++index) REQUIRE(bench.read(static_cast<u8>(index)) == 0);
    bench.write(0, 0xFFFFFFFF);
    REQUIRE(bench.read(0) == 0x0F000000);
    REQUIRE(bench.read(2) == 0x0F000000);
    bench.write(1, 0);
    REQUIRE(bench.read(1) == 0x00170020);
    bench.entry(3, 0xFFFFFFFF, 0xFFFFFFFF);
    REQUIRE(bench.low(3) == 0x1AFFF);
    REQUIRE(bench.read(0x17) == 0xFF000000);
}

TEST_CASE("the index takes bytes, the window only 32 bits") {
    IoApicBench bench;
    bench.apic.write(0, 1, 0x01);
    REQUIRE(bench.apic.read(0, 1) == 1);
    REQUIRE(bench.apic.read(0x10, 4) == 0x00170020);
    REQUIRE(bench.apic.read(0x12, 1) == 0x17);
    bench.apic.write(0, 4, 0);
    bench.apic.write(0x10, 1, 0xFF);
    bench.apic.write(0x13, 1, 0x0F);
    REQUIRE(bench.read(0) == 0);
    REQUIRE(bench.apic.read(0x20, 4) == 0);
    REQUIRE(bench.apic.read(0x4, 4) == 0);
    REQUIRE(bench.apic.read(0x10, 8) == 0);
}

TEST_CASE("an edge is delivered once a rise, as its entry says, and lost while masked") {
    IoApicBench bench;
    bench.entry(4, 0x35 | 1U << 8 | 1U << 11, 0x0F000000);  // lowest priority, logical
    bench.apic.line(4).set(true);
    auto messages = bench.take();
    REQUIRE(messages.size() == 1);
    REQUIRE(messages[0].vector == 0x35);
    REQUIRE(messages[0].destination == 0x0F);
    REQUIRE(messages[0].logical);
    REQUIRE(messages[0].delivery == apic::Delivery::lowest_priority);
    REQUIRE_FALSE(messages[0].level);
    REQUIRE_FALSE(messages[0].wide);
    bench.apic.set(4, true);
    REQUIRE(bench.take().empty());
    bench.apic.set(4, false);
    bench.entry(4, 0x35 | masked);
    bench.apic.set(4, true);
    bench.entry(4, 0x35);
    REQUIRE(bench.take().empty());
    bench.apic.set(4, false);
    bench.apic.set(4, true);
    REQUIRE(bench.take().size() == 1);
}

TEST_CASE("a level is delivered until it is released, once per EOI") {
    IoApicBench bench;
    bench.entry(17, 0x91 | level | 1U << 13);
    bench.apic.set(17, true);
    auto messages = bench.take();
    REQUIRE(messages.size() == 1);
    REQUIRE(messages[0].level);
    REQUIRE((bench.low(17) & remote_irr) != 0);
    bench.apic.set(17, true);
    REQUIRE(bench.take().empty());
    bench.apic.eoi(Vector(0x92));
    REQUIRE(bench.take().empty());
    bench.apic.eoi(Vector(0x91));
    REQUIRE(bench.take().size() == 1);
    bench.apic.set(17, false);
    bench.apic.eoi(Vector(0x91));
    REQUIRE(bench.take().empty());
    REQUIRE((bench.low(17) & remote_irr) == 0);
    for (int i = 0; i < 100; ++i) bench.apic.eoi(Vector(0x91));
    REQUIRE(bench.take().empty());
    bench.apic.set(17, true);
    REQUIRE(bench.take().size() == 1);
}

TEST_CASE("a level asserted under its mask is delivered when the mask goes") {
    IoApicBench bench;
    bench.entry(9, 0x90 | level | masked);
    bench.apic.set(9, true);
    REQUIRE(bench.take().empty());
    bench.entry(9, 0x90 | level);
    REQUIRE(bench.take().size() == 1);
    bench.entry(9, 0x90 | level | masked);  // mask while served, as Linux does
    bench.apic.eoi(Vector(0x90));
    REQUIRE(bench.take().empty());
    bench.entry(9, 0x90 | level);
    REQUIRE(bench.take().size() == 1);
}

TEST_CASE("an entry rewritten under remote IRR keeps it, and edge mode clears it") {
    IoApicBench bench;
    bench.entry(9, 0x90 | level);
    bench.apic.set(9, true);
    bench.take();
    bench.write(0x10 + 18, 0xA0 | level);  // a new vector, and an attempt to clear remote IRR by writing
    REQUIRE((bench.low(9) & remote_irr) != 0);
    REQUIRE(bench.take().empty());
    bench.apic.eoi(Vector(0x90));  // the old vector no longer matches
    REQUIRE((bench.low(9) & remote_irr) != 0);
    bench.write(0x10 + 18, 0xA0 | masked);
    bench.write(0x10 + 18, 0xA0 | level);
    REQUIRE(bench.take().size() == 1);
    // Nor can it be set by writing.
    bench.apic.set(9, false);
    bench.apic.eoi(Vector(0xA0));
    bench.write(0x10 + 18, 0xA0 | level | remote_irr | 1U << 12);
    REQUIRE(bench.low(9) == (0xA0 | level));
}

TEST_CASE("the EOI register ends a level as the broadcast does") {
    IoApicBench bench;
    bench.entry(9, 0x90 | level);
    bench.apic.set(9, true);
    bench.apic.set(9, false);
    REQUIRE((bench.low(9) & remote_irr) != 0);
    bench.apic.write(0x40, 4, 0x90);
    REQUIRE((bench.low(9) & remote_irr) == 0);
}

TEST_CASE("a level that nobody accepts is not stuck") {
    IoApicBench bench;
    bench.bus.accepts = false;
    bench.entry(9, 0x90 | level);
    bench.apic.set(9, true);
    REQUIRE((bench.low(9) & remote_irr) == 0);
    bench.bus.accepts = true;
    bench.take();
    bench.entry(9, 0x90 | level);
    REQUIRE_FALSE(bench.take().empty());
    REQUIRE((bench.low(9) & remote_irr) != 0);
}

TEST_CASE("NMI and ExtINT pins have no remote IRR; SMI and reserved modes are dropped") {
    IoApicBench bench;
    for (const u32 mode : {4U, 5U, 7U}) {
        bench.entry(0, mode << 8);
        bench.apic.set(0, true);
        const auto messages = bench.take();
        REQUIRE(messages.size() == 1);
        REQUIRE(messages[0].delivery == static_cast<apic::Delivery>(mode));
        REQUIRE((bench.low(0) & remote_irr) == 0);
        bench.apic.set(0, false);
    }
    for (const u32 mode : {2U, 3U, 6U}) {
        bench.entry(0, mode << 8 | 0x40);
        bench.apic.set(0, true);
        REQUIRE(bench.take().empty());
        bench.apic.set(0, false);
    }
}

TEST_CASE("pins that do not exist and a hostile mix of accesses do no harm") {
    IoApicBench bench;
    bench.apic.set(24, true);
    bench.apic.set(~0U, true);
    REQUIRE(bench.take().empty());
    std::mt19937_64 random(2);
    for (int i = 0; i < 50'000; ++i) {
        const unsigned size = 1U << (random() % 4);
        const u64 offset = random() % 2 != 0 ? (random() % 8) * 16 : random() % 0x1000;
        switch (random() % 4) {
            case 0: static_cast<void>(bench.apic.read(offset, size)); break;
            case 1: bench.apic.write(offset, size, random()); break;
            case 2: bench.apic.set(static_cast<unsigned>(random() % 32), random() % 2 != 0); break;
            default: bench.apic.eoi(Vector(static_cast<u8>(random()))); break;
        }
        bench.take();
    }
}

TEST_CASE("MSI: what is a message and what is not") {
    const auto message = decode_msi(0xFEE05000, 0x4041);
    REQUIRE(message);
    REQUIRE(message->destination == 5);
    REQUIRE(message->vector == 0x41);
    REQUIRE_FALSE(message->logical);
    REQUIRE_FALSE(message->level);
    REQUIRE(decode_msi(0xFEE0100C, 0x41)->delivery == apic::Delivery::lowest_priority);
    REQUIRE(decode_msi(0xFEE0100C, 0x41)->logical);
    REQUIRE(decode_msi(0xFEE01000, 0xC041)->level);
    REQUIRE_FALSE(decode_msi(0xFEE01000, 0x8041));
    REQUIRE(decode_msi(0xFEE01000, 0x0400)->delivery == apic::Delivery::nmi);
    for (u32 vector = 0; vector < 16; ++vector) REQUIRE_FALSE(decode_msi(0xFEE01000, vector));
    for (const u32 mode : {2U, 3U, 6U}) REQUIRE_FALSE(decode_msi(0xFEE01000, 0x41 | mode << 8));
    REQUIRE_FALSE(decode_msi(0xFED01000, 0x41));
    REQUIRE_FALSE(decode_msi(0x1FEE01000, 0x41));
    REQUIRE_FALSE(decode_msi(0, 0x41));
}
