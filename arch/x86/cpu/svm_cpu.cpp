#include "arch/x86/cpu/svm_cpu.hpp"

#include "arch/x86/cpu/injected_faults.hpp"
#include "arch/x86/cpu/intrinsics.hpp"
#include "arch/x86/cpu/per_cpu.hpp"
#include "arch/x86/cpu/traps.hpp"
#include "arch/x86/regs/control.hpp"
#include "arch/x86/regs/msr.hpp"
#include "arch/x86/svm/processor_access.hpp"

namespace bulkhead {

// Read by svm_entry.asm.
extern "C" u64 bulkhead_svm_host_vmcb[max_cpus];
u64 bulkhead_svm_host_vmcb[max_cpus];

namespace {

void (*timer_arm)(u64 deadline) = nullptr;
u64 (*timer_count)() = nullptr;

}  // namespace

Result<svm::Capabilities> detect_svm() {
    svm::CapabilityLeaves leaves;
    leaves.max_extended = cpu::cpuid(0x80000000).eax;
    if (leaves.max_extended >= 0x80000001) leaves.extended1 = cpu::cpuid(0x80000001);
    if (leaves.max_extended >= 0x80000008) leaves.address_sizes = cpu::cpuid(0x80000008);
    if (leaves.max_extended >= 0x8000000A) leaves.svm = cpu::cpuid(0x8000000A);
    if ((cpu::cpuid(1).ecx & cpuid::leaf1_ecx::hypervisor) != 0) leaves.outer = cpu::cpuid(0x40000000);
    auto capabilities = svm::read_capabilities(leaves);
    if (!capabilities) return capabilities;
    // A processor or emulator without VM_CR has nothing that could forbid it.
    const auto vm_cr =
        injected(Fault::svm_locked) ? std::optional(bit(3) | bit(4)) : cpu::read_msr_safe(msr::vm_cr);
    if (!vm_cr) return capabilities;
    const auto decision = svm::decide_vm_cr(*vm_cr);
    if (!decision) return std::unexpected(decision.error());
    if (*decision != *vm_cr && !cpu::write_msr_safe(msr::vm_cr, *decision)) {
        return fail(
            "HV-E224: AMD-V is disabled (VM_CR.SVMDIS) and could not be enabled; enable SVM in the firmware "
            "setup");
    }
    return capabilities;
}

Result<> enable_svm(HostPhysical save_area, HostPhysical host_vmcb) {
    cpu::write_msr(msr::efer, cpu::read_msr(msr::efer) | efer::svme);
    cpu::write_msr(msr::vm_hsave_pa, save_area.raw());
    bulkhead_svm_host_vmcb[cpu_index()] = host_vmcb.raw();
    asm volatile("vmsave" : : "a"(host_vmcb.raw()) : "memory");
    return {};
}

void set_svm_timer(void (*arm)(u64 deadline), u64 (*count)()) {
    timer_arm = arm;
    timer_count = count;
}

extern "C" void bulkhead_svm_arm_timer(u64 deadline) {
    timer_arm(deadline);
}

extern "C" bool bulkhead_svm_take_timer() {
    const u64 timers = timer_count(), all = interrupts_taken();
    cpu::take_interrupts();
    const u64 struck = timer_count() - timers;
    return struck != 0 && interrupts_taken() - all == struck;
}

}  // namespace bulkhead
