#include "arch/x86/cpu/vmx_cpu.hpp"

#include <cstring>

#include "arch/x86/cpu/control_flow.hpp"
#include "arch/x86/cpu/descriptor_tables.hpp"
#include "arch/x86/cpu/injected_faults.hpp"
#include "arch/x86/cpu/intrinsics.hpp"
#include "arch/x86/cpu/per_cpu.hpp"
#include "arch/x86/cpu/speculation.hpp"
#include "arch/x86/regs/control.hpp"
#include "arch/x86/regs/msr.hpp"
#include "arch/x86/vmx/feature_control.hpp"
#include "arch/x86/vmx/processor_access.hpp"
#include "arch/x86/vmx/vmcs_access.hpp"

extern "C" void bulkhead_vmx_exit();
extern "C" void bulkhead_vmx_exit_guarded();

namespace bulkhead {

Result<vmx::Capabilities> detect_vmx() {
    if (auto supported = vmx::check_vmx_supported(cpu::cpuid(1)); !supported)
        return std::unexpected(supported.error());
    return vmx::decide_capabilities(
        vmx::read_capability_msrs([](u32 index) { return cpu::read_msr(MsrIndex(index)); }));
}

Result<> enable_vmx(const vmx::Capabilities& capabilities, HostPhysical region, u8* region_address) {
    const auto decision = vmx::decide_feature_control(
        injected(Fault::vmx_locked) ? vmx::feature_control::locked : cpu::read_msr(msr::feature_control));
    if (!decision) return std::unexpected(decision.error());
    if (decision->write) cpu::write_msr(msr::feature_control, decision->value);

    const u64 control0 = cpu::read_cr0(), control4 = cpu::read_cr4() | cr4::vmxe;
    if ((capabilities.cr0_fixed0 & ~control0) != 0 || (control0 & ~capabilities.cr0_fixed1) != 0 ||
        (capabilities.cr4_fixed0 & ~control4) != 0 || (control4 & ~capabilities.cr4_fixed1) != 0) {
        return fail("HV-E205: CR0 {:#x} or CR4 {:#x} has a bit that VMX operation forbids on this processor",
                    control0, control4);
    }
    std::memset(region_address, 0, page_size);
    std::memcpy(region_address, &capabilities.revision, sizeof capabilities.revision);
    cpu::write_cr4(control4);
    const bool breaks = injected(cpu_index() == 0 ? Fault::vmxon : Fault::core_vmxon) && cpu_index() != 1;
    // A region that is not aligned: VMfailInvalid.
    const VmxResult result = bulkhead_vmxon(region.raw() + (breaks ? 1 : 0));
    if (result == VmxResult::succeed) return {};
    cpu::write_cr4(control4 & ~cr4::vmxe);
    return fail("HV-E206: VMXON failed on this core (region {}); the core stays offline", region);
}

void disable_vmx() {
    (void)bulkhead_vmxoff();
    cpu::write_cr4(cpu::read_cr4() & ~cr4::vmxe);
}

bool vmx_needs_guard() {
    return mitigations().at_world_switch() || has_shadow_stacks();
}

vmx::HostState host_state_of_this_core(u64 compartment_cr3) {
    const u32 index = cpu_index();
    const ControlFlowState control_flow = control_flow_state();
    return {.cr0 = cpu::read_cr0(),
            .cr3 = compartment_cr3,
            .cr4 = cpu::read_cr4(),
            .cs = code_selector,
            .ss = data_selector,
            .tr = tss_selector(index),
            .fs_base = 0,
            .gs_base = core_data_address(index).raw(),
            .tr_base = tss_address(index).raw(),
            .gdtr_base = gdt_address().raw(),
            .idtr_base = idt_address().raw(),
            .rip = reinterpret_cast<u64>(vmx_needs_guard() ? &bulkhead_vmx_exit_guarded : &bulkhead_vmx_exit),
            .efer = cpu::read_msr(msr::efer),
            .pat = cpu::read_msr(msr::pat),
            .s_cet = control_flow.s_cet,
            .interrupt_ssp_table = control_flow.interrupt_ssp_table};
}

// The processor as the VT-x backend reaches it (arch/x86/vmx/processor_access.hpp).
extern "C" {

// Here rather than with the other instructions: what runs on every exit is optimised as a whole
// (cmake/image.cmake), and these become one instruction each.
u64 bulkhead_vmread(u64 encoding) {
    u64 value;
    asm volatile("vmread %1, %0" : "=r"(value) : "r"(encoding) : "cc");
    return value;
}
void bulkhead_vmwrite_unchecked(u64 encoding, u64 value) {
    asm volatile("vmwrite %1, %0" : : "r"(encoding), "rm"(value) : "cc", "memory");
}

u32 bulkhead_vmx_core() {
    return cpu_index();
}
void bulkhead_vmx_host_state(vmx::HostState* state) {
    *state = host_state_of_this_core(0);
}
u64 bulkhead_vmx_rdtsc() {
    return cpu::read_tsc();
}
u64 bulkhead_vmx_rdmsr(u32 index) {
    return cpu::read_msr(MsrIndex(index));
}
void bulkhead_vmx_wrmsr(u32 index, u64 value) {
    cpu::write_msr(MsrIndex(index), value);
}
u64 bulkhead_vmx_read_cr2() {
    return cpu::read_cr2();
}
void bulkhead_vmx_write_cr2(u64 value) {
    cpu::write_cr2(value);
}

}  // extern "C"

}  // namespace bulkhead
