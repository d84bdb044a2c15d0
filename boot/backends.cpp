#include "boot/backends.hpp"

#include <cstring>
#include <optional>

#include "arch/x86/cpu/control_flow.hpp"
#include "arch/x86/cpu/injected_faults.hpp"
#include "arch/x86/cpu/intrinsics.hpp"
#include "arch/x86/cpu/per_cpu.hpp"
#include "arch/x86/cpu/speculation.hpp"
#include "arch/x86/cpu/svm_cpu.hpp"
#include "arch/x86/cpu/vmx_cpu.hpp"
#include "arch/x86/regs/control.hpp"
#include "arch/x86/svm/backend.hpp"
#include "arch/x86/vmx/backend.hpp"
#include "boot/kernel_space.hpp"
#include "kernel/base/deferred.hpp"
#include "vmm/platform.hpp"

namespace bulkhead {
namespace {

// A page of the kernel's own, for a core's private use.
Result<HostPhysical> take_page() {
    auto page = kernel_table_memory().allocate();
    if (!page) return page;
    std::memset(kernel_table_memory().access(*page), 0, page_size);
    return page;
}

class VmxFactory final : public BackendFactory {
  public:
    explicit VmxFactory(const vmx::Capabilities& capabilities) : capabilities_(capabilities) {}

    const vmx::Capabilities& capabilities() const { return capabilities_; }
    std::string_view name() const override { return "VT-x"; }
    const PagingFormat& nested_format() const override { return ept_paging; }
    unsigned nested_max_level() const override {
        return capabilities_.ept_1g && capabilities_.ept_2m ? 3 : capabilities_.ept_2m ? 2 : 1;
    }
    ApicAssist apic_assist() const override {
        if (capabilities_.full_xapic() && capabilities_.full_x2apic()) return ApicAssist::full;
        return capabilities_.tpr_shadow && capabilities_.apic_access ? ApicAssist::tpr : ApicAssist::none;
    }

    Result<> map_apic_access(NestedPageTable& nested, Arena& arena) override {
        apic_access_ = root_without_apic_ = {};
        if (apic_assist() == ApicAssist::none) return {};
        auto page = arena.allocate_pages(1);
        if (!page) return std::unexpected(page.error());
        apic_access_ = page->physical;
        auto without = nested.branch(GuestPhysical(platform::local_apic));
        if (!without) return std::unexpected(without.error());
        root_without_apic_ = *without;
        return nested.map(GuestPhysical(platform::local_apic), page->physical, page_size,
                          {.permissions = read_write});
    }

    Result<VcpuBackend*> create(Arena& arena, const BackendParameters& parameters) override {
        auto vmcs = arena.allocate_pages(1);
        if (!vmcs) return std::unexpected(vmcs.error());
        auto bitmap = arena.allocate_pages(1);
        if (!bitmap) return std::unexpected(bitmap.error());
        auto extended = arena.allocate_pages(1);
        if (!extended) return std::unexpected(extended.error());
        auto backend = arena.create<vmx::Backend>(
            capabilities_,
            vmx::VcpuParameters{
                .vmcs = {vmcs->base, vmcs->physical},
                .virtual_apic = {parameters.apic_page.base, parameters.apic_page.physical},
                .msr_bitmap = {bitmap->base, bitmap->physical},
                .apic_access = apic_access_,
                .nested_root = parameters.nested_root,
                .nested_root_without_apic = root_without_apic_,
                .ept_accessed_dirty = false,
                .vpid = static_cast<u16>(1 + parameters.vm_number * 16 + parameters.vcpu_number),
                .guest_cr4_bits = parameters.cr4_mask,
                .xcr0_components = parameters.xcr0_supported,
                .extended_state = extended->base,
                .processor_signature = cpu::cpuid(1).eax,
                .physical_bits = static_cast<u8>(physical_address_bits()),
                .guarded = vmx_needs_guard(),
                .features = {.rdtscp = parameters.rdtscp, .invpcid = parameters.invpcid},
                .memory = parameters.memory});
        if (!backend) return std::unexpected(backend.error());
        const u64 compartment = cpu::read_cr3();
        if (auto prepared = (*backend)->prepare(host_state_of_this_core(compartment)); !prepared) {
            return std::unexpected(prepared.error());
        }
        constexpr u32 too_many_cr3_targets = 300;
        if (injected(Fault::vm_entry) && parameters.vm_number == 1) {
            (void)bulkhead_vmptrld(vmcs->physical.raw());
            vmcs::write(vmcs::cr3_target_count, too_many_cr3_targets);
            (void)bulkhead_vmclear(vmcs->physical.raw());
        }
        return *backend;
    }

