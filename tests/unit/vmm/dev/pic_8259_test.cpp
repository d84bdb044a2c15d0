#include "vmm/dev/pic_8259.hpp"

#include <catch2/catch.hpp>

#include "tests/fakes/fake_irq_line.hpp"

using namespace bulkhead;

namespace {

enum : u64 { master_command = 0, master_data = 1, slave_command = 2, slave_data = 3, elcr1 = 4, elcr2 = 5 };

struct Pair {
    FakeIrqLine intr;
    Pic8259 pic{intr};

    Pair() {
        pic.reset();
        initialise();
    }
    u8 in(u64 offset) { return static_cast<u8>(pic.read(offset, 1)); }
    void out(u64 offset, u8 value) { pic.write(offset, 1, value); }
    // As Linux's init_8259A and every BIOS do.
    void initialise(u8 icw4 = 0x01, u8 first = 0x20, u8 second = 0x28) {
        out(master_command, 0x11);
        out(master_data, first);
        out(master_data, 0x04);
        out(master_data, icw4);
        out(slave_command, 0x11);
        out(slave_data, second);
        out(slave_data, 0x02);
        out(slave_data, icw4);
        out(master_data, 0x00);
        out(slave_data, 0x00);
    }
    u8 irr(u64 chip) {
        out(chip, 0x0A);
        return in(chip);
    }
    u8 isr(u64 chip) {
        out(chip, 0x0B);
        return in(chip);
    }
    void eoi(u64 chip) { out(chip, 0x20); }
};

}  // namespace

TEST_CASE_METHOD(Pair, "an edge requests, the acknowledgement serves, the EOI ends") {
    pic.set_irq(4, true);
    CHECK(intr.level);
    CHECK(irr(master_command) == 0x10);
    CHECK(pic.acknowledge() == 0x24);
    CHECK_FALSE(intr.level);
    CHECK(irr(master_command) == 0x00);
    CHECK(isr(master_command) == 0x10);
    eoi(master_command);
    CHECK(isr(master_command) == 0x00);
    CHECK_FALSE(intr.level);  // still high, but that edge is used up
    pic.set_irq(4, true);
    CHECK_FALSE(intr.level);
    pic.set_irq(4, false);
    pic.set_irq(4, true);
    CHECK(intr.level);
}

TEST_CASE_METHOD(Pair, "a higher input interrupts a lower one in service, a lower one waits") {
    pic.set_irq(3, true);
    CHECK(pic.acknowledge() == 0x23);
    pic.set_irq(5, true);
    CHECK_FALSE(intr.level);
    pic.set_irq(1, true);
    CHECK(intr.level);
    CHECK(pic.acknowledge() == 0x21);
    CHECK(isr(master_command) == 0x0A);
    eoi(master_command);  // non-specific: the highest in service, 1
    CHECK(isr(master_command) == 0x08);
    CHECK_FALSE(intr.level);
    eoi(master_command);
    CHECK(intr.level);
    CHECK(pic.acknowledge() == 0x25);
}

TEST_CASE_METHOD(Pair, "the second chip's inputs come through input 2 with its own vectors") {
    pic.set_irq(12, true);
    pic.set_irq(8, true);
    CHECK(intr.level);
    CHECK(pic.acknowledge() == 0x28);
    CHECK(isr(master_command) == 0x04);
    CHECK(isr(slave_command) == 0x01);
    CHECK_FALSE(intr.level);
    eoi(slave_command);
    CHECK_FALSE(intr.level);  // input 2 is still in service on the first chip
    eoi(master_command);
    CHECK(intr.level);
    CHECK(pic.acknowledge() == 0x2C);
    eoi(slave_command);
    eoi(master_command);
    CHECK_FALSE(intr.level);
}

TEST_CASE_METHOD(Pair, "the other order of EOIs works too") {
    pic.set_irq(12, true);
    CHECK(pic.acknowledge() == 0x2C);
    pic.set_irq(14, true);
    eoi(master_command);
    CHECK_FALSE(intr.level);
    eoi(slave_command);
    CHECK(intr.level);
    CHECK(pic.acknowledge() == 0x2E);
}

TEST_CASE_METHOD(Pair,
                 "without special full nesting a second chip's higher request waits, with it it does not") {
    pic.set_irq(12, true);
    (void)pic.acknowledge();
    pic.set_irq(9, true);
    CHECK_FALSE(intr.level);

    initialise(0x11);
    pic.set_irq(9, false);
    pic.set_irq(12, false);
    pic.set_irq(12, true);
    (void)pic.acknowledge();
    pic.set_irq(9, true);
    CHECK(intr.level);
    CHECK(pic.acknowledge() == 0x29);
}

