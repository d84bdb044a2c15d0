// E48, E49, I67, I68: memory that is not there, tables that change, and what a virtual machine starts with.
#include "tests/guests/inmate/probe.hpp"

namespace {

constexpr u64 marker = 0x414E4152590000;  // of the canary, but for its last 16 bits

void touch(const char* what, u64 physical) {
    const u64 at = device_at + (physical & 0xFFF);
    map_page(device_at, physical & ~u64{0xFFF}, page_present | page_writable | page_uncached);
    const struct {
        const char* name;
        Code code;
        u64 wanted;
    } loads[] = {{"8", {0x0F, 0xB6, 0x06}, 0xFF},
                 {"16", {0x0F, 0xB7, 0x06}, 0xFFFF},
                 {"32", {0x8B, 0x06}, 0xFFFFFFFF},
                 {"64", {0x48, 0x8B, 0x06}, ~u64{0}}};
    for (const auto& each : loads) {
        store<u64>(at, 0x5A5A5A5A5A5A5A5A);
        const Outcome& o = run(each.code, Mode::long0, with(rsi, at, rax, 0));
        check("E48", Text() << what << '.' << Hex{physical} << '.' << each.name,
              o.vector == 3 && o.gpr[rax] == each.wanted,
              Text() << "vector " << o.vector << " error " << Hex{o.error} << " reads " << Hex{o.gpr[rax]});
    }
    unmap_page(device_at);
}

void holes() {
    const u64 end = end_of_ram();
    const u64 top = (end + 0x1FFFFF) & ~u64{0x1FFFFF};
    touch("ram-end", top);
    touch("ram-end", top + 0x1FFFF0);
    touch("ram-end", top * 2);
    for (const u64 physical :
         {u64{0x8000000},  u64{0x40000000},  u64{0x7FFFFFF8}, u64{0xBFFFFFF8},    u64{0xC0000000},
          u64{0xD0000000}, u64{0xE0000000},  u64{0xFD000000}, u64{0xFEBFFFF8},    u64{0xFEC01000},
          u64{0xFED00000}, u64{0xFED1C000},  u64{0xFEDFFFF8}, u64{0xFEE01000},    u64{0xFEEFFFF8},
          u64{0xFEF00000}, u64{0xFF000000},  u64{0xFFFE0000}, u64{0xFFFFFFF0},    u64{0xFFFFFFF8},
          bit(32),         bit(32) + 0x1000, bit(33),         bit(34) + 0x123450, bit(35),
          bit(36) - 8})
        touch("hole", physical);
    for (unsigned n = 36; n < machine.physical_bits; ++n) touch("high", bit(n));
    touch("last", low_bits(machine.physical_bits) - 7);
    // Beyond the physical addresses a paging entry has reserved bits.
    for (unsigned n = machine.physical_bits; n < 52; ++n) {
        map_page(device_at, bit(n), page_present | page_writable);
        const Outcome& o = run({0x8B, 0x06}, Mode::long0, with(rsi, device_at));
        check("E48", Text() << "reserved-bit." << n, o.vector == 14 && o.error == 9 && o.cr2 == device_at,
              Text() << "vector " << o.vector << " error " << Hex{o.error});
    }
    unmap_page(device_at);
    // The BIOS area cannot be written, but can be read.
    for (const u64 physical : {u64{0xC0000}, u64{0xE0000}, u64{0xF0000}, u64{0xFFFF8}}) {
        const u64 before = load<u64>(physical);
        store<u64>(physical, ~before);
        check_equal("E48", Text() << "bios." << Hex{physical}, load<u64>(physical), before);
    }
}

void tables() {
    u64& entry = page_directories[0x72000000 >> 21];
    const u64 before = entry;
    alignas(4096) static u64 small[512];
    u8* const memory = data_pages();
    const u64 physical = reinterpret_cast<u64>(memory);
    for (u64 i = 0; i < 512; ++i) small[i] = (physical & ~u64{0x1FFFFF}) + i * 0x1000 + 3;
    const u64 at = 0x72000000 + (physical & 0x1FFFFF);
    bool good = true;
    for (u64 i = 0; i < 200; ++i) {
        // 2 MiB and 4 KiB pages of the same memory in turn, without an INVLPG in between.
        entry = (i & 1) != 0 ? (physical & ~u64{0x1FFFFF}) | 0x83 : reinterpret_cast<u64>(small) | 3;
        store<u64>(at, i);
        good = good && load<u64>(physical) == i;
    }
    check("E49", "page-size.flips", good);
    // Code that runs there while the page size changes.
    entry = (physical & ~u64{0x1FFFFF}) | 0x83;
    write_cr3(read_cr3());
    memory[0] = 0xC3;
    for (u64 i = 0; i < 100; ++i) {
        entry = (i & 1) != 0 ? (physical & ~u64{0x1FFFFF}) | 0x83 : reinterpret_cast<u64>(small) | 3;
        reinterpret_cast<void (*)()>(at)();
    }
    pass("E49", "page-size.flips-under-code");
    entry = before;
    write_cr3(read_cr3());
    // A table that maps itself.
    auto* const top = reinterpret_cast<u64*>(read_cr3() & ~u64{0xFFF});
    top[511] = reinterpret_cast<u64>(top) | 3;
    write_cr3(read_cr3());
    const u64 self = load<u64>(0xFFFFFFFFFFFFFFF8);
    check_equal("E49", "self-map", self & ~u64{0x60}, reinterpret_cast<u64>(top) | 3);
    top[511] = 0;
    write_cr3(read_cr3());
    // Tables in holes, in devices and in the BIOS area: all-ones are entries with reserved bits, or the walk
    // finds nothing; in no case is anything harmed.
    for (const u64 place : {u64{0xC0000000}, u64{0xFEC00000}, u64{0xFEE00000}, u64{0xB8000}, bit(36)}) {
        entry = place | 3;
        const Outcome& o = run({0x8B, 0x06}, Mode::long0, with(rsi, 0x72000000));
        check("E49", Text() << "table-at." << Hex{place}, o.vector == 14 || o.vector == 3,
              Text() << "vector " << o.vector);
        entry = before;
        write_cr3(read_cr3());
    }
}

}  // namespace

