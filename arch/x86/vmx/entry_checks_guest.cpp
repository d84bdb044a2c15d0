#include <initializer_list>

#include "arch/x86/regs/control.hpp"
#include "arch/x86/vmx/control_bits.hpp"
#include "arch/x86/vmx/entry_check_rules.hpp"

namespace bulkhead::vmx {
namespace {

// What several of the checks depend on.
struct Guest {
    u64 cr0 = vmcs::read(vmcs::guest_cr0);
    u64 cr4 = vmcs::read(vmcs::guest_cr4);
    u64 flags = vmcs::read(vmcs::guest_rflags);
    u32 entry = vmcs::read(vmcs::vm_entry_controls);
    u32 pin = vmcs::read(vmcs::pin_based_controls);
    u32 secondary = (vmcs::read(vmcs::primary_controls) & primary::activate_secondary_controls) != 0
                        ? vmcs::read(vmcs::secondary_controls)
                        : 0;
    u32 event = vmcs::read(vmcs::vm_entry_interruption_information);

    [[nodiscard]] bool long_mode() const { return (entry & vm_entry::ia32e_mode_guest) != 0; }
    [[nodiscard]] bool unrestricted() const { return (secondary & secondary::unrestricted_guest) != 0; }
    [[nodiscard]] bool paging() const { return (cr0 & cr0::pg) != 0; }
    [[nodiscard]] bool virtual_8086() const { return (flags & rflags::vm) != 0; }
    [[nodiscard]] bool injects(u32 type) const {
        return (event & interruption::valid) != 0 && interruption::type_of(event) == type;
    }
};

struct SegmentRefs {
    vmcs::ReadWrite<u16> selector;
    vmcs::ReadWrite<u64> base;
    vmcs::ReadWrite<u32> limit;
    vmcs::ReadWrite<u32> rights;

