// The exerciser: interprets a random stream into instructions that exit, privileged ones, device memory,
// ports, MSRs, control and debug registers, and interrupt traffic, without end or up to a count. What faults
// is skipped. On its command line:
//   seed=N     which stream; the same seed is the same stream
//   steps=N    how many steps; 0: without end
//   first=N    the number of the first step: to reproduce what struck at a step
//   avoid=control   writes no control registers, for the sake of an emulator that does not survive it
// It prints its seed and step now and then: EXERCISER seed=S step=N faults=F interrupts=I
#include "tests/guests/runtime/runtime.hpp"

namespace {

// SplitMix64: a step's numbers depend on the seed and the step alone, so any step can be begun with.
class Stream {
  public:
    Stream(u64 seed, u64 step) : state_((seed + 1) * 0xD1342543DE82EF95 + step * 0x9E3779B97F4A7C15) {}
    u64 next() {
        u64 z = state_ += 0x9E3779B97F4A7C15;
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9;
        z = (z ^ z >> 27) * 0x94D049BB133111EB;
        return z ^ z >> 31;
    }
    u64 below(u64 limit) { return next() % limit; }
    // Edges more often than what lies between.
    u64 value() {
        const u64 random = next();
        switch (random & 7) {
            case 0: return 0;
            case 1: return ~u64{0};
            case 2: return bit(random >> 8 & 63);
            case 3: return bit(random >> 8 & 63) - 1;
            case 4: return random >> 32;
            case 5: return random >> 48;
            default: return next();
        }
    }

