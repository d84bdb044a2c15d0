// Control-flow enforcement (CET) for the hypervisor itself, on processors that have it and whose VM entries
// and exits switch its state. Intel SDM Vol. 1, chapter 17 (June 2023 edition).
//
// Indirect branch tracking: a call or jump through a pointer that does not end at an ENDBR64 is a #CP, and so
// a panic. scripts/seal_image.py leaves ENDBR64 only in functions whose address is taken.
//
// Shadow stacks: calls, interrupts and exceptions push where they come from a second time, onto pages that
// nothing else can write; a return to anywhere else is a #CP. Each core has one to run on and one for each of
// its IST stacks (stacks.hpp).
//
// Guests have no CET: their CPUID, CR4 and MSRs are without it, and VM entry loads a state with nothing on.
#pragma once

#include "arch/x86/cpu/per_cpu.hpp"
#include "arch/x86/regs/msr.hpp"

namespace bulkhead {

// Set on core 0 before other cores start, where there are shadow stacks; vmx_entry.asm and speculation.inc
// look at it.
extern "C" u8 bulkhead_shadow_stacks;

// Marks the shadow stacks of all cores as free. Before enter_kernel_space(): they cannot be written
// afterwards.
void prepare_shadow_stacks();

// Begins indirect branch tracking on the running core, and makes enter_shadow_stack() ready; may be called
// twice for it. Where the processor has neither, nothing happens. False: core 0 has shadow stacks, and this
// one has not.
[[nodiscard]] bool protect_control_flow();

[[nodiscard]] bool indirect_branches_tracked();
[[nodiscard]] inline bool has_shadow_stacks() {
    return bulkhead_shadow_stacks != 0;
}

// What VM exits load on the running core: IA32_S_CET and IA32_INTERRUPT_SSP_TABLE_ADDR; 0 where they are not
// in use.
struct ControlFlowState {
    u64 s_cet = 0;
    u64 interrupt_ssp_table = 0;
};
[[nodiscard]] ControlFlowState control_flow_state();

// From here on the running core keeps its shadow stack. The calling function must never return, since its own
// return address is not on it; hence always inlined. Nothing where has_shadow_stacks() is false.
[[gnu::always_inline]] inline void enter_shadow_stack() {
    if (!has_shadow_stacks()) return;
    // SETSSBSY takes the stack that IA32_PL0_SSP names, whose token says that it is free. The upper half of
    // IA32_S_CET is zero.
    asm volatile(
        "rdmsr\n\t"
        "orl $1, %%eax\n\t"  // SH_STK_EN
        "wrmsr\n\t"
        "setssbsy"
        :
        : "c"(msr::s_cet.raw())
        : "rax", "rdx", "memory");
}

}  // namespace bulkhead
