#include "arch/x86/vmx/guest_state.hpp"

#include <initializer_list>

#include "arch/x86/regs/control.hpp"
#include "arch/x86/vmx/control_bits.hpp"
#include "arch/x86/vmx/vmcs_access.hpp"

namespace bulkhead::vmx {
namespace {

struct SegmentFields {
    vmcs::ReadWrite<u16> selector;
    vmcs::ReadWrite<u64> base;
    vmcs::ReadWrite<u32> limit;
    vmcs::ReadWrite<u32> access_rights;
};

#define BULKHEAD_SEGMENT(name)                                                                \
    SegmentFields {                                                                           \
        vmcs::guest_##name##_selector, vmcs::guest_##name##_base, vmcs::guest_##name##_limit, \
            vmcs::guest_##name##_access_rights                                                \
    }
// In the order of SegmentName.
constexpr SegmentFields segment_fields[] = {
    BULKHEAD_SEGMENT(es), BULKHEAD_SEGMENT(cs), BULKHEAD_SEGMENT(ss),   BULKHEAD_SEGMENT(ds),
    BULKHEAD_SEGMENT(fs), BULKHEAD_SEGMENT(gs), BULKHEAD_SEGMENT(ldtr), BULKHEAD_SEGMENT(tr)};
#undef BULKHEAD_SEGMENT

const SegmentFields& fields_of(SegmentName which) {
    return segment_fields[static_cast<u8>(which) & 7];
}

}  // namespace

Segment read_segment(SegmentName which) {
    const SegmentFields& fields = fields_of(which);
    const u32 rights = vmcs::read(fields.access_rights);
    return {.selector = vmcs::read(fields.selector),
            .base = vmcs::read(fields.base),
            .limit = vmcs::read(fields.limit),
            .access = access_of_rights(rights),
            .unusable = (rights & access_rights::unusable) != 0};
}

void write_segment(SegmentName which, const Segment& value) {
    const SegmentFields& fields = fields_of(which);
    vmcs::write(fields.selector, value.selector);
    vmcs::write(fields.base, value.base);
    vmcs::write(fields.limit, value.limit);
    vmcs::write(fields.access_rights, to_access_rights(value));
}

void write_reset_state(const ControlRegisterOwnership& cr0_split, const ControlRegisterOwnership& cr4_split) {
    constexpr Segment data{.selector = 0, .base = 0, .limit = 0xFFFF, .access = 0x93};
    constexpr Segment code{.selector = 0xF000, .base = 0xFFFF0000, .limit = 0xFFFF, .access = 0x93};
    constexpr Segment ldt{.selector = 0, .base = 0, .limit = 0xFFFF, .access = 0x82};
    constexpr Segment tss{.selector = 0, .base = 0, .limit = 0xFFFF, .access = 0x8B};
    for (SegmentName name :
         {SegmentName::es, SegmentName::ss, SegmentName::ds, SegmentName::fs, SegmentName::gs}) {
        write_segment(name, data);
    }
    write_segment(SegmentName::cs, code);
    write_segment(SegmentName::ldtr, ldt);
    write_segment(SegmentName::tr, tss);

    constexpr u64 reset_cr0 = cr0::et | cr0::nw | cr0::cd;
    constexpr u64 reset_pat = 0x0007040600070406;
    using namespace vmcs;
    write(guest_cr0, cr0_split.hardware_value(reset_cr0));
    write(cr0_read_shadow, reset_cr0);
    write(guest_cr3, u64{0});
    write(guest_cr4, cr4_split.hardware_value(0));
    write(cr4_read_shadow, u64{0});
    write(guest_gdtr_base, u64{0});
    write(guest_gdtr_limit, u32{0xFFFF});
    write(guest_idtr_base, u64{0});
    write(guest_idtr_limit, u32{0xFFFF});
    write(guest_dr7, u64{0x400});
    write(guest_rsp, u64{0});
    write(guest_rip, u64{0xFFF0});
    write(guest_rflags, rflags::reserved_one);
    write(guest_pending_debug_exceptions, u64{0});
    write(guest_sysenter_cs, u32{0});
    write(guest_sysenter_esp, u64{0});
    write(guest_sysenter_eip, u64{0});
    write(guest_debugctl, u64{0});
    write(guest_pat, reset_pat);
    write(guest_efer, u64{0});
    for (const auto& pdpte : {guest_pdpte0, guest_pdpte1, guest_pdpte2, guest_pdpte3}) write(pdpte, u64{0});
    write(guest_interruptibility, u32{0});
    write(guest_activity, activity::active);
    write(guest_smbase, u32{0});
    write(vmcs_link_pointer, ~u64{0});
    write(vm_entry_controls, read(vm_entry_controls) & ~vm_entry::ia32e_mode_guest);
    write(vm_entry_interruption_information, u32{0});
}

void reload_pdptes(u64 cr0_value, u64 cr3, u64 cr4_value, u64 efer_value, const GuestMemory& memory) {
    const bool pae_paging =
        (cr0_value & cr0::pg) != 0 && (cr4_value & cr4::pae) != 0 && (efer_value & efer::lma) == 0;
    if (!pae_paging) return;
    // Reserved in a present PDPTE: bits 2:1, 8:5, and above the widest physical address there is.
    constexpr u64 reserved = 0xFFF0'0000'0000'01E6;
    u64 entries[4] = {};
    const GuestPhysical table(cr3 & 0xFFFF'FFE0);
    if (!memory.read(table, {reinterpret_cast<u8*>(entries), sizeof entries})) {
        for (u64& entry : entries) entry = 0;
    }
    const vmcs::ReadWrite<u64>* fields[] = {&vmcs::guest_pdpte0, &vmcs::guest_pdpte1, &vmcs::guest_pdpte2,
                                            &vmcs::guest_pdpte3};
    for (unsigned i = 0; i < 4; ++i) {
        vmcs::write(*fields[i], (entries[i] & reserved) != 0 ? u64{0} : entries[i]);
    }
}

}  // namespace bulkhead::vmx