TEST_CASE_METHOD(Pair, "a masked input is remembered but not served") {
    out(master_data, 0x10);
    CHECK(in(master_data) == 0x10);
    pic.set_irq(4, true);
    CHECK_FALSE(intr.level);
    CHECK(irr(master_command) == 0x10);
    out(master_data, 0x00);
    CHECK(intr.level);
    out(master_data, 0x10);
    CHECK_FALSE(intr.level);
}

TEST_CASE_METHOD(Pair,
                 "a request that vanished gives the default vector of input 7, and nothing in service") {
    pic.set_irq(4, true);
    CHECK(intr.level);
    pic.set_irq(4, false);
    CHECK_FALSE(intr.level);
    CHECK(pic.acknowledge() == 0x27);  // the processor had begun its acknowledge cycle
    CHECK(isr(master_command) == 0x00);

    // The same on the second chip: input 2 of the first is in service, and wants its EOI.
    initialise();
    out(slave_data, 0x00);
    pic.set_irq(10, true);
    out(master_data, 0xFB);
    CHECK(pic.acknowledge() == 0x2A);
}

TEST_CASE_METHOD(Pair, "a genuine input 7 differs from a spurious one by its bit in service") {
    pic.set_irq(7, true);
    CHECK(pic.acknowledge() == 0x27);
    CHECK(isr(master_command) == 0x80);
    eoi(master_command);
    pic.set_irq(15, true);
    CHECK(pic.acknowledge() == 0x2F);
    CHECK(isr(slave_command) == 0x80);
}

TEST_CASE_METHOD(Pair, "level-triggered inputs request as long as they are high") {
    out(elcr1, 0xFF);
    out(elcr2, 0xFF);
    CHECK(in(elcr1) == 0xF8);  // 0, 1, 2, 8 and 13 are edge-triggered for ever
    CHECK(in(elcr2) == 0xDE);
    pic.set_irq(11, true);
    CHECK(pic.acknowledge() == 0x2B);
    CHECK(irr(slave_command) == 0x08);
    CHECK_FALSE(intr.level);
    eoi(slave_command);
    eoi(master_command);
    CHECK(intr.level);  // again, as no one served the device
    pic.set_irq(11, false);
    CHECK_FALSE(intr.level);
    CHECK(irr(slave_command) == 0x00);
}

TEST_CASE_METHOD(Pair, "specific EOI and rotation do as table OCW2 says") {
    pic.set_irq(5, true);
    (void)pic.acknowledge();
    pic.set_irq(3, true);
    (void)pic.acknowledge();
    out(master_command, 0x65);  // specific, 5: the lower one
    CHECK(isr(master_command) == 0x08);
    out(master_command, 0xA0);  // rotate on non-specific: 3 becomes the lowest
    CHECK(isr(master_command) == 0x00);
    for (unsigned i : {3, 4, 5}) pic.set_irq(i, false);
    for (unsigned i : {3, 4}) pic.set_irq(i, true);
    CHECK(pic.acknowledge() == 0x24);
    CHECK_FALSE(intr.level);
    out(master_command, 0xE4);  // rotate on specific: 4 is the lowest
    CHECK(pic.acknowledge() == 0x23);
    eoi(master_command);

    out(master_command, 0xC0);  // set priority: 0 is the lowest, so 1 is the highest
    for (unsigned i : {0, 7}) pic.set_irq(i, true);
    CHECK(pic.acknowledge() == 0x27);
    eoi(master_command);
    CHECK(pic.acknowledge() == 0x20);
}

TEST_CASE_METHOD(Pair, "automatic EOI leaves nothing in service, and rotates when told") {
    initialise(0x03);
    pic.set_irq(4, true);
    pic.set_irq(6, true);
    CHECK(pic.acknowledge() == 0x24);
    CHECK(isr(master_command) == 0x00);
    CHECK(intr.level);
    CHECK(pic.acknowledge() == 0x26);
    CHECK_FALSE(intr.level);

    out(master_command, 0x80);
    for (unsigned i : {4, 6}) {
        pic.set_irq(i, false);
        pic.set_irq(i, true);
    }
    CHECK(pic.acknowledge() == 0x24);
    pic.set_irq(4, false);
    pic.set_irq(4, true);
    CHECK(pic.acknowledge() == 0x26);  // 4 went to the end
    CHECK(pic.acknowledge() == 0x24);
    out(master_command, 0x00);
}