  private:
    u64 state_;
};

u64 fault_count, interrupt_count;
bool avoids_control;

struct Registers {
    u64 cr0, cr3, cr4, efer, apic_base;
};
Registers home;

void go(const Code& code, const Entry& in, Mode mode = Mode::long0) {
    const Outcome& o = run(code, mode, in);
    if (o.vector >= 32 && o.vector != 255) {
        ++interrupt_count;
        store<u32>(0xFEE000B0, 0);
    } else if (o.vector != 3) {
        ++fault_count;
    }
}

// What a step may have left that would end the stream here.
void restore() {
    write_cr0(home.cr0);
    write_cr4(home.cr4);
    write_cr3(home.cr3);
    write_dr7(0x400);
    if (!avoids_control) {
        write_cr8(0);
    } else {
        store<u32>(0xFEE00080, 0);
    }
}

constexpr u32 msrs[] = {0x10,       0x17,       0x3A,       0x3B,       0x79,       0x8B,       0xFE,
                        0x174,      0x175,      0x176,      0x179,      0x17A,      0x198,      0x199,
                        0x1A0,      0x1D9,      0x200,      0x20F,      0x250,      0x26F,      0x277,
                        0x2FF,      0x6E0,      0x802,      0x808,      0x80B,      0x830,      0x83F,
                        0xDA0,      0xC0000080, 0xC0000081, 0xC0000082, 0xC0000083, 0xC0000084, 0xC0000100,
                        0xC0000101, 0xC0000102, 0xC0000103, 0xC0010015, 0xC0010114};
// Not those that reset or turn off the machine (64h, 92h, CF9h, 604h), and not the serial port.
constexpr u16 ports[] = {0x20,  0x21,  0x40,  0x41,  0x42,  0x43,  0x60,  0x61,  0x70,  0x71,  0x80,  0xA0,
                         0xA1,  0x2F8, 0x3B4, 0x3B5, 0x3C0, 0x3C4, 0x3C5, 0x3D4, 0x3D5, 0x3DA, 0x3F9, 0x3FA,
                         0x3FE, 0x3FF, 0x4D0, 0x4D1, 0x600, 0x608, 0xCF8, 0xCFC, 0xCFD, 0xFFFF};
constexpr u64 places[] = {0xA0000,    0xB8000,    0xBFFF0,    0xC0000,    0xF0000,
                          0xFFFF0,    0xC0000000, 0xFEBFF000, 0xFEC00000, 0xFEC00FF0,
                          0xFED00000, 0xFEE01000, 0xFFFFFFF0, 0x100000000};

Entry entry_of(Stream& s) {
    Entry in;
    for (u64& each : in.gpr) each = s.value();
    in.gpr[rsp] = 0;
    in.rflags = 2 | (s.next() & 0xCD5);
    if (s.below(4) == 0) in.rflags |= rflags_if;
    if (s.below(8) == 0) in.rflags |= rflags_tf;
    return in;
}

Mode mode_of(Stream& s) {
    constexpr Mode modes[] = {Mode::long0,   Mode::long0, Mode::long0,
                              Mode::compat0, Mode::long3, Mode::compat3};
    return modes[s.below(6)];
}

void msr_step(Stream& s) {
    Entry in = entry_of(s);
    const u32 index =
        s.below(4) == 0 ? static_cast<u32>(s.value()) : msrs[s.below(sizeof(msrs) / sizeof(msrs[0]))];
    in.gpr[rcx] = index;
    // The APIC's page stays where it is.
    const bool write = s.below(2) == 0 && index != 0x1B;
    const u64 before = index == 0xC0000080 ? home.efer : 0;
    go(write ? Code{0x0F, 0x30} : Code{0x0F, 0x32}, in, mode_of(s));
    if (index == 0xC0000080) wrmsr(index, before);
}

void port_step(Stream& s) {
    Entry in = entry_of(s);
    const u16 port =
        s.below(4) == 0 ? static_cast<u16>(0x1000 + s.below(0xF000)) : ports[s.below(sizeof(ports) / 2)];
    in.gpr[rdx] = port;
    // ELCR, system control and the like take only harmless bits.
    in.gpr[rcx] = s.below(20);
    in.gpr[rsi] = in.gpr[rdi] = data_at + s.below(0x1FF0);
    constexpr u8 opcodes[] = {0xEC, 0xED, 0xEE, 0xEF, 0x6C, 0x6D, 0x6E, 0x6F};
    const u8 opcode = opcodes[s.below(8)];
    Code code{opcode};
    if (s.below(4) == 0) code = Code{0x66} + code;
    if (opcode < 0x70 && s.below(2) == 0) code = Code{0xF3} + code;
    // Only four bytes at once: two reach the reset register at CF9h.
    if (port == 0xCF8) code = Code{0xEF};
    go(code, in, mode_of(s));
}

void device_step(Stream& s) {
    Entry in = entry_of(s);
    const u64 place = s.below(4) == 0 ? 0xFEE00000 : places[s.below(sizeof(places) / 8)] + s.below(16);
    map_page(device_at, place & ~u64{0xFFF},
             page_present | page_writable | (s.below(2) == 0 ? u64{page_user} : 0));
    map_page(device_at + 0x1000, (place & ~u64{0xFFF}) + 0x1000, page_present | page_writable);
    u64 offset = place & 0xFFF;
    if (place == 0xFEE00000) {
        offset = s.below(0x40) * 16;
        // Not INIT or SIPI to itself, which would be the end.
        if (offset == 0x300) {
            const u64 mode = s.below(8);
            in.gpr[rax] = mode == 5 || mode == 6 ? 0x44040 : mode << 8 | 0x40000 | s.below(256);
        }
    }
    in.gpr[rsi] = device_at + offset;
    in.gpr[rdi] = s.below(2) == 0 ? in.gpr[rsi] : data_at + s.below(0x1F00);
    in.gpr[rcx] = s.below(30);
    constexpr u8 forms[][4] = {{0x8B, 0x06},       {0x89, 0x06},       {0x8A, 0x06},       {0x88, 0x06},
                               {0x01, 0x06},       {0x33, 0x06},       {0x87, 0x06},       {0x0F, 0xB1, 0x06},
                               {0x0F, 0xC1, 0x06}, {0x0F, 0xAB, 0x06}, {0xFF, 0x06},       {0xF7, 0x16},
                               {0x0F, 0xB6, 0x06}, {0x85, 0x06},       {0x80, 0x0E, 0x55}, {0xC7, 0x06}};
    constexpr u8 sizes[] = {2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 2, 2, 3, 2, 3, 2};
    const u64 form = s.below(18);
    Code code;
    switch (s.below(4)) {
        case 0: code = Code{0x48}; break;
        case 1: code = Code{0x66}; break;
        default: break;
    }
    if (form < 16) {
        Code body;
        for (u8 i = 0; i < sizes[form]; ++i) body.bytes[body.size++] = forms[form][i];
        if (form == 15)
            body =
                code.size != 0 && code.bytes[0] == 0x66 ? body + Code{0x11, 0x22} : body + Code{1, 2, 3, 4};
        code = code + body;
    } else {
        constexpr u8 strings[] = {0xA4, 0xA5, 0xAA, 0xAB, 0xAC, 0xAD};
        code = Code{0xF3} + code + Code{strings[s.below(6)]};
    }
    if (place == 0xFEE00000 && offset == 0x300 && (form != 1 || code.size != 2)) return;
    go(code, in, s.below(4) == 0 ? Mode::long3 : Mode::long0);
    // The LVT and the timer at peace again now and then.
    if (s.below(16) == 0) {
        store<u32>(0xFEE000F0, 0x1FF);
        for (const u64 entry : {0x320, 0x340, 0x350, 0x360, 0x370}) store<u32>(0xFEE00000 + entry, 0x10000);
    }
}

void register_step(Stream& s) {
    Entry in = entry_of(s);
    const u8 number = static_cast<u8>(s.below(16));
    const u8 rex = number >= 8 ? 0x4C : 0x48;
    const bool debug = s.below(2) == 0;
    const bool write = s.below(2) == 0;
    if (avoids_control && !debug && write) return;
    const u8 opcode = static_cast<u8>((debug ? 0x21 : 0x20) + (write ? 2 : 0));
    if (!debug && write) {
        // One bit of what is there is turned, so that code after it can go on; CR3 stays.
        const u64 change = bit(s.below(64));
        if (number == 0) in.gpr[rax] = home.cr0 ^ (change & ~u64{0xA0000001});
        if (number == 4) in.gpr[rax] = home.cr4 ^ (change & ~u64{0x1020});
        if (number == 3) in.gpr[rax] = home.cr3 | (change & 0xFFF);
    }
    go({rex, 0x0F, opcode, static_cast<u8>(0xC0 | (number & 7) << 3)}, in, mode_of(s));
    restore();
}

void other_step(Stream& s) {
    constexpr u8 instructions[][4] = {{2, 0x0F, 0xA2},       {2, 0x0F, 0x31},       {2, 0x0F, 0x09},
                                      {2, 0x0F, 0x08},       {3, 0x0F, 0x01, 0xC1}, {3, 0x0F, 0x01, 0xD9},
                                      {2, 0x0F, 0x33},       {3, 0x0F, 0x01, 0xC8}, {3, 0x0F, 0x01, 0xC9},
                                      {3, 0x0F, 0x01, 0xD1}, {2, 0x0F, 0x06},       {2, 0xF3, 0x90},
                                      {3, 0x0F, 0x01, 0xD8}, {3, 0x0F, 0x01, 0xF9}, {3, 0x0F, 0x01, 0xDD},
                                      {2, 0xCD, 0x40},       {2, 0x0F, 0x0B},       {3, 0x0F, 0x01, 0xD4}};
    Entry in = entry_of(s);
    const auto& chosen = instructions[s.below(sizeof(instructions) / 4)];
    Code code;
    for (u8 i = 1; i <= chosen[0]; ++i) code.bytes[code.size++] = chosen[i];
    if (s.below(8) == 0) code = Code{0xF0} + code;
    if (s.below(8) == 0) code = Code{0x66} + code;
    go(code, in, mode_of(s));
    restore();
}

// An interrupt to itself, by the ICR, by the timer, by the PIT, with IF set to let it in.
void interrupt_step(Stream& s) {
    store<u32>(0xFEE000F0, 0x1FF);
    switch (s.below(3)) {
        case 0: store<u32>(0xFEE00300, static_cast<u32>(0x44000 | (32 + s.below(223)))); break;
        case 1:
            store<u32>(0xFEE00320, static_cast<u32>((s.below(2) << 17) | (32 + s.below(223))));
            store<u32>(0xFEE003E0, static_cast<u32>(s.next()));
            store<u32>(0xFEE00380, static_cast<u32>(1 + s.below(1000)));
            break;
        default: store<u32>(0xFEE00300, 0x40400); break;
    }
    Entry in = entry_of(s);
    in.rflags = 2 | rflags_if;
    go({0x90, 0x90, 0x0F, 0xA2, 0x90, 0xFA}, in);
    store<u32>(0xFEE00320, 0x10000);
    store<u32>(0xFEE000B0, 0);
}

}  // namespace

