#include "vmm/dev/uart_16550.hpp"

#include <catch2/catch.hpp>
#include <string>

#include "tests/fakes/fake_clock.hpp"
#include "tests/fakes/fake_irq_line.hpp"

using namespace bulkhead;

namespace {

struct Output final : CharacterSink {
    void write(u8 character) override { text.push_back(static_cast<char>(character)); }
    std::string text;
};

enum : u64 {
    THR = 0,
    RBR = 0,
    DLL = 0,
    DLM = 1,
    IER = 1,
    IIR = 2,
    FCR = 2,
    LCR = 3,
    MCR = 4,
    LSR = 5,
    MSR = 6,
    SCR = 7
};

struct Port {
    FakeClock clock;
    FakeIrqLine irq;
    Output output;
    Uart16550 uart{clock, irq, output};

    Port() { uart.reset(); }
    u8 in(u64 offset) { return static_cast<u8>(uart.read(offset, 1)); }
    void out(u64 offset, u8 value) { uart.write(offset, 1, value); }
    void set_divisor(u16 divisor) {
        out(LCR, 0x83);
        out(DLL, divisor & 0xFF);
        out(DLM, static_cast<u8>(divisor >> 8));
        out(LCR, 0x03);
    }
    // 115200n8, FIFOs on with the given FCR, OUT2 set.
    void open(u8 fcr = 0x01, u8 ier = 0) {
        set_divisor(1);
        out(FCR, fcr);
        out(MCR, 0x0B);
        out(IER, ier);
    }
    void type(std::string_view text) {
        for (const char c : text) uart.receive(static_cast<u8>(c));
    }
};

}  // namespace

TEST_CASE_METHOD(Port, "after reset the registers read as the data sheet's table says") {
    CHECK(in(IER) == 0x00);
    CHECK(in(IIR) == 0x01);
    CHECK(in(LCR) == 0x00);
    CHECK(in(MCR) == 0x00);
    CHECK(in(LSR) == 0x60);
    CHECK(in(MSR) == 0xB0);
    CHECK_FALSE(irq.level);
    CHECK(uart.deadline() == never);
}

TEST_CASE_METHOD(Port, "bits that the chip does not have read as zero") {
    out(IER, 0xFF);
    CHECK(in(IER) == 0x0F);
    out(MCR, 0xEF);
    CHECK(in(MCR) == 0x0F);
    out(LCR, 0x7F);
    CHECK(in(LCR) == 0x7F);
    out(SCR, 0xA5);
    CHECK(in(SCR) == 0xA5);
    out(LSR, 0xFF);
    CHECK(in(LSR) == 0x60);
    CHECK(uart.read(8, 1) == 0xFF);
}

TEST_CASE_METHOD(Port, "DLAB shows the divisor latch in place of data and IER") {
    out(IER, 0x05);
    out(LCR, 0x80);
    out(DLL, 0x34);
    out(DLM, 0x12);
    CHECK(in(DLL) == 0x34);
    CHECK(in(DLM) == 0x12);
    CHECK(uart.read(0, 2) == 0x1234);  // a word access is two byte cycles
    out(LCR, 0x03);
    CHECK(in(IER) == 0x05);
    CHECK(output.text.empty());
}

TEST_CASE_METHOD(Port, "characters go out at once, masked to the word length") {
    open();
    for (const char c : std::string("hello\n")) out(THR, static_cast<u8>(c));
    CHECK(output.text == "hello\n");
    CHECK(in(LSR) == 0x60);
    out(LCR, 0x02);  // seven bits
    out(THR, 0xC1);
    CHECK(output.text.back() == 'A');
    out(LCR, 0x43);  // break: the line is held low, nothing gets out
    out(THR, 'x');
    CHECK(output.text == "hello\nA");
}

TEST_CASE_METHOD(Port, "received characters come out in order") {
    open();
    type("abc");
    CHECK(in(LSR) == 0x61);
    CHECK(in(RBR) == 'a');
    CHECK(in(RBR) == 'b');
    CHECK(in(RBR) == 'c');
    CHECK(in(LSR) == 0x60);
    CHECK(in(RBR) == 'c');  // an empty receiver repeats itself
}

