// C33, C35, C37: every form of memory access on device memory, compared with the same on RAM. The device is
// the text screen, which keeps what is written to it.
#include "tests/guests/inmate/probe.hpp"

namespace {

constexpr u64 screen = 0xB8000;

struct Form {
    const char* name;
    Code code;           // memory operand at [RSI]
    bool moves = false;  // a string instruction: RSI or RDI moves
};

constexpr Form forms[] = {
    {"mov.store8", {0x88, 0x1E}},
    {"mov.store16", {0x66, 0x89, 0x1E}},
    {"mov.store32", {0x89, 0x1E}},
    {"mov.store64", {0x48, 0x89, 0x1E}},
    {"mov.store8.high", {0x88, 0x3E}},
    {"mov.store8.rex", {0x40, 0x88, 0x3E}},
    {"mov.load8", {0x8A, 0x1E}},
    {"mov.load16", {0x66, 0x8B, 0x1E}},
    {"mov.load32", {0x8B, 0x1E}},
    {"mov.load64", {0x48, 0x8B, 0x1E}},
    {"mov.load.r15", {0x4C, 0x8B, 0x3E}},
    {"mov.load8.high", {0x8A, 0x26}},
    {"mov.imm8", {0xC6, 0x06, 0x5A}},
    {"mov.imm16", {0x66, 0xC7, 0x06, 0x34, 0x12}},
    {"mov.imm32", {0xC7, 0x06, 0x78, 0x56, 0x34, 0x82}},
    {"mov.imm64", {0x48, 0xC7, 0x06, 0x78, 0x56, 0x34, 0x82}},
    {"movzx.8.16", {0x66, 0x0F, 0xB6, 0x1E}},
    {"movzx.8.32", {0x0F, 0xB6, 0x1E}},
    {"movzx.8.64", {0x48, 0x0F, 0xB6, 0x1E}},
    {"movzx.16.32", {0x0F, 0xB7, 0x1E}},
    {"movzx.16.64", {0x48, 0x0F, 0xB7, 0x1E}},
    {"movsx.8.16", {0x66, 0x0F, 0xBE, 0x1E}},
    {"movsx.8.32", {0x0F, 0xBE, 0x1E}},
    {"movsx.8.64", {0x48, 0x0F, 0xBE, 0x1E}},
    {"movsx.16.32", {0x0F, 0xBF, 0x1E}},
    {"movsx.16.64", {0x48, 0x0F, 0xBF, 0x1E}},
    {"movsxd", {0x48, 0x63, 0x1E}},
    {"xchg8", {0x86, 0x1E}},
    {"xchg16", {0x66, 0x87, 0x1E}},
    {"xchg32", {0x87, 0x1E}},
    {"xchg64", {0x48, 0x87, 0x1E}},
    {"xadd8", {0x0F, 0xC0, 0x1E}},
    {"xadd32", {0x0F, 0xC1, 0x1E}},
    {"xadd64", {0x48, 0x0F, 0xC1, 0x1E}},
    {"lock.xadd32", {0xF0, 0x0F, 0xC1, 0x1E}},
    {"cmpxchg8", {0x0F, 0xB0, 0x1E}},
    {"cmpxchg16", {0x66, 0x0F, 0xB1, 0x1E}},
    {"cmpxchg32", {0x0F, 0xB1, 0x1E}},
    {"cmpxchg64", {0x48, 0x0F, 0xB1, 0x1E}},
    {"lock.cmpxchg32", {0xF0, 0x0F, 0xB1, 0x1E}},
    {"test8", {0x84, 0x1E}},
    {"test32", {0x85, 0x1E}},
    {"test.imm8", {0xF6, 0x06, 0x81}},
    {"test.imm32", {0xF7, 0x06, 0x01, 0x00, 0x00, 0x80}},
    {"not8", {0xF6, 0x16}},
    {"not32", {0xF7, 0x16}},
    {"neg8", {0xF6, 0x1E}},
    {"neg16", {0x66, 0xF7, 0x1E}},
    {"neg64", {0x48, 0xF7, 0x1E}},
    {"inc8", {0xFE, 0x06}},
    {"inc32", {0xFF, 0x06}},
    {"dec16", {0x66, 0xFF, 0x0E}},
    {"dec64", {0x48, 0xFF, 0x0E}},
    {"lock.inc32", {0xF0, 0xFF, 0x06}},
    {"bt.imm", {0x0F, 0xBA, 0x26, 0x05}},
    {"bts.imm", {0x0F, 0xBA, 0x2E, 0x06}},
    {"btr.imm", {0x0F, 0xBA, 0x36, 0x07}},
    {"btc.imm", {0x0F, 0xBA, 0x3E, 0x08}},
    {"bt.imm.wraps", {0x0F, 0xBA, 0x26, 0xFF}},
    {"lock.bts.imm", {0xF0, 0x0F, 0xBA, 0x2E, 0x06}},
    {"bt.reg", {0x0F, 0xA3, 0x0E}},
    {"bts.reg", {0x0F, 0xAB, 0x0E}},
    {"btr.reg", {0x0F, 0xB3, 0x0E}},
    {"btc.reg", {0x0F, 0xBB, 0x0E}},
    {"bts.reg16", {0x66, 0x0F, 0xAB, 0x0E}},
    {"bts.reg64", {0x48, 0x0F, 0xAB, 0x0E}},
    {"push", {0xFF, 0x36}},
    {"push16", {0x66, 0xFF, 0x36}},
    {"movs8", {0xA4}, true},
    {"movs16", {0x66, 0xA5}, true},
    {"movs32", {0xA5}, true},
    {"movs64", {0x48, 0xA5}, true},
    {"lods8", {0xAC}, true},
    {"lods32", {0xAD}, true},
    {"lods64", {0x48, 0xAD}, true},
    {"rep.movs8", {0xF3, 0xA4}, true},
    {"rep.movs32", {0xF3, 0xA5}, true},
    {"rep.lods8", {0xF3, 0xAC}, true},
    {"stos8", {0xAA}, true},
    {"stos32", {0xAB}, true},
    {"rep.stos8", {0xF3, 0xAA}, true},
    {"rep.stos64", {0xF3, 0x48, 0xAB}, true},
};

constexpr u8 pattern_byte(unsigned i) {
    return static_cast<u8>(0x3D * i + 0x91);
}

Entry make_entry(u64 at, bool string, bool to_device) {
    Entry in;
    for (unsigned i = 0; i < 16; ++i) in.gpr[i] = 0x0102030405060708 * (i + 1) ^ 0x8000000000000080;
    in.gpr[rsp] = stack_at - 64;
    in.gpr[rcx] = string ? 5 : 0x23;
    in.gpr[rsi] = at;
    in.gpr[rdi] = at;
    if (string) (to_device ? in.gpr[rsi] : in.gpr[rdi]) = data_at + 0x100;
    in.rflags = 2 | 0x8D5;  // all status flags
    return in;
}

struct Result {
    Outcome outcome;
    u8 memory[64];
    u8 pages[64];
    u64 pushed;
};

Result execute(const Code& code, Entry in, u64 area) {
    for (unsigned i = 0; i < 64; ++i) store<u8>(area + i, pattern_byte(i));
    for (unsigned i = 0; i < 512; ++i) data_pages()[i] = pattern_byte(i + 7);
    Result result;
    // Below the stack pointer, so that what is pushed is seen.
    store<u64>(stack_at - 72, 0);
    result.outcome = run(code, Mode::long0, in);
    for (unsigned i = 0; i < 64; ++i) result.memory[i] = load<u8>(area + i);
    memcpy(result.pages, data_pages() + 0x100, 64);
    result.pushed = load<u64>(stack_at - 72);
    return result;
}

// Runs the code on RAM and on the device and compares everything it can leave behind.
void compare(const char* id, const Text& name, const Code& code, bool string = false, bool to_device = false,
             u64 offset = 16, u64 flags_to_ignore = 0) {
    if (avoided(id, name)) return;
    constexpr u64 ram_area = data_at + 0x1000;
    const Result ram = execute(code, make_entry(ram_area + offset, string, to_device), ram_area);
    const Result device = execute(code, make_entry(device_at + offset, string, to_device), device_at);
    Text why;
    if (device.outcome.vector != ram.outcome.vector || device.outcome.rip != ram.outcome.rip)
        why << "vector " << device.outcome.vector << " at " << Hex{device.outcome.rip} << ", RAM "
            << ram.outcome.vector << " at " << Hex{ram.outcome.rip};
    for (unsigned i = 0; i < 16 && why.empty(); ++i) {
        u64 is = device.outcome.gpr[i];
        if (i == rsi || i == rdi)
            is = is >= device_at && is < device_at + 0x1000 ? is - device_at + ram_area : is;
        if (is != ram.outcome.gpr[i])
            why << "register " << i << " is " << Hex{is} << ", RAM " << Hex{ram.outcome.gpr[i]};
    }
    if (why.empty() && ((device.outcome.rflags ^ ram.outcome.rflags) & ~flags_to_ignore) != 0)
        why << "RFLAGS " << Hex{device.outcome.rflags} << ", RAM " << Hex{ram.outcome.rflags};
    if (why.empty() && memcmp(device.memory, ram.memory, 64) != 0) {
        unsigned i = 0;
        while (device.memory[i] == ram.memory[i]) ++i;
        why << "byte " << i << " is " << Hex{device.memory[i]} << ", RAM " << Hex{ram.memory[i]};
    }
    if (why.empty() && memcmp(device.pages, ram.pages, 64) != 0) why << "other operand differs";
    if (why.empty() && device.pushed != ram.pushed) why << "pushed " << Hex{device.pushed};
    check(id, name, why.empty(), why);
}

void arithmetic() {
    constexpr const char* names[] = {"add", "or", "adc", "sbb", "and", "sub", "xor", "cmp"};
    for (u8 op = 0; op < 8; ++op) {
        const u8 base = static_cast<u8>(op * 8);
        const Code codes[] = {{base, 0x1E},
                              {0x66, static_cast<u8>(base + 1), 0x1E},
                              {static_cast<u8>(base + 1), 0x1E},
                              {0x48, static_cast<u8>(base + 1), 0x1E},
                              {static_cast<u8>(base + 2), 0x1E},
                              {0x66, static_cast<u8>(base + 3), 0x1E},
                              {static_cast<u8>(base + 3), 0x1E},
                              {0x48, static_cast<u8>(base + 3), 0x1E},
                              {0x80, static_cast<u8>(0x06 | op << 3), 0x9C},
                              {0x66, 0x81, static_cast<u8>(0x06 | op << 3), 0x34, 0x92},
                              {0x81, static_cast<u8>(0x06 | op << 3), 0x34, 0x12, 0x34, 0x92},
                              {0x48, 0x81, static_cast<u8>(0x06 | op << 3), 0x34, 0x12, 0x34, 0x92},
                              {0x83, static_cast<u8>(0x06 | op << 3), 0x9C},
                              {0x48, 0x83, static_cast<u8>(0x06 | op << 3), 0x9C}};
        // AND, OR and XOR leave AF undefined.
        const u64 undefined_flags = op == 1 || op == 4 || op == 6 ? bit(4) : 0;
        unsigned n = 0;
        for (const Code& code : codes)
            compare("C33", Text() << names[op] << '.' << n++, code, false, false, 16, undefined_flags);
        if (op == 7) continue;
        compare("C33", Text() << "lock." << names[op], Code{0xF0} + codes[2], false, false, 16,
                undefined_flags);
    }
}

// Addressing: scaled index, displacement, RIP, segment overrides, 32-bit addresses, stray prefixes.
void addressing() {
    struct {
        const char* name;
        Code code;
    } const ways[] = {
        {"sib", {0x8B, 0x1C, 0x26}},
        {"disp8", {0x8B, 0x5E, 0x04}},
        {"disp8.negative", {0x8B, 0x5E, 0xFC}},
        {"disp32", {0x8B, 0x9E, 0x08, 0, 0, 0}},
        {"fs", {0x64, 0x8B, 0x1E}},
        {"gs", {0x65, 0x8B, 0x1E}},
        {"es", {0x26, 0x8B, 0x1E}},
        {"ss", {0x36, 0x8B, 0x1E}},
        {"address32", {0x67, 0x8B, 0x1E}},
        {"address32.disp", {0x67, 0x8B, 0x5E, 0xFC}},
        {"repne", {0xF2, 0x8B, 0x1E}},
        {"rep", {0xF3, 0x8B, 0x1E}},
        {"many-prefixes", {0x2E, 0x3E, 0x26, 0x36, 0x64, 0x8B, 0x1E}},
        {"66.rex-w", {0x66, 0x48, 0x8B, 0x1E}},
        {"rex-ignored", {0x48, 0x2E, 0x8B, 0x1E}},
        {"segment-last-wins", {0x64, 0x26, 0x88, 0x1E}},
        {"byte-displacement-store", {0x88, 0x5E, 0x7F - 0x70}},
    };
    for (const auto& way : ways) compare("C33", Text() << "address." << way.name, way.code);
    // Unaligned, within the page.
    for (const u64 offset : {u64{1}, u64{3}, u64{5}, u64{7}, u64{13}}) {
        compare("C33", Text() << "unaligned.load." << offset, {0x48, 0x8B, 0x1E}, false, false, offset);
        compare("C33", Text() << "unaligned.store." << offset, {0x48, 0x89, 0x1E}, false, false, offset);
        compare("C33", Text() << "unaligned.add." << offset, {0x01, 0x1E}, false, false, offset);
        compare("C33", Text() << "unaligned.movs." << offset, {0xF3, 0xA5}, true, true, offset);
    }
    // The segment override of a register form, a bit far away, wrapping.
    compare("C37", "segment-on-register", {0x65, 0x89, 0xD8, 0x8B, 0x1E});
    for (const u8 bits : {u8{0x00}, u8{0x1F}, u8{0x40}, u8{0x7F}})
        compare("C37", Text() << "bt.far." << Hex{bits}, {0xB9, bits, 0x00, 0x00, 0x00, 0x0F, 0xA3, 0x0E});
    for (const u8 bits : {u8{0x40}, u8{0x7F}})
        compare("C37", Text() << "bts.far." << Hex{bits}, {0xB9, bits, 0x00, 0x00, 0x00, 0x0F, 0xAB, 0x0E});
    compare("C37", "bts.far.negative", {0xB9, 0xC0, 0xFF, 0xFF, 0xFF, 0x0F, 0xAB, 0x0E});
    // 2^63 bits away is not an address.
    faults("C37", "bt.huge", {0x48, 0x0F, 0xA3, 0x0E}, general_protection,
           with(rsi, device_at, rcx, bit(63)));
    faults("C37", "bt.huge.2", {0x48, 0x0F, 0xAB, 0x0E}, general_protection,
           with(rsi, device_at, rcx, bit(62)));
    // At the end of the address space an instruction's bytes do not wrap to zero.
    const Outcome& o = run({0xFF, 0xE0}, Mode::long0, with(rax, ~u64{0}));
    check("C37", "rip-at-the-end", o.vector == 14 && o.cr2 == ~u64{0},
          Text() << "vector " << o.vector << " CR2 " << Hex{o.cr2});
}

// Across the end of a register, a page, a device.
void straddling() {
    const auto load_of = [](u64 at, unsigned size) {
        const Code code = size == 1   ? Code{0x8A, 0x06}
                          : size == 2 ? Code{0x66, 0x8B, 0x06}
                          : size == 4 ? Code{0x8B, 0x06}
                                      : Code{0x48, 0x8B, 0x06};
        return run(code, Mode::long0, with(rsi, at, rax, 0));
    };
    const struct {
        const char* name;
        u64 first, second;
    } pairs[] = {{"hole-hole", 0xC0000000, 0xC0001000},
                 {"ioapic-hole", 0xFEC00000, 0xFEC01000},
                 {"hole-ioapic", 0xFEBFF000, 0xFEC00000},
                 {"apic-hole", 0xFEE00000, 0xFEE01000},
                 {"hole-apic", 0xFEDFF000, 0xFEE00000},
                 {"vga-bios", 0xBF000, 0xC0000},
                 {"vga-vga", 0xB8000, 0xB9000}};
    for (const auto& pair : pairs) {
        map_page(device_at, pair.first, page_present | page_writable | page_uncached);
        map_page(device_at + 0x1000, pair.second, page_present | page_writable | page_uncached);
        for (const unsigned size : {2U, 4U, 8U}) {
            for (unsigned before = 1; before < size; before += size == 8 ? 3 : 1) {
                const Outcome o = load_of(device_at + 0x1000 - before, size);
                check("C35", Text() << pair.name << '.' << size << '.' << before, o.vector == 3,
                      Text() << "vector " << o.vector << " error " << Hex{o.error});
                if (pair.first == 0xC0000000)
                    check("C35", Text() << pair.name << ".ones." << size << '.' << before,
                          o.gpr[rax] == low_bits(8 * size), Text() << Hex{o.gpr[rax]});
            }
        }
    }
    // From RAM to a device and to nothing: the fault is that of the second page.
    map_page(device_at, reinterpret_cast<u64>(data_pages()), page_present | page_writable);
    map_page(device_at + 0x1000, screen, page_present | page_writable);
    memset(data_pages() + 0xFF8, 0x77, 8);
    store<u32>(device_at + 0x1000, 0x88888888);
    Outcome o = load_of(device_at + 0xFFC, 8);
    check("C35", "ram-device.load", o.vector == 3 && o.gpr[rax] == 0x8888888877777777,
          Text() << Hex{o.gpr[rax]});
    o = run({0x48, 0x89, 0x06}, Mode::long0, with(rsi, device_at + 0xFFC, rax, 0x1122334455667788));
    check("C35", "ram-device.store",
          o.vector == 3 && load<u32>(device_at + 0xFFC) == 0x55667788 &&
              load<u32>(device_at + 0x1000) == 0x11223344,
          Text() << "vector " << o.vector);
    unmap_page(device_at + 0x1000);
    map_page(device_at, screen, page_present | page_writable);
    const u32 kept = load<u32>(device_at + 0xFFC);
    o = run({0x48, 0x89, 0x06}, Mode::long0, with(rsi, device_at + 0xFFC, rax, ~u64{0}));
    check(
        "C35", "device-nothing.store",
        o.vector == 14 && o.cr2 == device_at + 0x1000 && o.error == 2 && load<u32>(device_at + 0xFFC) == kept,
        Text() << "vector " << o.vector << " CR2 " << Hex{o.cr2} << " error " << Hex{o.error});
    o = load_of(device_at + 0xFFC, 8);
    check("C35", "device-nothing.load", o.vector == 14 && o.cr2 == device_at + 0x1000 && o.error == 0,
          Text() << "vector " << o.vector << " CR2 " << Hex{o.cr2});
    // A page that cannot be written, a page that ring 3 cannot see: checked before the device is touched.
    map_page(device_at, screen, page_present | page_user);
    write_cr0(read_cr0() | bit(16));
    for (const Code& code :
         {Code{0x89, 0x06}, Code{0x87, 0x06}, Code{0x01, 0x06}, Code{0xC6, 0x06, 0x01}, Code{0xFF, 0x06}})
        faults("C33", Text() << "read-only." << Hex{code.bytes[0]}, code, {14, 3}, with(rsi, device_at));
    write_cr0(read_cr0() & ~bit(16));
    for (const Code& code : {Code{0x89, 0x06}, Code{0x87, 0x06}, Code{0xFF, 0x06}})
        faults("C33", Text() << "ring3.read-only." << Hex{code.bytes[0]}, code, {14, 7}, with(rsi, device_at),
               Mode::long3);
    map_page(device_at, screen, page_present | page_writable);
    faults("C33", "ring3.supervisor.load", {0x8B, 0x06}, {14, 5}, with(rsi, device_at), Mode::long3);
    faults("C33", "ring3.supervisor.store", {0x89, 0x06}, {14, 7}, with(rsi, device_at), Mode::long3);
    map_page(device_at, screen, page_present | page_writable | page_user);
    runs("C33", "ring3.load", {0x8B, 0x06}, with(rsi, device_at), Mode::long3);
    runs("C33", "ring3.store", {0x89, 0x06}, with(rsi, device_at), Mode::long3);
    runs("C33", "compat.load", {0x8B, 0x06}, with(rsi, device_at), Mode::compat0);
    runs("C33", "compat3.store", {0x89, 0x06}, with(rsi, device_at), Mode::compat3);
    // Alignment checks of ring 3 hold for devices too.
    write_cr0(read_cr0() | bit(18));
    Entry unaligned = with(rsi, device_at + 1);
    unaligned.rflags = 2 | rflags_ac;
    faults("C33", "ring3.alignment.load", {0x8B, 0x06}, {17, 0}, unaligned, Mode::long3);
    faults("C33", "ring3.alignment.store", {0x66, 0x89, 0x06}, {17, 0}, unaligned, Mode::long3);
    runs("C33", "ring3.alignment.byte", {0x8A, 0x06}, unaligned, Mode::long3);
    write_cr0(read_cr0() & ~bit(18));
}

}  // namespace

void probe_mmio() {
    map_page(device_at, screen, page_present | page_writable | page_user);
    for (const Form& form : forms) compare("C33", form.name, form.code, form.moves, form.moves);
    for (const Form& form : forms)
        if (form.moves) compare("C33", Text() << form.name << ".other-way", form.code, true, false);
    arithmetic();
    addressing();
    straddling();
    unmap_page(device_at);
    unmap_page(device_at + 0x1000);
}
