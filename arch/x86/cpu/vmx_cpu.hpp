// VT-x on the running core: is it there, on, off, and what exits load.
#pragma once

#include "arch/x86/vmx/capabilities.hpp"
#include "arch/x86/vmx/host_state.hpp"
#include "kernel/base/result.hpp"

namespace bulkhead {

// CPUID and the capability MSRs: what every VM needs is there. Changes nothing.
[[nodiscard]] Result<vmx::Capabilities> detect_vmx();

// Sets and locks IA32_FEATURE_CONTROL where firmware left it open, sets CR4.VMXE and enters VMX operation.
// `region`: 4 KiB of the core's own, page-aligned, mapped at `region_address`; the processor's until
// disable_vmx().
[[nodiscard]] Result<> enable_vmx(const vmx::Capabilities& capabilities, HostPhysical region,
                                  u8* region_address);

// Leaves VMX operation. Every VMCS that was active on this core has been saved.
void disable_vmx();

// Whether the world switch is the guarded one: Mitigations::at_world_switch(), or the host has shadow stacks.
[[nodiscard]] bool vmx_needs_guard();

// The running core's state as exits are to restore it, in the compartment whose CR3 is given.
[[nodiscard]] vmx::HostState host_state_of_this_core(u64 compartment_cr3);

}  // namespace bulkhead
