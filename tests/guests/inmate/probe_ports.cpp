// C31, C32, C40: port instructions and their strings.
#include "tests/guests/inmate/probe.hpp"

namespace {

// Ports that nothing answers: the bus reads all-ones.
constexpr u16 unclaimed[] = {0x0E0,  0x0F0, 0x100, 0x1E8,  0x220,  0x2E8,  0x2F8,  0x330, 0x378,
                             0x388,  0x3E8, 0x400, 0x510,  0x511,  0x5658, 0x5659, 0x700, 0xB000,
                             0xC000, 0xE9,  0x402, 0xFFF0, 0xFFFC, 0xFFFE, 0xFFFF};

u64 in_of(unsigned size, u16 port, u64& vector) {
    const Code code = size == 1 ? Code{0xEC} : size == 2 ? Code{0x66, 0xED} : Code{0xED};
    const Outcome& o = run(code, Mode::long0, with(rdx, port, rax, 0x1122334455667788));
    vector = o.vector;
    return o.gpr[rax];
}

void reads() {
    for (const u16 port : unclaimed) {
        for (const unsigned size : {1U, 2U, 4U}) {
            u64 vector;
            const u64 value = in_of(size, port, vector);
            const u64 wanted = size == 1 ? 0x11223344556677FF : size == 2 ? 0x112233445566FFFF : 0xFFFFFFFF;
            check("C32", Text() << "in." << Hex{port, 4} << '.' << size, vector == 3 && value == wanted,
                  Text() << "vector " << vector << " RAX " << Hex{value});
        }
        out8(port, 0x5A);
        out16(port, 0x5AA5);
        out32(port, 0x5AA55AA5);
    }
    pass("C32", "out.unclaimed");
    // Accesses wider than a device's register: neighbours answer byte by byte.
    for (const u16 port : {u16{0x21}, u16{0x71}, u16{0xA1}, u16{0x3FA}, u16{0x4D1}, u16{0x607}}) {
        u64 vector;
        const u64 byte = in_of(1, port, vector) & 0xFF;
        const u64 word = in_of(2, port, vector) & 0xFFFF;
        check("C32", Text() << "in.wide." << Hex{port, 4}, vector == 3 && (word & 0xFF) == byte,
              Text() << Hex{byte} << ' ' << Hex{word});
    }
    // Beyond FFFFh nothing is there.
    u64 vector;
    check_equal("C32", "in.ffff.4", in_of(4, 0xFFFF, vector), 0xFFFFFFFF);
    check_equal("C32", "in.fffd.4", in_of(4, 0xFFFD, vector), 0xFFFFFFFF);
}

// What ring 3 may do is up to IOPL and the bitmap in the task state.
void permissions() {
    auto* const limit = reinterpret_cast<u16*>(&gdt[0x40 / 8]);
    u8* const bitmap = task_state + 0x68;
    const auto reload = [] {
        reinterpret_cast<u8*>(&gdt[0x40 / 8])[5] = 0x89;
        asm volatile("ltr %w0" ::"r"(0x40));
    };
    const Code codes[] = {{0xE4, 0x80}, {0xE6, 0x80}, {0xE5, 0x80}, {0x66, 0xE7, 0x80},
                          {0xEC},       {0xEF},       {0x66, 0xED}, {0x6C},
                          {0x6E},       {0x6D},       {0xF3, 0x6E}, {0xF3, 0x66, 0x6F}};
    const auto entry = [](u16 port) {
        Entry in = with(rdx, port, rcx, 1);
        in.gpr[rsi] = in.gpr[rdi] = user_data_at + 64;
        return in;
    };
    for (const Code& code : codes) {
        const Text form = Text() << Hex{code.bytes[0], 2} << Hex{code.size > 1 ? code.bytes[1] : u8{0}, 2};
        faults("C32", Text() << "ring3.no-bitmap." << form.c_str(), code, general_protection, entry(0x80),
               Mode::long3);
        faults("C32", Text() << "compat3.no-bitmap." << form.c_str(), code, general_protection, entry(0x80),
               Mode::compat3);
        Entry open = entry(0x80);
        open.rflags = 2 | bit(12) | bit(13);
        runs("C32", Text() << "ring3.iopl3." << form.c_str(), code, open, Mode::long3);
    }
    *limit = 0x68 + 8192;
    memset(bitmap, 0xFF, 8193);
    reload();
    faults("C32", "bitmap.closed", {0xEC}, general_protection, entry(0x80), Mode::long3);
    bitmap[0x80 / 8] = 0xFE;
    runs("C32", "bitmap.open.80.1", {0xEC}, entry(0x80), Mode::long3);
    faults("C32", "bitmap.open.80.2", {0x66, 0xED}, general_protection, entry(0x80), Mode::long3);
    faults("C32", "bitmap.open.80.4", {0xED}, general_protection, entry(0x80), Mode::long3);
    faults("C32", "bitmap.open.81.1", {0xEC}, general_protection, entry(0x81), Mode::long3);
    faults("C32", "bitmap.open.7f.2", {0x66, 0xED}, general_protection, entry(0x7F), Mode::long3);
    bitmap[0x80 / 8] = 0xF0;
    runs("C32", "bitmap.open.80.whole", {0xED}, entry(0x80), Mode::long3);
    runs("C32", "bitmap.open.outs", {0x6E}, entry(0x80), Mode::long3);
    // A doubleword at 87h needs bits in two bytes.
    bitmap[0x80 / 8] = 0x7F;
    faults("C32", "bitmap.across.half", {0xED}, general_protection, entry(0x87), Mode::long3);
    bitmap[0x88 / 8] = 0xF8;
    runs("C32", "bitmap.across.whole", {0xED}, entry(0x87), Mode::long3);
    // The last port, and a map that is a byte short for it.
    memset(bitmap, 0, 8193);
    bitmap[8192] = 0xFF;
    runs("C32", "bitmap.ffff.1", {0xEC}, entry(0xFFFF), Mode::long3);
    faults("C32", "bitmap.ffff.4", {0xED}, general_protection, entry(0xFFFF), Mode::long3);
    *limit = 0x68 + 0x10;
    reload();
    runs("C32", "bitmap.short.inside", {0xEC}, entry(0x70), Mode::long3);
    faults("C32", "bitmap.short.outside", {0xEC}, general_protection, entry(0x100), Mode::long3);
    *limit = 0x67;
    reload();
}

struct StringCase {
    const char* name;
    Code code;
    unsigned size;
    bool source, destination;
};

// A page that is there and one that is not: the fault's address is exact, the registers tell how far it got.
void page_faults() {
    constexpr StringCase strings[] = {
        {"outsb", {0xF3, 0x6E}, 1, true, false},      {"outsw", {0xF3, 0x66, 0x6F}, 2, true, false},
        {"outsd", {0xF3, 0x6F}, 4, true, false},      {"insb", {0xF3, 0x6C}, 1, false, true},
        {"insw", {0xF3, 0x66, 0x6D}, 2, false, true}, {"insd", {0xF3, 0x6D}, 4, false, true},
        {"movsb", {0xF3, 0xA4}, 1, true, true},       {"movsq", {0xF3, 0x48, 0xA5}, 8, true, true},
        {"stosb", {0xF3, 0xAA}, 1, false, true},      {"stosq", {0xF3, 0x48, 0xAB}, 8, false, true},
        {"lodsb", {0xF3, 0xAC}, 1, true, false},      {"cmpsb", {0xF3, 0xA6}, 1, true, true},
        {"scasd", {0xF3, 0xAF}, 4, false, true},
    };
    constexpr u64 end = data_at + 0x2000;
    memset(data_pages(), 0, 0x2000);
    for (const StringCase& each : strings) {
        for (const u64 count : {u64{9}, ~u64{0}, bit(32)}) {
            for (const bool down : {false, true}) {
                // Five elements fit, then the hole: above the pages, or below them.
                const u64 first = down ? data_at + 4 * each.size : end - 5 * each.size;
                const u64 hole = down ? data_at - each.size : end;
                const u64 step = down ? 0 - u64{each.size} : each.size;
                Entry in = with(rcx, count, rdx, 0x80);
                in.gpr[rax] = 0;
                in.gpr[rsi] = each.source ? first : 0x1000;
                in.gpr[rdi] = each.destination ? first : 0x1000;
                in.rflags = down ? 2 | rflags_df : 2;
                const Outcome& o = run(each.code, Mode::long0, in);
                const bool moved =
                    (!each.source || o.gpr[rsi] == hole) && (!each.destination || o.gpr[rdi] == hole);
                static_cast<void>(step);
                check("C31", Text() << each.name << (down ? ".down." : ".up.") << Hex{count},
                      o.vector == 14 && o.rip == code_at && o.cr2 == hole && o.gpr[rcx] == count - 5 &&
                          moved && (o.error & ~u64{2}) == 0,
                      Text() << "vector " << o.vector << " CR2 " << Hex{o.cr2} << " RCX " << Hex{o.gpr[rcx]}
                             << " RSI " << Hex{o.gpr[rsi]} << " RDI " << Hex{o.gpr[rdi]});
            }
        }
        if (each.size == 1) continue;
        // An element half in the hole: nothing of it is done.
        Entry in = with(rcx, 3, rdx, 0x80);
        in.gpr[rax] = 0;
        in.gpr[rsi] = each.source ? end - each.size / 2 : 0x1000;
        in.gpr[rdi] = each.destination ? end - each.size / 2 : 0x1000;
        const Outcome& o = run(each.code, Mode::long0, in);
        check("C31", Text() << each.name << ".straddles", o.vector == 14 && o.cr2 == end && o.gpr[rcx] == 3,
              Text() << "vector " << o.vector << " CR2 " << Hex{o.cr2} << " RCX " << Hex{o.gpr[rcx]});
    }
    // Counts of zero touch nothing; 32-bit addresses use ECX, ESI and EDI.
    for (const StringCase& each : strings) {
        Entry in = with(rcx, 0, rdx, 0x80);
        in.gpr[rsi] = in.gpr[rdi] = 0x123456789A;
        runs("C31", Text() << each.name << ".none", each.code, in);
        in.gpr[rcx] = bit(32);
        const Code narrow = Code{0x67} + each.code;
        runs("C31", Text() << each.name << ".none.32", narrow, in);
    }
    // To a port that is not RAM-backed in ring 3: supervisor pages.
    for (const StringCase& each : {strings[0], strings[3], strings[6]}) {
        Entry in = with(rcx, 2, rdx, 0x80);
        in.gpr[rsi] = in.gpr[rdi] = data_at;
        in.rflags = 2 | bit(12) | bit(13);
        const Outcome& o = run(each.code, Mode::long3, in);
        check("C31", Text() << each.name << ".supervisor-page",
              o.vector == 14 && o.cr2 == data_at && (o.error & 5) == 5,
              Text() << "vector " << o.vector << " error " << Hex{o.error} << " CR2 " << Hex{o.cr2});
    }
    // Read-only pages.
    map_page(device_at, reinterpret_cast<u64>(data_pages()), page_present);
    write_cr0(read_cr0() | bit(16));
    for (const StringCase& each : {strings[3], strings[4], strings[5], strings[6], strings[8]}) {
        Entry in = with(rcx, 2, rdx, 0x80);
        in.gpr[rsi] = data_at;
        in.gpr[rdi] = device_at;
        const Outcome& o = run(each.code, Mode::long0, in);
        check("C31", Text() << each.name << ".read-only",
              o.vector == 14 && o.cr2 == device_at && o.error == 3,
              Text() << "vector " << o.vector << " error " << Hex{o.error} << " CR2 " << Hex{o.cr2});
    }
    write_cr0(read_cr0() & ~bit(16));
    unmap_page(device_at);
}

// Limits and null segments, outside 64-bit mode.
void segments() {
    constexpr u64 slot = 0x50;
    const auto probe = [](const char* name, u64 descriptor, u64 offset, const Code& load, const Code& use,
                          Fault fault, bool good) {
        gdt[slot / 8] = descriptor;
        Entry in;
        in.gpr[rax] = slot;
        in.gpr[rbx] = offset;
        in.gpr[rsi] = in.gpr[rdi] = offset;
        in.gpr[rdx] = 0x80;
        in.gpr[rcx] = 1;
        const Code code = load + use;
        const Outcome& o = run(code, Mode::compat0, in);
        const u64 vector = o.vector, error = o.error, rip = o.rip;
        reload_segments();
        const bool holds =
            good ? vector == 3 : vector == fault.vector && error == fault.error && rip == code_at + load.size;
        check("C40", name, holds,
              Text() << "vector " << vector << " error " << Hex{error} << " at " << Hex{rip - code_at});
    };
    const Code to_ds{0x8E, 0xD8}, to_es{0x8E, 0xC0}, to_ss{0x8E, 0xD0};
    // 4 KiB at data_at; the same growing down; read-only; based at the device.
    const u64 base = (data_at & 0xFFFFFF) << 16 | (data_at >> 24) << 56;
    const u64 small = base | 0x0040930000000FFF, down = base | 0x0040970000000FFF,
              fixed = base | 0x0040910000000FFF;
    const Code load{0x8B, 0x0B}, store{0x89, 0x0B}, outs{0x6E}, rep_outs{0xF3, 0x6E}, ins{0x6C}, movs{0xA5},
        ss_load{0x36, 0x8B, 0x0B}, ss_outs{0x36, 0x6E};
    const Fault gp{13, 0}, ss_fault{12, 0};
    probe("limit.load.inside", small, 0xFFC, to_ds, load, gp, true);
    probe("limit.load.across", small, 0xFFD, to_ds, load, gp, false);
    probe("limit.load.outside", small, 0x1000, to_ds, load, gp, false);
    probe("limit.store.across", small, 0xFFE, to_ds, store, gp, false);
    probe("limit.outs.inside", small, 0xFFF, to_ds, outs, gp, true);
    probe("limit.outs.outside", small, 0x1000, to_ds, outs, gp, false);
    probe("limit.rep-outs.outside", small, 0x1000, to_ds, rep_outs, gp, false);
    probe("limit.ins.inside", small, 0xFFF, to_es, ins, gp, true);
    probe("limit.ins.outside", small, 0x1000, to_es, ins, gp, false);
    probe("limit.movs.across", small, 0xFFD, to_ds, movs, gp, false);
    probe("limit.ss.load.outside", small, 0x1000, to_ss, ss_load, ss_fault, false);
    probe("limit.ss.outs.outside", small, 0x1000, to_ss, ss_outs, ss_fault, false);
    probe("limit.ss.outs.inside", small, 0x10, to_ss, ss_outs, ss_fault, true);
    probe("down.load.below", down, 0xFFC, to_ds, load, gp, false);
    probe("down.outs.below", down, 0xFFF, to_ds, outs, gp, false);
    probe("down.load.inside", down, 0x1000, to_ds, load, gp, true);
    probe("down.outs.inside", down, 0x1000, to_ds, outs, gp, true);
    probe("read-only.store", fixed, 0, to_ds, store, gp, false);
    probe("read-only.ins", fixed, 0, to_es, ins, gp, false);
    probe("read-only.load", fixed, 0, to_ds, load, gp, true);
    const u64 execute_only = base | 0x0040980000000FFF;
    gdt[slot / 8] = execute_only;
    faults("C40", "execute-only.mov-ds", to_ds, {13, slot}, with(rax, slot), Mode::compat0);
    const Code null_ds{0x31, 0xC0, 0x8E, 0xD8}, null_es{0x31, 0xC0, 0x8E, 0xC0};
    probe("null.load", small, 0, null_ds, load, gp, false);
    probe("null.store", small, 0, null_ds, store, gp, false);
    probe("null.outs", small, 0, null_ds, outs, gp, false);
    probe("null.ins", small, 0, null_es, ins, gp, false);
    gdt[slot / 8] = 0;
}

}  // namespace

void probe_ports() {
    reads();
    permissions();
    page_faults();
    segments();
}
