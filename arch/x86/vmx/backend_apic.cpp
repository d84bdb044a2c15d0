// Backend: the local APIC, as far as hardware virtualises it. Intel SDM Vol. 3C, chapter 30 (June 2023
// edition).
#include "arch/x86/regs/apic.hpp"
#include "arch/x86/vmx/backend.hpp"
#include "arch/x86/vmx/control_bits.hpp"

namespace bulkhead::vmx {
namespace {

constexpr u32 apic_controls = secondary::virtualize_apic_accesses | secondary::virtualize_x2apic_mode |
                              secondary::apic_register_virtualization | secondary::virtual_interrupt_delivery;
constexpr u32 full_controls = secondary::apic_register_virtualization | secondary::virtual_interrupt_delivery;

}  // namespace

ApicAssist Backend::apic_assist() const {
    if ((primary_ & primary::use_tpr_shadow) == 0) return ApicAssist::none;
    return (secondary_ & full_controls) == full_controls ? ApicAssist::full : ApicAssist::tpr;
}

void Backend::set_apic_mode(ApicMode mode) {
    u32 controls = 0;
    // In both modes or in none: the VMM reckons with one kind of assistance.
    const bool full = capabilities_.full_xapic() && capabilities_.full_x2apic();
    if ((primary_ & primary::use_tpr_shadow) != 0) {
        const bool has_access_page = parameters_.apic_access != HostPhysical{};
        if (mode == ApicMode::xapic && capabilities_.apic_access && has_access_page) {
            controls = secondary::virtualize_apic_accesses | (full ? full_controls : 0);
        } else if (mode == ApicMode::x2apic && capabilities_.virtual_x2apic) {
            controls = secondary::virtualize_x2apic_mode | (full ? full_controls : 0);
        } else if (mode == ApicMode::moved) {
            // Its interrupts are delivered as ever; its registers are reached by EPT violations.
            controls = full ? full_controls : 0;
        }
    }
    // Elsewhere the page would be memory of the VM's, in place of a hole.
    const bool in_place = (controls & secondary::virtualize_apic_accesses) != 0 ||
                          parameters_.nested_root_without_apic == HostPhysical{};
    const HostPhysical root = in_place ? parameters_.nested_root : parameters_.nested_root_without_apic;
    if (root != nested_root_) {
        nested_root_ = root;
        vmcs::write(vmcs::ept_pointer, ept_pointer());
    }
    const u32 value = (secondary_ & ~apic_controls) | controls;
    if (value != secondary_) {
        secondary_ = value;
        vmcs::write(vmcs::secondary_controls, value);
        // Translations cached under the other setting of the control do not know of the APIC-access page.
        flush_translations();
    }
    set_x2apic_exits(msr_bitmap_, (controls & secondary::virtualize_x2apic_mode) != 0,
                     (controls & full_controls) != 0);
    if ((primary_ & primary::use_tpr_shadow) != 0) vmcs::write(vmcs::tpr_threshold, u32{0});
    if (capabilities_.virtual_interrupts) vmcs::write(vmcs::guest_interrupt_status, u16{0});
}

void Backend::set_virtual_interrupt(u8 requesting, u8 servicing) {
    if (!capabilities_.virtual_interrupts) return;
    vmcs::write(vmcs::guest_interrupt_status, static_cast<u16>(servicing << 8 | requesting));
}

void Backend::set_eoi_exit(Vector vector, bool exits) {
    if (!capabilities_.virtual_interrupts) return;
    const unsigned word = vector.raw() / 64;
    const u64 mask = bit(vector.raw() % 64);
    const u64 value = exits ? eoi_exits_[word] | mask : eoi_exits_[word] & ~mask;
    if (value == eoi_exits_[word]) return;
    eoi_exits_[word] = value;
    switch (word) {
        case 0: return vmcs::write(vmcs::eoi_exit_bitmap_0, value);
        case 1: return vmcs::write(vmcs::eoi_exit_bitmap_1, value);
        case 2: return vmcs::write(vmcs::eoi_exit_bitmap_2, value);
        default: return vmcs::write(vmcs::eoi_exit_bitmap_3, value);
    }
}

// A threshold above the TPR's class fails the entry where nothing but the shadow is in use, and means an exit
// at once: the class itself means the same one instruction later.
void Backend::set_tpr_threshold(u8 priority_class) {
    if ((primary_ & primary::use_tpr_shadow) == 0 || apic_assist() == ApicAssist::full) return;
    const u8 current = cr8();
    vmcs::write(vmcs::tpr_threshold, u32{priority_class < current ? priority_class : current});
}

u8 Backend::cr8() const {
    return parameters_.virtual_apic.host[apic::tpr] >> 4;
}

void Backend::set_cr8(u8 value) {
    parameters_.virtual_apic.host[apic::tpr] = static_cast<u8>((value & 0xF) << 4);
}

}  // namespace bulkhead::vmx