TEST_CASE_METHOD(Port, "the FIFO takes sixteen characters and the next one is lost as an overrun") {
    open();
    CHECK(uart.space() == 16);
    for (char c = 'a'; c < 'a' + 16; ++c) CHECK(uart.receive(static_cast<u8>(c)));
    CHECK(uart.space() == 0);
    CHECK_FALSE(uart.receive('!'));
    CHECK(in(LSR) == 0x63);
    CHECK(in(LSR) == 0x61);  // reading clears the overrun
    for (char c = 'a'; c < 'a' + 16; ++c) CHECK(in(RBR) == static_cast<u8>(c));
    CHECK(in(LSR) == 0x60);
}

TEST_CASE_METHOD(Port, "without FIFOs the newest character replaces the unread one") {
    open(0x00);
    CHECK(uart.space() == 1);
    CHECK(uart.receive('a'));
    CHECK_FALSE(uart.receive('b'));
    CHECK(in(LSR) == 0x63);
    CHECK(in(RBR) == 'b');
    CHECK(in(LSR) == 0x60);
    CHECK(uart.space() == 1);
}

TEST_CASE_METHOD(Port, "the receive interrupt rises at the trigger level and falls below it") {
    const struct {
        u8 fcr;
        unsigned level;
    } cases[] = {{0x01, 1}, {0x41, 4}, {0x81, 8}, {0xC1, 14}};
    for (const auto& c : cases) {
        uart.reset();
        open(c.fcr, 0x01);
        for (unsigned i = 0; i + 1 < c.level; ++i) uart.receive('x');
        CHECK_FALSE(irq.level);
        uart.receive('x');
        CHECK(irq.level);
        CHECK(in(IIR) == 0xC4);
        CHECK(irq.level);  // IIR does not clear it, reading does
        in(RBR);
        CHECK_FALSE(irq.level);
        CHECK(in(IIR) == 0xC1);
    }
}

TEST_CASE_METHOD(Port, "characters below the trigger level time out after four character times") {
    open(0xC1, 0x01);
    type("ab");
    CHECK(in(IIR) == 0xC1);
    // 115200n8: ten bits a character, 4 x 86.8 us.
    const Ticks four_characters = 40 * clock.hz() / 115200;
    REQUIRE(uart.deadline() >= four_characters);
    REQUIRE(uart.deadline() <= four_characters + 1);

    clock.ticks = uart.deadline() - 1;
    uart.expire();
    CHECK_FALSE(irq.level);
    type("c");  // a character restarts the time
    CHECK(uart.deadline() > clock.ticks + four_characters - 2);
    clock.run_until(clock.ticks + four_characters + 1, uart);
    CHECK(irq.level);
    CHECK(in(IIR) == 0xCC);
    CHECK(in(IIR) == 0xCC);
    in(RBR);
    CHECK_FALSE(irq.level);
    CHECK(uart.deadline() != never);  // two are left
    in(RBR);
    in(RBR);
    CHECK(uart.deadline() == never);
}

TEST_CASE_METHOD(Port, "the timeout follows the divisor and the frame, and a divisor of zero is harmless") {
    open(0xC1, 0x01);
    set_divisor(12);
    out(LCR, 0x0F);  // eight bits, parity, two stop bits: twelve in all
    type("a");
    const Ticks expected = 48 * clock.hz() / 9600;
    CHECK(uart.deadline() >= expected);
    CHECK(uart.deadline() <= expected + 1);
    set_divisor(0);
    type("b");
    CHECK(uart.deadline() > clock.hz() * 20);
    CHECK(uart.deadline() < clock.hz() * 30);
}

TEST_CASE_METHOD(Port, "no timeout interrupts without FIFOs or without the receive interrupt") {
    open(0x00, 0x01);
    type("a");
    CHECK(uart.deadline() == never);
    uart.reset();
    open(0xC1, 0x00);
    type("a");
    CHECK(uart.deadline() == never);
    out(IER, 0x01);
    CHECK(uart.deadline() != never);
}

TEST_CASE_METHOD(Port, "enabling the transmitter interrupt requests it, reading IIR clears it") {
    open(0x01, 0x02);
    CHECK(irq.level);
    CHECK(in(IIR) == 0xC2);
    CHECK_FALSE(irq.level);
    CHECK(in(IIR) == 0xC1);
    // Linux 6.1 serial8250_do_startup: a second enable must raise it again, or the port counts as buggy.
    out(IER, 0x00);
    out(IER, 0x02);
    CHECK(in(IIR) == 0xC2);
    out(IER, 0x02);  // no change, no request
    CHECK(in(IIR) == 0xC1);
}

