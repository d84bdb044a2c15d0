// The exerciser: each of its processors interprets a random stream into instructions that exit, privileged
// ones, device memory, ports, MSRs, control and debug registers, and interrupt traffic among them, without
// end or up to a count. What faults is skipped. A processor that no longer moves is woken by another one, by
// NMI, then by INIT. On its command line:
//   seed=N     which stream; the same seed is the same stream
//   cpus=N     on so many processors (1)
//   steps=N    how many steps each; 0: without end
//   first=N    the number of the first step: to reproduce what struck at a step
//   kinds=N    bit mask of the kinds of steps, as do_step() numbers them (all)
//   deadly=N   one in N steps is one that the machine does not survive (none)
//   tolerate=if   interrupts that come though they are disabled, for the sake of an emulator that does so
//   avoid=control   writes no control registers and locks no memory, for the sake of an emulator that does
//   not survive it attack=NAME   not steps, but one of attacks.cpp
// What it does shows in memory at 9000h (Report). At the end it prints: EXERCISER seed=S done
#include "tests/guests/exerciser/attacks.hpp"
#include "tests/guests/exerciser/steps.hpp"

namespace {

// A tenth of a second of the PM timer, which has 24 bits and cannot be changed.
constexpr u32 patience = 3579545 / 10;

struct Neighbour {
    u64 step = 0, starts = 0;
    u32 since = 0;
    unsigned nudges = 0;
};
Neighbour neighbours[most_processors];  // as their predecessor sees them

// Each processor watches over the next one.
void watch_neighbour(const Processor& self) {
    if (limits.processors == 1) return;
    const u64 number = (self.number + 1) % limits.processors;
    const Report::Line& line = report().lines[number];
    Neighbour& neighbour = neighbours[number];
    const u32 now = in32(0x608) & 0xFFFFFF;
    const u64 step = load<u64>(reinterpret_cast<u64>(&line.step));
    // One that has not begun yet does not expect to be woken.
    if (step != neighbour.step || line.starts == 0 || report().finished >> number & 1) {
        neighbour = {.step = step, .since = now};
        return;
    }
    if (((now - neighbour.since) & 0xFFFFFF) < patience) return;
    neighbour.since = now;
    ++report().lines[number].nudges;
    // Of the first processor INIT does the same.
    if (number == 0 && is_lost_in_nmi(processor(0))) out8(0xCF9, 0x06);
    if (++neighbour.nudges % 3 != 0 || number == 0) {
        send_ipi(number, 0x4400);
    } else {
        start_processor(number);
    }
}

}  // namespace

void processor_main(Processor& self) {
    Report::Line& line = self.line();
    ++line.starts;
    self.cr0 = read_cr0();
    self.cr3 = read_cr3();
    self.cr4 = read_cr4();
    self.efer = rdmsr(0xC0000080);
    // INIT has left the APIC as it was, wherever that is.
    self.apic_base = 0xFEE00800 | (rdmsr(0x1B) & 0x100);
    restore_apic_base(self);
    calm_apic();
    if (const char* name = option("attack")) attack(self, name);
    const u64 seed = report().seed, steps = report().steps;
    for (;;) {
        const u64 step = line.step + 1;
        if (steps != 0 && step >= steps) break;
        store<u64>(reinterpret_cast<u64>(&line.step), step);
        do_step(self, seed, step);
        if (step % 64 == 0) {
            line.strays = self.strays;
            watch_neighbour(self);
        }
    }
    __atomic_or_fetch(&report().finished, u64{1} << self.number, __ATOMIC_SEQ_CST);
    if (self.number != 0)
        for (;;) asm volatile("cli; hlt");
    while (report().finished != (u64{1} << limits.processors) - 1) watch_neighbour(self);
    out8(0x3FB, 3);
    out8(0x3FC, 0x0B);
    print(Text() << "\r\nEXERCISER seed=" << seed << " done\r\n");
    for (;;) asm volatile("cli; hlt");
}

extern "C" void guest_main() {
    const u64 cpus = option("cpus", 1);
    limits = {.avoids_control = is_option("avoid", "control"),
              .avoids_locks = is_option("avoid", "control"),
              .processors = cpus == 0 || cpus > most_processors ? 1 : cpus,
              .kinds = option("kinds", ~u64{0}),
              .deadly = option("deadly", 0)};
    const u64 first = option("first", 0), steps = option("steps", 0);
    memset(&report(), 0, sizeof(Report));
    report().seed = option("seed", 1);
    report().processors = limits.processors;
    report().steps = steps == 0 ? 0 : first + steps;
    for (auto& line : report().lines) line.step = first - 1;
    print(Text() << "EXERCISER seed=" << report().seed << " begins\r\n");
    tolerates_interrupts = is_option("tolerate", "if");
    report().magic = 0x4553494352455845;
    start_processors(static_cast<unsigned>(limits.processors));
}
