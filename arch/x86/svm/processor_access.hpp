// What the AMD-V backend asks of the processor: the world switch and the host's tick. A seam at link time:
// assembly in the image, a fake in the host tests.
#pragma once

#include "vmm/cpu_state.hpp"

namespace bulkhead::svm {

extern "C" {
// Enters the guest whose VMCB is at physical address `vmcb` with these general registers (RAX and RSP are the
// VMCB's) and stores them when it exits. FS, GS, TR, LDTR and the SYSCALL and SYSENTER registers of the host
// are kept. Host interrupts stay pending; an NMI that came is taken before it returns.
void bulkhead_svm_enter(GeneralRegisters* registers, u64 vmcb);

// The same with what some processors need against speculation, at entry and at exit (vmm/mitigations.hpp).
void bulkhead_svm_enter_guarded(GeneralRegisters* registers, u64 vmcb);

u64 bulkhead_svm_rdtsc();

// Makes the host's timer interrupt this core when its TSC reaches `deadline`; ~0: not at all.
void bulkhead_svm_arm_timer(u64 deadline);
// Takes the host interrupts that wait. True: the timer's was the only one.
bool bulkhead_svm_take_timer();
}

}  // namespace bulkhead::svm