TEST_CASE_METHOD(Port, "each character sent gives an edge, with or without IIR read in between") {
    open(0x01, 0x02);
    const unsigned before = irq.rises;
    for (int i = 0; i < 3; ++i) out(THR, 'x');
    CHECK(irq.rises == before + 3);
    CHECK(irq.level);
    CHECK(in(IIR) == 0xC2);
    out(THR, 'y');
    CHECK(irq.rises == before + 4);
}

TEST_CASE_METHOD(Port, "interrupts are identified by priority") {
    open(0x01, 0x0F);
    out(THR, 'x');   // transmitter
    out(MCR, 0x1A);  // loop-back on and off again: modem deltas
    out(MCR, 0x0B);
    uart.receive('r');     // receiver
    uart.receive_break();  // errors show only when the character is at the top
    CHECK(in(IIR) == 0xC4);
    CHECK(in(RBR) == 'r');
    CHECK(in(IIR) == 0xC6);
    CHECK(in(LSR) == 0xF9);
    CHECK(in(IIR) == 0xC4);
    CHECK(in(RBR) == 0);
    CHECK(in(IIR) == 0xC2);
    CHECK(in(IIR) == 0xC0);
    CHECK((in(MSR)&0x0F) != 0);
    CHECK(in(IIR) == 0xC1);
    CHECK_FALSE(irq.level);
}

TEST_CASE_METHOD(Port, "a break is a zero with its error, counted by LSR bit 7 while it is in the FIFO") {
    open();
    type("a");
    CHECK(uart.receive_break());
    CHECK(in(LSR) == 0xE1);  // an error further down
    CHECK(in(LSR) == 0xE1);
    in(RBR);
    CHECK(in(LSR) == 0xF9);
    CHECK(in(LSR) == 0x61);
    CHECK(in(RBR) == 0);
    CHECK(in(LSR) == 0x60);
}

TEST_CASE_METHOD(Port, "loop-back returns data, modem lines and break, and cuts the outside off") {
    set_divisor(1);
    out(FCR, 0x01);
    out(MCR, 0x1A);  // loop, OUT2, RTS
    CHECK((in(MSR)&0xF0) == 0x90);
    out(THR, 0x5A);
    CHECK(output.text.empty());
    CHECK(in(LSR) == 0x61);
    CHECK(in(RBR) == 0x5A);
    CHECK_FALSE(uart.receive('x'));
    CHECK_FALSE(uart.receive_break());
    CHECK(uart.space() == 0);
    CHECK(in(LSR) == 0x60);

    out(LCR, 0x43);
    CHECK((in(LSR)&0x11) == 0x11);
    in(RBR);
    out(LCR, 0x03);

    in(MSR);
    out(MCR, 0x15);          // OUT1 and DTR
    CHECK(in(MSR) == 0x6B);  // DSR, RI; deltas of CTS, DSR and DCD
    out(MCR, 0x10);
    CHECK(in(MSR) == 0x06);  // RI fell: its trailing edge
    out(MCR, 0x00);
    CHECK(in(MSR) == 0xBB);
    CHECK(in(MSR) == 0xB0);

    // The FIFO overruns in loop-back as it does outside.
    out(MCR, 0x10);
    for (int i = 0; i < 17; ++i) out(THR, 'z');
    CHECK((in(LSR)&0x02) != 0);
}

TEST_CASE_METHOD(Port, "OUT2 gates the interrupt") {
    out(IER, 0x01);
    uart.receive('a');
    CHECK_FALSE(irq.level);
    CHECK(in(IIR) == 0x04);
    out(MCR, 0x08);
    CHECK(irq.level);
    out(MCR, 0x18);  // loop-back forces the pin inactive
    CHECK_FALSE(irq.level);
    out(MCR, 0x08);
    CHECK(irq.level);
    uart.reset();
    CHECK_FALSE(irq.level);
}

