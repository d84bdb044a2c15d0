// A2, D41 to D47, B27: the local APIC, its two faces, the I/O APIC, timers.
#include "tests/guests/inmate/probe.hpp"

namespace {

constexpr u64 page = 0xFEE00000;
constexpr u32 base_msr = 0x1B;
constexpr u64 enabled = bit(11), extended = bit(10), bsp = bit(8);
constexpr Code rdmsr_code{0x0F, 0x32}, wrmsr_code{0x0F, 0x30};
constexpr Code open_window{0xFB, 0x90, 0x90, 0x90, 0x90, 0xFA};  // STI, NOPs, CLI

u32 read(u64 offset) {
    return load<u32>(page + offset);
}
void write(u64 offset, u32 value) {
    store<u32>(page + offset, value);
}
u32 errors() {
    write(0x280, 0);
    return read(0x280);
}

void quiet() {
    write(0xF0, 0x1FF);
    for (const u64 entry : {0x320, 0x340, 0x350, 0x360, 0x370}) write(entry, 0x10000);
    write(0x380, 0);
    write(0x80, 0);
    for (unsigned i = 0; i < 256; ++i) write(0xB0, 0);
    errors();
    errors();
}

// What the next interrupt is, taken and ended; 256 for none.
u64 next_interrupt() {
    const Outcome& o = run(open_window, Mode::long0, pattern());
    if (o.vector == 3) return 256;
    const u64 vector = o.vector;
    write(0xB0, 0);
    return vector;
}

bool is_defined(u64 offset) {
    switch (offset) {
        case 0x20:
        case 0x30:
        case 0x80:
        case 0x90:
        case 0xA0:
        case 0xB0:
        case 0xC0:
        case 0xD0:
        case 0xE0:
        case 0xF0:
        case 0x280:
        case 0x2F0:
        case 0x300:
        case 0x310:
        case 0x380:
        case 0x390:
        case 0x3E0: return true;
        default: return (offset >= 0x100 && offset < 0x280) || (offset >= 0x320 && offset <= 0x370);
    }
}

void registers() {
    quiet();
    // The reserved registers read zero or as they like, and nothing strikes.
    for (u64 offset = 0; offset < 0x400; offset += 16) {
        runs("D42", Text() << "xapic.read." << Hex{offset, 3}, {0x8B, 0x06}, with(rsi, page + offset));
        if (!is_defined(offset)) {
            runs("D42", Text() << "xapic.write." << Hex{offset, 3}, {0x89, 0x06},
                 with(rsi, page + offset, rax, 0));
            errors();
        }
    }
    for (const u64 offset : {0x400, 0x500, 0x800, 0xC00, 0xFF0})
        runs("D42", Text() << "xapic.beyond." << Hex{offset, 3}, {0x8B, 0x06}, with(rsi, page + offset));
    const struct {
        u64 offset;
        u32 write, keeps;
        const char* name;
    } fields[] = {{0x80, 0xFFFFFFFF, 0xFF, "tpr"},           {0xD0, 0xFFFFFFFF, 0xFF000000, "ldr"},
                  {0xE0, 0x00000000, 0x0FFFFFFF, "dfr"},     {0x310, 0xFFFFFFFF, 0xFF000000, "icr.high"},
                  {0x3E0, 0xFFFFFFFF, 0x0000000B, "divide"}, {0x370, 0xFFFFFFFF, 0x000100FF, "lvt.error"}};
    for (const auto& field : fields) {
        const u32 before = read(field.offset);
        write(field.offset, field.write);
        const u32 held = read(field.offset);
        write(field.offset, before);
        check_equal("D42", Text() << "xapic.holds." << field.name, held, field.keeps);
    }
    const u32 version = read(0x30);
    write(0x30, 0);
    check_equal("D42", "xapic.version-is-read-only", read(0x30), version);
    check("D42", "xapic.version", (version & 0xFF) >= 0x10 && (version & 0xFF) <= 0x15,
          Text() << Hex{version});
    // Narrow, wide and unaligned accesses: undefined, but without harm.
    for (const u64 offset : {0x20UL, 0x21UL, 0x24UL, 0x2FUL, 0x80UL, 0x88UL, 0x3FCUL, 0xFFCUL}) {
        runs("C35", Text() << "xapic.read8." << Hex{offset}, {0x8A, 0x06}, with(rsi, page + offset));
        runs("C35", Text() << "xapic.read64." << Hex{offset}, {0x48, 0x8B, 0x06},
             with(rsi, page + (offset & ~3UL)));
        if (offset != 0x24) continue;
        runs("C35", "xapic.write64", {0x48, 0x89, 0x06}, with(rsi, page + 0x80, rax, 0));
    }
    write(0x80, 0);
    quiet();
}

void self_interrupts() {
    quiet();
    // Every legal vector to itself arrives, once; the others are errors.
    for (unsigned vector = 16; vector < 256; vector += vector < 32 ? 1 : 13) {
        // A vector below 32 is an exception's number, yet a legal interrupt. The handlers of some want an
        // error code.
        if (vector == 17 || vector == 21 || vector == 29 || vector == 30) continue;
        write(0x310, read(0x20));
        write(0x300, 0x4000 | vector);
        check_equal("D43", Text() << "ipi.self." << vector, next_interrupt(), vector);
        check_equal("D43", Text() << "ipi.once." << vector, next_interrupt(), 256);
    }
    for (unsigned vector = 0; vector < 16; ++vector) {
        errors();
        write(0x310, read(0x20));
        write(0x300, 0x4000 | vector);
        const u32 error = errors();
        check("D42", Text() << "ipi.illegal." << vector, (error & 0x60) != 0 && next_interrupt() == 256,
              Text() << "ESR " << Hex{error});
        write(0x300, 0x40000 | 0x4000 | vector);
        check("D42", Text() << "ipi.self-shorthand.illegal." << vector,
              (errors() & 0x60) != 0 && next_interrupt() == 256);
    }
    // An illegal vector of the error interrupt itself: noted, and no recursion.
    write(0x370, 5);
    write(0x300, 0x40000 | 0x4000 | 3);
    check("D42", "lvt.error.illegal-vector", next_interrupt() == 256);
    write(0x370, 0x10000);
    errors();
    for (const u64 entry : {0x320, 0x350, 0x360, 0x370}) {
        errors();
        write(entry, 7);
        const u32 error = errors();
        check("D42", Text() << "lvt.illegal-vector." << Hex{entry},
              (error & ~u32{0x40}) == 0 && next_interrupt() == 256, Text() << "ESR " << Hex{error});
        write(entry, 0x10000);
    }
    quiet();
    // Those who are not there.
    const u32 self = read(0x20) >> 24;
    for (const u32 target : {1U, 2U, 15U, 63U, 254U}) {
        if (target == self) continue;
        write(0x310, target << 24);
        for (const u32 mode : {0x4000U, 0x4100U, 0x4400U, 0x4500U, 0x4600U}) {
            write(0x300, mode | (mode == 0x4400 || mode == 0x4500 ? 0 : 0x50));
            check("D43", Text() << "ipi.absent." << target << '.' << Hex{mode},
                  (read(0x300) & bit(12)) == 0 && next_interrupt() == 256);
        }
    }
    write(0xE0, 0xFFFFFFFF);
    write(0xD0, 0x01000000);
    write(0x310, 0x02000000);
    write(0x300, 0x4850);
    check("D43", "ipi.logical.others", next_interrupt() == 256);
    write(0x310, 0x01000000);
    write(0x300, 0x4850);
    check_equal("D43", "ipi.logical.self", next_interrupt(), 0x50);
    write(0x310, 0xFF000000);
    write(0x300, 0x4051);
    check_equal("D43", "ipi.broadcast", next_interrupt(), 0x51);
    write(0x300, 0x80000 | 0x4052);
    check_equal("D43", "ipi.all", next_interrupt(), 0x52);
    write(0x300, 0xC0000 | 0x4053);
    check_equal("D43", "ipi.all-but-self", next_interrupt(), 256);
    // SMI, reserved modes, ExtINT by IPI, SIPI and an INIT level deassert: nothing happens.
    for (const u32 mode : {2U, 3U, 6U, 7U}) {
        write(0x310, self << 24);
        write(0x300, 0x4000 | mode << 8 | 0x44);
        check("D45", Text() << "ipi.mode." << mode, next_interrupt() == 256);
    }
    write(0x300, 0x8500);
    check("D45", "ipi.init-deassert", next_interrupt() == 256);
    quiet();
}

void priorities() {
    quiet();
    for (const unsigned task : {0x00U, 0x40U, 0x4FU, 0x50U, 0xF0U, 0xFFU}) {
        write(0x80, task);
        write(0x300, 0x40000 | 0x4000 | 0x45);
        const u64 arrived = next_interrupt();
        const bool allowed = (task >> 4) < 4;
        check_equal("D46", Text() << "tpr." << Hex{task}, arrived, allowed ? 0x45 : 256);
        write(0x80, 0);
        if (!allowed) check_equal("D46", Text() << "tpr.released." << Hex{task}, next_interrupt(), 0x45);
    }
    // The highest first; one of the same class waits for the EOI.
    for (const u32 vector : {0x51U, 0x61U, 0x5FU}) write(0x300, 0x40000 | 0x4000 | vector);
    check_equal("D46", "order.1", next_interrupt(), 0x61);
    check_equal("D46", "order.2", next_interrupt(), 0x5F);
    check_equal("D46", "order.3", next_interrupt(), 0x51);
    write(0x300, 0x40000 | 0x4000 | 0x55);
    const Outcome& o = run(open_window, Mode::long0, pattern());
    check_equal("D46", "in-service", o.vector, 0x55);
    write(0x300, 0x40000 | 0x4000 | 0x54);
    const Outcome& second = run(open_window, Mode::long0, pattern());
    check_equal("D46", "in-service.blocks-its-class", second.vector, 3);
    write(0xB0, 0);
    check_equal("D46", "eoi.releases", next_interrupt(), 0x54);
    for (unsigned i = 0; i < 10000; ++i) write(0xB0, i);
    for (unsigned i = 0; i < 10000; ++i) write(0x80, i);
    write(0x80, 0);
    check_equal("D46", "storm", next_interrupt(), 256);
    quiet();
}

void nmis() {
    quiet();
    write(0x310, read(0x20) & 0xFF000000);
    // At once, whatever IF is; code that waits for it.
    Entry in = with(rsi, page + 0x300, rax, 0x4400);
    const Outcome& o = run({0x89, 0x06, 0x90, 0x90, 0x90, 0x90}, Mode::long0, in);
    check("B27", "nmi.self", o.vector == 2 && o.rip > code_at && o.rip <= code_at + 6,
          Text() << "vector " << o.vector);
    // From the handler: two more, of which one waits until IRET.
    static u64 seen;
    seen = 0;
    event_hook = [] {
        if (outcome.vector != 2) return false;
        ++seen;
        if (seen == 1) {
            store<u32>(page + 0x300, 0x4400);
            store<u32>(page + 0x300, 0x4400);
            for (unsigned i = 0; i < 100; ++i) pause();
            if (seen != 1) seen = 100;
        }
        return true;
    };
    const u64 vector = run({0x89, 0x06, 0x90, 0x90, 0x90, 0x90}, Mode::long0, in).vector;
    // A processor without NMI windows may take its time for the one that waits.
    const u64 begin = rdtsc();
    while (seen < 2 && rdtsc() - begin < 1000000 * machine.tsc_per_us) pause();
    for (unsigned i = 0; i < 10000; ++i) pause();
    check("B27", "nmi.in-nmi", (vector == 3 || vector == 2) && seen == 2,
          Text() << "seen " << seen << " vector " << vector);
    // One that comes late is none of the other probes' business.
    event_hook = [] { return outcome.vector == 2; };
    quiet();
}

void timers() {
    quiet();
    const u64 patience = 2000000 * machine.tsc_per_us;
    const auto waits = [&](u64 vector) {
        const u64 begin = rdtsc();
        while (rdtsc() - begin < patience)
            if (next_interrupt() == vector) return true;
        return false;
    };
    for (const u32 divide : {0U, 1U, 2U, 3U, 8U, 9U, 10U, 11U}) {
        write(0x3E0, divide);
        write(0x320, 0x60);
        write(0x380, 1);
        check("D47", Text() << "one-shot.1.divide." << divide, waits(0x60));
        check_equal("D47", Text() << "one-shot.1.over." << divide, read(0x390), 0);
        write(0x380, 0xFFFFFFFF);
        const u32 first = read(0x390);
        const u32 second = read(0x390);
        check("D47", Text() << "one-shot.max.counts." << divide, first > 0x80000000 && second <= first);
        write(0x380, 0);
        check_equal("D47", Text() << "stopped." << divide, read(0x390), 0);
    }
    write(0x3E0, 11);
    for (const u32 period : {1U, 2U, 7U, 100U}) {
        write(0x320, 0x20061);
        write(0x380, period);
        bool good = true;
        for (unsigned i = 0; i < 20; ++i) good = good && waits(0x61);
        write(0x320, 0x10000);
        write(0x380, 0);
        check("D47", Text() << "periodic." << period, good);
        while (next_interrupt() != 256) {
        }
    }
    write(0x320, 0x10062);
    write(0x380, 1);
    for (unsigned i = 0; i < 1000; ++i) pause();
    check_equal("D47", "masked", next_interrupt(), 256);
    if ((machine.one.ecx & bit(24)) != 0) {
        write(0x320, 0x40063);
        for (const u64 deadline : {u64{1}, rdtsc(), rdtsc() + 100}) {
            wrmsr(0x6E0, deadline);
            check("A8", Text() << "deadline.past." << (deadline == 1 ? "1" : "now"), waits(0x63));
            check_equal("A8", "deadline.fires-once", next_interrupt(), 256);
            check_equal("A8", "deadline.is-zero-then", rdmsr(0x6E0), 0);
        }
        wrmsr(0x6E0, ~u64{0});
        check_equal("A8", "deadline.never", next_interrupt(), 256);
        wrmsr(0x6E0, 0);
        write(0x380, 1000);
        check_equal("A8", "deadline.ignores-initial-count", read(0x390), 0);
        write(0x320, 0x10000);
    }
    // The PIT through the I/O APIC's pin 2 at its fastest, and at a period of 1.
    store<u32>(0xFEC00000, 0x14);
    store<u32>(0xFEC00010, 0x70);
    store<u32>(0xFEC00000, 0x15);
    store<u32>(0xFEC00010, read(0x20));
    for (const u32 count : {1U, 2U, 3U, 10U}) {
        out8(0x43, 0x34);
        out8(0x40, static_cast<u8>(count));
        out8(0x40, 0);
        bool good = true;
        for (unsigned i = 0; i < 5; ++i) good = good && waits(0x70);
        check("D47", Text() << "pit." << count, good || count == 1);
    }
    out8(0x43, 0x34);
    out8(0x40, 0);
    out8(0x40, 0);
    store<u32>(0xFEC00000, 0x14);
    store<u32>(0xFEC00010, 0x10000);
    // The RTC's fastest rate, and rates that mean nothing.
    for (unsigned rate = 0; rate < 16; ++rate) {
        out8(0x70, 0x8A);
        out8(0x71, static_cast<u8>(0x20 | rate));
        out8(0x70, 0x8B);
        out8(0x71, 0x42);
        out8(0x70, 0x8C);
        static_cast<void>(in8(0x71));
    }
    out8(0x70, 0x8A);
    out8(0x71, 0x26);
    out8(0x70, 0x8B);
    out8(0x71, 0x02);
    pass("D47", "rtc.rates");
    quiet();
}

void io_apic() {
    const auto select = [](u32 index) { store<u32>(0xFEC00000, index); };
    const auto get = [&](u32 index) {
        select(index);
        return load<u32>(0xFEC00010);
    };
    const auto put = [&](u32 index, u32 value) {
        select(index);
        store<u32>(0xFEC00010, value);
    };
    const u32 pins = (get(1) >> 16 & 0xFF) + 1;
    check_equal("D46", "ioapic.pins", pins, 24);
    for (u32 index = 3; index < 0x10; ++index) {
        put(index, 0xFFFFFFFF);
        runs("D46", Text() << "ioapic.reserved." << Hex{index}, {0x8B, 0x06}, with(rsi, 0xFEC00010));
    }
    for (const u32 index : {0x40U, 0x41U, 0x7FU, 0x80U, 0xFEU, 0xFFU}) {
        put(index, 0xFFFFFFFF);
        runs("D46", Text() << "ioapic.beyond." << Hex{index}, {0x8B, 0x06}, with(rsi, 0xFEC00010));
    }
    for (const u64 offset : {0x00, 0x10, 0x20, 0x40, 0x100, 0xFF0}) {
        for (const Code& code : {Code{0x8A, 0x06}, Code{0x66, 0x8B, 0x06}, Code{0x48, 0x8B, 0x06},
                                 Code{0x88, 0x06}, Code{0x66, 0x89, 0x06}, Code{0x48, 0x89, 0x06}}) {
            select(1);
            runs("C35", Text() << "ioapic." << Hex{offset} << '.' << Hex{code.bytes[0]} << Hex{code.bytes[1]},
                 code, with(rsi, 0xFEC00000 + offset, rax, 1));
        }
    }
    // Delivery status and remote IRR are read-only; vectors below 16 are as useless as in the local APIC.
    put(0x10 + 2 * 5, 0x0001F0FF);
    check_equal("D46", "ioapic.entry.read-only-bits", get(0x10 + 2 * 5) & 0x5000, 0);
    // A level-triggered line that is never ended: nothing more comes, and everything else goes on.
    put(0x10 + 2 * 5, 0x10000);
    quiet();
    // The serial port's interrupt, level-triggered: the transmitter's is asserted at once.
    put(0x11 + 2 * 4, read(0x20));
    put(0x10 + 2 * 4, 0x8071);
    out8(0x3FC, 0x0B);
    out8(0x3F9, 0x02);
    const Outcome& o = run(open_window, Mode::long0, pattern());
    check_equal("D46", "level.arrives", o.vector, 0x71);
    check("D46", "level.remote-irr", (get(0x10 + 2 * 4) & bit(14)) != 0);
    const Outcome& again = run(open_window, Mode::long0, pattern());
    check_equal("D46", "level.not-twice-before-eoi", again.vector, 3);
    write(0xB0, 0);
    const Outcome& third = run(open_window, Mode::long0, pattern());
    check_equal("D46", "level.again-after-eoi", third.vector, 0x71);
    // The entry rewritten while it waits for its EOI.
    put(0x10 + 2 * 4, 0x18072);
    put(0x10 + 2 * 4, 0x8072);
    write(0xB0, 0);
    while (next_interrupt() != 256 && (in8(0x3FA) & 1) == 0) {
    }
    out8(0x3F9, 0x00);
    put(0x10 + 2 * 4, 0x10000);
    quiet();
    // A level-triggered line while the APIC is off or its vector illegal: it comes when it can.
    put(0x10 + 2 * 4, 0x8005);
    out8(0x3F9, 0x02);
    check_equal("D46", "level.illegal-vector", next_interrupt(), 256);
    // Edge-triggered in between: nothing waits for an EOI then that vector 5 never gets.
    put(0x10 + 2 * 4, 0x10000);
    put(0x10 + 2 * 4, 0x8073);
    const u64 late = next_interrupt();
    check_equal("D46", "level.comes-with-a-legal-vector", late, 0x73);
    out8(0x3F9, 0x00);
    put(0x10 + 2 * 4, 0x10000);
    while (next_interrupt() != 256) {
    }
    quiet();
    write(0xF0, 0xFF);
    put(0x10 + 2 * 4, 0x8074);
    out8(0x3F9, 0x02);
    check_equal("D46", "level.apic-off", next_interrupt(), 256);
    write(0xF0, 0x1FF);
    check_equal("D46", "level.comes-when-on", next_interrupt(), 0x74);
    out8(0x3F9, 0x00);
    put(0x10 + 2 * 4, 0x10000);
    while (next_interrupt() != 256) {
    }
    quiet();
}

void base_register() {
    const u64 before = rdmsr(base_msr);
    check("D41", "base.reset", (before & 0xFFF) == (enabled | bsp) && (before & ~u64{0xFFF}) == page,
          Text() << Hex{before});
    for (unsigned n = 0; n < 64; ++n) {
        const bool address = n >= 12 && n < machine.physical_bits;
        if (address || n == 8 || n == 11) continue;
        if (n == 10) continue;
        faults("D41", Text() << "base.bit." << n, wrmsr_code, general_protection,
               with_msr(base_msr, before | bit(n)));
    }
    faults("D41", "base.extended-without-enable", wrmsr_code, general_protection,
           with_msr(base_msr, (before & ~enabled) | extended));
    // Moved over RAM: there is the APIC then, here is nothing, and moved back all is as before.
    for (const u64 place : {u64{0x600000}, u64{0xFEB00000}, u64{0xB8000}}) {
        store<u32>(0x600030, 0xCAFE);
        wrmsr(base_msr, place | enabled | bsp);
        // Over RAM and other devices it may be hidden: only this machine's own memory is concerned.
        const u32 version = load<u32>(place + 0x30);
        const bool hidden = place == 0x600000 ? version == 0xCAFE : place == 0xB8000;
        check("D41", Text() << "moved." << Hex{place} << ".version", (version & 0xF0) == 0x10 || hidden,
              Text() << "reads " << Hex{version});
        check_equal("D41", Text() << "moved." << Hex{place} << ".old-place", load<u32>(page + 0x30),
                    0xFFFFFFFF);
        store<u32>(page + 0x80, 0x20);
        check_equal("D41", Text() << "moved." << Hex{place} << ".old-place-drops", read_cr8(), 0);
        wrmsr(base_msr, before);
        check_equal("D41", Text() << "moved-back." << Hex{place} << ".version", read(0x30) & 0xF0, 0x10);
        check_equal("D41", Text() << "moved-back." << Hex{place} << ".ram", load<u32>(0x600030), 0xCAFE);
    }
}

// Disabled, it cannot be enabled again on some emulated processors: last of all.
void disabled() {
    const u64 before = rdmsr(base_msr);
    wrmsr(base_msr, before & ~enabled);
    check_equal("D41", "disabled.page-is-open-bus", load<u32>(page + 0x30), 0xFFFFFFFF);
    check_equal("D41", "disabled.id", load<u32>(page + 0x20), 0xFFFFFFFF);
    store<u32>(page + 0x80, 0x30);
    check_equal("D41", "disabled.write-is-dropped", load<u32>(page + 0x80), 0xFFFFFFFF);
    check_equal("D41", "disabled.cpuid", cpuid(1).edx & bit(9), 0);
    faults("D41", "disabled.to-x2apic", wrmsr_code, general_protection,
           with_msr(base_msr, before | extended));
    faults("D41", "disabled.x2apic-msr", rdmsr_code, general_protection, with_msr(0x802, 0));
    wrmsr(base_msr, before);
    check_equal("D41", "enabled-again.version", read(0x30) & 0xF0, 0x10);
    check_equal("D41", "enabled-again.svr", read(0xF0), 0xFF);
    quiet();
}

}  // namespace