extern "C" void guest_main() {
    const u64 seed = option("seed", 1), steps = option("steps", 0), first = option("first", 0);
    avoids_control = is_option("avoid", "control");
    prepare_window();
    home = {read_cr0(), read_cr3(), read_cr4(), rdmsr(0xC0000080), rdmsr(0x1B)};
    // What strikes between the steps, an NMI of its own making or a watchpoint on what is used there, is over
    // then.
    ignores_stray_nmi = 1;
    event_hook = [] {
        if (run_active != 0 || outcome.vector != 1) return false;
        write_dr7(0x400);
        return true;
    };
    u64 next_print = rdtsc();
    const u64 pause_between = ticks_per_microsecond() * 500000;
    for (u64 step = first; steps == 0 || step < first + steps; ++step) {
        if (rdtsc() - next_print >= pause_between) {
            next_print = rdtsc();
            out8(0x3FB, 3);  // what a step has made of the serial port
            out8(0x3FC, 0x0B);
            print(Text() << "EXERCISER seed=" << seed << " step=" << step << " faults=" << fault_count
                         << " interrupts=" << interrupt_count << "\r\n");
        }
        Stream s(seed, step);
        switch (s.below(8)) {
            case 0: msr_step(s); break;
            case 1:
            case 2: port_step(s); break;
            case 3:
            case 4: device_step(s); break;
            case 5: register_step(s); break;
            case 6: other_step(s); break;
            default: interrupt_step(s); break;
        }
    }
    out8(0x3FB, 3);
    out8(0x3FC, 0x0B);
    print(Text() << "EXERCISER seed=" << seed << " done=" << steps << " faults=" << fault_count
                 << " interrupts=" << interrupt_count << "\r\n");
    for (;;) asm volatile("cli; hlt");
}
