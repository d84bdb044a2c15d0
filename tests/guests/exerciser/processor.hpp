// A processor of the exerciser: what it needs to survive whatever it does to itself. Each has a block of
// memory of its own with its page tables, GDT, TSS and stacks; the code that takes an event finds the block
// by the stack it is on, so no register or segment needs to hold on to anything.
#pragma once

#include <stddef.h>

#include "tests/guests/runtime/runtime.hpp"

constexpr unsigned most_processors = 16;
// Not at a power of two: the numbers of a step are often one, and breakpoints are among what a step sets.
constexpr u64 block_size = 0x40000, first_block = 0x440000;
constexpr u64 trampoline_at = 0x8000, report_at = 0x9000;
constexpr u64 apic = 0xFEE00000;

// What the test reads from outside, at report_at.
struct Report {
    struct Line {
        u64 step;        // the one that is being done
        u64 faults;      // steps that ended in an exception
        u64 interrupts;  // and in an interrupt
        u64 starts;      // how often it was started: INIT and SIPI come at any time
        u64 strays;      // NMIs, debug exceptions and tolerated interrupts outside a step
        u64 nudges;      // how often another processor had to wake it
        u64 unexpected;  // 100h + the vector of an exception where there must be none
        u64 at;          // and where
    };
    u64 magic;  // "EXERCISE"
    u64 seed, processors, steps, finished, unused[3];
    Line lines[most_processors];
};
static_assert(sizeof(Report) == 64 + most_processors * 64);
inline Report& report() {
    return *reinterpret_cast<Report*>(report_at);
}

struct Processor {
    u64 active;  // it runs probed code
    u64 saved_rsp;
    u64 strays;
    Outcome outcome;
    u64 number;
    usize code_used;
    u64 cr0, cr3, cr4, efer, apic_base;  // as they are between steps
    bool is_x2apic;

    u8* memory(u64 offset) { return reinterpret_cast<u8*>(this) + offset; }
    u64* window_table() { return reinterpret_cast<u64*>(memory(0x4000)); }
    u8* code() { return memory(0x5000); }
    u8* data() { return memory(0x6000); }
    u8* probe_stack() { return memory(0x8000); }
    Report::Line& line() { return report().lines[number]; }

    // As run(), map_page() of the runtime.
    void map(u64 virtual_address, u64 physical, u64 flags);
    const Outcome& run(const Code& code, Mode mode, const Entry& in);
};
static_assert(offsetof(Processor, outcome) == 24);

inline Processor& processor(u64 number) {
    return *reinterpret_cast<Processor*>(first_block + number * block_size);
}

// Prepares the blocks and the code that starts the other processors; then the caller goes on in
// processor_main().
[[noreturn]] void start_processors(unsigned count);
// Whether it goes round in its handler of NMIs. A watchpoint there ends with an IRET, which unblocks NMIs,
// and one that comes then writes over the frame by which the handler returns.
bool is_lost_in_nmi(const Processor& processor);
// Starts a processor, for the first time or anew.
void start_processor(u64 number);
void send_ipi(u64 number, u32 command);
// Interrupts that come though they are disabled are not taken for an error: of emulators that do that.
extern "C" u8 tolerates_interrupts;
// Where each processor begins, again and again.
extern "C" [[noreturn]] void processor_main(Processor& self);