  private:
    vmx::Capabilities capabilities_;
    // Of the VM that is being built.
    HostPhysical apic_access_{}, root_without_apic_{};
};

// The CR4 bits of features that not every processor has, by this processor's CPUID.
u64 physical_cr4_features() {
    const CpuidResult leaf1 = cpu::cpuid(1);
    const CpuidResult leaf7 = cpu::cpuid(0).eax >= 7 ? cpu::cpuid(7) : CpuidResult{};
    const auto if_set = [](u32 word, u32 feature, u64 bits) { return (word & feature) != 0 ? bits : 0; };
    return if_set(leaf1.ecx, cpuid::leaf1_ecx::pcid, cr4::pcide) |
           if_set(leaf7.ebx, cpuid::leaf7_ebx::fsgsbase, cr4::fsgsbase) |
           if_set(leaf7.ebx, cpuid::leaf7_ebx::smep, cr4::smep) |
           if_set(leaf7.ebx, cpuid::leaf7_ebx::smap, cr4::smap) |
           if_set(leaf7.ecx, cpuid::leaf7_ecx::umip, cr4::umip) |
           if_set(leaf7.ecx, cpuid::leaf7_ecx::la57, cr4::la57) |
           if_set(leaf7.ecx, cpuid::leaf7_ecx::pku, cr4::pke) |
           if_set(leaf7.ecx, cpuid::leaf7_ecx::cet_ss, cr4::cet);
}

class SvmFactory final : public BackendFactory {
  public:
    explicit SvmFactory(const svm::Capabilities& capabilities) : capabilities_(capabilities) {}

    const svm::Capabilities& capabilities() const { return capabilities_; }
    std::string_view name() const override { return "AMD-V"; }
    const PagingFormat& nested_format() const override { return npt_paging; }
    unsigned nested_max_level() const override { return capabilities_.page_1gb ? 3 : 2; }
    ApicAssist apic_assist() const override { return ApicAssist::none; }
    Result<> map_apic_access(NestedPageTable&, Arena&) override { return {}; }

    Result<VcpuBackend*> create(Arena& arena, const BackendParameters& parameters) override {
        auto vmcb = arena.allocate_pages(1);
        if (!vmcb) return std::unexpected(vmcb.error());
        auto io = arena.allocate_pages(3);
        if (!io) return std::unexpected(io.error());
        std::memset(io->base, 0xFF, 3 * page_size);
        auto msrs = arena.allocate_pages(2);
        if (!msrs) return std::unexpected(msrs.error());
        auto extended = arena.allocate_pages(1);
        if (!extended) return std::unexpected(extended.error());
        const u32 number = parameters.vm_number * 16u + parameters.vcpu_number;
        const u32 usable = capabilities_.asid_count - 1;
        const bool breaks = injected(Fault::vm_entry) && parameters.vm_number == 1;
        constexpr HostPhysical beyond_all_memory{low_mask(52) & ~low_mask(12)};
        auto backend = arena.create<svm::Backend>(
            svm::Backend::Parameters{.capabilities = capabilities_,
                                     .vmcb = reinterpret_cast<svm::Vmcb*>(vmcb->base),
                                     .vmcb_physical = vmcb->physical,
                                     .io_permissions = breaks ? beyond_all_memory : io->physical,
                                     .msr_permissions = msrs->base,
                                     .msr_permissions_physical = msrs->physical,
                                     .nested_root = parameters.nested_root,
                                     .extended_area = extended->base,
                                     .xcr0_supported = parameters.xcr0_supported,
                                     .tsc_aux = parameters.rdtscp,
                                     .asid = 1 + number % usable,
                                     .intercept_cr4 = (physical_cr4_features() & ~parameters.cr4_mask) != 0,
                                     .signature = cpu::cpuid(1).eax,
                                     .guarded = mitigations().at_world_switch()});
        if (!backend) return std::unexpected(backend.error());
        return *backend;
    }

