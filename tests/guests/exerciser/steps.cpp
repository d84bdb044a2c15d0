#include "tests/guests/exerciser/steps.hpp"

Limits limits;

namespace {

constexpr u64 iopl3 = 0x3000;

void go(Processor& self, const Code& code, const Entry& in, Mode mode = Mode::long0) {
    const Outcome& o = self.run(code, mode, in);
    if (o.vector >= 32) {
        ++self.line().interrupts;
        if (o.vector != 0xFF) store<u32>(apic + 0xB0, 0);
    } else if (o.vector != 3) {
        ++self.line().faults;
    }
}

// What a step may have left that would end the stream here; only what differs is written.
void restore(Processor& self) {
    if (read_cr0() != self.cr0) write_cr0(self.cr0);
    if (read_cr4() != self.cr4) write_cr4(self.cr4);
    if (read_cr3() != self.cr3) write_cr3(self.cr3);
    if (read_dr7() != 0x400) write_dr7(0x400);
    if (limits.avoids_control) {
        store<u32>(apic + 0x80, 0);
    } else if (read_cr8() != 0) {
        write_cr8(0);
    }
}

constexpr u32 msrs[] = {0x10,       0x17,       0x1B,       0x3A,       0x3B,       0x48,       0x49,
                        0x79,       0x8B,       0xCE,       0xFE,       0x10A,      0x10B,      0x122,
                        0x174,      0x175,      0x176,      0x179,      0x17A,      0x198,      0x199,
                        0x1A0,      0x1D9,      0x1F8,      0x200,      0x20F,      0x250,      0x26F,
                        0x277,      0x2FF,      0x480,      0x491,      0x570,      0x6A0,      0x6E0,
                        0x802,      0x808,      0x80B,      0x830,      0x83F,      0xDA0,      0x40000000,
                        0xC0000080, 0xC0000081, 0xC0000082, 0xC0000083, 0xC0000084, 0xC0000100, 0xC0000101,
                        0xC0000102, 0xC0000103, 0xC0000104, 0xC0010000, 0xC0010015, 0xC001001F, 0xC0010114,
                        0xC0010117, 0xC001011F, 0xC0010140};
// Not those that reset or turn off the machine (64h, 92h, CF9h, 604h), and not those that decide what a
// device access reaches.
constexpr u16 ports[] = {0x20,  0x21,  0x40,  0x41,  0x42,  0x43,  0x60,  0x61,  0x70,  0x71,
                         0x80,  0xA0,  0xA1,  0xB2,  0x2F8, 0x3B4, 0x3B5, 0x3C0, 0x3C4, 0x3C5,
                         0x3D4, 0x3D5, 0x3DA, 0x3F8, 0x3F9, 0x3FA, 0x3FB, 0x3FC, 0x3FD, 0x3FE,
                         0x3FF, 0x4D0, 0x4D1, 0x600, 0x608, 0xCF8, 0xCFC, 0xFFFF};
constexpr u64 places[] = {0xA0000,    0xB8000,    0xBFFF0,    0xC0000,    0xF0000,
                          0xFFFF0,    0xC0000000, 0xFEBFF000, 0xFEC00000, 0xFEC00FF0,
                          0xFED00000, 0xFEE01000, 0xFFFFFFF0, 0x100000000};

Entry entry_of(Stream& s) {
    Entry in;
    // Four values, which a step has more use for than for sixteen, are enough for sixteen registers.
    const u64 values[] = {s.value(), s.value(), s.value(), s.value()};
    for (unsigned i = 0; i < 16; ++i) in.gpr[i] = values[i % 4];
    in.gpr[rsp] = 0;
    in.rflags = 2 | (s.next() & 0xCD5);
    if (s.one_in(4)) in.rflags |= rflags_if;
    if (s.one_in(8)) in.rflags |= rflags_tf;
    if (s.one_in(8)) in.rflags |= iopl3;
    return in;
}

Mode mode_of(Stream& s) {
    constexpr Mode modes[] = {Mode::long0,   Mode::long0, Mode::long0,   Mode::long0,
                              Mode::compat0, Mode::long3, Mode::compat3, Mode::compat16};
    return s.of(modes);
}

bool is_64_bit(Mode mode) {
    return mode == Mode::long0 || mode == Mode::long3;
}

// Now and then what blocks events for an instruction is put before the code: MOV SS, or STI.
Code shadowed(Stream& s, const Code& code, Entry& in, Mode mode) {
    if (mode != Mode::long0 || !s.one_in(8)) return code;
    if (s.one_in(2)) return Code{0xFB} + code;
    in.gpr[rax] = (in.gpr[rax] & ~u64{0xFFFF}) | 0x10;
    return Code{0x8E, 0xD0} + code;
}

void msr_step(Processor& self, Stream& s) {
    Entry in = entry_of(s);
    const u32 index = s.one_in(4) ? static_cast<u32>(s.value()) : s.of(msrs);
    in.gpr[rcx] = index;
    const bool write = s.one_in(2);
    const Mode mode = mode_of(s);
    if (index == 0x1B && write && s.one_in(2)) {
        // One that is legal more often than not.
        constexpr u32 bases[] = {0xFEE00000, 0xFEE00C00, 0xFEE00800, 0xFEE00900, 0xFEE00D00,
                                 0xFED00900, 0x00100900, 0xFFFFF900, 0xFEC00900};
        in.gpr[rax] = s.of(bases);
        in.gpr[rdx] = 0;
    }
    go(self, shadowed(s, write ? Code{0x0F, 0x30} : Code{0x0F, 0x32}, in, mode), in, mode);
    if (!write) return;
    switch (index) {
        case 0x1B:
            restore_apic_base(self);
            store<u32>(apic + 0xB0, 0);
            break;
        case 0x174:  // without it, SYSENTER of ring 3 is #GP, wherever the next step is
        case 0xC0000080:
            if (rdmsr(index) != (index == 0x174 ? 0 : self.efer))
                wrmsr(index, index == 0x174 ? 0 : self.efer);
            break;
        default: break;
    }
}

void port_step(Processor& self, Stream& s) {
    Entry in = entry_of(s);
    const u16 port = s.one_in(4) ? static_cast<u16>(0x1000 + s.below(0xF000)) : s.of(ports);
    in.gpr[rdx] = port;
    in.gpr[rcx] = s.below(20);
    constexpr u8 opcodes[] = {0xEC, 0xED, 0xEE, 0xEF, 0x6C, 0x6D, 0x6E, 0x6F};
    const u8 opcode = s.of(opcodes);
    const Mode mode = mode_of(s);
    const bool ring3 = mode == Mode::long3 || mode == Mode::compat3;
    // 16-bit addresses are of low memory: a part of it that nobody needs.
    const u64 buffer = mode == Mode::compat16 ? 0xC000 : ring3 ? user_data_at : data_at;
    in.gpr[rsi] = in.gpr[rdi] = buffer + s.below(0x1FF0);
    Code code{opcode};
    if (s.one_in(4)) code = Code{0x66} + code;
    if (opcode < 0x70 && s.one_in(2)) code = Code{0xF3} + code;
    // Only four bytes at once: two reach the reset register at CF9h.
    if (port == 0xCF8) {
        code = Code{0xEF};
        if (mode == Mode::compat16) return;
    }
    go(self, shadowed(s, code, in, mode), in, mode);
}

// The emulator that delivers interrupts when it must not is asked for none that look like exceptions.
u64 tolerable(u64 entry) {
    return tolerates_interrupts != 0 ? entry | 0x20 : entry;
}

// An ICR value that harms nobody but the processors that come back: no INIT or SIPI to all, nor to number 0.
u32 harmless_command(u64 random) {
    u64 command = random & 0xCCFFF;
    const u64 mode = command >> 8 & 7;
    if (mode == 5 || mode == 6) command = (command & ~u64{0xC0000}) | 0x40000;  // itself, which is refused
    return static_cast<u32>(tolerable(mode == 5 ? command & ~u64{0x700} : command));
}

void device_step(Processor& self, Stream& s) {
    Entry in = entry_of(s);
    const u64 kind = s.below(8);
    u64 place = s.of(places) + s.below(16);
    if (kind < 2) place = apic;
    // Anywhere beyond RAM, to the edge of what an address can be, and beyond.
    if (kind == 2) place = (s.value() | 0x1000000) & 0x000FFFFFFFFFFFFF;
    u64 flags = page_present | page_writable;
    if (s.one_in(2)) flags |= page_user;
    if (s.one_in(8)) flags |= page_uncached;
    const bool over_apic = (place & ~u64{0xFFF}) == apic;
    self.map(device_at, place & ~u64{0xFFF}, flags);
    self.map(device_at + 0x1000, place & ~u64{0xFFF}, flags);
    u64 offset = place & 0xFFF;
    const bool command = over_apic && s.one_in(8);
    if (over_apic) {
        offset = command ? 0x300 : s.below(0x40) * 16 + (s.one_in(8) ? s.below(16) : 0);
        if (command) {
            in.gpr[rax] = harmless_command(s.next());
        } else if (offset >= 0x2D0 && offset < 0x320) {
            return;  // the ICR is written as above only
        } else if (offset >= 0x320 && offset < 0x380) {
            // No LVT entry asks for INIT.
            if ((in.gpr[rax] & 0x700) == 0x500) in.gpr[rax] ^= 0x100;
            in.gpr[rax] = tolerable(in.gpr[rax]);
        }
    }
    in.gpr[rsi] = device_at + offset;
    in.gpr[rdi] = s.one_in(2) ? in.gpr[rsi] : data_at + s.below(0x1F00);
    in.gpr[rcx] = s.below(12);
    constexpr u8 forms[][4] = {{0x89, 0x06},
                               {0x8B, 0x06},
                               {0x8A, 0x06},
                               {0x88, 0x06},
                               {0x01, 0x06},
                               {0x33, 0x06},
                               {0x87, 0x06},
                               {0x0F, 0xB1, 0x06},
                               {0x0F, 0xC1, 0x06},
                               {0x0F, 0xAB, 0x06},
                               {0xFF, 0x06},
                               {0xF7, 0x16},
                               {0x0F, 0xB6, 0x06},
                               {0x85, 0x06},
                               {0x80, 0x0E, 0x55},
                               {0xC7, 0x06},
                               {0x0F, 0x38, 0xF0, 0x06},
                               {0x0F, 0xBE, 0x06},
                               {0x3B, 0x06},
                               {0xD1, 0x26}};
    constexpr u8 sizes[] = {2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 2, 2, 3, 2, 3, 2, 4, 3, 2, 2};
    u64 form = command ? 0 : s.below(22);
    if (over_apic && form >= 20) form -= 2;  // strings would run into the ICR
    if (limits.avoids_locks && form == 6) form = 0;
    Code code;
    if (!command) {
        switch (s.below(4)) {
            case 0: code = Code{0x48}; break;
            case 1: code = Code{0x66}; break;
            default: break;
        }
    }
    if (form < 20) {
        Code body;
        for (u8 i = 0; i < sizes[form]; ++i) body.bytes[body.size++] = forms[form][i];
        if (form == 15)
            body =
                code.size != 0 && code.bytes[0] == 0x66 ? body + Code{0x11, 0x22} : body + Code{1, 2, 3, 4};
        code = code + body;
    } else {
        constexpr u8 strings[] = {0xA4, 0xA5, 0xAA, 0xAB, 0xAC, 0xAD};
        code = Code{0xF3} + code + Code{s.of(strings)};
    }
    const Mode mode = s.one_in(4) ? Mode::long3 : Mode::long0;
    go(self, code, in, mode);
    if (s.one_in(16)) calm_apic();
}

void register_step(Processor& self, Stream& s) {
    Entry in = entry_of(s);
    const Mode mode = mode_of(s);
    const bool wide = is_64_bit(mode);
    const bool debug = s.one_in(2);
    const bool write = s.one_in(2);
    // Without REX there are eight.
    const u8 number = static_cast<u8>(s.below(wide ? 16 : 8));
    if (limits.avoids_control && !debug && write) return;
    const u8 opcode = static_cast<u8>((debug ? 0x21 : 0x20) + (write ? 2 : 0));
    if (!debug && write) {
        // One bit of what is there is turned, so that code after it can go on; CR3 stays.
        const u64 change = bit(static_cast<unsigned>(s.below(64)));
        if (number == 0) in.gpr[rax] = self.cr0 ^ (change & ~u64{0xA0000001});
        if (number == 4) in.gpr[rax] = self.cr4 ^ (change & ~u64{0x1020});
        if (number == 3) in.gpr[rax] = self.cr3 | (change & 0xFFF);
        // In the upper half, nothing but #GP can come of it; compatibility mode has no upper half.
    }
    const u8 form = static_cast<u8>(0xC0 | (number & 7) << 3);
    const Code code = wide ? Code{number >= 8 ? 0x4C : 0x48, 0x0F, opcode, form} : Code{0x0F, opcode, form};
    go(self, shadowed(s, code, in, number == 0 || number == 3 || number == 4 ? Mode::compat0 : mode), in,
       mode);
    restore(self);
}

struct Instruction {
    u8 size;
    u8 bytes[5];
    bool is_control = false;  // as writing a control register
};
constexpr Instruction instructions[] = {
    {2, {0x0F, 0xA2}},  // CPUID, thrice as often as the others
    {2, {0x0F, 0xA2}},
    {2, {0x0F, 0xA2}},
    {2, {0x0F, 0x31}},        // RDTSC
    {3, {0x0F, 0x01, 0xF9}},  // RDTSCP
    {2, {0x0F, 0x09}},        // WBINVD
    {3, {0xF3, 0x0F, 0x09}},
    {2, {0x0F, 0x08}},        // INVD
    {3, {0x0F, 0x01, 0xC1}},  // VMCALL and the rest of VMX and SVM
    {3, {0x0F, 0x01, 0xC2}},
    {3, {0x0F, 0x01, 0xC3}},
    {3, {0x0F, 0x01, 0xC4}},
    {3, {0x0F, 0x01, 0xD4}},
    {3, {0x0F, 0x01, 0xD8}},
    {3, {0x0F, 0x01, 0xD9}},
    {3, {0x0F, 0x01, 0xDA}},
    {3, {0x0F, 0x01, 0xDB}},
    {3, {0x0F, 0x01, 0xDC}},
    {3, {0x0F, 0x01, 0xDD}},
    {3, {0x0F, 0x01, 0xDE}},
    {3, {0x0F, 0x01, 0xDF}},
    {4, {0xF3, 0x0F, 0xC7, 0x36}},  // VMXON, VMPTRLD, VMCLEAR, VMPTRST, VMREAD, VMWRITE
    {3, {0x0F, 0xC7, 0x36}},
    {4, {0x66, 0x0F, 0xC7, 0x36}},
    {3, {0x0F, 0xC7, 0x3E}},
    {3, {0x0F, 0x78, 0xC0}},
    {3, {0x0F, 0x79, 0xC0}},
    {5, {0x66, 0x0F, 0x38, 0x80, 0x06}},  // INVEPT, INVVPID, INVPCID
    {5, {0x66, 0x0F, 0x38, 0x81, 0x06}},
    {5, {0x66, 0x0F, 0x38, 0x82, 0x06}},
    {2, {0x0F, 0x33}},        // RDPMC
    {3, {0x0F, 0x01, 0xC8}},  // MONITOR, MWAIT, MONITORX, MWAITX
    {3, {0x0F, 0x01, 0xC9}},
    {3, {0x0F, 0x01, 0xFA}},
    {3, {0x0F, 0x01, 0xFB}},
    {3, {0x0F, 0x01, 0xD0}},        // XGETBV
    {3, {0x0F, 0x01, 0xD1}, true},  // XSETBV
    {2, {0x0F, 0x06}, true},        // CLTS
    {3, {0x0F, 0x01, 0xF0}, true},  // LMSW
    {3, {0x0F, 0x01, 0xE0}},        // SMSW
    {3, {0x0F, 0x01, 0x06}},        // SGDT, SIDT, SLDT, STR
    {3, {0x0F, 0x01, 0x0E}},
    {3, {0x0F, 0x00, 0xC0}},
    {3, {0x0F, 0x00, 0xC8}},
    {3, {0x0F, 0x00, 0xD0}},        // LLDT
    {3, {0x0F, 0x00, 0xD8}, true},  // LTR
    {3, {0x0F, 0x00, 0xE0}},        // VERR
    {3, {0x0F, 0x02, 0xC0}},        // LAR
    {3, {0x0F, 0x03, 0xC0}},        // LSL
    {3, {0x0F, 0x01, 0x3E}},        // INVLPG
    {3, {0x0F, 0x01, 0xF8}},        // SWAPGS
    {3, {0x0F, 0x01, 0xCA}},        // CLAC, STAC
    {3, {0x0F, 0x01, 0xCB}},
    {3, {0x0F, 0x01, 0xCF}},  // ENCLS, PCONFIG, GETSEC, RSM
    {3, {0x0F, 0x01, 0xC5}},
    {2, {0x0F, 0x37}},
    {2, {0x0F, 0xAA}},
    {4, {0xF3, 0x0F, 0xAE, 0xC0}},  // RDFSBASE and the like
    {4, {0xF3, 0x0F, 0xAE, 0xD8}},
    {4, {0xF3, 0x0F, 0xC7, 0xF8}},  // RDPID
    {3, {0x0F, 0xC7, 0xF0}},        // RDRAND
    {3, {0x0F, 0xAE, 0x26}},        // XSAVE, XRSTOR
    {3, {0x0F, 0xAE, 0x2E}},
    {3, {0x0F, 0xAE, 0x3E}},  // CLFLUSH
    {2, {0xF3, 0x90}},        // PAUSE
    {2, {0x0F, 0x0B}},        // UD2
    {2, {0xCD, 0x40}},        // INT
    {2, {0xCD, 0x0E}},
    {2, {0xCD, 0x02}},
    {1, {0xF1}},  // INT1
    {1, {0xCE}},  // INTO
    {1, {0xFA}},  // CLI, STI, PUSHF, POPF, IRET
    {1, {0xFB}},
    {1, {0x9C}},
    {1, {0x9D}},
    {2, {0x48, 0xCF}},
    {2, {0xFF, 0x2E}},  // JMP and CALL far
    {2, {0xFF, 0x1E}},
    {2, {0x8E, 0xD8}},  // MOV DS, SS, FS
    {2, {0x8E, 0xD0}},
    {2, {0x8E, 0xE0}},
    {5, {0x0F, 0x0B, 0x78, 0x65, 0x6E}},  // a forced emulation
};

void other_step(Processor& self, Stream& s) {
    Entry in = entry_of(s);
    const Instruction& chosen = s.of(instructions);
    if (limits.avoids_control && chosen.is_control) return;
    Code code;
    for (u8 i = 0; i < chosen.size; ++i) code.bytes[code.size++] = chosen.bytes[i];
    const Mode mode = mode_of(s);
    // What TCG executes though LOCK makes it undefined is not tried there.
    if (!limits.avoids_control && s.one_in(8)) code = Code{0xF0} + code;
    if (s.one_in(8)) code = Code{0x66} + code;
    in.gpr[rsi] = (mode == Mode::long3 || mode == Mode::compat3 ? user_data_at : data_at) + s.below(0x1F00);
    if (s.one_in(2)) in.gpr[rcx] = s.below(16);
    if (s.one_in(4))
        in.gpr[rsp] = (mode == Mode::long3 || mode == Mode::compat3 ? user_stack_at : stack_at) - 64;
    const bool extended_state = s.one_in(4) && !limits.avoids_control;
    if (extended_state && (cpuid(1).ecx & bit(26)) != 0) write_cr4(self.cr4 | bit(18));
    go(self, shadowed(s, code, in, mode), in, mode);
    restore(self);
}

// A processor that halts, with a timer to wake it; sometimes with interrupts disabled, until another one's
// NMI.
void halt_step(Processor& self, Stream& s) {
    calm_apic();
    // Only the last one, so that its neighbour is there to wake it.
    const bool forever = limits.processors > 1 && self.number == limits.processors - 1 && s.one_in(256);
    if (!forever) {
        store<u32>(apic + 0x320, static_cast<u32>(s.below(2) << 17 | (32 + s.below(223))));
        store<u32>(apic + 0x3E0, 0xB);
        store<u32>(apic + 0x380, static_cast<u32>(1 + s.below(5000)));
    }
    Entry in;
    in.rflags = 2;
    if (!forever && s.one_in(2)) in.rflags |= rflags_if;
    go(self, forever ? Code{0xF4} : Code{0xFB, 0xF4}, in);
    store<u32>(apic + 0x320, 0x10000);
    store<u32>(apic + 0x380, 0);
}

// Interrupts to itself and to the others: by the ICR in every way, by the timer.
void interrupt_step(Processor& self, Stream& s) {
    if (s.one_in(4)) calm_apic();
    const u32 vector = static_cast<u32>(tolerable(16 + s.below(239)));
    const u64 other = s.below(limits.processors);
    switch (s.below(10)) {
        case 0: store<u32>(apic + 0x300, 0x44000 | vector); break;
        case 1:
            store<u32>(apic + 0x320, static_cast<u32>(s.below(3) << 17 | vector));
            store<u32>(apic + 0x3E0, static_cast<u32>(s.next()));
            store<u32>(apic + 0x380, static_cast<u32>(1 + s.below(1000)));
            break;
        case 2: store<u32>(apic + 0x300, 0x40400); break;
        case 3: send_ipi(other, 0x4000 | vector); break;
        case 4: send_ipi(other, 0x4400); break;
        case 5: store<u32>(apic + 0x300, static_cast<u32>((2 + s.below(2)) << 18 | 0x4000 | vector)); break;
        case 6: store<u32>(apic + 0x300, 0xC4400); break;
        case 7: {  // logical, lowest priority, with whatever destination
            store<u32>(apic + 0xD0, static_cast<u32>(s.next()));
            store<u32>(apic + 0xE0, s.one_in(2) ? 0xFFFFFFFF : 0x0FFFFFFF);
            store<u32>(apic + 0x310, static_cast<u32>(s.value()));
            store<u32>(apic + 0x300, static_cast<u32>(0x4800 | s.below(2) << 8 | vector));
            break;
        }
        case 8: store<u32>(apic + 0x300, harmless_command(s.next())); break;
        default:
            // Another processor begins anew, in the midst of whatever it does.
            if (other == 0 || other == self.number || !s.one_in(32)) break;
            for (u64 i = s.below(3); i != 0; --i) send_ipi(other, static_cast<u32>(0x4000 | 0x500));
            start_processor(other);
            if (s.one_in(2)) send_ipi(other, 0x4600 | trampoline_at >> 12);
            break;
    }
    Entry in;
    in.rflags = 2 | rflags_if;
    go(self, {0x90, 0x90, 0x0F, 0xA2, 0x90, 0xFA}, in);
    store<u32>(apic + 0x320, 0x10000);
    store<u32>(apic + 0xB0, 0);
}

// The APIC as an x2APIC for a while: an MSR of its range.
void x2apic_step(Processor& self, Stream& s) {
    if ((cpuid(1).ecx & bit(21)) == 0) return;
    wrmsr(0x1B, self.apic_base | 0xC00);
    Entry in = entry_of(s);
    const u32 index = 0x800 + static_cast<u32>(s.one_in(4) ? s.below(0x100) : s.below(0x40));
    in.gpr[rcx] = index;
    bool write = s.one_in(2);
    if (index == 0x808 && write) in.gpr[rax] = s.below(256);
    if (index == 0x830) {
        in.gpr[rax] = harmless_command(s.next());
        in.gpr[rdx] = s.below(limits.processors);
    }
    if (index >= 0x832 && index <= 0x837 && (in.gpr[rax] & 0x700) == 0x500) write = false;
    if (index >= 0x832) in.gpr[rax] = tolerable(in.gpr[rax]);
    go(self, write ? Code{0x0F, 0x30} : Code{0x0F, 0x32}, in, mode_of(s));
    restore_apic_base(self);
    store<u32>(apic + 0xB0, 0);
}

// Random bytes in ring 3. A timer ends what loops; should it not come, another processor's NMI does.
void wild_step(Processor& self, Stream& s) {
    calm_apic();
    self.map(device_at, 0, 0);
    self.map(device_at + 0x1000, 0, 0);
    store<u32>(apic + 0x320, 0xEE);
    store<u32>(apic + 0x3E0, 0xB);
    store<u32>(apic + 0x380, 2000);
    Entry in = entry_of(s);
    in.rflags = (in.rflags & ~iopl3) | rflags_if;
    Code code;
    for (u64 i = 16 + s.below(24); i != 0; --i) {
        const u8 byte = static_cast<u8>(s.next());
        const bool locks = byte == 0xF0 || byte == 0x86 || byte == 0x87;
        code.bytes[code.size++] = locks && limits.avoids_locks ? 0x90 : byte;
    }
    go(self, code, in, s.one_in(2) ? Mode::long3 : Mode::compat3);
    self.code_used = 64;  // it may have written to it
    store<u32>(apic + 0x320, 0x10000);
    restore(self);
}

// What no machine survives, but its neighbours do: no page tables, no descriptors, the reset button, ...
void deadly_step(Processor& self, Stream& s) {
    Entry in = entry_of(s);
    auto* const operand = reinterpret_cast<u64*>(self.data());
    operand[0] = s.next();
    operand[1] = s.next();
    in.gpr[rsi] = data_at;
    switch (s.below(8)) {
        case 0:
            if (!limits.avoids_control) {
                go(self, {0x0F, 0x22, 0xD8}, in);  // MOV CR3
                break;
            }
            [[fallthrough]];
        case 1:
            go(self, {0x0F, 0x01, 0x1E, 0x0F, 0x0B}, in);  // LIDT, and an event
            break;
        case 2:
            operand[0] = operand[1] = 0;
            go(self, {0x0F, 0x01, 0x16, 0x0F, 0x0B}, in);  // LGDT
            break;
        case 3: out8(0xCF9, 6); break;
        case 4: out8(0x64, 0xFE); break;
        case 5: out8(0x92, 1); break;
        case 6:
            send_ipi(0, 0x4500);  // INIT to the first processor
            break;
        default:
            // A descriptor of another's: all processors die of the next event.
            memset(processor(s.below(limits.processors)).memory(0x9000), 0, 80);
            go(self, {0x0F, 0x0B}, in);
            break;
    }
}

}  // namespace