TEST_CASE_METHOD(Port, "the FIFO control register clears what it says") {
    open();
    type("abc");
    out(FCR, 0x05);  // transmitter only
    CHECK(in(LSR) == 0x61);
    out(FCR, 0x03);
    CHECK(in(LSR) == 0x60);
    type("abc");
    out(FCR, 0x00);  // disabling clears
    CHECK(in(LSR) == 0x60);
    CHECK(in(IIR) == 0x01);
    out(FCR, 0xC0);  // bits are only taken with bit 0
    out(IER, 0x01);
    out(FCR, 0x01);
    type("a");
    CHECK(in(IIR) == 0xC4);
}

TEST_CASE_METHOD(Port, "Linux's autoconfiguration finds a 16550A and nothing more") {
    // drivers/tty/serial/8250/8250_port.c, autoconfig() and autoconfig_16550a() of Linux 6.1, in order.
    out(IER, 0);
    CHECK(in(IER) == 0);
    out(IER, 0x0F);
    CHECK((in(IER)&0x0F) == 0x0F);
    out(IER, 0);
    const u8 saved_mcr = in(MCR);
    const u8 saved_lcr = in(LCR);
    out(MCR, 0x10 | 0x0A);
    CHECK((in(MSR)&0xF0) == 0x90);
    out(MCR, saved_mcr);
    out(LCR, 0xBF);
    out(2, 0);
    out(LCR, 0);
    out(FCR, 0x01);
    CHECK(in(IIR) >> 6 == 3);
    // An EFR, as a 16650 or later has, would read as zero.
    out(LCR, 0x80);
    CHECK(in(2) != 0);
    out(LCR, 0xBF);
    CHECK(in(2) != 0);
    // National's super I/O would mirror MCR's loop bit.
    out(LCR, 0);
    const u8 mcr = in(MCR);
    out(LCR, 0xE0);
    CHECK(((in(2) ^ mcr) & 0x10) == 0);
    out(LCR, 0);
    out(MCR, mcr ^ 0x10);
    out(LCR, 0xE0);
    CHECK(((in(2) ^ mcr) & 0x10) == 0);
    out(LCR, 0);
    out(MCR, mcr);
    // A 16750 has a 64-byte FIFO behind DLAB.
    out(FCR, 0x21);
    CHECK((in(IIR)&0xE0) == 0xC0);
    out(FCR, 0x01);
    out(LCR, 0x80);
    out(FCR, 0x21);
    CHECK((in(IIR)&0xE0) == 0xC0);
    out(LCR, 0);
    // XScale's UUE bit.
    out(IER, in(IER)&0xBF);
    CHECK((in(IER)&0x40) == 0);
    out(IER, in(IER) | 0x40);
    CHECK((in(IER)&0x40) == 0);
    out(IER, 0);
    out(LCR, saved_lcr);
    CHECK(output.text.empty());
}

TEST_CASE_METHOD(Port, "a flood costs one call of the sink a character and nothing besides") {
    open();
    const unsigned calls = irq.calls;
    for (unsigned i = 0; i < 65536; ++i) out(THR, static_cast<u8>(i));
    CHECK(output.text.size() == 65536);
    CHECK(irq.calls == calls);
    CHECK(in(LSR) == 0x60);
    for (unsigned i = 0; i < 65536; ++i) uart.receive(static_cast<u8>(i));
    CHECK(uart.space() == 0);
    CHECK(in(RBR) == 0);
}

TEST_CASE_METHOD(Port, "any sequence of accesses leaves the port sound") {
    u32 seed = 12345;
    const auto random = [&seed] { return seed = seed * 1664525 + 1013904223; };
    for (unsigned i = 0; i < 50000; ++i) {
        const u32 r = random();
        const u64 offset = (r >> 8) & 7;
        switch ((r >> 11) & 7) {
            case 0: uart.receive(static_cast<u8>(r >> 16)); break;
            case 1: uart.receive_break(); break;
            case 2: clock.run_for_us((r >> 16) & 0x3FF, uart); break;
            case 3:
            case 4: (void)uart.read(offset, 1u << ((r >> 14) & 3)); break;
            default: uart.write(offset, 1u << ((r >> 14) & 3), random()); break;
        }
        REQUIRE(uart.space() <= 16);
        if ((in(LSR)&1) == 0 && (in(MCR)&0x10) == 0) REQUIRE(uart.space() >= 1);
    }
}