void probe_memory() {
    holes();
    tables();
}

// Before anything else is done: nothing of who had the processor or the memory before is left.
void probe_reset_state() {
    const BootState& s = boot_state;
    const struct {
        const char* name;
        u64 is, wanted;
    } values[] = {
        {"eax", s.eax, 0x2BADB002},
        {"ecx", s.ecx, 0},
        {"edx", s.edx, 0},
        {"esi", s.esi, 0},
        {"edi", s.edi, 0},
        {"ebp", s.ebp, 0},
        {"eflags", s.eflags & ~u64{0x46}, 0},
        {"cr0", s.cr0 & ~u64{0x60000010}, 1},
        {"cr2", s.cr2, 0},
        {"cr4", s.cr4, 0},
        {"dr0", read_dr0(), 0},
        {"dr1", read_dr1(), 0},
        {"dr2", read_dr2(), 0},
        {"dr3", read_dr3(), 0},
        {"dr6", read_dr6(), 0xFFFF0FF0},
        {"dr7", read_dr7(), 0x400},
        {"cr8", read_cr8(), 0},
        {"star", rdmsr(0xC0000081), 0},
        {"lstar", rdmsr(0xC0000082), 0},
        {"cstar", rdmsr(0xC0000083), 0},
        {"sfmask", rdmsr(0xC0000084), 0},
        {"kernel_gs_base", rdmsr(0xC0000102), 0},
        {"sysenter_cs", rdmsr(0x174), 0},
        {"sysenter_esp", rdmsr(0x175), 0},
        {"sysenter_eip", rdmsr(0x176), 0},
        {"pat", rdmsr(0x277), 0x0007040600070406},
        {"debugctl", rdmsr(0x1D9), 0},
        {"apic.tpr", load<u32>(0xFEE00080), 0},
        {"apic.timer", load<u32>(0xFEE00320), 0x10000},
        {"apic.initial", load<u32>(0xFEE00380), 0},
    };
    for (const auto& value : values)
        check_equal("I67", Text() << "start." << value.name, value.is, value.wanted);
    if ((cpuid(0x80000001).edx & bit(27)) != 0) check_equal("I67", "start.tsc_aux", rdmsr(0xC0000103), 0);
    for (u32 i = 0; i < 24; ++i) {
        const u32 offset = 0x100 + 16 * i;
        check_equal("I67", Text() << "start.apic." << Hex{offset}, load<u32>(0xFEE00000 + offset), 0);
    }
    // The x87 and vector registers, as FXSAVE shows them.
    alignas(64) static u8 area[4096];
    asm volatile("fxsave64 %0" : "=m"(area));
    const auto word = [&](unsigned at) { return u64{area[at]} | u64{area[at + 1]} << 8; };
    check("I67", "start.fcw", word(0) == 0x40 || word(0) == 0x37F, Text() << Hex{word(0)});
    check_equal("I67", "start.fsw", word(2), 0);
    check_equal("I67", "start.mxcsr", word(24) | word(26) << 16, 0x1F80);
    for (unsigned n = 0; n < 24; ++n) {
        bool zero = true;
        const unsigned from = n < 8 ? 32 + 16 * n : 160 + 16 * (n - 8);
        for (unsigned i = 0; i < (n < 8 ? 10U : 16U); ++i) zero = zero && area[from + i] == 0;
        check("I67", Text() << (n < 8 ? "start.st" : "start.xmm") << (n < 8 ? n : n - 8), zero);
    }
    if ((cpuid(1).ecx & bit(26)) != 0) {
        const u64 cr4 = read_cr4();
        write_cr4(cr4 | bit(18));
        u32 low, high;
        asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
        check_equal("I67", "start.xcr0", low | u64{high} << 32, 1);
        const CpuidResult state = cpuid(0xD);
        asm volatile("xsetbv" ::"a"(state.eax), "d"(state.edx), "c"(0));
        memset(area, 0, sizeof(area));
        asm volatile("xsave64 %0" : "+m"(area) : "a"(0xFFFFFFFC), "d"(0xFFFFFFFF));
        bool zero = true;
        for (unsigned i = 576; i < sizeof(area); ++i) zero = zero && area[i] == 0;
        check("I67", "start.wide-registers", zero);
        asm volatile("xsetbv" ::"a"(1), "d"(0), "c"(0));
        write_cr4(cr4);
    }
    // What the canary painted, in memory that may have been its own.
    u64 found = 0;
    const u64 begin = reinterpret_cast<u64>(image_end), end = end_of_ram();
    for (u64 at = (begin + 0xFFF) & ~u64{0xFFF}; at < end; at += 0x200)
        if ((load<u64>(at) & ~u64{0xFFFF}) == (marker & ~u64{0xFFFF})) ++found;
    check("I68", "marker", found == 0, Text() << found << " found");
    u64 dirty = 0;
    for (u64 at = 0x200000; at < end - 0x20000; at += 8)
        if (load<u64>(at) != 0) ++dirty;
    check("I68", "memory-is-clear", dirty == 0, Text() << dirty << " words");
}