    [[nodiscard]] bool usable() const { return (vmcs::read(rights) & access_rights::unusable) == 0; }
    [[nodiscard]] u32 type() const { return vmcs::read(rights) & 0xF; }
    [[nodiscard]] u32 dpl() const { return static_cast<u32>(extract(vmcs::read(rights), 6, 5)); }
};

constexpr SegmentRefs es{vmcs::guest_es_selector, vmcs::guest_es_base, vmcs::guest_es_limit,
                         vmcs::guest_es_access_rights};
constexpr SegmentRefs cs{vmcs::guest_cs_selector, vmcs::guest_cs_base, vmcs::guest_cs_limit,
                         vmcs::guest_cs_access_rights};
constexpr SegmentRefs ss{vmcs::guest_ss_selector, vmcs::guest_ss_base, vmcs::guest_ss_limit,
                         vmcs::guest_ss_access_rights};
constexpr SegmentRefs ds{vmcs::guest_ds_selector, vmcs::guest_ds_base, vmcs::guest_ds_limit,
                         vmcs::guest_ds_access_rights};
constexpr SegmentRefs fs{vmcs::guest_fs_selector, vmcs::guest_fs_base, vmcs::guest_fs_limit,
                         vmcs::guest_fs_access_rights};
constexpr SegmentRefs gs{vmcs::guest_gs_selector, vmcs::guest_gs_base, vmcs::guest_gs_limit,
                         vmcs::guest_gs_access_rights};
constexpr SegmentRefs ldtr{vmcs::guest_ldtr_selector, vmcs::guest_ldtr_base, vmcs::guest_ldtr_limit,
                           vmcs::guest_ldtr_access_rights};
constexpr SegmentRefs tr{vmcs::guest_tr_selector, vmcs::guest_tr_base, vmcs::guest_tr_limit,
                         vmcs::guest_tr_access_rights};

// 27.3.1.1
void check_registers(EntryRules& rules, const Guest& guest, const Capabilities& c) {
    using namespace vmcs;
    const u64 free = guest.unrestricted() ? cr0::pe | cr0::pg : 0;
    rules.require_fixed(guest_cr0, c.cr0_fixed0 & ~free, c.cr0_fixed1);
    rules.require(!guest.paging() || (guest.cr0 & cr0::pe) != 0, guest_cr0, "PG needs PE");
    rules.require_fixed(guest_cr4, c.cr4_fixed0, c.cr4_fixed1);
    if ((guest.entry & vm_entry::load_debug_controls) != 0) {
        rules.require((read(guest_debugctl) & ~u64{0xFFC7}) == 0, guest_debugctl, "reserved bits must be 0");
        rules.require((read(guest_dr7) >> 32) == 0, guest_dr7, "bits 63:32 must be 0");
    }
    if (guest.long_mode()) {
        rules.require(guest.paging(), guest_cr0, "an IA-32e mode guest needs PG");
        rules.require((guest.cr4 & cr4::pae) != 0, guest_cr4, "an IA-32e mode guest needs PAE");
    } else {
        rules.require((guest.cr4 & cr4::pcide) == 0, guest_cr4, "PCIDE needs an IA-32e mode guest");
    }
    rules.require(rules.is_physical(read(guest_cr3)), guest_cr3, "must be within the physical-address width");
    rules.require_canonical(guest_sysenter_esp);
    rules.require_canonical(guest_sysenter_eip);
    if ((guest.entry & vm_entry::load_pat) != 0) rules.require_pat(guest_pat);
    if ((guest.entry & vm_entry::load_efer) != 0) {
        constexpr u64 defined = efer::sce | efer::lme | efer::lma | efer::nxe;
        const u64 value = read(guest_efer);
        const bool lma = (value & efer::lma) != 0, lme = (value & efer::lme) != 0;
        rules.require((value & ~defined) == 0, guest_efer, "reserved bits must be 0");
        rules.require(lma == guest.long_mode(), guest_efer,
                      "LMA must equal the control \"IA-32e mode guest\"");
        rules.require(!guest.paging() || lma == lme, guest_efer, "LMA must equal LME when CR0.PG is 1");
    }
}

void check_granularity(EntryRules& rules, const SegmentRefs& segment) {
    const u32 rights = vmcs::read(segment.rights), limit = vmcs::read(segment.limit);
    const bool granular = has_bit(rights, 15);
    rules.require((limit & 0xFFF) == 0xFFF || !granular, segment.rights,
                  "G must be 0 where some bit of limit 11:0 is 0");
    rules.require((limit & 0xFFF0'0000) == 0 || granular, segment.rights,
                  "G must be 1 where some bit of limit 31:20 is 1");
    rules.require((rights & 0xFFFE'0F00) == 0, segment.rights, "bits 11:8 and 31:17 must be 0");
    rules.require(has_bit(rights, 7), segment.rights, "P must be 1");
}

void check_virtual_8086_segments(EntryRules& rules) {
    for (const SegmentRefs& segment : {cs, ss, ds, es, fs, gs}) {
        rules.require(vmcs::read(segment.base) == u64{vmcs::read(segment.selector)} << 4, segment.base,
                      "must be the selector times 16 in virtual-8086 mode");
        rules.require(vmcs::read(segment.limit) == 0xFFFF, segment.limit,
                      "must be FFFFh in virtual-8086 mode");
        rules.require(vmcs::read(segment.rights) == 0xF3, segment.rights, "must be F3h in virtual-8086 mode");
    }
}

void check_code_segment(EntryRules& rules, const Guest& guest) {
    const u32 type = cs.type();
    const bool code = type == 9 || type == 11 || type == 13 || type == 15;
    rules.require(code || (type == 3 && guest.unrestricted()), cs.rights,
                  "the type must be 9, 11, 13, 15 (or 3 for an unrestricted guest)");
    if (type == 3) rules.require(cs.dpl() == 0, cs.rights, "DPL must be 0 with type 3");
    if (type == 9 || type == 11) {
        rules.require(cs.dpl() == ss.dpl(), cs.rights,
                      "DPL of a non-conforming segment must equal DPL of SS");
    }
    if (type == 13 || type == 15) {
        rules.require(cs.dpl() <= ss.dpl(), cs.rights,
                      "DPL of a conforming segment must not exceed DPL of SS");
    }
    const u32 rights = vmcs::read(cs.rights);
    rules.require(has_bit(rights, 4), cs.rights, "S must be 1");
    rules.require(!guest.long_mode() || !has_bit(rights, 13) || !has_bit(rights, 14), cs.rights,
                  "D/B must be 0 where L is 1 in IA-32e mode");
    check_granularity(rules, cs);
    rules.require((vmcs::read(cs.base) >> 32) == 0, cs.base, "bits 63:32 must be 0");
}

void check_stack_segment(EntryRules& rules, const Guest& guest) {
    if (!guest.unrestricted()) {
        rules.require((vmcs::read(ss.selector) & 3) == (vmcs::read(cs.selector) & 3), ss.selector,
                      "RPL must equal RPL of CS");
        rules.require(ss.dpl() == (vmcs::read(ss.selector) & 3), ss.rights, "DPL must equal RPL");
    }
    if (cs.type() == 3 || (guest.cr0 & cr0::pe) == 0) {
        rules.require(ss.dpl() == 0, ss.rights, "DPL must be 0 in real mode and where CS has type 3");
    }
    if (!ss.usable()) return;
    rules.require(ss.type() == 3 || ss.type() == 7, ss.rights, "the type must be 3 or 7");
    rules.require(has_bit(vmcs::read(ss.rights), 4), ss.rights, "S must be 1");
    check_granularity(rules, ss);
    rules.require((vmcs::read(ss.base) >> 32) == 0, ss.base, "bits 63:32 must be 0");
}

void check_data_segment(EntryRules& rules, const Guest& guest, const SegmentRefs& segment, bool wide_base) {
    if (wide_base) rules.require_canonical(segment.base);
    if (!segment.usable()) return;
    const u32 type = segment.type();
    rules.require(has_bit(type, 0), segment.rights, "the type must have bit 0 set (accessed)");
    rules.require(!has_bit(type, 3) || has_bit(type, 1), segment.rights, "a code segment must be readable");
    rules.require(has_bit(vmcs::read(segment.rights), 4), segment.rights, "S must be 1");
    if (!guest.unrestricted() && type <= 11) {
        rules.require(segment.dpl() >= (vmcs::read(segment.selector) & 3u), segment.rights,
                      "DPL must not be less than RPL");
    }
    check_granularity(rules, segment);
    if (!wide_base)
        rules.require((vmcs::read(segment.base) >> 32) == 0, segment.base, "bits 63:32 must be 0");
}

// 27.3.1.2
void check_segments(EntryRules& rules, const Guest& guest) {
    if (guest.virtual_8086()) {
        check_virtual_8086_segments(rules);
    } else {
        check_code_segment(rules, guest);
        check_stack_segment(rules, guest);
        check_data_segment(rules, guest, ds, false);
        check_data_segment(rules, guest, es, false);
        check_data_segment(rules, guest, fs, true);
        check_data_segment(rules, guest, gs, true);
    }
    rules.require((vmcs::read(tr.selector) & 4) == 0, tr.selector, "TI must be 0");
    rules.require(tr.type() == 11 || (tr.type() == 3 && !guest.long_mode()), tr.rights,
                  "the type must be 11 (or 3 outside IA-32e mode)");
    rules.require(!has_bit(vmcs::read(tr.rights), 4), tr.rights, "S must be 0");
    rules.require(tr.usable(), tr.rights, "must be usable");
    check_granularity(rules, tr);
    rules.require_canonical(tr.base);
    if (ldtr.usable()) {
        rules.require((vmcs::read(ldtr.selector) & 4) == 0, ldtr.selector, "TI must be 0");
        rules.require(ldtr.type() == 2, ldtr.rights, "the type must be 2");
        rules.require(!has_bit(vmcs::read(ldtr.rights), 4), ldtr.rights, "S must be 0");
        check_granularity(rules, ldtr);
        rules.require_canonical(ldtr.base);
    }
}

// 27.3.1.3 and 27.3.1.4
void check_tables_and_pointers(EntryRules& rules, const Guest& guest, const EntryCheckContext& context) {
    using namespace vmcs;
    rules.require_canonical(guest_gdtr_base);
    rules.require_canonical(guest_idtr_base);
    rules.require((read(guest_gdtr_limit) >> 16) == 0, guest_gdtr_limit, "bits 31:16 must be 0");
    rules.require((read(guest_idtr_limit) >> 16) == 0, guest_idtr_limit, "bits 31:16 must be 0");

    const u64 rip = read(guest_rip);
    if (!guest.long_mode() || !has_bit(read(cs.rights), 13)) {
        rules.require((rip >> 32) == 0, guest_rip, "bits 63:32 must be 0 outside 64-bit mode");
    } else {
        const u64 high = rip >> context.linear_bits;
        rules.require(high == 0 || high == low_mask(64 - context.linear_bits), guest_rip,
                      "the bits beyond the linear-address width must be identical");
    }
    rules.require((guest.flags & 0xFFFF'FFFF'FFC0'8028) == 0, guest_rflags,
                  "bits 63:22, 15, 5 and 3 must be 0");
    rules.require((guest.flags & rflags::reserved_one) != 0, guest_rflags, "bit 1 must be 1");
    rules.require(!guest.virtual_8086() || (!guest.long_mode() && (guest.cr0 & cr0::pe) != 0), guest_rflags,
                  "VM must be 0 in IA-32e mode and in real mode");
    rules.require(!guest.injects(interruption::type_external) || (guest.flags & rflags::if_) != 0,
                  guest_rflags, "IF must be 1 when an external interrupt is injected");
}

// 27.3.1.5
void check_non_register_state(EntryRules& rules, const Guest& guest) {
    using namespace vmcs;
    const u32 state = read(guest_activity), blocking = read(guest_interruptibility);
    const bool sti = (blocking & interruptibility::blocking_by_sti) != 0;
    const bool mov_ss = (blocking & interruptibility::blocking_by_mov_ss) != 0;
    rules.require(state <= activity::wait_for_sipi, guest_activity, "must be 0 to 3");
    rules.require(state != activity::hlt || ss.dpl() == 0, guest_activity, "HLT needs DPL 0 in SS");
    rules.require(state == activity::active || (!sti && !mov_ss), guest_activity,
                  "must be active under blocking by STI or MOV SS");
    rules.require((blocking & ~0x1Fu) == 0, guest_interruptibility, "bits 31:5 must be 0");
    rules.require(!(sti && mov_ss), guest_interruptibility,
                  "blocking by STI and by MOV SS exclude one another");
    rules.require(!sti || (guest.flags & rflags::if_) != 0, guest_interruptibility,
                  "blocking by STI needs RFLAGS.IF");
    rules.require((blocking & interruptibility::blocking_by_smi) == 0, guest_interruptibility,
                  "blocking by SMI must be 0 outside SMM");
    rules.require((blocking & interruptibility::enclave) == 0, guest_interruptibility,
                  "enclave interruption must be 0 without SGX");
    if (guest.injects(interruption::type_external)) {
        rules.require(!sti && !mov_ss, guest_interruptibility,
                      "no blocking by STI or MOV SS when an external interrupt is injected");
    }
    if (guest.injects(interruption::type_nmi)) {
        rules.require(!mov_ss, guest_interruptibility, "no blocking by MOV SS when an NMI is injected");
        rules.require(
            (guest.pin & pin_based::virtual_nmis) == 0 || (blocking & interruptibility::blocking_by_nmi) == 0,
            guest_interruptibility, "no blocking by NMI when an NMI is injected");
    }
    const u64 pending = read(guest_pending_debug_exceptions);
    rules.require((pending & ~u64{0x1'500F}) == 0, guest_pending_debug_exceptions,
                  "bits 11:4, 13, 15 and 63:17 must be 0");
    if (sti || mov_ss || state == activity::hlt) {
        constexpr u64 btf = bit(1);
        const bool stepping = (guest.flags & rflags::tf) != 0 && (read(guest_debugctl) & btf) == 0;
        rules.require(((pending & debug_exception::single_step) != 0) == stepping,
                      guest_pending_debug_exceptions,
                      "BS must be 1 where RFLAGS.TF is 1 and DEBUGCTL.BTF 0, else 0");
    }
    rules.require(read(vmcs_link_pointer) == ~u64{0}, vmcs_link_pointer, "must be FFFFFFFF_FFFFFFFFh");
}

// 27.3.1.6
void check_pdptes(EntryRules& rules, const Guest& guest) {
    if (!guest.paging() || (guest.cr4 & cr4::pae) == 0 || guest.long_mode()) return;
    for (const auto& field :
         {vmcs::guest_pdpte0, vmcs::guest_pdpte1, vmcs::guest_pdpte2, vmcs::guest_pdpte3}) {
        const u64 entry = vmcs::read(field);
        if (!has_bit(entry, 0)) continue;
        rules.require((entry & 0x1E6) == 0 && rules.is_physical(entry), field, "reserved bits must be 0");
    }
}

}  // namespace

void check_entry_guest_state(const EntryCheckContext& context, EntryViolations& violations) {
    EntryRules rules(context, violations);
    const Guest guest;
    check_registers(rules, guest, context.capabilities);
    check_segments(rules, guest);
    check_tables_and_pointers(rules, guest, context);
    check_non_register_state(rules, guest);
    check_pdptes(rules, guest);
}

}  // namespace bulkhead::vmx
