#include "arch/x86/vmx/backend.hpp"

#include <cstring>

#include "arch/x86/regs/control.hpp"
#include "arch/x86/regs/msr.hpp"
#include "arch/x86/vmx/control_bits.hpp"
#include "arch/x86/vmx/entry_checks.hpp"
#include "arch/x86/vmx/exit_decode.hpp"
#include "arch/x86/vmx/guest_state.hpp"
#include "arch/x86/vmx/processor_access.hpp"

namespace bulkhead::vmx {
namespace {

// #DB and #AC could otherwise be raised by their own delivery without end and without an instruction boundary
// at which the host gets the core back (CVE-2015-5307, CVE-2015-8104). #MC is the host's.
constexpr u32 intercepted_exceptions = bit<u32>(1) | bit<u32>(17) | bit<u32>(18);

}  // namespace

Backend::Backend(const Capabilities& capabilities, const VcpuParameters& parameters)
    : capabilities_(capabilities),
      parameters_(parameters),
      enter_(parameters.guarded ? bulkhead_vmx_enter_guarded : bulkhead_vmx_enter),
      has_timer_(capabilities.preemption_timer && parameters.features.preemption_timer),
      timer_shift_(capabilities.preemption_timer_shift),
      cr0_(cr0_ownership(capabilities)),
      cr4_(cr4_ownership(capabilities, parameters.guest_cr4_bits)),
      msr_bitmap_(parameters.msr_bitmap.host),
      extended_(parameters.extended_state, parameters.xcr0_components,
                capabilities.rdtscp && parameters.features.rdtscp) {}

Result<> Backend::prepare(const HostState& host) {
    std::memset(parameters_.vmcs.host, 0, page_size);
    std::memcpy(parameters_.vmcs.host, &capabilities_.revision, sizeof capabilities_.revision);
    const u64 address = parameters_.vmcs.physical.raw();
    VmxResult result = bulkhead_vmclear(address);
    if (result == VmxResult::succeed) result = bulkhead_vmptrld(address);
    if (result != VmxResult::succeed) {
        return fail("HV-E207: the VMCS at {:#x} cannot be made current: {}; the VM cannot run on this core",
                    address, explain_vmx_failure(result));
    }
    compartment_cr3_ = host.cr3;
    core_ = bulkhead_vmx_core();
    flush_pending_ = false;
    Result<> outcome = write_host_state(host, capabilities_.cet_state);
    if (outcome) outcome = write_controls();
    if (outcome) {
        flush_guest_translations();  // a VM before this one may have had the VPID and the nested root
        flush_nested_translations();
        reset();
    }
    (void)bulkhead_vmclear(address);
    launched_ = false;
    return outcome;
}

bool Backend::uses_vpid() const {
    return (secondary_ & secondary::enable_vpid) != 0;
}

u64 Backend::ept_pointer_to(HostPhysical root) const {
    constexpr u64 write_back = 6, four_levels = 3u << 3, accessed_dirty = bit(6);
    const bool flags = parameters_.ept_accessed_dirty && capabilities_.ept_accessed_dirty;
    return root.raw() | write_back | four_levels | (flags ? accessed_dirty : 0);
}

Result<> Backend::write_controls() {
    const Controls controls = make_controls(capabilities_, parameters_.features);
    pin_ = controls.pin;
    primary_ = controls.primary;
    secondary_ = controls.secondary;
    nested_root_ = parameters_.nested_root;

    using namespace vmcs;
    Result<> result;
    const auto set = [&](const auto& field, auto value) {
        if (result) result = write_checked(field, value);
    };
    set(pin_based_controls, controls.pin);
    set(primary_controls, controls.primary);
    set(secondary_controls, controls.secondary);
    set(vm_exit_controls, controls.exit);
    set(vm_entry_controls, controls.entry);
    set(exception_bitmap, intercepted_exceptions);
    set(page_fault_error_code_mask, u32{0});
    set(page_fault_error_code_match, u32{0});
    set(cr3_target_count, u32{0});
    set(vm_exit_msr_store_count, u32{0});
    set(vm_exit_msr_load_count, u32{0});
    set(vm_entry_msr_load_count, u32{0});
    set(vm_entry_exception_error_code, u32{0});
    set(vm_entry_instruction_length, u32{0});
    set(cr0_guest_host_mask, cr0_.host_owned);
    set(cr4_guest_host_mask, cr4_.host_owned);
    set(tsc_offset, u64{0});
    set(vmcs::ept_pointer, ept_pointer());
    if (uses_vpid()) set(virtual_processor_identifier, parameters_.vpid);
    if ((primary_ & primary::use_tpr_shadow) != 0) {
        set(virtual_apic_address, parameters_.virtual_apic.physical);
        set(vmcs::tpr_threshold, u32{0});
    }
    if (capabilities_.apic_access) set(apic_access_address, parameters_.apic_access);
    if (capabilities_.virtual_interrupts) {
        for (const auto& bitmap :
             {eoi_exit_bitmap_0, eoi_exit_bitmap_1, eoi_exit_bitmap_2, eoi_exit_bitmap_3}) {
            set(bitmap, u64{0});
        }
        set(guest_interrupt_status, u16{0});
    }
    if ((secondary_ & secondary::enable_xsaves) != 0) set(xss_exiting_bitmap, u64{0});
    if ((secondary_ & secondary::enable_encls_exiting) != 0) set(encls_exiting_bitmap, ~u64{0});
    if ((secondary_ & secondary::pause_loop_exiting) != 0) {
        set(ple_gap, u32{128});
        set(ple_window, u32{4096});
    }

    if (capabilities_.cet_state) {
        // Nothing is on, and the guest cannot change it.
        set(guest_s_cet, u64{0});
        set(guest_ssp, u64{0});
        set(guest_interrupt_ssp_table, u64{0});
    }

    msr_bitmap_.intercept_all();
    pass_through_guest_msrs(msr_bitmap_, (secondary_ & secondary::enable_rdtscp) != 0);
    set(msr_bitmaps, parameters_.msr_bitmap.physical);
    return result;
}

void Backend::set_primary(u32 control, bool on) {
    const u32 value = on ? primary_ | control : primary_ & ~control;
    if (value == primary_) return;
    primary_ = value;
    vmcs::write(vmcs::primary_controls, value);
}

void Backend::flush_guest_translations() {
    if (!uses_vpid()) return;  // every entry and exit flushes
    const InvalidateDescriptor descriptor{.first = parameters_.vpid, .second = 0};
    (void)bulkhead_invvpid(
        capabilities_.invvpid_single ? InvvpidType::single_context : InvvpidType::all_contexts, &descriptor);
}

void Backend::flush_translations() {
    if (loaded_) {
        flush_nested_translations();
    } else {
        flush_pending_ = true;
    }
}

void Backend::flush_nested_translations() {
    for (const HostPhysical root : {parameters_.nested_root, parameters_.nested_root_without_apic}) {
        if (root == HostPhysical{}) continue;
        const InvalidateDescriptor descriptor{.first = ept_pointer_to(root), .second = 0};
        (void)bulkhead_invept(
            capabilities_.invept_single ? InveptType::single_context : InveptType::all_contexts, &descriptor);
    }
}

void Backend::reset() {
    write_reset_state(cr0_, cr4_);
    injection_pending_ = false;
    gprs = {};
    gprs.rdx = parameters_.processor_signature;
    set_interrupt_window(false);
    set_nmi_window(false);
    set_apic_mode(ApicMode::disabled);
    for (unsigned i = 0; i < 256; i += 64) eoi_exits_[i / 64] = 0;
    if (capabilities_.virtual_interrupts) {
        for (const auto& bitmap : {vmcs::eoi_exit_bitmap_0, vmcs::eoi_exit_bitmap_1, vmcs::eoi_exit_bitmap_2,
                                   vmcs::eoi_exit_bitmap_3}) {
            vmcs::write(bitmap, u64{0});
        }
    }
    for (usize i = 0; i < resident_msr_count; ++i) write_resident(i, 0);
    write(Register::cr2, 0);
    extended_.reset();
    flush_guest_translations();
}

void Backend::explain(Sink& sink) const {
    using namespace vmcs;
    // First what is wrong: whoever keeps this text may have little room for it.
    print_entry_violations({.capabilities = capabilities_,
                            .physical_bits = parameters_.physical_bits,
                            .virtual_tpr = static_cast<u8>(cr8() << 4)},
                           sink);
    const u32 reason = vmcs::read(exit_reason);
    print(sink, "exit reason {:#x}, qualification {:#x}; last VM-instruction error {}: {}\n", reason,
          vmcs::read(exit_qualification), vmcs::read(vm_instruction_error),
          vm_instruction_error_name(vmcs::read(vm_instruction_error)));
    const u32 number = reason & 0xFFFF;
    if (number == basic_exit_reason::ept_misconfiguration || number == basic_exit_reason::ept_violation) {
        print(sink, "guest-physical address {}\n", vmcs::read(guest_physical_address));
    }
    print(sink, "RIP {:#x} RFLAGS {:#x} CR0 {:#x} CR3 {:#x} CR4 {:#x} EFER {:#x}\n", vmcs::read(guest_rip),
          vmcs::read(guest_rflags), vmcs::read(guest_cr0), vmcs::read(guest_cr3), vmcs::read(guest_cr4),
          vmcs::read(guest_efer));
}

}  // namespace bulkhead::vmx
