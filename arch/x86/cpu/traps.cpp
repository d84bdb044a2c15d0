#include "arch/x86/cpu/traps.hpp"

#include "arch/x86/cpu/control_flow.hpp"
#include "arch/x86/cpu/intrinsics.hpp"
#include "arch/x86/cpu/machine_check.hpp"
#include "arch/x86/cpu/panic.hpp"
#include "arch/x86/cpu/per_cpu.hpp"

namespace bulkhead {
namespace {

struct Handler {
    InterruptHandler function = nullptr;
    void* context = nullptr;
};

constexpr u64 machine_check_vector = 18;

Handler handlers[256];
void (*unexpected_handler)(Vector) = nullptr;
bool (*nmi_handler)() = nullptr;
PerCpu<TrapCounters> counters;
PerCpu<NmiPlace> nmi_places;

struct Fixup {
    u64 fault;
    u64 resume;
};
extern "C" const Fixup fixups_start[];
extern "C" const Fixup fixups_end[];

// Moves a fault of a guarded instruction (intrinsics.hpp) to where the instruction's failure is handled.
[[nodiscard]] bool fix_up(TrapFrame& frame) {
    // #UD, #GP, #PF.
    if (frame.vector != 6 && frame.vector != 13 && frame.vector != 14) return false;
    for (const Fixup* fixup = fixups_start; fixup != fixups_end; ++fixup) {
        if (fixup->fault == frame.rip) {
            frame.rip = fixup->resume;
            ++counters->fixups;
            return true;
        }
    }
    return false;
}

}  // namespace

void set_interrupt_handler(Vector vector, InterruptHandler handler, void* context) {
    handlers[vector.raw()] = {handler, context};
}

void set_unexpected_interrupt_handler(void (*handler)(Vector vector)) {
    unexpected_handler = handler;
}

void set_nmi_handler(bool (*handler)()) {
    nmi_handler = handler;
}

void dispatch_interrupt(Vector vector) {
    ++counters->interrupts;
    const Handler& handler = handlers[vector.raw()];
    if (handler.function != nullptr) {
        handler.function(handler.context);
        return;
    }
    ++counters->unexpected_interrupts;
    counters->last_unexpected = vector.raw();
    if (unexpected_handler != nullptr) unexpected_handler(vector);
}

void dispatch_nmi() {
    ++counters->nmis;
    if (nmi_handler == nullptr || !nmi_handler()) ++counters->unclaimed_nmis;
}

void count_spurious_interrupt() {
    ++counters->spurious_interrupts;
}

NmiPlace nmi_place(u32 cpu) {
    return nmi_places.of(cpu);
}

u64 interrupts_taken() {
    return counters->interrupts;
}

TrapCounters trap_counters(u32 cpu) {
    return counters.of(cpu);
}

// True: RIP has been moved, and the shadow stack has to be told.
extern "C" [[gnu::used]] bool trap_dispatch(TrapFrame* frame) {
    if (frame->vector >= first_interrupt_vector) {
        dispatch_interrupt(Vector(static_cast<u8>(frame->vector)));
    } else if (frame->vector == 2) {
        if (panic_in_progress()) freeze_for_panic(*frame);
        *nmi_places = {.rip = frame->rip, .rbp = frame->rbp};
        dispatch_nmi();
    } else if (frame->vector == machine_check_vector && survive_machine_check()) {
        ++counters->machine_checks;
    } else if (!fix_up(*frame)) {
        panic_on_trap(*frame);
    } else {
        return has_shadow_stacks();
    }
    return false;
}

}  // namespace bulkhead
