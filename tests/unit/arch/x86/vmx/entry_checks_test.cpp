#include "arch/x86/vmx/entry_checks.hpp"

#include <catch2/catch.hpp>

#include "fixture.hpp"

using namespace bulkhead;
using namespace bulkhead::vmx;

namespace {

// A 64-bit kernel at CPL 0, as an operating system would have it.
void enter_long_mode(Bench& bench) {
    Backend& b = *bench.backend;
    b.write(Register::cr4, cr4::pae | cr4::pge);
    b.write(Register::efer, efer::lme | efer::nxe | efer::sce);
    b.write(Register::cr3, 0x1000);
    b.write(Register::cr0, cr0::pe | cr0::pg | cr0::wp | cr0::ne);
    b.set_segment(SegmentName::cs, {.selector = 8, .limit = 0xFFFF'FFFF, .access = 0xA09B});
    b.set_segment(SegmentName::ss, {.selector = 16, .limit = 0xFFFF'FFFF, .access = 0xC093});
    b.write(Register::rip, 0xFFFF'FFFF'8100'0000);
}

// 32-bit protected mode with PAE paging.
void enter_pae_mode(Bench& bench) {
    Backend& b = *bench.backend;
    b.write(Register::cr4, cr4::pae);
    b.write(Register::cr3, 0x1000);
    b.write(Register::cr0, cr0::pe | cr0::pg | cr0::ne);
    b.set_segment(SegmentName::cs, {.selector = 8, .limit = 0xFFFF'FFFF, .access = 0xC09B});
}

template <class T>
void mutate_field(Bench& bench, const vmcs::ReadWrite<T>& field, u64 value, std::string_view expected = {}) {
    REQUIRE(bench.violation_text() == "");
    u64& slot = bench.fake.fields()[field.encoding];
    const u64 before = slot;
    slot = value;
    const auto found = bench.violations();
    INFO(field.name << " = " << value << "\n" << bench.violation_text());
    bool named = false;
    for (const auto& violation : found)
        named = named || violation.field == (expected.empty() ? field.name : expected);
    CHECK(named);
    slot = before;
}

}  // namespace

TEST_CASE("The reset state passes all checks, on every machine and with every choice of features") {
    for (const CapabilityMsrs& msrs : {machines::skylake_x, machines::haswell}) {
        for (bool on : {false, true}) {
            Bench bench(msrs,
                        {.vpid = on, .apic_virtualization = on, .pause_loop_exiting = on, .xsaves = on});
            CHECK(bench.violation_text() == "");
            for (ApicMode mode : {ApicMode::xapic, ApicMode::x2apic, ApicMode::moved, ApicMode::disabled}) {
                bench.backend->set_apic_mode(mode);
                CHECK(bench.violation_text() == "");
            }
        }
    }
}

TEST_CASE("Each control that is wrong is named") {
    using namespace vmcs;
    Bench bench;
    bench.backend->set_apic_mode(ApicMode::xapic);
    const auto value = [&](const auto& field) { return bench.fake[field]; };
    mutate_field(bench, pin_based_controls, value(pin_based_controls) & ~u64{0x10});
    mutate_field(bench, pin_based_controls, value(pin_based_controls) | bit(7));
    mutate_field(bench, pin_based_controls, value(pin_based_controls) & ~u64{pin_based::nmi_exiting});
    mutate_field(bench, pin_based_controls,
                 value(pin_based_controls) & ~u64{pin_based::external_interrupt_exiting});
    mutate_field(bench, primary_controls, value(primary_controls) | bit(18));
    mutate_field(bench, primary_controls, value(primary_controls) & ~u64{primary::use_tpr_shadow},
                 secondary_controls.name);
    mutate_field(bench, secondary_controls, value(secondary_controls) | bit(31));
    mutate_field(bench, secondary_controls, value(secondary_controls) | secondary::virtualize_x2apic_mode);
    mutate_field(bench, secondary_controls, value(secondary_controls) & ~u64{secondary::enable_ept});
    bench.fake.fields()[pml_address.encoding] = 0x800;
    mutate_field(bench, secondary_controls, value(secondary_controls) | secondary::enable_pml,
                 pml_address.name);
    mutate_field(bench, cr3_target_count, 5);
    mutate_field(bench, msr_bitmaps, 0x4001);
    mutate_field(bench, msr_bitmaps, bit(36));
    mutate_field(bench, virtual_apic_address, 0x3800);
    mutate_field(bench, apic_access_address, 0x10);
    mutate_field(bench, virtual_processor_identifier, 0);
    mutate_field(bench, vmcs::ept_pointer, 0x6000 | 3u << 3 | 1);
    mutate_field(bench, vmcs::ept_pointer, 0x6000 | 2u << 3 | 6);
    mutate_field(bench, vmcs::ept_pointer, 0x6000 | 3u << 3 | 6 | 0x80);
    mutate_field(bench, vmcs::ept_pointer, bit(40) | 3u << 3 | 6);
    mutate_field(bench, vm_exit_controls, value(vm_exit_controls) & ~u64{1} << 3);
    mutate_field(bench, vm_exit_controls, value(vm_exit_controls) | vm_exit::save_preemption_timer);
    mutate_field(bench, vm_exit_controls, value(vm_exit_controls) & ~u64{vm_exit::host_address_space_size});
    mutate_field(bench, vm_entry_controls, value(vm_entry_controls) | vm_entry::entry_to_smm);
    mutate_field(bench, vm_entry_controls, value(vm_entry_controls) | vm_entry::ia32e_mode_guest,
                 guest_efer.name);
}

TEST_CASE("The TPR threshold is checked where nothing but the shadow is in use") {
    Bench bench;
    bench.apic_page[0x80] = 0x30;
    mutate_field(bench, vmcs::tpr_threshold, 4);
    mutate_field(bench, vmcs::tpr_threshold, 0x10);
    bench.fake.fields()[vmcs::tpr_threshold.encoding] = 3;
    CHECK(bench.violation_text() == "");
}

TEST_CASE("MSR areas must be aligned where they are counted") {
    Bench bench;
    auto& fields = bench.fake.fields();
    for (auto [count, address] : {std::pair{vmcs::vm_exit_msr_store_count, vmcs::vm_exit_msr_store_address},
                                  {vmcs::vm_exit_msr_load_count, vmcs::vm_exit_msr_load_address},
                                  {vmcs::vm_entry_msr_load_count, vmcs::vm_entry_msr_load_address}}) {
        fields[count.encoding] = 1;
        mutate_field(bench, address, 0x1008);
        fields[count.encoding] = 0;
    }
}

TEST_CASE("Each injection that is wrong is named") {
    using namespace vmcs;
    Bench bench;
    enter_long_mode(bench);
    auto& fields = bench.fake.fields();
    for (u64 wrong : {u64{0x8000'0131}, u64{0x8000'0703}, u64{0x8000'0203}, u64{0x8000'0320},
                      u64{0x8000'1B0D}, u64{0x8000'030D}, u64{0x8000'0B03}, u64{0x8000'0831}}) {
        mutate_field(bench, vm_entry_interruption_information, wrong);
    }
    fields[vm_entry_exception_error_code.encoding] = 0x10000;
    mutate_field(bench, vm_entry_interruption_information, 0x8000'0B0D, vm_entry_exception_error_code.name);
    fields[vm_entry_instruction_length.encoding] = 16;
    mutate_field(bench, vm_entry_interruption_information, 0x8000'0480, vm_entry_instruction_length.name);
    // RFLAGS.IF is 0.
    mutate_field(bench, vm_entry_interruption_information, 0x8000'0031, guest_rflags.name);
    fields[guest_interruptibility.encoding] = interruptibility::blocking_by_nmi;
    mutate_field(bench, vm_entry_interruption_information, 0x8000'0202, guest_interruptibility.name);
    fields[guest_interruptibility.encoding] = interruptibility::blocking_by_mov_ss;
    mutate_field(bench, vm_entry_interruption_information, 0x8000'0202, guest_interruptibility.name);
}

TEST_CASE("Each host-state field that is wrong is named") {
    using namespace vmcs;
    Bench bench;
    mutate_field(bench, host_cr0, test_host.cr0 & ~cr0::ne);
    mutate_field(bench, host_cr4, test_host.cr4 & ~cr4::vmxe);
    mutate_field(bench, host_cr4, test_host.cr4 & ~cr4::pae);
    mutate_field(bench, host_cr4, test_host.cr4 | bit(30));
    mutate_field(bench, host_cr3, bit(36));
    for (const auto& field : {host_sysenter_esp, host_sysenter_eip, host_fs_base, host_gs_base, host_tr_base,
                              host_gdtr_base, host_idtr_base, host_rip}) {
        mutate_field(bench, field, u64{0x8000'0000'0000});
    }
    mutate_field(bench, host_pat, 2);
    mutate_field(bench, host_pat, u64{8} << 56);
    mutate_field(bench, host_efer, test_host.efer & ~efer::lma);
    mutate_field(bench, host_efer, test_host.efer | efer::svme);
    for (const auto& field : {host_es_selector, host_cs_selector, host_ss_selector, host_ds_selector,
                              host_fs_selector, host_gs_selector, host_tr_selector}) {
        mutate_field(bench, field, 0xB);
        mutate_field(bench, field, 0xC);
    }
    mutate_field(bench, host_cs_selector, 0);
    mutate_field(bench, host_tr_selector, 0);
}

TEST_CASE("Each guest register that is wrong is named") {
    using namespace vmcs;
    Bench bench;
    enter_long_mode(bench);
    const auto value = [&](const auto& field) { return bench.fake[field]; };
    mutate_field(bench, guest_cr0, value(guest_cr0) & ~cr0::ne);
    mutate_field(bench, guest_cr0, value(guest_cr0) & ~cr0::pe);
    mutate_field(bench, guest_cr0, value(guest_cr0) & ~cr0::pg);
    mutate_field(bench, guest_cr0, value(guest_cr0) | bit(32));
    mutate_field(bench, guest_cr4, value(guest_cr4) & ~cr4::vmxe);
    mutate_field(bench, guest_cr4, value(guest_cr4) & ~cr4::pae);
    mutate_field(bench, guest_cr4, value(guest_cr4) | cr4::la57);
    mutate_field(bench, guest_cr3, bit(36));
    mutate_field(bench, guest_debugctl, bit(3));
    mutate_field(bench, guest_dr7, bit(32));
    mutate_field(bench, guest_sysenter_esp, bit(47));
    mutate_field(bench, guest_sysenter_eip, bit(47));
    mutate_field(bench, guest_pat, 0x0303);
    mutate_field(bench, guest_efer, value(guest_efer) & ~efer::lma);
    mutate_field(bench, guest_efer, value(guest_efer) & ~efer::lme);
    mutate_field(bench, guest_efer, value(guest_efer) | bit(1));
    mutate_field(bench, guest_gdtr_base, bit(47));
    mutate_field(bench, guest_idtr_base, bit(63));
    mutate_field(bench, guest_gdtr_limit, 0x10000);
    mutate_field(bench, guest_idtr_limit, 0x10000);
    mutate_field(bench, guest_rip, bit(48));
    mutate_field(bench, guest_rflags, 0);
    mutate_field(bench, guest_rflags, 2 | bit(3));
    mutate_field(bench, guest_rflags, 2 | bit(63));
    mutate_field(bench, guest_rflags, 2 | rflags::vm);
    mutate_field(bench, vmcs_link_pointer, 0);
}

TEST_CASE("RIP one past the canonical half is let pass, as the manual has it") {
    Bench bench;
    enter_long_mode(bench);
    bench.fake.fields()[vmcs::guest_rip.encoding] = 0x0000'8000'0000'0000;
    CHECK(bench.violation_text() == "");
}

TEST_CASE("Each segment field that is wrong is named") {
    using namespace vmcs;
    Bench bench;
    enter_long_mode(bench);
    mutate_field(bench, guest_cs_access_rights, 0xE09B);  // L and D/B
    mutate_field(bench, guest_cs_access_rights, 0xA09A);
    mutate_field(bench, guest_cs_access_rights, 0xA0FB);  // DPL 3
    mutate_field(bench, guest_cs_access_rights, 0xA0FF);
    mutate_field(bench, guest_cs_access_rights, 0xA08B);
    mutate_field(bench, guest_cs_access_rights, 0xA01B);
    mutate_field(bench, guest_cs_access_rights, 0xA19B);
    mutate_field(bench, guest_cs_access_rights, 0x209B);
    mutate_field(bench, guest_cs_base, bit(32));
    mutate_field(bench, guest_ss_access_rights, 0xC091);
    mutate_field(bench, guest_ss_access_rights, 0xC09B);
    mutate_field(bench, guest_ss_base, bit(32));
    for (const auto& rights :
         {guest_ds_access_rights, guest_es_access_rights, guest_fs_access_rights, guest_gs_access_rights}) {
        for (u64 wrong : {0x92, 0x99, 0x83, 0x13, 0x20093, 0x193}) mutate_field(bench, rights, wrong);
    }
    for (const auto& limit : {std::pair{guest_ds_limit, guest_ds_access_rights},
                              {guest_es_limit, guest_es_access_rights},
                              {guest_tr_limit, guest_tr_access_rights},
                              {guest_ldtr_limit, guest_ldtr_access_rights}}) {
        mutate_field(bench, limit.first, 0x10'0000, limit.second.name);
    }
    mutate_field(bench, guest_ds_base, bit(32));
    mutate_field(bench, guest_es_base, bit(32));
    for (const auto& base : {guest_fs_base, guest_gs_base, guest_tr_base, guest_ldtr_base}) {
        mutate_field(bench, base, bit(47));
    }
    mutate_field(bench, guest_tr_selector, 4);
    mutate_field(bench, guest_ldtr_selector, 4);
    for (u64 wrong : {0x83, 0x89, 0x9B, 0x0B, 0x1008B, 0x10008B})
        mutate_field(bench, guest_tr_access_rights, wrong);
    for (u64 wrong : {0x83, 0x92, 0x02, 0x182}) mutate_field(bench, guest_ldtr_access_rights, wrong);
}

TEST_CASE("Unusable segments are not looked at, but for what VM entry loads regardless") {
    Bench bench;
    enter_long_mode(bench);
    for (SegmentName name : {SegmentName::ss, SegmentName::ds, SegmentName::es, SegmentName::fs,
                             SegmentName::gs, SegmentName::ldtr}) {
        bench.backend->set_segment(
            name, {.base = name == SegmentName::fs ? 0xFFFF'8000'0000'0000 : 0, .unusable = true});
    }
    CHECK(bench.violation_text() == "");
    mutate_field(bench, vmcs::guest_fs_base, bit(47));
}

TEST_CASE("In virtual-8086 mode segments are what the 8086 had") {
    using namespace vmcs;
    Bench bench;
    enter_pae_mode(bench);
    for (SegmentName name : {SegmentName::es, SegmentName::cs, SegmentName::ss, SegmentName::ds,
                             SegmentName::fs, SegmentName::gs}) {
        bench.backend->set_segment(name,
                                   {.selector = 0x1234, .base = 0x12340, .limit = 0xFFFF, .access = 0xF3});
    }
    bench.backend->write(Register::rflags, 2 | rflags::vm);
    for (const auto& base :
         {guest_es_base, guest_cs_base, guest_ss_base, guest_ds_base, guest_fs_base, guest_gs_base}) {
        mutate_field(bench, base, 0x12350);
    }
    mutate_field(bench, guest_cs_limit, 0xFFFE);
    mutate_field(bench, guest_ss_access_rights, 0x93);
}

TEST_CASE("Activity, interruptibility and pending debug exceptions must fit together") {
    using namespace vmcs;
    Bench bench;
    enter_long_mode(bench);
    auto& fields = bench.fake.fields();
    mutate_field(bench, guest_activity, 4);
    mutate_field(bench, guest_interruptibility, 0x20);
    mutate_field(bench, guest_interruptibility, 3);
    mutate_field(bench, guest_interruptibility, 1);  // IF is 0
    mutate_field(bench, guest_interruptibility, 4);
    mutate_field(bench, guest_interruptibility, 0x10);
    mutate_field(bench, guest_pending_debug_exceptions, bit(4));
    mutate_field(bench, guest_pending_debug_exceptions, bit(13));
    mutate_field(bench, guest_pending_debug_exceptions, bit(17));
    fields[guest_interruptibility.encoding] = interruptibility::blocking_by_mov_ss;
    mutate_field(bench, guest_activity, activity::hlt);
    mutate_field(bench, guest_pending_debug_exceptions, debug_exception::single_step);
    mutate_field(bench, guest_rflags, 2 | rflags::tf, guest_pending_debug_exceptions.name);
}

TEST_CASE("In PAE paging each PDPTE is checked") {
    using namespace vmcs;
    Bench bench;
    enter_pae_mode(bench);
    for (const auto& field : {guest_pdpte0, guest_pdpte1, guest_pdpte2, guest_pdpte3}) {
        mutate_field(bench, field, 0x3);
        mutate_field(bench, field, 0x101);
        mutate_field(bench, field, bit(36) | 1);
        bench.fake.fields()[field.encoding] = 0x1E6;  // not present: anything goes
        CHECK(bench.violation_text() == "");
    }
}

TEST_CASE("The report names field, value and rule") {
    Bench bench;
    bench.fake.fields()[vmcs::guest_rflags.encoding] = 0;
    FixedString<2000> text;
    bench.backend->explain(text);
    CHECK(std::string(text.view()).find("guest RFLAGS = 0x0: bit 1 must be 1\n") != std::string::npos);
}

TEST_CASE("A state wrong in every field yields a bounded report") {
    Bench bench;
    for (auto& [encoding, value] : bench.fake.fields()) value = 0xA5A5'A5A5'A5A5'A5A5;
    FixedString<4000> text;
    bench.backend->explain(text);
    CHECK(bench.violations().full());
}
