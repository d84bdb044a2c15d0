// Exceptions and interrupts of the host: who gets them.
#pragma once

#include "arch/x86/cpu/trap_frame.hpp"
#include "kernel/base/types.hpp"

namespace bulkhead {

// Called with interrupts disabled, on the core that was interrupted. It acknowledges the interrupt itself.
using InterruptHandler = void (*)(void* context);

constexpr u8 first_interrupt_vector = 32;

// `vector` >= first_interrupt_vector. Replaces the handler there was. Before interrupts are first enabled, or
// with the source masked: readers take no lock.
void set_interrupt_handler(Vector vector, InterruptHandler handler, void* context);

// For vectors nobody registered. The handler (the local APIC driver's) acknowledges what needs acknowledging.
void set_unexpected_interrupt_handler(void (*handler)(Vector vector));

// Runs the handler of `vector` as if the interrupt had come through the IDT: for a VM exit that took the
// interrupt from the APIC.
void dispatch_interrupt(Vector vector);

// Called for each NMI, on the NMI stack; true if it was the handler's. Unclaimed NMIs are
// counted.
void set_nmi_handler(bool (*handler)());
void dispatch_nmi();
// Where a core was when it took its last NMI; all zero: it has taken none.
struct NmiPlace {
    u64 rip = 0, rbp = 0;
};
[[nodiscard]] NmiPlace nmi_place(u32 cpu);

struct TrapCounters {
    u64 interrupts = 0;             // through the IDT or dispatch_interrupt()
    u64 unexpected_interrupts = 0;  // of those, with no handler
    u8 last_unexpected = 0;         // the vector of the last of these
    u64 spurious_interrupts = 0;    // by count_spurious_interrupt()
    u64 nmis = 0;
    u64 unclaimed_nmis = 0;
    u64 machine_checks = 0;  // that were survived
    u64 fixups = 0;          // faults of guarded instructions: rdmsr of what does not exist, page_faults()
};
[[nodiscard]] TrapCounters trap_counters(u32 cpu);
// Interrupts that this core has taken.
[[nodiscard]] u64 interrupts_taken();
// For the handler of the local APIC's spurious vector, which is never in service and not acknowledged.
void count_spurious_interrupt();

}  // namespace bulkhead
