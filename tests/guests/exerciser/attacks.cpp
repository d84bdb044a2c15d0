#include "tests/guests/exerciser/attacks.hpp"

#include "tests/guests/exerciser/steps.hpp"

extern "C" u64 event_table[];

namespace {

constexpr u64 marker = 0x4D41524B45524D4B;
// Behind everything that the program has, and in RAM of the smallest machine it gets.
constexpr u64 painted_from = 0xA00000;

// Without end, on all processors; the step says how often.
template <class Instruction>
[[noreturn]] void storm(Processor& self, Instruction instruction) {
    for (;;) {
        instruction();
        ++self.line().step;
    }
}

void wbinvd(Processor& self) {
    storm(self, [] { asm volatile("wbinvd" ::: "memory"); });
}
void cpuids(Processor& self) {
    storm(self, [] { cpuid(0); });
}
void pauses(Processor& self) {
    storm(self, [] { pause(); });
}
void rdtscs(Processor& self) {
    storm(self, [] { rdtsc(); });
}
void eois(Processor& self) {
    storm(self, [] { store<u32>(apic + 0xB0, 0); });
}
void task_priorities(Processor& self) {
    storm(self, [&] { store<u32>(apic + 0x80, self.line().step & 0xF0); });
}
void broadcasts(Processor& self) {
    // One that is still on its way from real mode has no table to find an NMI's handler in: it would die of a
    // triple fault, and the VM with it.
    for (u64 other = 0; other < limits.processors; ++other)
        while (load<u64>(reinterpret_cast<u64>(&report().lines[other].starts)) == 0) pause();
    storm(self, [] { store<u32>(apic + 0x300, 0xC4400); });  // NMIs to all others
}
// A timer whose period is the shortest there is, periodic, with nobody who takes it.
void short_timers(Processor& self) {
    store<u32>(apic + 0x320, 0x20000 | 0xEE);
    store<u32>(apic + 0x3E0, 0xB);
    storm(self, [] {
        store<u32>(apic + 0x380, 1);
        pause();
    });
}

// The first processor restarts the others as fast as it can.
void restarts(Processor& self) {
    if (self.number != 0) storm(self, [] { cpuid(0); });
    storm(self, [] {
        for (u64 other = 1; other < limits.processors; ++other) start_processor(other);
    });
}

void park(Processor&) {
    for (;;) asm volatile("cli; hlt");
}

// #UD without a table to find its handler in.
void no_descriptors(Processor&) {
    struct [[gnu::packed]] {
        u16 limit = 0;
        u64 base = 0;
    } const none;
    asm volatile("lidt %0; ud2" ::"m"(none));
}
// #UD and #NP through gates that are absent, and a #DF likewise.
void bad_double_fault(Processor&) {
    for (const unsigned vector : {6U, 8U, 11U}) event_table[2 * vector] &= ~bit(47);
    asm volatile("ud2");
}

// A watchpoint on the stack that the debug exception itself is delivered on (CVE-2015-8104).
void debug_loop(Processor& self) {
    write_dr0(reinterpret_cast<u64>(self.memory(0x27F40)) - 8);  // of the event stack
    write_dr7(0x400 | bit(1) | u64{0x9} << 16);                  // eight bytes, writes
    asm volatile("int1");
    for (;;) pause();
}

// Text without end, of the kind that means something to a terminal or looks like the hypervisor's.
void flood(Processor& self) {
    if (self.number != 0) park(self);
    for (;;) {
        print(
            "\x1b[2J\x1b]0;owned\a\x9b"
            "31m\r\nbulkhead> destroy canary\r\nVM canary was destroyed\r\n\x1b[6n\x1bP0;1|17/ab\x1b\\");
        ++self.line().step;
    }
}

// All RAM behind the program filled with a marker; and how much of it there is.
void paint(Processor& self) {
    if (self.number != 0) park(self);
    auto* const memory = reinterpret_cast<volatile u64*>(painted_from);
    const u64 words = (end_of_ram() - painted_from) / 8;
    for (u64 i = 0; i < words; ++i) memory[i] = marker;
    self.line().faults = words;
    park(self);
}
// How often it is found, wherever one may look.
void scan(Processor& self) {
    if (self.number != 0) park(self);
    u64 hits = 0, others = 0;
    for (u64 address = 0; address + 8 <= end_of_ram(); address += 8) {
        if (address == 0xA0000) address = 0x100000;
        const u64 value = load<u64>(address);
        hits += value == marker ? 1 : 0;
        others += address >= painted_from && value != 0 ? 1 : 0;
    }
    self.line().faults = hits;
    self.line().interrupts = others;  // what is not zero where nobody wrote, but for ACPI's tables at the end
    self.line().step = 1;
    park(self);
}

constexpr struct {
    const char* name;
    void (*run)(Processor&);
} attacks[] = {
    {"wbinvd", wbinvd},
    {"cpuid", cpuids},
    {"pause", pauses},
    {"rdtsc", rdtscs},
    {"eoi", eois},
    {"tpr", task_priorities},
    {"nmi", broadcasts},
    {"timer", short_timers},
    {"restart", restarts},
    {"park", park},
    {"no-idt", no_descriptors},
    {"bad-double-fault", bad_double_fault},
    {"debug-loop", debug_loop},
    {"flood", flood},
    {"paint", paint},
    {"scan", scan},
};

}  // namespace

void attack(Processor& self, const char* name) {
    for (const auto& each : attacks) {
        const char *a = each.name, *b = name;
        while (*a != 0 && *a == *b) ++a, ++b;
        if (*a == 0 && (*b == 0 || *b == ' ')) each.run(self);
    }
}
