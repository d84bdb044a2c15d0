#include "arch/x86/vmx/backend.hpp"

#include <catch2/catch.hpp>
#include <cstring>

#include "arch/x86/regs/msr.hpp"
#include "fixture.hpp"

using namespace bulkhead;
using namespace bulkhead::vmx;

namespace {

constexpr u64 never_deadline = ~u64{0};

bool timer_is_on(Bench& bench) {
    return (bench.fake[vmcs::pin_based_controls] & pin_based::preemption_timer) != 0;
}

bool ia32e_mode(Bench& bench) {
    return (bench.fake[vmcs::vm_entry_controls] & vm_entry::ia32e_mode_guest) != 0;
}

}  // namespace

TEST_CASE("What a guest could raise without end, and what is the host's, exits") {
    Bench bench;
    const u64 exceptions = bench.fake[vmcs::exception_bitmap];
    // #DB, #AC (CVE-2015-8104, CVE-2015-5307) and #MC.
    for (const unsigned vector : {1U, 17U, 18U}) CHECK(has_bit(exceptions, vector));
    CHECK_FALSE(has_bit(exceptions, 14));
}

TEST_CASE("After RESET the registers are those of the manual's table") {
    Bench bench;
    const Backend& b = *bench.backend;
    CHECK(b.read(Register::rip) == 0xFFF0);
    CHECK(b.read(Register::rflags) == 2);
    CHECK(b.read(Register::cr0) == 0x6000'0010);
    CHECK(b.read(Register::cr2) == 0);
    CHECK(b.read(Register::cr3) == 0);
    CHECK(b.read(Register::cr4) == 0);
    CHECK(b.read(Register::efer) == 0);
    CHECK(b.read(Register::dr7) == 0x400);
    CHECK(b.read(Register::pat) == 0x0007'0406'0007'0406);
    CHECK(b.debug_register(6) == 0xFFFF'0FF0);
    CHECK(b.debug_register(0) == 0);
    CHECK(b.xcr0() == 1);
    CHECK(b.gprs.rdx == 0x50654);
    CHECK(b.gprs.rax == 0);
    CHECK(b.segment(SegmentName::cs) ==
          Segment{.selector = 0xF000, .base = 0xFFFF0000, .limit = 0xFFFF, .access = 0x93});
    CHECK(b.segment(SegmentName::ss) == Segment{.limit = 0xFFFF, .access = 0x93});
    CHECK(b.segment(SegmentName::tr).access == 0x8B);
    CHECK(b.idtr() == DescriptorTable{.base = 0, .limit = 0xFFFF});
    CHECK(b.interruptibility() == Interruptibility{});
    for (Register r : {Register::star, Register::lstar, Register::kernel_gs_base, Register::tsc_aux,
                       Register::sysenter_cs}) {
        CHECK(b.read(r) == 0);
    }
    CHECK_FALSE(b.injection_pending());
    // x87: control word 40h, MXCSR 1F80h.
    CHECK(bench.extended.file[0] == 0x40);
    CHECK(bench.extended.file[24] == 0x80);
    CHECK(bench.extended.file[25] == 0x1F);
}

TEST_CASE("RESET wipes what an earlier life left behind") {
    Bench bench;
    Backend& b = *bench.backend;
    b.write(Register::lstar, 0x1234);
    b.write(Register::kernel_gs_base, 0x5678);
    b.write(Register::tsc_aux, 9);
    b.write(Register::cr2, 0xBAD);
    b.set_debug_register(3, 0x77);
    b.set_xcr0(7);
    b.inject(make_general_protection());
    b.set_interrupt_window(true);
    b.set_eoi_exit(Vector(0x44), true);
    bench.extended.file.assign(576, 0xEE);
    b.reset();
    CHECK(bench.fake.msrs[msr::lstar.raw()] == 0);
    CHECK(bench.fake.msrs[msr::kernel_gs_base.raw()] == 0);
    CHECK(bench.extended.tsc_aux == 0);
    CHECK(bench.fake.cr2 == 0);
    CHECK(bench.extended.debug[3] == 0);
    CHECK(bench.extended.xcr0 == 1);
    CHECK(bench.extended.file[200] == 0);
    CHECK_FALSE(b.injection_pending());
    CHECK(bench.fake[vmcs::vm_entry_interruption_information] == 0);
    CHECK((bench.fake[vmcs::primary_controls] & primary::interrupt_window_exiting) == 0);
    CHECK(bench.fake[vmcs::eoi_exit_bitmap_1] == 0);
}

TEST_CASE("The first entry launches, later ones resume, and after a move it launches again") {
    Bench bench;
    Backend& b = *bench.backend;
    CHECK(b.run(never_deadline).reason == ExitReason::cpuid);
    CHECK(b.run(never_deadline).reason == ExitReason::cpuid);
    b.save();
    b.load();
    CHECK(b.run(never_deadline).reason == ExitReason::cpuid);
    CHECK(bench.fake.entries == 3);
}

TEST_CASE("General registers, RSP among them, go in and come out") {
    Bench bench;
    Backend& b = *bench.backend;
    b.gprs.rsp = 0x7000;
    b.gprs.r15 = 15;
    bench.fake.guest = [&](GeneralRegisters& registers) {
        CHECK(bench.fake[vmcs::guest_rsp] == 0x7000);
        CHECK(registers.r15 == 15);
        registers.r15 = 16;
        bench.fake.set(vmcs::guest_rsp, 0x6FF8);
        return u64{12};
    };
    CHECK(b.run(never_deadline).reason == ExitReason::hlt);
    CHECK(b.gprs.rsp == 0x6FF8);
    CHECK(b.gprs.r15 == 16);
}

TEST_CASE("An exit of CPUID reads one field of the VMCS beyond what the world switch reads") {
    Bench bench;
    (void)bench.backend->run(never_deadline);
    bench.fake.reads.clear();
    (void)bench.backend->run(never_deadline);
    CHECK(bench.fake.reads == std::vector{vmcs::vm_exit_instruction_length.encoding});
}

TEST_CASE("VMfail is reported with its number and explained") {
    Bench bench;
    bench.fake.fail_entry = true;
    bench.fake.instruction_error = 7;
    bench.fake.fields()[vmcs::virtual_processor_identifier.encoding] = 0;
    const Exit exit = bench.backend->run(never_deadline);
    CHECK(exit.reason == ExitReason::hardware_error);
    CHECK((exit.raw_code & 0xFFFF'FFFF) == 7);
    FixedString<2000> text;
    bench.backend->explain(text);
    const std::string report(text.view());
    CHECK(report.find("VM entry with invalid control field(s)") != std::string::npos);
    CHECK(report.find("VPID = 0x0: must not be 0") != std::string::npos);
}

TEST_CASE("A failed entry keeps what was to be injected and launches again") {
    Bench bench;
    Backend& b = *bench.backend;
    b.inject(make_invalid_opcode());
    bench.fake.guest = [](GeneralRegisters&) { return 33 | bit(31); };
    CHECK(b.run(never_deadline).reason == ExitReason::entry_failure);
    CHECK(b.injection_pending());
    bench.fake.guest = [](GeneralRegisters&) { return u64{10}; };
    CHECK(b.run(never_deadline).reason == ExitReason::cpuid);
    CHECK_FALSE(b.injection_pending());
}

TEST_CASE("The host's NMI is taken before run() returns; interrupts are left pending") {
    Bench bench;
    bench.fake.guest = [&](GeneralRegisters&) {
        bench.fake.fields()[vmcs::vm_exit_interruption_information.encoding] = 0x8000'0202;
        return u64{0};
    };
    CHECK(bench.backend->run(never_deadline).reason == ExitReason::host_nmi);
    CHECK(bench.fake.nmis_taken == 1);
    bench.fake.guest = [](GeneralRegisters&) { return u64{1}; };
    CHECK(bench.backend->run(never_deadline).reason == ExitReason::external_interrupt);
    CHECK(bench.fake.nmis_taken == 1);
}

TEST_CASE("A deadline arms the preemption timer; never disarms it") {
    Bench bench;
    Backend& b = *bench.backend;
    (void)b.run(bench.fake.tsc + 5000);
    CHECK(timer_is_on(bench));
    CHECK(bench.fake[vmcs::preemption_timer_value] == 5000);
    CHECK(bench.violation_text() == "");
    (void)b.run(never_deadline);
    CHECK_FALSE(timer_is_on(bench));
    // One that has passed ends the guest's turn at once, one beyond 32 bits as late as the timer can.
    (void)b.run(1);
    CHECK(bench.fake[vmcs::preemption_timer_value] == 0);
    (void)b.run(bench.fake.tsc + (u64{1} << 40));
    CHECK(bench.fake[vmcs::preemption_timer_value] == 0xFFFF'FFFF);
}

TEST_CASE("The preemption timer's rate is heeded, and it does not run out early") {
    CapabilityMsrs msrs = machines::skylake_x;
    msrs.misc |= 5;
    Bench bench(msrs);
    // It counts when the TSC reaches a multiple of 32.
    for (const u64 now : {u64{32'000}, u64{32'001}, u64{32'031}}) {
        bench.fake.tsc = now;
        for (const u64 deadline : {u64{32'032}, u64{32'033}, u64{32'320}, u64{32'321}}) {
            (void)bench.backend->run(deadline);
            const u64 strikes = (now / 32 + bench.fake[vmcs::preemption_timer_value]) * 32;
            CHECK(strikes >= deadline);
            CHECK(strikes < deadline + 32);
        }
    }
}

TEST_CASE("A timer that runs out early is not a deadline that has passed") {
    Bench bench;
    bench.fake.guest = [](GeneralRegisters&) { return u64{52}; };
    CHECK(bench.backend->run(bench.fake.tsc + 100).reason == ExitReason::spurious);
    bench.fake.guest = [&](GeneralRegisters&) {
        bench.fake.tsc += 100;
        return u64{52};
    };
    CHECK(bench.backend->run(bench.fake.tsc + 100).reason == ExitReason::preemption);
}

TEST_CASE("Real, protected, PAE and long mode: controls, EFER.LMA and state stay consistent") {
    Bench bench;
    Backend& b = *bench.backend;
    CHECK(bench.violation_text() == "");

    b.write(Register::cr0, cr0::pe | cr0::cd | cr0::nw);
    CHECK(b.read(Register::cr0) == (cr0::pe | cr0::et | cr0::cd | cr0::nw));
    CHECK((bench.fake[vmcs::guest_cr0] & (cr0::cd | cr0::nw)) == 0);
    CHECK(bench.violation_text() == "");

    b.write(Register::cr4, cr4::pae);
    b.write(Register::efer, efer::lme);
    CHECK(b.read(Register::efer) == efer::lme);
    CHECK_FALSE(ia32e_mode(bench));
    CHECK(bench.violation_text() == "");

    b.write(Register::cr0, cr0::pe | cr0::pg);
    CHECK(b.read(Register::efer) == (efer::lme | efer::lma));
    CHECK(ia32e_mode(bench));
    CHECK(bench.violation_text() == "");

    b.write(Register::cr0, cr0::pe);
    CHECK(b.read(Register::efer) == efer::lme);
    CHECK_FALSE(ia32e_mode(bench));
    CHECK(bench.violation_text() == "");

    // In the loader's order: EFER with LMA before paging is on.
    b.write(Register::efer, efer::lme | efer::lma | efer::nxe);
    CHECK(b.read(Register::efer) == (efer::lme | efer::nxe));
    b.write(Register::cr0, cr0::pe | cr0::pg | cr0::ne);
    CHECK(b.read(Register::efer) == (efer::lme | efer::lma | efer::nxe));
    CHECK(bench.violation_text() == "");

    b.reset();
    CHECK_FALSE(ia32e_mode(bench));
    CHECK(bench.violation_text() == "");
}

TEST_CASE("A 16-bit TSS becomes a 64-bit one on the way into long mode") {
    Bench bench;
    Backend& b = *bench.backend;
    b.set_segment(SegmentName::tr, {.limit = 0xFFFF, .access = 0x83});
    b.write(Register::cr4, cr4::pae);
    b.write(Register::efer, efer::lme);
    b.write(Register::cr0, cr0::pe | cr0::pg);
    CHECK(b.segment(SegmentName::tr).type() == 11);
    CHECK(bench.violation_text() == "");
}

TEST_CASE("The guest's own changes of bits it owns show in what it reads") {
    Bench bench;
    Backend& b = *bench.backend;
    bench.fake.fields()[vmcs::guest_cr0.encoding] |= cr0::pe | cr0::wp | cr0::ts;
    CHECK(b.read(Register::cr0) == (0x6000'0010 | cr0::pe | cr0::wp | cr0::ts));
    bench.fake.fields()[vmcs::guest_cr4.encoding] |= cr4::pge;
    CHECK(b.read(Register::cr4) == cr4::pge);
    CHECK((bench.fake[vmcs::guest_cr4] & (cr4::vmxe | cr4::mce)) == (cr4::vmxe | cr4::mce));
    b.write(Register::cr4, cr4::mce);
    CHECK(b.read(Register::cr4) == cr4::mce);
    // The masks: owned by the host is what the guest's CPUID lacks, and what VT-x needs.
    CHECK(bench.fake[vmcs::cr4_guest_host_mask] == ~(test_cr4_bits & ~cr4::mce));
    CHECK(bench.fake[vmcs::cr0_guest_host_mask] == (cr0::cd | cr0::nw | cr0::ne));
}

TEST_CASE("Switching PAE paging on takes the PDPTEs from guest memory") {
    Bench bench;
    Backend& b = *bench.backend;
    const u64 table[4] = {0x2001, 0x3001, 0xFFFF'FFFF'FFFF'FFFF, 0};
    std::memcpy(&bench.ram[0x1020], table, sizeof table);
    b.write(Register::cr4, cr4::pae);
    b.write(Register::cr3, 0x1020 | 0x18);
    CHECK(bench.fake[vmcs::guest_pdpte0] == 0);
    b.write(Register::cr0, cr0::pe | cr0::pg);
    CHECK(bench.fake[vmcs::guest_pdpte0] == 0x2001);
    CHECK(bench.fake[vmcs::guest_pdpte1] == 0x3001);
    CHECK(bench.fake[vmcs::guest_pdpte2] == 0);  // reserved bits
    CHECK(bench.violation_text() == "");
    // A table outside RAM.
    b.write(Register::cr3, 0xFFFF'F000);
    CHECK(bench.fake[vmcs::guest_pdpte0] == 0);
    CHECK(bench.violation_text() == "");
}

TEST_CASE("Changing control registers flushes what the VPID tags") {
    Bench bench;
    bench.backend->write(Register::cr3, 0x2000);
    CHECK(bench.fake.operations == std::vector<std::string>{"invvpid 1 17"});
    bench.fake.operations.clear();
    bench.backend->flush_translations();
    CHECK(bench.fake.operations ==
          std::vector<std::string>{"invept 1 " + std::to_string(0x6000 | 3 << 3 | 6)});

    Bench without(machines::skylake_x, {.vpid = false});
    without.backend->write(Register::cr3, 0x2000);
    CHECK(without.fake.operations.empty());
}

TEST_CASE("Injection: fields, CR2, and the NMI's blocking") {
    Bench bench;
    Backend& b = *bench.backend;
    b.write(Register::cr0, cr0::pe);
    b.inject(make_page_fault(0xFFFF'8000'0000'1234, 6));
    CHECK(b.injection_pending());
    CHECK(bench.fake[vmcs::vm_entry_interruption_information] == 0x8000'0B0E);
    CHECK(bench.fake[vmcs::vm_entry_exception_error_code] == 6);
    CHECK(bench.fake.cr2 == 0xFFFF'8000'0000'1234);
    CHECK(bench.violation_text() == "");

    // A later one replaces it.
    b.inject({.type = Event::Type::software_interrupt, .vector = Vector(0x80), .instruction_length = 2});
    CHECK(bench.fake[vmcs::vm_entry_interruption_information] == 0x8000'0480);
    CHECK(bench.fake[vmcs::vm_entry_instruction_length] == 2);

    b.set_interruptibility({.nmi_blocked = true});
    b.inject({.type = Event::Type::nmi, .vector = Vector(2)});
    CHECK_FALSE(b.interruptibility().nmi_blocked);
    CHECK(bench.violation_text() == "");
    (void)b.run(never_deadline);
    CHECK_FALSE(b.injection_pending());

    b.write(Register::cr0, 0);
    b.inject(make_general_protection(0));
    CHECK(bench.fake[vmcs::vm_entry_interruption_information] == 0x8000'030D);
    CHECK(bench.violation_text() == "");
}

TEST_CASE("RIP moves past an instruction where nothing else happens at its end") {
    Bench bench;
    Backend& b = *bench.backend;
    b.write(Register::rip, 0x1000);
    b.write(Register::rflags, 0x202);
    CHECK(b.advance(2));
    CHECK(b.read(Register::rip) == 0x1002);
    CHECK(b.advance(0));
    CHECK(b.read(Register::rip) == 0x1002);
    for (const u64 flags : {u64{0x302}, u64{0x10202}}) {  // TF, RF
        b.write(Register::rflags, flags);
        CHECK_FALSE(b.advance(2));
        CHECK_FALSE(b.advance(0));
    }
    b.write(Register::rflags, 0x202);
    b.set_interruptibility({.sti_shadow = true});
    CHECK_FALSE(b.advance(2));
    b.set_interruptibility({.mov_ss_shadow = true});
    CHECK_FALSE(b.advance(2));
    b.set_interruptibility({});
    CHECK(b.read(Register::rip) == 0x1002);
    b.write(Register::rip, 0xFFFF'FFFE);
    CHECK_FALSE(b.advance(2));
    CHECK(b.advance(1));
    CHECK(b.read(Register::rip) == 0xFFFF'FFFF);
}

TEST_CASE("Interruptibility: whatever is asked for, the state can be entered") {
    Bench bench;
    Backend& b = *bench.backend;
    for (unsigned bits = 0; bits < 32; ++bits) {
        b.write(Register::rflags,
                2 | (has_bit(bits, 3) ? rflags::if_ : 0) | (has_bit(bits, 4) ? rflags::tf : 0));
        const Interruptibility wanted{has_bit(bits, 0), has_bit(bits, 1), has_bit(bits, 2)};
        b.set_interruptibility({});
        b.set_interruptibility(wanted);
        INFO(bits);
        CHECK(bench.violation_text() == "");
        CHECK(b.interruptibility().nmi_blocked == wanted.nmi_blocked);
        CHECK(b.interruptibility().mov_ss_shadow == wanted.mov_ss_shadow);
        b.set_interruptibility({});
        bench.fake.fields()[vmcs::guest_pending_debug_exceptions.encoding] = 0;
    }
}

TEST_CASE("Windows are opened and closed without needless writes") {
    Bench bench;
    Backend& b = *bench.backend;
    const u64 before = bench.fake[vmcs::primary_controls];
    b.set_interrupt_window(true);
    CHECK(bench.fake[vmcs::primary_controls] == (before | primary::interrupt_window_exiting));
    b.set_nmi_window(true);
    CHECK(bench.fake[vmcs::primary_controls] ==
          (before | primary::interrupt_window_exiting | primary::nmi_window_exiting));
    CHECK(bench.violation_text() == "");
    bench.fake.fields()[vmcs::primary_controls.encoding] = 0;
    b.set_nmi_window(true);
    CHECK(bench.fake[vmcs::primary_controls] == 0);
    b.set_nmi_window(false);
    b.set_interrupt_window(false);
    CHECK(bench.fake[vmcs::primary_controls] == before);
}

TEST_CASE("HLT exits unless it is left to the guest, and always while an interrupt window is wanted") {
    Bench bench;
    Backend& b = *bench.backend;
    const auto exits = [&] { return (bench.fake[vmcs::primary_controls] & primary::hlt_exiting) != 0; };
    CHECK(exits());
    b.let_halt(true);
    CHECK_FALSE(exits());
    b.set_interrupt_window(true);
    CHECK(exits());
    CHECK(bench.violation_text() == "");
    b.set_interrupt_window(false);
    CHECK_FALSE(exits());
    b.reset();
    CHECK_FALSE(exits());
    b.let_halt(false);
    CHECK(exits());
    b.set_interrupt_window(true);
    b.set_interrupt_window(false);
    CHECK(exits());
}

TEST_CASE("A guest found asleep is awake for the hardware from then on") {
    Bench bench;
    Backend& b = *bench.backend;
    CHECK_FALSE(b.take_halt());
    b.let_halt(true);
    CHECK_FALSE(b.take_halt());
    bench.fake.fields()[vmcs::guest_activity.encoding] = activity::hlt;
    CHECK(b.take_halt());
    CHECK(bench.fake[vmcs::guest_activity] == activity::active);
    CHECK_FALSE(b.take_halt());
}

TEST_CASE("The MSR bitmap lets through what the guest owns and nothing else") {
    Bench bench;
    const MsrBitmap bitmap(bench.bitmap_page.data());
    for (MsrIndex index : {msr::fs_base, msr::gs_base, msr::kernel_gs_base, msr::star, msr::lstar, msr::cstar,
                           msr::sfmask, msr::sysenter_cs, msr::sysenter_esp, msr::sysenter_eip, msr::pat}) {
        CHECK_FALSE(bitmap.read_exits(index));
        CHECK_FALSE(bitmap.write_exits(index));
    }
    CHECK_FALSE(bitmap.read_exits(msr::tsc_aux));
    CHECK(bitmap.write_exits(msr::tsc_aux));
    CHECK_FALSE(bitmap.read_exits(msr::efer));
    CHECK(bitmap.write_exits(msr::efer));
    CHECK_FALSE(bitmap.read_exits(msr::tsc));
    CHECK(bitmap.write_exits(msr::tsc));
    unsigned through = 0;
    for (u32 base : {0u, 0xC0000000u}) {
        for (u32 i = 0; i < 0x2000; ++i) {
            through += bitmap.read_exits(MsrIndex(base + i)) ? 0 : 1;
            through += bitmap.write_exits(MsrIndex(base + i)) ? 0 : 1;
        }
    }
    CHECK(through == 11 * 2 + 3);
    // Outside the bitmap everything exits, and asking for anything else changes nothing.
    MsrBitmap changed(bench.bitmap_page.data());
    const auto before = bench.bitmap_page;
    for (u32 index : {0x2000u, 0xBFFF'FFFFu, 0xC000'2000u, 0x8000'0000u, 0xFFFF'FFFFu}) {
        changed.set_exits(MsrIndex(index), false);
        CHECK(changed.read_exits(MsrIndex(index)));
    }
    CHECK(bench.bitmap_page == before);
}

TEST_CASE("A guest without RDTSCP has no TSC_AUX") {
    Bench bench(machines::skylake_x, {.rdtscp = false});
    CHECK(MsrBitmap(bench.bitmap_page.data()).read_exits(msr::tsc_aux));
    bench.backend->write(Register::tsc_aux, 5);
    CHECK(bench.extended.tsc_aux_writes == 0);
}

TEST_CASE("APIC assistance follows the mode") {
    Bench bench;
    Backend& b = *bench.backend;
    const MsrBitmap bitmap(bench.bitmap_page.data());
    const auto apic_bits = [&] {
        return bench.fake[vmcs::secondary_controls] &
               (secondary::virtualize_apic_accesses | secondary::virtualize_x2apic_mode |
                secondary::apic_register_virtualization | secondary::virtual_interrupt_delivery);
    };
    CHECK(b.apic_assist() == ApicAssist::tpr);
    CHECK(apic_bits() == 0);
    b.set_apic_mode(ApicMode::xapic);
    CHECK(b.apic_assist() == ApicAssist::full);
    CHECK(apic_bits() == (secondary::virtualize_apic_accesses | secondary::apic_register_virtualization |
                          secondary::virtual_interrupt_delivery));
    CHECK(bitmap.read_exits(MsrIndex(0x808)));
    b.set_apic_mode(ApicMode::x2apic);
    CHECK(b.apic_assist() == ApicAssist::full);
    CHECK(apic_bits() == (secondary::virtualize_x2apic_mode | secondary::apic_register_virtualization |
                          secondary::virtual_interrupt_delivery));
    for (u32 writable : {0x808u, 0x80Bu, 0x83Fu}) CHECK_FALSE(bitmap.write_exits(MsrIndex(writable)));
    for (u32 exits : {0x830u, 0x80Fu, 0x832u, 0x838u, 0x802u}) CHECK(bitmap.write_exits(MsrIndex(exits)));
    for (u32 exits : {0x839u, 0x80Bu, 0x83Fu, 0x830u, 0x800u, 0x8FFu, 0x809u, 0x80Cu, 0x80Eu, 0x831u}) {
        CHECK(bitmap.read_exits(MsrIndex(exits)));
    }
    for (u32 readable :
         {0x802u, 0x803u, 0x808u, 0x80Au, 0x80Du, 0x810u, 0x817u, 0x81Fu, 0x827u, 0x838u, 0x83Eu}) {
        CHECK_FALSE(bitmap.read_exits(MsrIndex(readable)));
    }
    b.set_apic_mode(ApicMode::disabled);
    CHECK(apic_bits() == 0);
    CHECK(bitmap.read_exits(MsrIndex(0x802)));
    CHECK(bitmap.write_exits(MsrIndex(0x808)));
}

TEST_CASE("With less hardware there is less assistance") {
    SECTION("TPR shadow alone") {
        CapabilityMsrs msrs = machines::skylake_x;
        msrs.procbased2 &= ~(u64{0x311} << 32);
        Bench bench(msrs);
        bench.backend->set_apic_mode(ApicMode::xapic);
        CHECK(bench.backend->apic_assist() == ApicAssist::tpr);
        bench.backend->set_apic_mode(ApicMode::x2apic);
        CHECK(bench.backend->apic_assist() == ApicAssist::tpr);
        CHECK(MsrBitmap(bench.bitmap_page.data()).read_exits(MsrIndex(0x808)));
        bench.backend->set_virtual_interrupt(0x31, 0);  // the field does not exist: nothing is written
        CHECK(bench.fake[vmcs::guest_interrupt_status] == 0);
        CHECK(bench.violation_text() == "");
    }
    SECTION("no access page") {
        Bench bench(machines::skylake_x, {}, HostPhysical(0));
        bench.backend->set_apic_mode(ApicMode::xapic);
        CHECK(bench.backend->apic_assist() == ApicAssist::tpr);
        CHECK(bench.violation_text() == "");
    }
    SECTION("nothing") {
        Bench bench(machines::skylake_x, {.apic_virtualization = false});
        bench.backend->set_apic_mode(ApicMode::xapic);
        CHECK(bench.backend->apic_assist() == ApicAssist::none);
        CHECK(bench.violation_text() == "");
    }
}

TEST_CASE("The page at FEE00000h is there while an xAPIC is, and only then") {
    Bench bench;
    bench.parameters.nested_root_without_apic = HostPhysical(0x7000);
    bench.backend = std::make_unique<Backend>(bench.capabilities, bench.parameters);
    Backend& b = *bench.backend;
    REQUIRE(b.prepare(test_host).has_value());
    b.load();
    constexpr u64 flags = 3 << 3 | 6;  // four levels, write-back
    constexpr u64 with = 0x6000 | flags, without = 0x7000 | flags;
    CHECK(bench.fake[vmcs::ept_pointer] == without);
    const struct {
        ApicMode mode;
        u64 pointer;
    } steps[] = {{ApicMode::xapic, with},       {ApicMode::moved, without}, {ApicMode::xapic, with},
                 {ApicMode::disabled, without}, {ApicMode::xapic, with},    {ApicMode::x2apic, without}};
    for (const auto& step : steps) {
        b.set_apic_mode(step.mode);
        CHECK(bench.fake[vmcs::ept_pointer] == step.pointer);
        CHECK(bench.violation_text() == "");
    }
    // Where it has been moved to, its registers are reached by software, its interrupts delivered as ever.
    b.set_apic_mode(ApicMode::moved);
    CHECK(b.apic_assist() == ApicAssist::full);
    CHECK((bench.fake[vmcs::secondary_controls] &
           (secondary::virtualize_apic_accesses | secondary::virtualize_x2apic_mode)) == 0);
    // What the processor may have kept of either table goes.
    bench.fake.operations.clear();
    b.flush_translations();
    CHECK(bench.fake.operations == std::vector<std::string>{"invept 1 " + std::to_string(with),
                                                            "invept 1 " + std::to_string(without)});
}

TEST_CASE("Virtual interrupts and EOI exits") {
    Bench bench;
    Backend& b = *bench.backend;
    b.set_apic_mode(ApicMode::xapic);
    b.set_virtual_interrupt(0x51, 0x31);
    CHECK(bench.fake[vmcs::guest_interrupt_status] == 0x3151);
    for (unsigned vector : {0u, 63u, 64u, 127u, 128u, 255u})
        b.set_eoi_exit(Vector(static_cast<u8>(vector)), true);
    CHECK(bench.fake[vmcs::eoi_exit_bitmap_0] == (bit(0) | bit(63)));
    CHECK(bench.fake[vmcs::eoi_exit_bitmap_1] == (bit(0) | bit(63)));
    CHECK(bench.fake[vmcs::eoi_exit_bitmap_2] == bit(0));
    CHECK(bench.fake[vmcs::eoi_exit_bitmap_3] == bit(63));
    b.set_eoi_exit(Vector(64), false);
    CHECK(bench.fake[vmcs::eoi_exit_bitmap_1] == bit(63));
}

TEST_CASE("CR8 is the TPR of the APIC page, and the threshold never exceeds it") {
    Bench bench;
    Backend& b = *bench.backend;
    b.set_cr8(0xFF);
    CHECK(bench.apic_page[0x80] == 0xF0);
    CHECK(b.cr8() == 0xF);
    b.set_cr8(3);
    b.set_tpr_threshold(2);
    CHECK(bench.fake[vmcs::tpr_threshold] == 2);
    b.set_tpr_threshold(9);
    CHECK(bench.fake[vmcs::tpr_threshold] == 3);
    CHECK(bench.violation_text() == "");
}

TEST_CASE("load() and save() switch everything that entry and exit do not, between two vCPUs") {
    Bench bench;
    auto& fake = bench.fake;
    Backend& a = *bench.backend;
    std::array<u8, 4096> vmcs_page{}, apic_page{}, bitmap_page{};
    alignas(4096) std::array<u8, 4096> state{};
    VcpuParameters other = bench.parameters;
    other.vmcs = {vmcs_page.data(), HostPhysical(0x12000)};
    other.virtual_apic = {apic_page.data(), HostPhysical(0x13000)};
    other.msr_bitmap = {bitmap_page.data(), HostPhysical(0x14000)};
    other.extended_state = state.data();
    other.vpid = 18;

    a.write(Register::lstar, 0xA);
    a.write(Register::tsc_aux, 0xAA);
    a.write(Register::cr2, 0xAAA);
    a.write(Register::rip, 0xAAAA);
    a.set_debug_register(0, 0xA0);
    a.set_debug_register(6, 0xFFFF4FF0);
    a.set_xcr0(3);
    fake_extended_registers().file.assign(576, 0xA5);
    a.save();
    CHECK(fake.current == ~u64{0});

    Backend b(bench.capabilities, other);
    REQUIRE(b.prepare(test_host).has_value());
    b.load();
    // Nothing of the first is to be seen.
    CHECK(b.read(Register::lstar) == 0);
    CHECK(b.read(Register::tsc_aux) == 0);
    CHECK(b.read(Register::cr2) == 0);
    CHECK(b.read(Register::rip) == 0xFFF0);
    CHECK(b.debug_register(0) == 0);
    CHECK(b.debug_register(6) == 0xFFFF0FF0);
    CHECK(fake_extended_registers().xcr0 == 1);
    CHECK(fake_extended_registers().file[300] == 0);
    fake.msrs[msr::lstar.raw()] = 0xB;  // by the guest itself
    fake.cr2 = 0xBBB;
    b.save();
    CHECK(b.read(Register::lstar) == 0xB);  // these need no VMCS
    CHECK(b.read(Register::cr2) == 0xBBB);

    a.load();
    CHECK(a.read(Register::lstar) == 0xA);
    CHECK(fake_extended_registers().tsc_aux == 0xAA);
    CHECK(a.read(Register::cr2) == 0xAAA);
    CHECK(a.read(Register::rip) == 0xAAAA);
    CHECK(fake_extended_registers().debug[0] == 0xA0);
    CHECK(fake_extended_registers().debug[6] == 0xFFFF4FF0);
    CHECK(fake_extended_registers().xcr0 == 3);
    CHECK(fake_extended_registers().file[300] == 0xA5);
}

TEST_CASE("Extended state is switched with all components enabled, whatever the guest enabled") {
    Bench bench;
    bench.backend->set_xcr0(1);
    bench.fake.operations.clear();
    bench.backend->save();
    bench.backend->load();
    CHECK(bench.fake.operations ==
          std::vector<std::string>{"xsave 7 under 7", "vmclear", "vmptrld", "xrstor 7 under 7"});
    CHECK(bench.extended.xcr0 == 1);
}

TEST_CASE(
    "A vCPU that is loaded on another core gets that core's host state in its own compartment, and flushes") {
    Bench bench;
    Backend& b = *bench.backend;
    b.save();
    bench.fake.core = 3;
    bench.fake.host = test_host;
    bench.fake.host.cr3 = 0x66'6000;
    bench.fake.host.tr = 72;
    bench.fake.host.tr_base = 0xFFFF'FFFF'9000'0000;
    bench.fake.host.gs_base = 0xFFFF'FFFF'9000'1000;
    bench.fake.operations.clear();
    b.load();
    CHECK(bench.fake[vmcs::host_tr_selector] == 72);
    CHECK(bench.fake[vmcs::host_tr_base] == 0xFFFF'FFFF'9000'0000);
    CHECK(bench.fake[vmcs::host_gs_base] == 0xFFFF'FFFF'9000'1000);
    CHECK(bench.fake[vmcs::host_cr3] == test_host.cr3);
    REQUIRE(bench.fake.operations.size() == 4);
    CHECK(bench.fake.operations[0] == "vmptrld");
    CHECK(bench.fake.operations[1] == "invvpid 1 17");
    CHECK(bench.fake.operations[2].starts_with("invept 1 "));
    bench.fake.operations.clear();
    b.save();
    b.load();
    CHECK(bench.fake.operations ==
          std::vector<std::string>{"xsave 7 under 7", "vmclear", "vmptrld", "xrstor 7 under 7"});

    // And back again: what the first core holds is not trusted either.
    b.save();
    bench.fake.core = 0;
    bench.fake.host = test_host;
    bench.fake.operations.clear();
    b.load();
    CHECK(bench.fake[vmcs::host_tr_base] == test_host.tr_base);
    CHECK(bench.fake.operations.size() == 4);
}

TEST_CASE("Saving clears the VMCS, so that the next entry on any core launches") {
    Bench bench;
    Backend& b = *bench.backend;
    (void)b.run(~u64{0});
    b.save();
    CHECK_FALSE(bench.fake.memory[bench.parameters.vmcs.physical.raw()].active);
    bench.fake.core = 1;
    bench.fake.host = test_host;
    b.load();
    CHECK(b.run(~u64{0}).reason != ExitReason::hardware_error);
    CHECK(bench.fake.entries == 2);
}

TEST_CASE("A flush asked for while the vCPU is not loaded is done when it is") {
    Bench bench;
    Backend& b = *bench.backend;
    b.save();
    bench.fake.operations.clear();
    b.flush_translations();
    CHECK(bench.fake.operations.empty());
    b.load();
    REQUIRE(bench.fake.operations.size() == 3);
    CHECK(bench.fake.operations[1].starts_with("invept 1 "));
    b.save();
    bench.fake.operations.clear();
    b.load();
    CHECK(bench.fake.operations.size() == 2);
}

TEST_CASE("A processor that needs it is entered by the guarded world switch, others are not") {
    Bench bench;
    (void)bench.backend->run(never_deadline);
    CHECK(bench.fake.entries == 1);
    CHECK(bench.fake.guarded_entries == 0);
    VcpuParameters parameters = bench.parameters;
    parameters.guarded = true;
    bench.backend->save();
    Backend b(bench.capabilities, parameters);
    REQUIRE(b.prepare(test_host).has_value());
    b.load();
    CHECK(b.run(never_deadline).reason == ExitReason::cpuid);
    CHECK(b.run(never_deadline).reason == ExitReason::cpuid);
    CHECK(bench.fake.guarded_entries == 2);
}

TEST_CASE("A VMCS that cannot be made current is an error, not a crash") {
    Bench bench;
    VcpuParameters parameters = bench.parameters;
    parameters.vmcs.physical = HostPhysical(0x2010);
    Backend b(bench.capabilities, parameters);
    const auto result = b.prepare(test_host);
    REQUIRE_FALSE(result.has_value());
    CHECK(std::string(result.error().text.view()).find("HV-E207") == 0);
}

TEST_CASE("A control field that the processor's VMCS lacks is named at set-up") {
    Bench bench;
    bench.fake.missing_fields.insert(vmcs::virtual_apic_address.encoding);
    Backend b(bench.capabilities, bench.parameters);
    const auto result = b.prepare(test_host);
    REQUIRE_FALSE(result.has_value());
    CHECK(std::string(result.error().text.view()).find("virtual-APIC address") != std::string::npos);
}