  private:
    svm::Capabilities capabilities_;
};

std::optional<bool> wanted_virtual_interrupts;
Deferred<VmxFactory> vmx_factory;
Deferred<SvmFactory> svm_factory;

// A core's own memory for its extension: VT-x's VMXON region, or AMD-V's host save area and the page for what
// VMSAVE keeps of the host.
struct CorePages {
    HostPhysical first{}, second{};
};
PerCpu<CorePages> core_pages;

[[nodiscard]] Result<> take_pages(u32 core, unsigned count) {
    CorePages& pages = core_pages.of(core);
    for (HostPhysical* page : {&pages.first, &pages.second}) {
        if (count-- == 0) break;
        auto taken = take_page();
        if (!taken) return std::unexpected(taken.error());
        *page = *taken;
    }
    return {};
}

Result<> start_vmx_on_this_core(const vmx::Capabilities& capabilities) {
    // Not without: a guest's state would remain in force behind an exit.
    if (capabilities.cet_state && !protect_control_flow())
        return fail("HV-E046: it has no shadow stacks (CET), which core 0 has; update the firmware");
    const HostPhysical region = core_pages->first;
    return enable_vmx(capabilities, region, reinterpret_cast<u8*>(kernel_table_memory().access(region)));
}

Result<> start_svm_on_this_core() {
    return enable_svm(core_pages->first, core_pages->second);
}

// What VMs may use of this core's VT-x.
Result<vmx::Capabilities> usable_vmx() {
    auto capabilities = detect_vmx();
    if (capabilities && !wanted_virtual_interrupts.value_or(!capabilities->careless_virtual_interrupts))
        capabilities->virtual_interrupts = false;
    return capabilities;
}

Result<BackendFactory*> start_vmx() {
    auto capabilities = usable_vmx();
    if (!capabilities) return std::unexpected(capabilities.error());
    if (auto taken = take_pages(0, 1); !taken) return std::unexpected(taken.error());
    if (auto enabled = start_vmx_on_this_core(*capabilities); !enabled)
        return std::unexpected(enabled.error());
    return &vmx_factory.emplace(*capabilities);
}

Result<BackendFactory*> start_svm(void (*arm_timer)(u64 deadline), u64 (*timer_count)()) {
    auto capabilities = detect_svm();
    if (!capabilities) return std::unexpected(capabilities.error());
    if (auto taken = take_pages(0, 2); !taken) return std::unexpected(taken.error());
    set_svm_timer(arm_timer, timer_count);
    if (auto enabled = start_svm_on_this_core(); !enabled) return std::unexpected(enabled.error());
    return &svm_factory.emplace(*capabilities);
}

}  // namespace

Result<BackendFactory*> start_virtualization(std::optional<bool> virtual_interrupts,
                                             void (*arm_timer)(u64 deadline), u64 (*timer_count)()) {
    wanted_virtual_interrupts = virtual_interrupts;
    if ((cpu::cpuid(1).ecx & cpuid::leaf1_ecx::vmx) != 0) return start_vmx();
    const bool has_svm =
        cpu::cpuid(0x80000000).eax >= 0x80000001 && (cpu::cpuid(0x80000001).ecx & cpuid::ext1_ecx::svm) != 0;
    if (has_svm) return start_svm(arm_timer, timer_count);
    return fail(
        "HV-E200: the processor has neither VT-x (CPUID 1 ECX bit 5) nor AMD-V (CPUID 80000001h ECX bit 2), "
        "or the "
        "firmware hides it; enable virtualization in the firmware setup, or use a processor that has it");
}

Result<> prepare_virtualization_of(u32 core) {
    if (vmx_factory.ready()) return take_pages(core, 1);
    if (svm_factory.ready()) return take_pages(core, 2);
    return {};
}

// What one core can do, VMs rely on wherever they run.
Result<> start_virtualization_on_this_core() {
    if (vmx_factory.ready()) {
        auto capabilities = usable_vmx();
        if (!capabilities) return std::unexpected(capabilities.error());
        if (*capabilities != vmx_factory->capabilities())
            return fail("HV-E046: its VT-x differs from that of core 0; update the firmware");
        return start_vmx_on_this_core(*capabilities);
    }
    if (svm_factory.ready()) {
        auto capabilities = detect_svm();
        if (!capabilities) return std::unexpected(capabilities.error());
        if (*capabilities != svm_factory->capabilities())
            return fail("HV-E046: its AMD-V differs from that of core 0; update the firmware");
        return start_svm_on_this_core();
    }
    return {};
}

}  // namespace bulkhead