// By the two steps that are legal from any mode.
void restore_apic_base(const Processor& self) {
    if (rdmsr(0x1B) == self.apic_base) return;
    wrmsr(0x1B, self.apic_base & ~u64{0xC00});
    wrmsr(0x1B, self.apic_base);
    calm_apic();
}

void calm_apic() {
    store<u32>(apic + 0xF0, 0x1FF);
    store<u32>(apic + 0x80, 0);
    for (const u64 entry : {0x320, 0x340, 0x350, 0x360, 0x370}) store<u32>(apic + entry, 0x10000);
    for (unsigned i = 0; i < 4; ++i) store<u32>(apic + 0xB0, 0);
}

void do_step(Processor& self, u64 seed, u64 step) {
    Stream s(seed, self.number, step);
    if (limits.deadly != 0 && s.one_in(limits.deadly)) return deadly_step(self, s);
    constexpr u8 kinds[] = {0, 0, 1, 1, 1, 2, 2, 2, 3, 4, 4, 4, 5, 5, 6, 7};
    const u8 kind = s.of(kinds);
    if ((limits.kinds >> kind & 1) == 0) return;
    switch (kind) {
        case 0: return msr_step(self, s);
        case 1: return port_step(self, s);
        case 2: return device_step(self, s);
        case 3: return register_step(self, s);
        case 4: return other_step(self, s);
        case 5: return interrupt_step(self, s);
        case 6: return s.one_in(4) ? halt_step(self, s) : x2apic_step(self, s);
        default: return wild_step(self, s);
    }
}