TEST_CASE_METHOD(Pair, "special mask mode lets lower inputs through while a masked one is in service") {
    pic.set_irq(2, true);  // not an input: the second chip's
    pic.set_irq(3, true);
    (void)pic.acknowledge();
    pic.set_irq(6, true);
    CHECK_FALSE(intr.level);
    out(master_data, 0x08);
    CHECK_FALSE(intr.level);
    out(master_command, 0x68);  // special mask on
    CHECK(intr.level);
    CHECK(pic.acknowledge() == 0x26);
    eoi(master_command);  // passes over 3, which is masked
    CHECK(isr(master_command) == 0x08);
    out(master_command, 0x48);
    eoi(master_command);
    CHECK(isr(master_command) == 0x00);
}

TEST_CASE_METHOD(Pair, "a poll acknowledges without the processor") {
    out(master_command, 0x0C);
    CHECK(in(master_command) == 0x07);
    CHECK(in(master_data) == 0x00);  // one read only
    pic.set_irq(6, true);
    out(master_command, 0x0C);
    CHECK(in(master_command) == 0x86);
    CHECK(isr(master_command) == 0x40);
    CHECK_FALSE(intr.level);
    eoi(master_command);

    pic.set_irq(9, true);
    out(slave_command, 0x0C);
    CHECK(in(slave_data) == 0x81);
    CHECK(isr(slave_command) == 0x02);
    CHECK_FALSE(intr.level);
}

TEST_CASE_METHOD(Pair, "ICW1 clears the mask and what is in service, and wants new edges") {
    pic.set_irq(4, true);
    (void)pic.acknowledge();
    pic.set_irq(5, true);
    out(master_data, 0xAA);
    initialise(0x01, 0x40, 0x48);
    CHECK(in(master_data) == 0x00);
    CHECK(isr(master_command) == 0x00);
    CHECK(irr(master_command) == 0x00);
    CHECK_FALSE(intr.level);
    pic.set_irq(5, false);
    pic.set_irq(5, true);
    CHECK(pic.acknowledge() == 0x45);
}

TEST_CASE_METHOD(Pair, "initialisation sequences of every length end where they should") {
    out(master_command, 0x10);  // no ICW4
    out(master_data, 0x50);
    out(master_data, 0x04);
    out(master_data, 0xA5);
    CHECK(in(master_data) == 0xA5);
    out(master_command, 0x12);  // single, no ICW4
    out(master_data, 0x57);     // low bits do not matter
    out(master_data, 0x00);
    pic.set_irq(3, true);
    CHECK(pic.acknowledge() == 0x53);
    out(master_command, 0x13);  // single, ICW4
    out(master_data, 0x60);
    out(master_data, 0x03);
    out(master_data, 0x5A);
    CHECK(in(master_data) == 0x5A);
}

TEST_CASE_METHOD(Pair, "Linux's probe reads its mask back") {
    // probe_8259A() of Linux 6.1: masks the second chip, then writes and reads the first one's mask.
    out(slave_data, 0xFF);
    out(master_data, 0xFB);
    CHECK(in(master_data) == 0xFB);
    CHECK(pic.read(0, 2) >> 8 == 0xFB);
}

TEST_CASE_METHOD(Pair, "lines of a number that does not exist are ignored, line objects reach their input") {
    pic.set_irq(16, true);
    pic.set_irq(1000000, true);
    pic.set_irq(2, true);
    CHECK_FALSE(intr.level);
    pic.input(14).set(true);
    CHECK(pic.acknowledge() == 0x2E);
    CHECK(pic.read(6, 1) == 0xFF);
}

TEST_CASE_METHOD(Pair, "whatever is written, INT is high exactly when a request could be served") {
    u32 seed = 99;
    const auto random = [&seed] { return seed = seed * 1664525 + 1013904223; };
    for (unsigned i = 0; i < 100000; ++i) {
        const u32 r = random();
        if ((r & 0x700) == 0) pic.write((r >> 12) % 6, 1, r >> 24);
        if ((r & 0x1800) == 0) (void)pic.read((r >> 14) & 7, 1);
        if ((r & 0x40) != 0) pic.set_irq((r >> 16) & 31, (r & 0x80) != 0);
        REQUIRE(intr.level == pic.output());
        if ((r & 0x20) != 0) {
            const bool genuine = intr.level;
            (void)pic.acknowledge();
            if (!genuine) REQUIRE_FALSE(intr.level);
        }
    }
}
