// What the VT-x backend asks of the processor beyond the VMCS: the world switch and the state that VM entry
// and exit leave alone. Like vmcs_access.hpp a seam at link time: assembly in the image, a fake in the host
// tests.
#pragma once

#include "arch/x86/vmx/host_state.hpp"
#include "vmm/cpu_state.hpp"

namespace bulkhead {

constexpr u64 bulkhead_vmx_failed = ~u64{0};

extern "C" {
// Loads the general registers, RSP among them, enters the guest by VMLAUNCH or VMRESUME, and stores them when
// it exits. Returns the exit-reason field; bulkhead_vmx_failed where the instruction itself failed (VMfail)
// and no guest ran.
u64 bulkhead_vmx_enter(GeneralRegisters* registers, bool launched);

// The same with what some processors need against speculation, at entry and at exit (vmm/mitigations.hpp).
// bulkhead_vmx_host_state() goes with it.
u64 bulkhead_vmx_enter_guarded(GeneralRegisters* registers, bool launched);

// Runs the host's own handler of the NMI that ended the guest's turn, whose IRET unblocks NMIs again.
void bulkhead_vmx_take_nmi();

// The running core's number, and its state as exits are to restore it, but for CR3, which depends on the VM.
u32 bulkhead_vmx_core();
void bulkhead_vmx_host_state(vmx::HostState* state);

u64 bulkhead_vmx_rdtsc();
u64 bulkhead_vmx_rdmsr(u32 index);
void bulkhead_vmx_wrmsr(u32 index, u64 value);
u64 bulkhead_vmx_read_cr2();
void bulkhead_vmx_write_cr2(u64 value);
}

}  // namespace bulkhead
