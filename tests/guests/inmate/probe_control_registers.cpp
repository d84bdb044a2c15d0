// A9 to A14: control registers, XCR0, debug registers.
#include "tests/guests/inmate/probe.hpp"

namespace {

constexpr u64 pe = bit(0), mp = bit(1), em = bit(2), ts = bit(3), ne = bit(5), wp = bit(16), am = bit(18),
              nw = bit(29), cd = bit(30), pg = bit(31);

// MOV CRn, RAX and back.
constexpr Code to_cr0{0x0F, 0x22, 0xC0}, to_cr3{0x0F, 0x22, 0xD8}, to_cr4{0x0F, 0x22, 0xE0},
    to_cr8{0x44, 0x0F, 0x22, 0xC0};

void cr0() {
    const u64 before = read_cr0();
    faults("A9", Text() << "cr0.pg-without-pe", to_cr0, general_protection, with(rax, before & ~pe));
    faults("A9", Text() << "cr0.pe-and-pg-cleared-in-long-mode", to_cr0, general_protection,
           with(rax, before & ~pg & ~pe));
    faults("A9", Text() << "cr0.pg-cleared-in-64-bit-code", to_cr0, general_protection,
           with(rax, before & ~pg));
    faults("A9", Text() << "cr0.nw-without-cd", to_cr0, general_protection, with(rax, (before | nw) & ~cd));
    for (unsigned n = 32; n < 64; ++n)
        faults("A9", Text() << "cr0.bit." << n, to_cr0, general_protection, with(rax, before | bit(n)));
    for (const u64 flag : {mp, em, ts, ne, wp, am, cd}) {
        const u64 value = before ^ flag;
        const Outcome& o =
            run(to_cr0 + Code{0x0F, 0x20, 0xC3} + to_cr0 + Code{}, Mode::long0, with(rax, value));
        const u64 held = o.gpr[rbx];
        const u64 vector = o.vector;
        write_cr0(before);
        check("A9", Text() << "cr0.toggles." << Hex{flag}, vector == 3 && held == value,
              Text() << "vector " << vector << " holds " << Hex{held});
    }
    // With CD set the host's caches stay on: what the canary's heartbeat would show.
    write_cr0(before | cd);
    const u64 begin = rdtsc();
    for (unsigned i = 0; i < 1000; ++i) static_cast<void>(load<u64>(data_at));
    check("A9", Text() << "cr0.cd-does-not-slow", rdtsc() - begin < 10000 * machine.tsc_per_us);
    asm volatile("wbinvd" ::: "memory");
    write_cr0(before);
    check_equal("A9", Text() << "cr0.restored", read_cr0(), before);
    for (const Code& ring3 : {to_cr0, to_cr3, to_cr4, to_cr8, Code{0x0F, 0x20, 0xC0}, Code{0x0F, 0x20, 0xD8},
                              Code{0x0F, 0x20, 0xE0}, Code{0x44, 0x0F, 0x20, 0xC0}, Code{0x0F, 0x06},
                              Code{0x0F, 0x01, 0xF0}, Code{0x0F, 0x23, 0xF8}, Code{0x0F, 0x21, 0xF8}})
        faults("A9", Text() << "ring3.privileged." << Hex{ring3.bytes[1]} << Hex{ring3.bytes[2], 2}, ring3,
               general_protection, with(rax, 0x11), Mode::long3);
    // There is no CR1, CR5 to CR7, CR9 to CR15.
    for (const unsigned n : {1U, 5U, 6U, 7U, 9U, 10U, 11U, 12U, 13U, 14U, 15U}) {
        const u8 rex = n >= 8 ? 0x4C : 0x48, modrm = static_cast<u8>(0xC0 | (n & 7) << 3);
        faults("A9", Text() << "cr" << n << ".read", {rex, 0x0F, 0x20, modrm}, undefined, with(rax, 0));
        faults("A9", Text() << "cr" << n << ".write", {rex, 0x0F, 0x22, modrm}, undefined, with(rax, 0));
    }
    // LMSW cannot clear PE and sets only the low four bits.
    const Outcome& o = run({0x0F, 0x01, 0xF0}, Mode::long0, with(rax, 0xFFFFFFFFFFFF0000 | (before & 0xE)));
    const u64 vector = o.vector, held = read_cr0();
    write_cr0(before);
    check("A9", Text() << "lmsw.keeps-pe", vector == 3 && held == before,
          Text() << "vector " << vector << " CR0 " << Hex{held});
    runs("A9", Text() << "clts", {0x0F, 0x06}, pattern());
}

u64 legal_cr4() {
    u64 legal = bit(2) | bit(8);  // TSD, PCE
    const auto add = [&](u64 have, u64 bits) {
        if (have != 0) legal |= bits;
    };
    const CpuidResult &one = machine.one, &seven = machine.seven;
    add(one.edx & bit(1), bit(0) | bit(1));
    add(one.edx & bit(2), bit(3));
    add(one.edx & bit(3), bit(4));
    add(one.edx & bit(6), bit(5));
    add(one.edx & bit(7), bit(6));
    add(one.edx & bit(13), bit(7));
    add(one.edx & bit(24), bit(9));
    add(one.edx & bit(25), bit(10));
    add(seven.ecx & bit(2), bit(11));
    add(seven.ecx & bit(16), bit(12));
    add(one.ecx & bit(5), bit(13));
    add(one.ecx & bit(6), bit(14));
    add(seven.ebx & bit(0), bit(16));
    add(one.ecx & bit(17), bit(17));
    add(one.ecx & bit(26), bit(18));
    add(seven.ebx & bit(7), bit(20));
    add(seven.ebx & bit(20), bit(21));
    add(seven.ecx & bit(3), bit(22));
    add(seven.ecx & bit(7), bit(23));
    return legal;
}

void cr4() {
    const u64 before = read_cr4(), legal = legal_cr4();
    for (unsigned n = 0; n < 64; ++n) {
        const Text name = Text() << "cr4.bit." << n;
        const u64 value = before ^ bit(n);
        if (n == 5 || n == 12 || (legal & bit(n)) == 0) {
            faults("A10", name, to_cr4, general_protection, with(rax, value));
            write_cr4(before);
            continue;
        }
        if (avoided("A10", name)) continue;
        const Outcome& o = run(to_cr4, Mode::long0, with(rax, value));
        const u64 vector = o.vector, held = read_cr4();
        write_cr4(before);
        check("A10", name, vector == 3 && held == value,
              Text() << "vector " << vector << " holds " << Hex{held});
    }
    if ((legal & bit(17)) != 0) {
        const u64 tables = read_cr3();
        for (const u64 low : {u64{1}, u64{8}, u64{0x10}, u64{0xFFF}}) {
            write_cr3(tables | low);
            faults("A10", Text() << "cr4.pcide-with-cr3." << Hex{low}, to_cr4, general_protection,
                   with(rax, before | bit(17)));
            write_cr4(before);
            write_cr3(tables);
        }
        runs("A10", Text() << "cr4.pcide", to_cr4, with(rax, before | bit(17)));
        runs("A10", Text() << "cr3.pcid.fff", to_cr3, with(rax, tables | 0xFFF));
        runs("A10", Text() << "cr3.pcid.keep", to_cr3, with(rax, tables | bit(63)));
        check_equal("A10", Text() << "cr3.bit63-is-not-kept", read_cr3(), tables);
        write_cr4(before);
    } else {
        skip("A10", Text() << "cr4.pcide", "no PCID");
    }
    check_equal("A10", Text() << "cr4.restored", read_cr4(), before);
}

void cr3() {
    const u64 before = read_cr3();
    for (unsigned n = machine.physical_bits; n < 64; ++n) {
        faults("A11", Text() << "cr3.bit." << n, to_cr3, general_protection, with(rax, before | bit(n)));
        write_cr3(before);
    }
    for (const u64 low : {u64{1}, u64{0x18}, u64{0x800}}) {
        runs("A11", Text() << "cr3.low." << Hex{low}, to_cr3, with(rax, before | low));
        write_cr3(before);
    }
}

void cr8() {
    for (u64 value = 0; value < 16; ++value) {
        const Outcome& o = run(to_cr8 + Code{0x44, 0x0F, 0x20, 0xC3}, Mode::long0, with(rax, value));
        check("A12", Text() << "cr8.holds." << value, o.vector == 3 && o.gpr[rbx] == value,
              Text() << "vector " << o.vector << " holds " << Hex{o.gpr[rbx]});
    }
    for (unsigned n = 4; n < 64; ++n)
        faults("A12", Text() << "cr8.bit." << n, to_cr8, general_protection, with(rax, bit(n)));
    write_cr8(0);
}

void xcr0() {
    constexpr Code xsetbv{0x0F, 0x01, 0xD1}, xgetbv{0x0F, 0x01, 0xD0};
    if (machine.xcr0 == 0) {
        faults("A13", Text() << "xsetbv.no-xsave", xsetbv, undefined, with_msr(0, 1));
        return;
    }
    const u64 cr4 = read_cr4();
    write_cr4(cr4 & ~bit(18));
    faults("A13", Text() << "xsetbv.osxsave-clear", xsetbv, undefined, with_msr(0, 1));
    faults("A13", Text() << "xgetbv.osxsave-clear", xgetbv, undefined, with_msr(0, 1));
    faults("A13", Text() << "xsetbv.osxsave-clear.ring3", xsetbv, undefined, with_msr(0, 1), Mode::long3);
    write_cr4(cr4 | bit(18));
    for (const u64 value : {u64{1}, u64{7}, u64{0}})
        faults("A13", Text() << "xsetbv.ring3." << value, xsetbv, general_protection, with_msr(0, value),
               Mode::long3);
    for (const u32 index : {1U, 2U, 3U, 0x10U, 0x80000000U, 0xFFFFFFFFU})
        faults("A13", Text() << "xsetbv.ecx." << Hex{index}, xsetbv, general_protection, with_msr(index, 1));
    for (const u32 index : {2U, 3U, 0x80000000U, 0xFFFFFFFFU})
        faults("A13", Text() << "xgetbv.ecx." << Hex{index}, xgetbv, general_protection, with_msr(index, 1));
    const auto legal = [](u64 value) {
        if ((value & ~machine.xcr0) != 0 || (value & 1) == 0) return false;
        if ((value & 4) != 0 && (value & 2) == 0) return false;
        const u64 wide = value & 0xE0;
        if (wide != 0 && (wide != 0xE0 || (value & 4) == 0)) return false;
        return (value & 0x18) == 0 || (value & 0x18) == 0x18;
    };
    const auto probe = [&](u64 value) {
        const Text name = Text() << "xsetbv." << Hex{value};
        if (legal(value)) {
            const Outcome& o = run(xsetbv + Code{0x31, 0xC9} + xgetbv, Mode::long0, with_msr(0, value));
            const u64 held = o.gpr[rdx] << 32 | o.gpr[rax];
            check("A13", name, o.vector == 3 && held == value,
                  Text() << "vector " << o.vector << " holds " << Hex{held});
        } else {
            faults("A13", name, xsetbv, general_protection, with_msr(0, value));
        }
    };
    for (u64 value = 0; value < 0x100; ++value)
        if (value < 0x20 || (value & 0x1F) == 7 || value == 0xFF) probe(value);
    for (unsigned n = 8; n < 64; ++n) probe(1 | bit(n));
    probe(0x203);
    probe(0x207);
    probe(machine.xcr0);
    probe(1);
    write_cr4(cr4);
}

void debug_registers() {
    for (const unsigned number : {6U, 7U}) {
        const u8 modrm = static_cast<u8>(0xC0 | number << 3);
        for (unsigned n = 32; n < 64; ++n) {
            faults("A14", Text() << "dr" << number << ".bit." << n, {0x0F, 0x23, modrm}, general_protection,
                   with(rax, bit(n)));
        }
    }
    for (unsigned number = 0; number < 4; ++number) {
        const u8 modrm = static_cast<u8>(0xC0 | number << 3);
        const Outcome& o = run({0x0F, 0x23, modrm, 0x0F, 0x21, static_cast<u8>(modrm | 3)}, Mode::long0,
                               with(rax, 0xFEDCBA9876543210));
        check("A14", Text() << "dr" << number << ".holds-64-bits",
              o.vector == 3 && o.gpr[rbx] == 0xFEDCBA9876543210,
              Text() << "vector " << o.vector << ' ' << Hex{o.gpr[rbx]});
    }
    const u64 cr4 = read_cr4();
    write_cr4(cr4 | bit(3));
    for (const unsigned number : {4U, 5U}) {
        const u8 modrm = static_cast<u8>(0xC0 | number << 3);
        faults("A14", Text() << "dr" << number << ".de.read", {0x0F, 0x21, modrm}, undefined, with(rax, 0));
        faults("A14", Text() << "dr" << number << ".de.write", {0x0F, 0x23, modrm}, undefined, with(rax, 0));
    }
    write_cr4(cr4 & ~bit(3));
    write_dr6(0xFFFF0FF0);
    write_dr7(0x400);
    for (const unsigned number : {4U, 5U}) {
        const u8 modrm = static_cast<u8>(0xC0 | number << 3);
        const Outcome& o = run({0x0F, 0x21, modrm}, Mode::long0, with(rax, 0));
        check("A14", Text() << "dr" << number << ".alias.read",
              o.vector == 3 && o.gpr[rax] == (number == 4 ? 0xFFFF0FF0 : 0x400),
              Text() << "vector " << o.vector << ' ' << Hex{o.gpr[rax]});
    }
    write_cr4(cr4);
    for (unsigned number = 8; number < 16; ++number) {
        const u8 modrm = static_cast<u8>(0xC0 | (number & 7) << 3);
        faults("A14", Text() << "dr" << number << ".read", {0x4C, 0x0F, 0x21, modrm}, undefined,
               with(rax, 0));
        faults("A14", Text() << "dr" << number << ".write", {0x4C, 0x0F, 0x23, modrm}, undefined,
               with(rax, 0));
    }
    // General detect: #DB with BD set, before the access; GD is clear then.
    for (unsigned number = 0; number < 8; ++number) {
        if (number == 4 || number == 5) continue;
        for (const u8 opcode : {u8{0x21}, u8{0x23}}) {
            const u8 modrm = static_cast<u8>(0xC0 | number << 3);
            write_dr6(0xFFFF0FF0);
            const Outcome& o = run(Code{0x0F, 0x23, 0xFB, 0x90, 0x0F, opcode, modrm}, Mode::long0,
                                   with(rbx, 0x2400, rax, 0x1000));
            const u64 vector = o.vector, rip = o.rip, dr6 = o.dr6;
            write_dr7(0x400);
            check("A14", Text() << "general-detect.dr" << number << (opcode == 0x21 ? ".read" : ".write"),
                  vector == 1 && rip == code_at + 4 && (dr6 & bit(13)) != 0,
                  Text() << "vector " << vector << " at " << Hex{rip - code_at} << " DR6 " << Hex{dr6});
        }
    }
    write_dr6(0xFFFF0FF0);
    write_dr7(0x400);
}

}  // namespace

void probe_control_registers() {
    cr0();
    cr4();
    cr3();
    cr8();
    xcr0();
    debug_registers();
}