void probe_apic() {
    registers();
    self_interrupts();
    priorities();
    nmis();
    timers();
    io_apic();
    base_register();
}

void probe_x2apic() {
    // In xAPIC mode there are none.
    for (u32 index = 0x800; index < 0x900; ++index) {
        u64 value;
        const bool read_works = try_rdmsr(index, value);
        const bool write_works = try_wrmsr(index, 0) < 0;
        check("A2", Text() << "xapic-mode." << Hex{index}, !read_works && !write_works);
    }
    if ((machine.one.ecx & bit(21)) == 0) {
        skip("A2", "x2apic", "no x2APIC");
        disabled();
        return;
    }
    const u64 before = rdmsr(base_msr);
    wrmsr(base_msr, before | extended);
    check_equal("A2", "x2apic.page-is-open-bus", load<u32>(page + 0x30), 0xFFFFFFFF);
    check_equal("A2", "x2apic.id-by-page", load<u32>(page + 0x20), 0xFFFFFFFF);
    store<u32>(page + 0x80, 0x50);
    check_equal("A2", "x2apic.page-write-is-dropped", rdmsr(0x808), 0);
    enum : u8 { none = 0, readable = 1, writable = 2 };
    const auto access = [](u32 offset) -> u8 {
        switch (offset) {
            case 0x02:
            case 0x03:
            case 0x0A:
            case 0x0D:
            case 0x39: return readable;
            case 0x0B:
            case 0x3F: return writable;
            case 0x08:
            case 0x0F:
            case 0x28:
            case 0x30:
            case 0x38:
            case 0x3E: return readable | writable;
            default:
                if (offset >= 0x10 && offset <= 0x27) return readable;
                if (offset >= 0x32 && offset <= 0x37) return readable | writable;
                return none;
        }
    };
    for (u32 offset = 0; offset < 0x100; ++offset) {
        const u32 index = 0x800 + offset;
        const u8 allowed = access(offset);
        if ((allowed & readable) != 0) {
            runs("A2", Text() << "read." << Hex{index}, rdmsr_code, with_msr(index, 0));
        } else {
            faults("A2", Text() << "read." << Hex{index}, rdmsr_code, general_protection, with_msr(index, 0));
        }
        if ((allowed & writable) == 0) {
            faults("A2", Text() << "write." << Hex{index}, wrmsr_code, general_protection,
                   with_msr(index, 0));
            continue;
        }
        // Reserved bits, and the upper half of all but the ICR.
        for (const u64 value : {bit(20), bit(31), bit(32), bit(63)}) {
            if (offset == 0x38 && value < bit(32)) continue;
            if (offset == 0x30 && value >= bit(32)) continue;
            faults("A2", Text() << "write." << Hex{index} << '.' << Hex{value}, wrmsr_code,
                   general_protection, with_msr(index, value));
        }
    }
    for (const u64 value : {u64{1}, bit(16), ~u64{0}}) {
        faults("A2", Text() << "eoi." << Hex{value}, wrmsr_code, general_protection, with_msr(0x80B, value));
        faults("A2", Text() << "esr." << Hex{value}, wrmsr_code, general_protection, with_msr(0x828, value));
    }
    for (const u64 value : {u64{0x100}, ~u64{0}}) {
        faults("A2", Text() << "tpr." << Hex{value}, wrmsr_code, general_protection, with_msr(0x808, value));
        faults("A2", Text() << "self-ipi." << Hex{value}, wrmsr_code, general_protection,
               with_msr(0x83F, value));
    }
    for (u64 value = 0; value < 256; value += 17) {
        wrmsr(0x808, value);
        check_equal("A2", Text() << "tpr.holds." << Hex{value}, rdmsr(0x808), value);
        check_equal("A2", Text() << "cr8.follows." << Hex{value}, read_cr8(), value >> 4);
    }
    wrmsr(0x808, 0);
    wrmsr(0x80F, 0x1FF);
    for (const u64 vector : {u64{0x20}, u64{0x31}, u64{0x80}, u64{0xFE}, u64{0xFF}}) {
        wrmsr(0x83F, vector);
        const Outcome& o = run(open_window, Mode::long0, pattern());
        const u64 arrived = o.vector;
        wrmsr(0x80B, 0);
        check_equal("A2", Text() << "self-ipi.arrives." << Hex{vector}, arrived, vector);
    }
    for (u64 vector = 0; vector < 16; ++vector) {
        wrmsr(0x828, 0);
        wrmsr(0x83F, vector);
        const Outcome& o = run(open_window, Mode::long0, pattern());
        check_equal("A2", Text() << "self-ipi.illegal." << vector, o.vector, 3);
    }
    faults("A2", "back-to-xapic", wrmsr_code, general_protection, with_msr(base_msr, before));
    wrmsr(base_msr, before & ~(enabled | extended));
    wrmsr(base_msr, before);
    disabled();
}
