// Backend: registers, modes and events.
#include "arch/x86/regs/control.hpp"
#include "arch/x86/vmx/backend.hpp"
#include "arch/x86/vmx/control_bits.hpp"
#include "arch/x86/vmx/events.hpp"
#include "arch/x86/vmx/guest_state.hpp"
#include "arch/x86/vmx/processor_access.hpp"

namespace bulkhead::vmx {

using namespace vmcs;

u64 Backend::read(Register which) const {
    switch (which) {
        case Register::rip: return vmcs::read(guest_rip);
        case Register::rflags: return vmcs::read(guest_rflags);
        case Register::cr0: return cr0_.guest_view(vmcs::read(guest_cr0), vmcs::read(cr0_read_shadow));
        case Register::cr2: return loaded_ ? bulkhead_vmx_read_cr2() : cr2_;
        case Register::cr3: return vmcs::read(guest_cr3);
        case Register::cr4: return cr4_.guest_view(vmcs::read(guest_cr4), vmcs::read(cr4_read_shadow));
        case Register::dr7: return vmcs::read(guest_dr7);
        case Register::efer: return vmcs::read(guest_efer);
        case Register::fs_base: return vmcs::read(guest_fs_base);
        case Register::gs_base: return vmcs::read(guest_gs_base);
        case Register::kernel_gs_base: return read_resident(0);
        case Register::star: return read_resident(1);
        case Register::lstar: return read_resident(2);
        case Register::cstar: return read_resident(3);
        case Register::sfmask: return read_resident(4);
        case Register::tsc_aux: return extended_.tsc_aux();
        case Register::sysenter_cs: return vmcs::read(guest_sysenter_cs);
        case Register::sysenter_esp: return vmcs::read(guest_sysenter_esp);
        case Register::sysenter_eip: return vmcs::read(guest_sysenter_eip);
        case Register::pat: return vmcs::read(guest_pat);
        case Register::debugctl: return vmcs::read(guest_debugctl);
        case Register::count: break;
    }
    return 0;
}

void Backend::write(Register which, u64 value) {
    switch (which) {
        case Register::rip: return vmcs::write(guest_rip, value);
        case Register::rflags: vmcs::write(guest_rflags, value); return match_pending_single_step();
        case Register::cr0: return write_cr0(value);
        case Register::cr2:
            cr2_ = value;
            if (loaded_) bulkhead_vmx_write_cr2(value);
            return;
        case Register::cr3: vmcs::write(guest_cr3, value); return update_mode();
        case Register::cr4: return write_cr4(value);
        case Register::dr7: return vmcs::write(guest_dr7, (value & 0xFFFFFFFF) | 0x400);
        case Register::efer: vmcs::write(guest_efer, value); return update_mode();
        case Register::fs_base: return vmcs::write(guest_fs_base, value);
        case Register::gs_base: return vmcs::write(guest_gs_base, value);
        case Register::kernel_gs_base: return write_resident(0, value);
        case Register::star: return write_resident(1, value);
        case Register::lstar: return write_resident(2, value);
        case Register::cstar: return write_resident(3, value);
        case Register::sfmask: return write_resident(4, value);
        case Register::tsc_aux: return extended_.set_tsc_aux(value & 0xFFFFFFFF);
        case Register::sysenter_cs: return vmcs::write(guest_sysenter_cs, static_cast<u32>(value));
        case Register::sysenter_esp: return vmcs::write(guest_sysenter_esp, value);
        case Register::sysenter_eip: return vmcs::write(guest_sysenter_eip, value);
        case Register::pat: return vmcs::write(guest_pat, value);
        case Register::debugctl: vmcs::write(guest_debugctl, value); return match_pending_single_step();
        case Register::count: return;
    }
}

void Backend::write_cr0(u64 value) {
    const u64 view = value | cr0::et;
    vmcs::write(guest_cr0, cr0_.hardware_value(view));
    vmcs::write(cr0_read_shadow, view);
    update_mode();
}

void Backend::write_cr4(u64 value) {
    vmcs::write(guest_cr4, cr4_.hardware_value(value));
    vmcs::write(cr4_read_shadow, value);
    update_mode();
}

// What follows from CR0, CR3, CR4 and EFER: EFER.LMA and the VM-entry control that must equal it, the PDPTEs,
// and that the TLB may hold what these registers no longer mean.
void Backend::update_mode() {
    const u64 control0 = vmcs::read(guest_cr0);
    const u64 efer_value = vmcs::read(guest_efer);
    const bool long_mode = (efer_value & efer::lme) != 0 && (control0 & cr0::pg) != 0;
    const u64 synchronised = long_mode ? efer_value | efer::lma : efer_value & ~efer::lma;
    if (synchronised != efer_value) vmcs::write(guest_efer, synchronised);
    const u32 entry = vmcs::read(vm_entry_controls);
    const u32 wanted = long_mode ? entry | vm_entry::ia32e_mode_guest : entry & ~vm_entry::ia32e_mode_guest;
    if (wanted != entry) vmcs::write(vm_entry_controls, wanted);
    if (long_mode) {
        // A task register from before may hold a 16-bit TSS, which VM entry refuses in IA-32e mode.
        const u32 rights = vmcs::read(guest_tr_access_rights);
        if ((rights & 0xF) == 3) vmcs::write(guest_tr_access_rights, (rights & ~0xFu) | 11);
    }
    static constexpr GuestMemory no_memory{};
    reload_pdptes(control0, vmcs::read(guest_cr3), vmcs::read(guest_cr4), synchronised,
                  parameters_.memory != nullptr ? *parameters_.memory : no_memory);
    flush_guest_translations();
}

Segment Backend::segment(SegmentName which) const {
    return read_segment(which);
}

void Backend::set_segment(SegmentName which, const Segment& value) {
    write_segment(which, value);
}

DescriptorTable Backend::gdtr() const {
    return {.base = vmcs::read(guest_gdtr_base), .limit = static_cast<u16>(vmcs::read(guest_gdtr_limit))};
}

DescriptorTable Backend::idtr() const {
    return {.base = vmcs::read(guest_idtr_base), .limit = static_cast<u16>(vmcs::read(guest_idtr_limit))};
}

void Backend::set_gdtr(const DescriptorTable& value) {
    vmcs::write(guest_gdtr_base, value.base);
    vmcs::write(guest_gdtr_limit, u32{value.limit});
}

void Backend::set_idtr(const DescriptorTable& value) {
    vmcs::write(guest_idtr_base, value.base);
    vmcs::write(guest_idtr_limit, u32{value.limit});
}

bool Backend::in_64_bit_code() const {
    constexpr u32 long_segment = bit<u32>(13);
    return (vmcs::read(guest_cs_access_rights) & long_segment) != 0 &&
           (vmcs::read(guest_efer) & efer::lma) != 0;
}

CodePlace Backend::code_place() const {
    return {.rip = vmcs::read(guest_rip),
            .cr3 = vmcs::read(guest_cr3),
            .long_mode = in_64_bit_code() && (vmcs::read(guest_cr4) & cr4::la57) == 0};
}

unsigned Backend::cpl() const {
    return static_cast<unsigned>(extract(vmcs::read(guest_ss_access_rights), 6, 5));
}

Interruptibility Backend::interruptibility() const {
    const u32 state = vmcs::read(guest_interruptibility);
    return {.sti_shadow = (state & interruptibility::blocking_by_sti) != 0,
            .mov_ss_shadow = (state & interruptibility::blocking_by_mov_ss) != 0,
            .nmi_blocked = (state & interruptibility::blocking_by_nmi) != 0};
}

// The two shadows exclude one another, and STI's needs RFLAGS.IF: what VM entry would refuse is not set.
void Backend::set_interruptibility(Interruptibility value) {
    const bool sti =
        value.sti_shadow && !value.mov_ss_shadow && (vmcs::read(guest_rflags) & rflags::if_) != 0;
    const u32 before = vmcs::read(guest_interruptibility);
    const u32 after = (sti ? interruptibility::blocking_by_sti : 0) |
                      (value.mov_ss_shadow ? interruptibility::blocking_by_mov_ss : 0) |
                      (value.nmi_blocked ? interruptibility::blocking_by_nmi : 0);
    if (after == before) return;
    vmcs::write(guest_interruptibility, after);
    match_pending_single_step();
}

// Under a STI or MOV SS shadow VM entry wants the pending single-step trap to say what RFLAGS.TF and
// DEBUGCTL.BTF say (SDM Vol. 3C, 27.3.1.5, June 2023 edition).
void Backend::match_pending_single_step() {
    if ((vmcs::read(guest_interruptibility) & interruptibility::shadows) == 0) return;
    constexpr u64 btf = bit(1);
    const bool stepping =
        (vmcs::read(guest_rflags) & rflags::tf) != 0 && (vmcs::read(guest_debugctl) & btf) == 0;
    const u64 others = vmcs::read(guest_pending_debug_exceptions) & ~debug_exception::single_step;
    vmcs::write(guest_pending_debug_exceptions, others | (stepping ? debug_exception::single_step : 0));
}

void Backend::inject(const Event& event) {
    const bool protected_mode = (vmcs::read(guest_cr0) & cr0::pe) != 0;
    const EntryEvent entry = encode_event(event, protected_mode, capabilities_.zero_length_injection);
    vmcs::write(vm_entry_interruption_information, entry.information);
    if ((entry.information & interruption::deliver_error_code) != 0) {
        vmcs::write(vm_entry_exception_error_code, entry.error_code);
    }
    if (interruption::type_of(entry.information) >= interruption::type_software_interrupt) {
        vmcs::write(vm_entry_instruction_length, entry.instruction_length);
    }
    if (event.type == Event::Type::nmi) {
        // Delivery sets the blocking again; entry wants it clear (SDM Vol. 3C, 27.3.1.5).
        const u32 state = vmcs::read(guest_interruptibility);
        if ((state & interruptibility::blocking_by_nmi) != 0) {
            vmcs::write(guest_interruptibility, state & ~interruptibility::blocking_by_nmi);
        }
    }
    if (event.fault_address.has_value()) write(Register::cr2, *event.fault_address);
    injection_pending_ = true;
}

void Backend::cancel_injection() {
    vmcs::write(vm_entry_interruption_information, u32{0});
    vmcs::write(guest_pending_debug_exceptions, u64{0});
    injection_pending_ = false;
}

void Backend::set_interrupt_window(bool wanted) {
    set_primary(primary::interrupt_window_exiting, wanted);
    if (halt_allowed_) choose_halt_exiting();
}

void Backend::set_nmi_window(bool wanted) {
    set_primary(primary::nmi_window_exiting, wanted);
}

// Not while an interrupt-window exit is asked for: Bochs 2.7 makes none out of HLT, and what waits for it
// would end the sleep at once anyway.
void Backend::choose_halt_exiting() {
    set_primary(primary::hlt_exiting, !halt_allowed_ || (primary_ & primary::interrupt_window_exiting) != 0);
}

void Backend::let_halt(bool allowed) {
    // A processor may force the control on, which is as good.
    halt_allowed_ = allowed && (capabilities_.primary.must_be_one & primary::hlt_exiting) == 0;
    choose_halt_exiting();
}

// Whether the sleep was one of IF = 0, too, is for the flags to say: RIP is behind the HLT.
bool Backend::take_halt() {
    if (!halt_allowed_ || vmcs::read(guest_activity) != activity::hlt) return false;
    vmcs::write(guest_activity, activity::active);
    return true;
}

void Backend::set_tsc_offset(u64 offset) {
    vmcs::write(tsc_offset, offset);
}

}  // namespace bulkhead::vmx
