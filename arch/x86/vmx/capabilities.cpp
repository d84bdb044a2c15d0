#include "arch/x86/vmx/capabilities.hpp"

#include <bit>
#include <span>

#include "arch/x86/regs/control.hpp"
#include "arch/x86/regs/msr.hpp"
#include "arch/x86/vmx/control_bits.hpp"

namespace bulkhead::vmx {
namespace {

constexpr unsigned basic_instruction_information = 54, basic_true_controls = 55;

// One control word: what no VM can do without, what is taken where the processor has it, and what must never
// be forced on. `wanted` here is what every VM gets; choices per VM come on top.
struct ControlWord {
    std::string_view msr;
    u32 required, wanted, forbidden;
};

constexpr ControlWord pin_word{
    "IA32_VMX_PINBASED_CTLS",
    pin_based::external_interrupt_exiting | pin_based::nmi_exiting | pin_based::virtual_nmis, 0,
    pin_based::process_posted_interrupts};
constexpr ControlWord primary_word{
    "IA32_VMX_PROCBASED_CTLS",
    primary::use_tsc_offsetting | primary::hlt_exiting | primary::mwait_exiting | primary::monitor_exiting |
        primary::rdpmc_exiting | primary::unconditional_io_exiting | primary::use_msr_bitmaps |
        primary::activate_secondary_controls | primary::interrupt_window_exiting |
        primary::nmi_window_exiting,
    0, primary::use_io_bitmaps | primary::monitor_trap_flag | primary::activate_tertiary_controls};
constexpr ControlWord secondary_word{
    "IA32_VMX_PROCBASED_CTLS2", secondary::enable_ept | secondary::unrestricted_guest,
    // WBINVD of a guest would empty the caches of all; ENCLS has to be #UD whatever the processor has.
    secondary::wbinvd_exiting | secondary::enable_encls_exiting,
    secondary::vmcs_shadowing | secondary::enable_vm_functions | secondary::ept_violation_ve};
constexpr ControlWord exit_word{"IA32_VMX_EXIT_CTLS",
                                vm_exit::save_debug_controls | vm_exit::host_address_space_size |
                                    vm_exit::save_pat | vm_exit::load_pat | vm_exit::save_efer |
                                    vm_exit::load_efer,
                                0, vm_exit::acknowledge_interrupt};
constexpr ControlWord entry_word{
    "IA32_VMX_ENTRY_CTLS",
    vm_entry::load_debug_controls | vm_entry::ia32e_mode_guest | vm_entry::load_pat | vm_entry::load_efer, 0,
    vm_entry::entry_to_smm | vm_entry::deactivate_dual_monitor};

// Required although the words start out without them: they are switched on and off as the guest runs.
constexpr u32 primary_dynamic = primary::interrupt_window_exiting | primary::nmi_window_exiting;
constexpr u32 entry_dynamic = vm_entry::ia32e_mode_guest;

struct Name {
    u32 bit;
    std::string_view name;
};
constexpr Name pin_names[] = {{pin_based::external_interrupt_exiting, "external-interrupt exiting"},
                              {pin_based::nmi_exiting, "NMI exiting"},
                              {pin_based::virtual_nmis, "virtual NMIs"}};
constexpr Name primary_names[] = {{primary::interrupt_window_exiting, "interrupt-window exiting"},
                                  {primary::use_tsc_offsetting, "TSC offsetting"},
                                  {primary::hlt_exiting, "HLT exiting"},
                                  {primary::mwait_exiting, "MWAIT exiting"},
                                  {primary::rdpmc_exiting, "RDPMC exiting"},
                                  {primary::nmi_window_exiting, "NMI-window exiting"},
                                  {primary::unconditional_io_exiting, "unconditional I/O exiting"},
                                  {primary::use_msr_bitmaps, "MSR bitmaps"},
                                  {primary::monitor_exiting, "MONITOR exiting"},
                                  {primary::activate_secondary_controls, "secondary controls"}};
constexpr Name secondary_names[] = {{secondary::enable_ept, "EPT"},
                                    {secondary::unrestricted_guest, "unrestricted guest"}};
constexpr Name exit_names[] = {{vm_exit::save_debug_controls, "saving of debug controls"},
                               {vm_exit::host_address_space_size, "64-bit hosts"},
                               {vm_exit::save_pat, "saving of IA32_PAT"},
                               {vm_exit::load_pat, "loading of IA32_PAT"},
                               {vm_exit::save_efer, "saving of IA32_EFER"},
                               {vm_exit::load_efer, "loading of IA32_EFER"}};
constexpr Name entry_names[] = {{vm_entry::load_debug_controls, "loading of debug controls"},
                                {vm_entry::ia32e_mode_guest, "IA-32e mode guests"},
                                {vm_entry::load_pat, "loading of IA32_PAT"},
                                {vm_entry::load_efer, "loading of IA32_EFER"}};

ControlRange range_of(u64 msr) {
    return {.must_be_one = static_cast<u32>(msr), .may_be_one = static_cast<u32>(msr >> 32)};
}

Result<> check(const ControlWord& word, ControlRange range, std::span<const Name> names) {
    for (const Name& name : names) {
        if ((word.required & name.bit) == 0 || range.allows(name.bit)) continue;
        return fail(
            "HV-E202: the processor lacks {} ({} bit {}); "
            "needs an Intel CPU with EPT and unrestricted guest: Westmere (2010) or later",
            name.name, word.msr, 32 + std::countr_zero(name.bit));
    }
    if (const u32 forced = range.must_be_one & word.forbidden; forced != 0) {
        return fail(
            "HV-E203: the processor forces controls {:#x} of {} to 1, which this hypervisor cannot use",
            forced, word.msr);
    }
    return {};
}

u32 merge(const ControlWord& word, ControlRange range, u32 dynamic, u32 chosen) {
    return (word.required & ~dynamic) | ((word.wanted | chosen) & range.may_be_one) | range.must_be_one;
}

}  // namespace

CapabilityMsrs read_capability_msrs(u64 (*rdmsr)(u32 index)) {
    CapabilityMsrs result;
    result.basic = rdmsr(msr::vmx_basic.raw());
    const bool true_controls = has_bit(result.basic, basic_true_controls);
    const auto pick = [&](MsrIndex old, MsrIndex exact) {
        return rdmsr((true_controls ? exact : old).raw());
    };
    result.pinbased = pick(msr::vmx_pinbased_ctls, msr::vmx_true_pinbased_ctls);
    result.procbased = pick(msr::vmx_procbased_ctls, msr::vmx_true_procbased_ctls);
    result.exit = pick(msr::vmx_exit_ctls, msr::vmx_true_exit_ctls);
    result.entry = pick(msr::vmx_entry_ctls, msr::vmx_true_entry_ctls);
    result.misc = rdmsr(msr::vmx_misc.raw());
    result.cr0_fixed0 = rdmsr(msr::vmx_cr0_fixed0.raw());
    result.cr0_fixed1 = rdmsr(msr::vmx_cr0_fixed1.raw());
    result.cr4_fixed0 = rdmsr(msr::vmx_cr4_fixed0.raw());
    result.cr4_fixed1 = rdmsr(msr::vmx_cr4_fixed1.raw());
    if (range_of(result.procbased).allows(primary::activate_secondary_controls)) {
        result.procbased2 = rdmsr(msr::vmx_procbased_ctls2.raw());
    }
    const u32 secondary_allowed = range_of(result.procbased2).may_be_one;
    if ((secondary_allowed & (secondary::enable_ept | secondary::enable_vpid)) != 0) {
        result.ept_vpid = rdmsr(msr::vmx_ept_vpid_cap.raw());
    }
    return result;
}

Result<Capabilities> decide_capabilities(const CapabilityMsrs& msrs) {
    Capabilities c;
    c.pin = range_of(msrs.pinbased);
    c.primary = range_of(msrs.procbased);
    c.secondary = range_of(msrs.procbased2);
    c.exit = range_of(msrs.exit);
    c.entry = range_of(msrs.entry);
    // The processor's age shows first in the secondary controls: name these before anything else.
    if (auto r = check(primary_word, c.primary, primary_names); !r) return std::unexpected(r.error());
    if (auto r = check(secondary_word, c.secondary, secondary_names); !r) return std::unexpected(r.error());
    if (auto r = check(pin_word, c.pin, pin_names); !r) return std::unexpected(r.error());
    if (auto r = check(exit_word, c.exit, exit_names); !r) return std::unexpected(r.error());
    if (auto r = check(entry_word, c.entry, entry_names); !r) return std::unexpected(r.error());

    // Every processor with unrestricted guest has it. The local APIC's timer would do for guests
    // that let interrupts exit, at the price of two MSR writes an entry.
    c.preemption_timer = c.pin.allows(pin_based::preemption_timer);
    if (!c.preemption_timer)
        return fail(
            "HV-E202: the processor lacks the VMX-preemption timer (pin-based controls bit 38), "
            "without which a guest could keep its core for ever");

    c.revision = static_cast<u32>(extract(msrs.basic, 30, 0));
    const u64 vmcs_size = extract(msrs.basic, 44, 32);
    if (vmcs_size == 0 || vmcs_size > page_size) {
        return fail("HV-E204: IA32_VMX_BASIC gives a VMCS size of {} bytes; expected 1 to 4096", vmcs_size);
    }
    if (extract(msrs.basic, 53, 50) != 6) {
        return fail(
            "HV-E204: IA32_VMX_BASIC wants memory type {} for VMCS regions; only write-back (6) is supported",
            extract(msrs.basic, 53, 50));
    }
    if (has_bit(msrs.basic, 48)) {
        return fail(
            "HV-E204: the processor limits VMX structures to 32-bit addresses; needs an Intel 64 CPU");
    }
    c.instruction_information = has_bit(msrs.basic, basic_instruction_information);
    c.preemption_timer_shift = static_cast<u8>(extract(msrs.misc, 4, 0));
    c.cr3_targets = static_cast<u8>(extract(msrs.misc, 24, 16));
    c.zero_length_injection = has_bit(msrs.misc, 30);
    if (!has_bit(msrs.misc, 5)) {
        return fail(
            "HV-E202: the processor does not track IA-32e mode of the guest (IA32_VMX_MISC bit 5); "
            "needs an Intel CPU with unrestricted guest");
    }

    c.cr0_fixed0 = msrs.cr0_fixed0;
    c.cr0_fixed1 = msrs.cr0_fixed1;
    c.cr4_fixed0 = msrs.cr4_fixed0;
    c.cr4_fixed1 = msrs.cr4_fixed1;
    if ((c.cr4_fixed1 & (cr4::vmxe | cr4::mce | cr4::pae)) != (cr4::vmxe | cr4::mce | cr4::pae) ||
        (c.cr0_fixed0 & ~c.cr0_fixed1) != 0 || (c.cr4_fixed0 & ~c.cr4_fixed1) != 0) {
        return fail(
            "HV-E205: the fixed bits of CR0 or CR4 in VMX operation contradict themselves "
            "or forbid VMXE, MCE or PAE (CR4 {:#x}/{:#x})",
            c.cr4_fixed0, c.cr4_fixed1);
    }

    const u64 ept = msrs.ept_vpid;
    if (!has_bit(ept, 6) || !has_bit(ept, 14)) {
        return fail(
            "HV-E202: the processor's EPT lacks four-level tables or write-back memory "
            "(IA32_VMX_EPT_VPID_CAP bits 6, 14: {:#x})",
            ept);
    }
    c.ept_execute_only = has_bit(ept, 0);
    c.ept_2m = has_bit(ept, 16);
    c.ept_1g = has_bit(ept, 17);
    c.ept_accessed_dirty = has_bit(ept, 21);
    c.invept_single = has_bit(ept, 20) && has_bit(ept, 25);
    c.invept_all = has_bit(ept, 20) && has_bit(ept, 26);
    if (!c.invept_single && !c.invept_all) {
        return fail("HV-E202: the processor lacks INVEPT (IA32_VMX_EPT_VPID_CAP bits 20, 25, 26: {:#x})",
                    ept);
    }
    c.invvpid_single = has_bit(ept, 32) && has_bit(ept, 41);
    c.invvpid_all = has_bit(ept, 32) && has_bit(ept, 42);

    const auto has2 = [&](u32 control) { return c.secondary.allows(control); };
    // A VPID that cannot be flushed is worse than none.
    c.vpid = has2(secondary::enable_vpid) && (c.invvpid_single || c.invvpid_all);
    c.tpr_shadow = c.primary.allows(primary::use_tpr_shadow);
    c.apic_access = c.tpr_shadow && has2(secondary::virtualize_apic_accesses);
    c.virtual_x2apic = c.tpr_shadow && has2(secondary::virtualize_x2apic_mode);
    c.apic_register = c.tpr_shadow && has2(secondary::apic_register_virtualization);
    c.virtual_interrupts = c.tpr_shadow && has2(secondary::virtual_interrupt_delivery);
    // Bochs 2.7 does so, which has this VMCS revision and size. No processor's errata are known to say it.
    constexpr u32 bochs_revision = 0x2B;
    c.careless_virtual_interrupts = c.revision == bochs_revision && vmcs_size == page_size;
    c.pml = has2(secondary::enable_pml);
    c.xsaves = has2(secondary::enable_xsaves);
    c.invpcid = has2(secondary::enable_invpcid);
    c.rdtscp = has2(secondary::enable_rdtscp);
    c.tsc_scaling = has2(secondary::use_tsc_scaling);
    c.pause_loop = has2(secondary::pause_loop_exiting);
    c.cet_state = c.exit.allows(vm_exit::load_cet_state) && c.entry.allows(vm_entry::load_cet_state);
    return c;
}

Controls make_controls(const Capabilities& c, const FeatureChoice& choice) {
    const bool tpr_shadow = c.tpr_shadow && choice.apic_virtualization;
    const u32 chosen_primary =
        tpr_shadow ? primary::use_tpr_shadow : primary::cr8_load_exiting | primary::cr8_store_exiting;
    const auto when = [](bool condition, u32 control) { return condition ? control : 0; };
    const u32 chosen_secondary = when(c.vpid && choice.vpid, secondary::enable_vpid) |
                                 when(choice.pause_loop_exiting, secondary::pause_loop_exiting) |
                                 when(choice.rdtscp, secondary::enable_rdtscp) |
                                 when(choice.invpcid, secondary::enable_invpcid) |
                                 when(choice.xsaves, secondary::enable_xsaves);
    return {.pin = merge(pin_word, c.pin, 0, 0),
            .primary = merge(primary_word, c.primary, primary_dynamic, chosen_primary),
            .secondary = merge(secondary_word, c.secondary, 0, chosen_secondary),
            .exit = merge(exit_word, c.exit, 0, when(c.cet_state, vm_exit::load_cet_state)),
            .entry = merge(entry_word, c.entry, entry_dynamic, when(c.cet_state, vm_entry::load_cet_state))};
}

}  // namespace bulkhead::vmx
