// A1 to A8, A15: model-specific registers.
#include "tests/guests/inmate/probe.hpp"

namespace {

constexpr Code rdmsr_code{0x0F, 0x32}, wrmsr_code{0x0F, 0x30};

// Registers that neither vendor's virtual machine has: edges of the ranges, other hypervisors', VMX's and
// SVM's, counters, machine-check banks, branch records, power, tracing, speculation controls, microcode of
// the other kind.
constexpr u32 absent[] = {
    0x2,        0x3,        0x5,        0xC,        0x12,       0x16,       0x18,       0x1C,
    0x1F,       0x21,       0x2A,       0x34,       0x3C,       0x3F,       0x40,       0x48,
    0x49,       0x4E,       0x7A,       0x8C,       0x9B,       0x9E,       0xC1,       0xC8,
    0xCF,       0xE1,       0xE2,       0xE7,       0xE8,       0xFF,       0x10A,      0x10B,
    0x11E,      0x122,      0x123,      0x140,      0x173,      0x177,      0x186,      0x18D,
    0x19A,      0x19B,      0x1A2,      0x1A4,      0x1AD,      0x1B0,      0x1C4,      0x1C5,
    0x1C8,      0x1C9,      0x1DB,      0x1DC,      0x1F2,      0x1F3,      0x210,      0x24F,
    0x251,      0x257,      0x25A,      0x267,      0x270,      0x276,      0x278,      0x280,
    0x2FE,      0x300,      0x309,      0x345,      0x38D,      0x38F,      0x3F1,      0x400,
    0x403,      0x410,      0x47F,      0x480,      0x481,      0x486,      0x48B,      0x48C,
    0x491,      0x4C1,      0x500,      0x560,      0x570,      0x5FF,      0x600,      0x606,
    0x611,      0x620,      0x640,      0x680,      0x6A0,      0x6A2,      0x6C0,      0x6DF,
    0x6E1,      0x770,      0x774,      0x7FF,      0x900,      0x985,      0xC80,      0xC90,
    0xD90,      0xDA1,      0x1FFF,     0x2000,     0x2001,     0x40000000, 0x40000001, 0x4B564D00,
    0x4B564D01, 0x7FFFFFFF, 0x80000000, 0xBFFFFFFF, 0xC0000000, 0xC000007F, 0xC0000085, 0xC00000E7,
    0xC00000FF, 0xC0000104, 0xC0000108, 0xC000010F, 0xC0001FFF, 0xC0002000, 0xC000FFFF, 0xC0010061,
    0xC0010114, 0xC0010117, 0xC0010118, 0xC001011A, 0xC0010130, 0xC0010131, 0xC0010140, 0xC00102B0,
    0xC0011005, 0xC0011FFF, 0xC0012000, 0xDEADBEEF, 0xFFFFFFFE, 0xFFFFFFFF};

// The processors' own MSRs that a virtual machine may have.
bool may_exist(u32 index) {
    constexpr struct {
        u32 first, last;
    } ranges[] = {{0, 1},         {0x10, 0x10},   {0x17, 0x17},   {0x1B, 0x1B},   {0x3A, 0x3B},
                  {0x79, 0x79},   {0x8B, 0x8B},   {0xCE, 0xCE},   {0xFE, 0xFE},   {0x174, 0x176},
                  {0x179, 0x17A}, {0x198, 0x199}, {0x1A0, 0x1A0}, {0x1D9, 0x1D9}, {0x200, 0x20F},
                  {0x250, 0x250}, {0x258, 0x259}, {0x268, 0x26F}, {0x277, 0x277}, {0x2FF, 0x2FF},
                  {0x6E0, 0x6E0}, {0x800, 0x8FF}, {0xDA0, 0xDA0}};
    constexpr u32 others[] = {0xC0000080, 0xC0000081, 0xC0000082, 0xC0000083, 0xC0000084, 0xC0000100,
                              0xC0000101, 0xC0000102, 0xC0000103, 0xC0010000, 0xC0010001, 0xC0010002,
                              0xC0010003, 0xC0010004, 0xC0010005, 0xC0010006, 0xC0010007, 0xC0010010,
                              0xC0010015, 0xC001001F, 0xC0010020, 0xC0010055, 0xC0010058, 0xC0011022,
                              0xC0011029, 0xC001102A};
    for (const auto& range : ranges)
        if (index >= range.first && index <= range.last) return true;
    for (const u32 other : others)
        if (index == other) return true;
    return false;
}

void absent_registers() {
    for (const u32 index : absent) {
        faults("A1", Text() << "rdmsr." << Hex{index, 8}, rdmsr_code, general_protection, with_msr(index, 0));
        faults("A1", Text() << "wrmsr." << Hex{index, 8}, wrmsr_code, general_protection, with_msr(index, 0));
    }
    // Whole ranges, a case for each 512: only what may exist is there.
    constexpr u32 bases[] = {0, 0xC0000000, 0xC0010000};
    for (const u32 base : bases) {
        for (u32 block = 0; block < 0x2000; block += 0x200) {
            u32 surprising = 0;
            for (u32 i = 0; i < 0x200; ++i) {
                u64 value;
                const u32 index = base + block + i;
                if (!may_exist(index) && try_rdmsr(index, value) && surprising == 0) surprising = index;
            }
            check("A1", Text() << "range." << Hex{base + block, 8}, surprising == 0,
                  Text() << Hex{surprising} << " can be read");
        }
    }
    u64 random = 0x9E3779B97F4A7C15;
    for (unsigned round = 0; round < 16; ++round) {
        u32 surprising = 0;
        for (unsigned i = 0; i < 128; ++i) {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            const u32 index = static_cast<u32>(random >> 20);
            u64 value;
            if (may_exist(index)) continue;
            if (try_rdmsr(index, value) || try_wrmsr(index, random) != 13) surprising = index;
        }
        check("A1", Text() << "sample." << round, surprising == 0, Text() << Hex{surprising} << " exists");
    }
}

void addresses() {
    constexpr struct {
        u32 index;
        const char* name;
    } registers[] = {{0xC0000100, "fs_base"}, {0xC0000101, "gs_base"}, {0xC0000102, "kernel_gs_base"},
                     {0xC0000082, "lstar"},   {0xC0000083, "cstar"},   {0x175, "sysenter_esp"},
                     {0x176, "sysenter_eip"}};
    constexpr u64 bad[] = {0x0000800000000000, 0x8000000000000000, 0xFFFF7FFFFFFFFFFF,
                           0x7FFFFFFFFFFFFFFF, 0x0001000000000000, 0xAAAAAAAAAAAAAAAA};
    constexpr u64 good[] = {0x00007FFFFFFFFFFF, 0xFFFF800000000000, 0xFFFFFFFFFFFFFFFF, 0x12345678};
    for (const auto& which : registers) {
        const u64 before = rdmsr(which.index);
        // AMD's SYSENTER registers have 32 bits, whatever is written to the others.
        const bool half = machine.amd && which.index < 0x1000;
        for (const u64 value : bad) {
            if (half) {
                runs("A3", Text() << which.name << '.' << Hex{value}, wrmsr_code,
                     with_msr(which.index, value));
                wrmsr(which.index, before);
                continue;
            }
            faults("A3", Text() << which.name << '.' << Hex{value}, wrmsr_code, general_protection,
                   with_msr(which.index, value));
            wrmsr(which.index, before);
        }
        for (const u64 value : good) {
            if (try_wrmsr(which.index, value) >= 0) {
                fail("A3", Text() << which.name << ".holds." << Hex{value}, "faulted");
                continue;
            }
            const u64 held = rdmsr(which.index);
            wrmsr(which.index, before);
            check_equal("A3", Text() << which.name << ".holds." << Hex{value},
                        half ? held & 0xFFFFFFFF : held, half ? value & 0xFFFFFFFF : value);
        }
        wrmsr(which.index, before);
    }
}

void extended_features() {
    constexpr u32 index = 0xC0000080;
    const u64 before = rdmsr(index);
    u64 allowed = bit(8) | bit(10);  // LME, LMA
    if ((machine.extended.edx & bit(11)) != 0) allowed |= bit(0);
    if ((machine.extended.edx & bit(20)) != 0) allowed |= bit(11);
    if ((machine.extended.edx & bit(25)) != 0) allowed |= bit(14);
    for (unsigned n = 0; n < 64; ++n) {
        if (n == 8 || n == 10) continue;
        const Text name = Text() << "efer." << n;
        if ((allowed & bit(n)) == 0) {
            faults("A4", name, wrmsr_code, general_protection, with_msr(index, before ^ bit(n)));
            continue;
        }
        const int vector = try_wrmsr(index, before ^ bit(n));
        const u64 held = rdmsr(index);
        wrmsr(index, before);
        check("A4", name, vector < 0 && held == (before ^ bit(n)), Text() << "holds " << Hex{held});
    }
    faults("A4", Text() << "efer.lme-cleared-while-paging", wrmsr_code, general_protection,
           with_msr(index, before & ~bit(8)));
    const int vector = try_wrmsr(index, before & ~bit(10));
    check("A4", Text() << "efer.lma-is-read-only", rdmsr(index) == before && (vector < 0 || vector == 13),
          Text() << "holds " << Hex{rdmsr(index)});
}

void firmware_registers() {
    if (machine.intel) {
        u64 value = 0;
        check("A5", Text() << "feature_control.reads", try_rdmsr(0x3A, value) && value == 1,
              Text() << "reads " << Hex{value});
        for (const u64 write : {u64{0}, u64{1}, u64{5}, u64{7}, ~u64{0}})
            faults("A5", Text() << "feature_control.write." << Hex{write}, wrmsr_code, general_protection,
                   with_msr(0x3A, write));
        const u64 revision = rdmsr(0x8B);
        runs("A5", Text() << "microcode.79", wrmsr_code, with_msr(0x79, 0x12345678));
        faults("A5", Text() << "microcode.79.read", rdmsr_code, general_protection, with_msr(0x79, 0));
        check_equal("A5", Text() << "microcode.revision", rdmsr(0x8B), revision);
    } else {
        faults("A5", Text() << "feature_control.read", rdmsr_code, general_protection, with_msr(0x3A, 0));
        faults("A5", Text() << "feature_control.write", wrmsr_code, general_protection, with_msr(0x3A, 5));
        const u64 revision = rdmsr(0x8B);
        runs("A5", Text() << "microcode.c0010020", wrmsr_code, with_msr(0xC0010020, 0x12345678));
        faults("A5", Text() << "microcode.79", wrmsr_code, general_protection, with_msr(0x79, 0));
        check_equal("A5", Text() << "microcode.revision", rdmsr(0x8B), revision);
    }
}

void debug_control() {
    // LBR and BTF may be there; branch trace messages and stores may not.
    for (unsigned n = 0; n < 64; ++n) {
        const int vector = try_wrmsr(0x1D9, bit(n));
        u64 held = 0;
        try_rdmsr(0x1D9, held);
        try_wrmsr(0x1D9, 0);
        const bool refused = vector == 13 && held == 0;
        const bool held_exactly = vector < 0 && held == bit(n);
        check("A6", Text() << "debugctl." << n, refused || (n <= 5 && held_exactly),
              Text() << "vector " << static_cast<u64>(static_cast<u32>(vector)) << " holds " << Hex{held});
    }
}

void memory_types() {
    constexpr u32 pat = 0x277;
    const u64 before = rdmsr(pat);
    for (unsigned slot = 0; slot < 8; ++slot) {
        for (const u64 type : {u64{2}, u64{3}, u64{8}, u64{0x10}, u64{0x40}, u64{0xFF}}) {
            const u64 value = (before & ~(u64{0xFF} << 8 * slot)) | type << 8 * slot;
            faults("A7", Text() << "pat." << slot << ".type." << type, wrmsr_code, general_protection,
                   with_msr(pat, value));
        }
        for (const u64 type : {u64{0}, u64{1}, u64{4}, u64{5}, u64{6}, u64{7}}) {
            const u64 value = (before & ~(u64{0xFF} << 8 * slot)) | type << 8 * slot;
            const int vector = try_wrmsr(pat, value);
            const u64 held = rdmsr(pat);
            wrmsr(pat, before);
            check("A7", Text() << "pat." << slot << ".type." << type, vector < 0 && held == value,
                  Text() << "holds " << Hex{held});
        }
    }
    faults("A7", Text() << "mtrrcap.write", wrmsr_code, general_protection, with_msr(0xFE, 0));
    const u64 def_type = rdmsr(0x2FF);
    for (const u64 value :
         {u64{2}, u64{3}, u64{7}, u64{8}, u64{0x106}, u64{0x1006}, bit(32) | 6, bit(63) | 6})
        faults("A7", Text() << "mtrr_def_type." << Hex{value}, wrmsr_code, general_protection,
               with_msr(0x2FF, value));
    wrmsr(0x2FF, def_type);
    for (const u32 index : {0x250U, 0x258U, 0x259U, 0x268U, 0x26FU}) {
        const u64 fixed = rdmsr(index);
        for (const u64 value : {u64{2}, u64{3}, u64{0x0700000000000000}, u64{0x0606060606060608}, ~u64{0}})
            faults("A7", Text() << "mtrr_fixed." << Hex{index} << '.' << Hex{value}, wrmsr_code,
                   general_protection, with_msr(index, value));
        wrmsr(index, 0x0606050401000606);
        check_equal("A7", Text() << "mtrr_fixed." << Hex{index} << ".holds", rdmsr(index),
                    0x0606050401000606);
        wrmsr(index, fixed);
    }
    for (u32 n = 0; n < 8; ++n) {
        const u32 base = 0x200 + 2 * n, mask = base + 1;
        const u64 old_base = rdmsr(base), old_mask = rdmsr(mask);
        faults("A7", Text() << "mtrr_base." << n << ".type", wrmsr_code, general_protection,
               with_msr(base, 2));
        faults("A7", Text() << "mtrr_base." << n << ".reserved", wrmsr_code, general_protection,
               with_msr(base, 0x106));
        faults("A7", Text() << "mtrr_base." << n << ".high", wrmsr_code, general_protection,
               with_msr(base, bit(machine.physical_bits) | 6));
        faults("A7", Text() << "mtrr_mask." << n << ".reserved", wrmsr_code, general_protection,
               with_msr(mask, 0x400));
        faults("A7", Text() << "mtrr_mask." << n << ".high", wrmsr_code, general_protection,
               with_msr(mask, bit(machine.physical_bits) | 0x800));
        wrmsr(base, old_base);
        wrmsr(mask, old_mask);
    }
}

void time_stamp() {
    constexpr u32 tsc = 0x10, adjust = 0x3B;
    const u64 begin = rdtsc();
    for (const u64 value : {u64{0}, u64{1}, bit(32) - 1, bit(63), ~u64{0} - 0xFFFFFFFFFF, low_bits(62)}) {
        wrmsr(tsc, value);
        const u64 now = rdtsc();
        check("A8", Text() << "tsc." << Hex{value}, now - value < bit(32), Text() << "reads " << Hex{now});
    }
    wrmsr(tsc, begin);
    if ((machine.seven.ebx & bit(1)) != 0) {
        wrmsr(adjust, 0);
        for (const u64 value : {u64{0}, u64{1}, bit(40), bit(63), ~u64{0}}) {
            const u64 before = rdtsc() - rdmsr(adjust);
            wrmsr(adjust, value);
            const u64 now = rdtsc();
            check_equal("A8", Text() << "tsc_adjust." << Hex{value} << ".holds", rdmsr(adjust), value);
            check("A8", Text() << "tsc_adjust." << Hex{value} << ".moves", now - value - before < bit(32),
                  Text() << "TSC moved by " << Hex{now - before});
        }
        wrmsr(adjust, 0);
        const u64 now = rdtsc();
        wrmsr(tsc, now + 1000000);
        check("A8", Text() << "tsc.moves-adjust", rdmsr(adjust) - 900000 < 200000,
              Text() << Hex{rdmsr(adjust)});
        wrmsr(adjust, 0);
    } else {
        skip("A8", Text() << "tsc_adjust", "no such register");
        faults("A8", Text() << "tsc_adjust.read", rdmsr_code, general_protection, with_msr(adjust, 0));
        faults("A8", Text() << "tsc_adjust.write", wrmsr_code, general_protection, with_msr(adjust, 0));
    }
}

void speculation_controls() {
    const struct {
        u32 index;
        const char* name;
        bool there;
    } registers[] = {
        {0x48, "spec_ctrl",
         (machine.seven.edx & (bit(26) | bit(27) | bit(31))) != 0 ||
             (machine.extended8.ebx & (bit(14) | bit(15) | bit(24))) != 0},
        {0x49, "pred_cmd", (machine.seven.edx & bit(26)) != 0 || (machine.extended8.ebx & bit(12)) != 0},
        {0x10B, "flush_cmd", (machine.seven.edx & bit(28)) != 0}};
    for (const auto& which : registers) {
        for (const u64 value : {bit(1), bit(3), bit(6), bit(12), bit(31), bit(32), bit(63), ~u64{0}}) {
            if (which.index == 0x48 && value == bit(1) && which.there) continue;
            faults("A15", Text() << which.name << '.' << Hex{value}, wrmsr_code, general_protection,
                   with_msr(which.index, value));
        }
        if (!which.there) {
            faults("A15", Text() << which.name << ".hidden.write", wrmsr_code, general_protection,
                   with_msr(which.index, 0));
            faults("A15", Text() << which.name << ".hidden.read", rdmsr_code, general_protection,
                   with_msr(which.index, 0));
        }
    }
}

}  // namespace

void probe_msrs() {
    absent_registers();
    addresses();
    extended_features();
    firmware_registers();
    debug_control();
    memory_types();
    time_stamp();
    speculation_controls();
    // Ring 3 has none of it, whatever the register.
    for (const u32 index : {0x10U, 0x1BU, 0x277U, 0xC0000080U, 0xFFFFFFFFU}) {
        faults("A1", Text() << "ring3.rdmsr." << Hex{index}, rdmsr_code, general_protection,
               with_msr(index, 0), Mode::long3);
        faults("A1", Text() << "ring3.wrmsr." << Hex{index}, wrmsr_code, general_protection,
               with_msr(index, 0), Mode::long3);
    }
}
