#include "arch/x86/svm/backend.hpp"

#include <cstring>
#include <set>

#include "arch/x86/regs/control.hpp"
#include "arch/x86/regs/msr.hpp"
#include "arch/x86/svm/exit_decode.hpp"
#include "fixture.hpp"

using namespace bulkhead;
using namespace bulkhead::svm;

namespace {

constexpr SegmentName all_segments[] = {SegmentName::es, SegmentName::cs, SegmentName::ss,   SegmentName::ds,
                                        SegmentName::fs, SegmentName::gs, SegmentName::ldtr, SegmentName::tr};

bool intercepts_iret(const VmcbControl& control) {
    return (control.intercept_misc1 & intercept1::iret) != 0;
}

// The two bits of an MSR in the permission map: read, write. APM Vol. 2, 15.11.
struct MsrBits {
    bool read, write;
    friend bool operator==(const MsrBits&, const MsrBits&) = default;
};
MsrBits msr_bits(const u8* map, u32 number) {
    u32 offset = 0;
    if (number >= 0xC0010000) {
        offset = 0x1000;
    } else if (number >= 0xC0000000) {
        offset = 0x800;
    }
    const u32 at = (number & 0x1FFF) * 2;
    return {has_bit(map[offset + at / 8], at % 8), has_bit(map[offset + at / 8], at % 8 + 1)};
}

}  // namespace

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
    for (unsigned i = 0; i < 4; ++i) CHECK(b.debug_register(i) == 0);
    CHECK(b.xcr0() == 1);
    CHECK(b.cr8() == 0);
    CHECK(b.gprs.rdx == 0x800F12);
    for (const unsigned i : {0U, 1U, 3U, 4U, 5U, 6U, 7U, 8U, 15U}) CHECK(b.gprs[i] == 0);
    CHECK(b.segment(SegmentName::cs) ==
          Segment{.selector = 0xF000, .base = 0xFFFF0000, .limit = 0xFFFF, .access = 0x9B});
    for (const SegmentName name :
         {SegmentName::es, SegmentName::ss, SegmentName::ds, SegmentName::fs, SegmentName::gs}) {
        CHECK(b.segment(name) == Segment{.limit = 0xFFFF, .access = 0x93});
    }
    CHECK(b.segment(SegmentName::ldtr) == Segment{.limit = 0xFFFF, .access = 0x82});
    CHECK(b.segment(SegmentName::tr) == Segment{.limit = 0xFFFF, .access = 0x8B});
    CHECK(b.gdtr() == DescriptorTable{.base = 0, .limit = 0xFFFF});
    CHECK(b.idtr() == DescriptorTable{.base = 0, .limit = 0xFFFF});
    CHECK(b.interruptibility() == Interruptibility{});
    CHECK_FALSE(b.injection_pending());
    for (const Register r : {Register::star, Register::lstar, Register::cstar, Register::sfmask,
                             Register::kernel_gs_base, Register::tsc_aux, Register::sysenter_cs,
                             Register::sysenter_esp, Register::sysenter_eip, Register::debugctl}) {
        CHECK(b.read(r) == 0);
    }
    CHECK(bench.extended.file[0] == 0x40);
    CHECK(bench.violations().empty());
}

TEST_CASE("RESET wipes what an earlier life left behind") {
    Bench bench;
    Backend& b = *bench.backend;
    std::memset(static_cast<void*>(&bench.vmcb.state), 0xEE, sizeof bench.vmcb.state);
    b.gprs.r15 = 1;
    b.write(Register::tsc_aux, 9);
    b.set_debug_register(3, 0x77);
    b.set_xcr0(7);
    b.set_interrupt_window(true);
    b.set_tpr_threshold(4);
    b.set_cr8(9);
    b.set_tsc_offset(1234);
    b.inject({.type = Event::Type::nmi, .vector = Vector(2)});
    b.reset();
    CHECK(b.gprs.r15 == 0);
    CHECK(b.read(Register::tsc_aux) == 0);
    CHECK(b.debug_register(3) == 0);
    CHECK(bench.extended.debug[3] == 0);
    CHECK(bench.extended.xcr0 == 1);
    CHECK_FALSE(b.injection_pending());
    CHECK_FALSE(b.interruptibility().nmi_blocked);
    CHECK(bench.vmcb.control.virtual_interrupt == vintr::masking);
    CHECK(bench.vmcb.control.intercept_cr == 0);
    CHECK(bench.vmcb.control.tsc_offset == 0);
    CHECK_FALSE(intercepts_iret(bench.vmcb.control));
    CHECK(bench.violations().empty());
}

TEST_CASE("What must never run in a guest is intercepted from the first entry on") {
    Bench bench;
    (void)bench.run();
    const VmcbControl& control = bench.entry().control;
    for (const u32 needed :
         {intercept1::intr, intercept1::nmi, intercept1::init, intercept1::cpuid, intercept1::invd,
          intercept1::hlt, intercept1::invlpga, intercept1::ioio, intercept1::msr, intercept1::task_switch,
          intercept1::shutdown, intercept1::rsm, intercept1::ferr_freeze}) {
        CHECK((control.intercept_misc1 & needed) == needed);
    }
    for (const u32 needed : {intercept2::vmrun, intercept2::vmmcall, intercept2::vmload, intercept2::vmsave,
                             intercept2::stgi, intercept2::clgi, intercept2::skinit, intercept2::wbinvd,
                             intercept2::xsetbv, intercept2::monitor, intercept2::mwait}) {
        CHECK((control.intercept_misc2 & needed) == needed);
    }
    // #DB, #AC and #MC: the first two could be raised without end (CVE-2015-8104, CVE-2015-5307).
    for (const unsigned vector : {1U, 17U, 18U}) CHECK(has_bit(control.intercept_exceptions, vector));
    CHECK((control.intercept_exceptions & bit<u32>(14)) == 0);
    CHECK(control.nested_control == 1);
    CHECK(control.nested_cr3 == 0x30000);
    CHECK(control.iopm_base == 0x10000);
    CHECK(control.msrpm_base == 0x20000);
    CHECK(control.asid == 5);
    CHECK((control.virtual_interrupt & vintr::masking) != 0);
    CHECK(control.intercept_cr == 0);
}

TEST_CASE("CR4 writes are intercepted where the guest's CPUID hides some of it") {
    Bench bench(full_capabilities, true);
    (void)bench.run();
    CHECK(bench.entry().control.intercept_cr == bit<u32>(20));
}

TEST_CASE("General registers, RAX and RSP among them, go in and come out") {
    Bench bench;
    Backend& b = *bench.backend;
    for (unsigned i = 0; i < 16; ++i) b.gprs[i] = 100 + i;
    bench.fake.guest = [](GeneralRegisters& registers, Vmcb& block) {
        CHECK(block.state.rax == 100);
        CHECK(block.state.rsp == 104);
        CHECK(registers.r15 == 115);
        registers.r15 = 1;
        block.state.rax = 2;
        block.state.rsp = 3;
        block.control.exit_code = exit_code::hlt;
    };
    CHECK(b.run(~u64{0}).reason == ExitReason::hlt);
    CHECK(b.gprs.r15 == 1);
    CHECK(b.gprs.rax == 2);
    CHECK(b.gprs.rsp == 3);
}

TEST_CASE("Registers live where the VMCB keeps them and stay what was written") {
    Bench bench;
    Backend& b = *bench.backend;
    const Register plain[] = {Register::rip,          Register::rflags,      Register::cr2,
                              Register::cr3,          Register::cr4,         Register::dr7,
                              Register::fs_base,      Register::gs_base,     Register::kernel_gs_base,
                              Register::star,         Register::lstar,       Register::cstar,
                              Register::sfmask,       Register::sysenter_cs, Register::sysenter_esp,
                              Register::sysenter_eip, Register::pat,         Register::debugctl,
                              Register::tsc_aux};
    u64 value = 0x1000;
    for (const Register r : plain) b.write(r, value++);
    value = 0x1000;
    for (const Register r : plain) CHECK(b.read(r) == value++);
    const VmcbState& state = bench.vmcb.state;
    const std::set<u64> places = {state.rip,
                                  state.rflags,
                                  state.cr2,
                                  state.cr3,
                                  state.cr4,
                                  state.dr7,
                                  state.fs.base,
                                  state.gs.base,
                                  state.kernel_gs_base,
                                  state.star,
                                  state.lstar,
                                  state.cstar,
                                  state.sfmask,
                                  state.sysenter_cs,
                                  state.sysenter_esp,
                                  state.sysenter_eip,
                                  state.pat,
                                  state.debugctl,
                                  bench.extended.tsc_aux};
    CHECK(places.size() == std::size(plain));
    CHECK(*places.begin() == 0x1000);
}

TEST_CASE("LMA follows LME and PG; the guest never sees SVME and never loses it") {
    Bench bench;
    Backend& b = *bench.backend;
    b.write(Register::efer, efer::lme | efer::sce);
    CHECK(b.read(Register::efer) == (efer::lme | efer::sce));
    b.write(Register::cr0, cr0::pe | cr0::pg);
    CHECK(b.read(Register::cr0) == (cr0::pe | cr0::pg | cr0::et));
    CHECK(b.read(Register::efer) == (efer::lme | efer::lma | efer::sce));
    CHECK((bench.vmcb.state.efer & efer::svme) != 0);
    b.write(Register::efer, efer::lme);
    CHECK(b.read(Register::efer) == (efer::lme | efer::lma));
    b.write(Register::cr0, cr0::pe);
    CHECK(b.read(Register::efer) == efer::lme);
    // Paging without LME is not long mode, whatever is written to LMA.
    b.write(Register::efer, efer::lma);
    b.write(Register::cr0, cr0::pe | cr0::pg);
    CHECK(b.read(Register::efer) == 0);
    CHECK(bench.vmcb.state.efer == efer::svme);
}

TEST_CASE("Segments keep selector, base, limit and every attribute bit") {
    Bench bench;
    Backend& b = *bench.backend;
    for (const SegmentName name : all_segments) {
        for (const u16 access : {0x0080, 0x0093, 0x00F3, 0xA09B, 0xC0FB, 0xF0FF, 0x1089}) {
            const Segment value{
                .selector = 0x1238, .base = 0xFFFF'8000'1234'5678, .limit = 0xFFFF'FFFF, .access = access};
            b.set_segment(name, value);
            CAPTURE(static_cast<int>(name), access);
            CHECK(b.segment(name) == value);
        }
    }
}

TEST_CASE("An unusable segment is one that is not present") {
    Bench bench;
    Backend& b = *bench.backend;
    for (const SegmentName name : all_segments) {
        b.set_segment(name, {.selector = 0, .base = 0x55, .limit = 7, .access = 0x93, .unusable = true});
        const Segment read = b.segment(name);
        CHECK(read.unusable);
        CHECK_FALSE(read.present());
        CHECK(read.base == 0x55);
    }
    CHECK(bench.vmcb.state.ds.attributes == 0);
}

TEST_CASE("SS.DPL is the CPL, even of a null SS in 64-bit mode") {
    Bench bench;
    Backend& b = *bench.backend;
    for (unsigned cpl = 0; cpl < 4; ++cpl) {
        const auto access = static_cast<u16>(0xC093 | cpl << 5);
        b.set_segment(SegmentName::ss, {.selector = 0x2B, .limit = ~0U, .access = access});
        CHECK(bench.vmcb.state.cpl == cpl);
        CHECK(b.segment(SegmentName::ss).dpl() == cpl);
        // SYSRET and SYSCALL change the CPL field; what SS's attributes say is stale then.
        bench.vmcb.state.cpl = static_cast<u8>(3 - cpl);
        CHECK(b.segment(SegmentName::ss).dpl() == 3 - cpl);
        b.set_segment(SegmentName::ss, {.access = access, .unusable = true});
        CHECK(bench.vmcb.state.cpl == cpl);
        CHECK(b.segment(SegmentName::ss).dpl() == cpl);
        CHECK(b.segment(SegmentName::ss).unusable);
    }
    b.set_segment(SegmentName::cs, {.access = 0xA0FB});
    CHECK(bench.vmcb.state.cpl == 3);
}

TEST_CASE("Descriptor tables are kept, their limits 16 bits") {
    Bench bench;
    Backend& b = *bench.backend;
    b.set_gdtr({.base = 0xFFFF'8000'0000'1000, .limit = 0x7F});
    b.set_idtr({.base = 0x2000, .limit = 0xFFF});
    CHECK(b.gdtr() == DescriptorTable{.base = 0xFFFF'8000'0000'1000, .limit = 0x7F});
    CHECK(b.idtr() == DescriptorTable{.base = 0x2000, .limit = 0xFFF});
}

TEST_CASE("Injected events reach EVENTINJ and are gone after the entry") {
    Bench bench;
    Backend& b = *bench.backend;
    bench.vmcb.state.cr0 |= cr0::pe;
    b.inject(make_page_fault(0xABC123, 6));
    CHECK(b.injection_pending());
    CHECK(b.read(Register::cr2) == 0xABC123);
    (void)bench.run();
    CHECK(bench.entry().control.event_injection == encode_event(make_exception(Vector(14), 6)));
    CHECK(bench.entry().state.cr2 == 0xABC123);
    CHECK_FALSE(b.injection_pending());
    (void)bench.run();
    CHECK(bench.entry().control.event_injection == 0);
    // A later event replaces an earlier one.
    b.inject(make_invalid_opcode());
    b.inject(make_general_protection());
    (void)bench.run();
    CHECK(bench.entry().control.event_injection == encode_event(make_general_protection()));
}

namespace {

constexpr Event external(u8 vector) {
    return {.type = Event::Type::external_interrupt, .vector = Vector(vector)};
}
constexpr u64 as_ever = vintr::masking | 5, offered = as_ever | vintr::request | u64{0xE1} << 32;
constexpr Capabilities repeating = [] {
    Capabilities capabilities = full_capabilities;
    capabilities.repeats_injections = true;
    return capabilities;
}();

}  // namespace

TEST_CASE("Where injections are not repeated an external interrupt is one") {
    Bench bench;
    bench.backend->inject(external(0x40));
    (void)bench.run();
    CHECK(bench.entry().control.event_injection == (event_info::valid | 0x40));
    CHECK(bench.entry().control.virtual_interrupt == vintr::masking);
    CHECK_FALSE(bench.backend->injection_pending());
}

TEST_CASE("Where they are it goes as a virtual one, and stays to be injected until the guest has taken it") {
    Bench bench(repeating);
    Backend& b = *bench.backend;
    b.write(Register::rflags, 0x202);
    b.set_cr8(5);
    const auto virtual_interrupt = [&] { return bench.entry().control.virtual_interrupt; };
    b.inject(external(0xE1));
    bench.fake.host_interrupt_first = true;
    (void)bench.run(exit_code::intr);
    CHECK(virtual_interrupt() == offered);
    CHECK(bench.entry().control.event_injection == 0);
    CHECK(b.injection_pending());
    CHECK(bench.vmcb.control.virtual_interrupt == as_ever);
    bench.fake.host_interrupt_first = false;
    (void)bench.run();
    CHECK(virtual_interrupt() == offered);
    CHECK_FALSE(b.injection_pending());
    (void)bench.run();
    CHECK(virtual_interrupt() == as_ever);
    // The virtual one serves as interrupt window: EVENTINJ.
    b.inject(external(0x40));
    b.set_interrupt_window(true);
    (void)bench.run();
    CHECK(bench.entry().control.event_injection == (event_info::valid | 0x40));
    CHECK(virtual_interrupt() == (as_ever | vintr::request));
    CHECK_FALSE(b.injection_pending());
}

// The processor leaves V_IRQ set where the delivery did not come to its end.
TEST_CASE("A virtual interrupt whose delivery failed is not injected again") {
    Bench bench(repeating);
    Backend& b = *bench.backend;
    b.write(Register::rflags, 0x202);
    b.set_cr8(5);
    bench.fake.host_interrupt_first = true;
    SECTION("a fault of the guest's: its handler has run until it exited") {
        b.inject(external(0xE1));
        (void)bench.run(exit_code::cpuid);
    }
    SECTION("or until the host wanted something") {
        b.inject(external(0xE1));
        bench.fake.guest = [](GeneralRegisters&, Vmcb& vmcb) {
            vmcb.control.exit_code = exit_code::intr;
            vmcb.state.rflags = 2;
        };
        (void)b.run(~u64{0});
    }
    SECTION("an exit: it is there, whatever the type that it is given") {
        b.inject(external(0xE1));
        bench.fake.guest = [](GeneralRegisters&, Vmcb& vmcb) {
            vmcb.control.exit_code = exit_code::nested_fault;
            vmcb.control.exit_interrupt_info =
                event_info::valid | event_info::type_exception << event_info::type_shift | 0xE1;
        };
        const Exit exit = b.run(~u64{0});
        REQUIRE(exit.interrupted);
        CHECK(exit.interrupted->type == Event::Type::external_interrupt);
        CHECK(exit.interrupted->vector == Vector(0xE1));
    }
    CHECK(bench.entry().control.virtual_interrupt == offered);
    CHECK_FALSE(b.injection_pending());
    CHECK(bench.vmcb.control.virtual_interrupt == as_ever);
}

TEST_CASE("Offering an interrupt, and taking it back, is not called clean") {
    Bench bench(repeating);
    Backend& b = *bench.backend;
    (void)bench.run();
    (void)bench.run();
    REQUIRE(bench.entry().control.clean == clean::all);
    b.inject(external(0xE1));
    (void)bench.run();
    CHECK(bench.entry().control.clean == (clean::all & ~clean::tpr));
    (void)bench.run();
    CHECK(bench.entry().control.clean == (clean::all & ~clean::tpr));
    (void)bench.run();
    CHECK(bench.entry().control.clean == clean::all);
}

TEST_CASE("Real mode has no error codes") {
    Bench bench;
    bench.backend->inject(make_general_protection(0x10));
    (void)bench.run();
    CHECK(bench.entry().control.event_injection == encode_event(make_exception(Vector(13))));
}

TEST_CASE("A software interrupt returns behind its instruction, with nRIP and without") {
    for (const bool next_rip : {true, false}) {
        Capabilities capabilities = full_capabilities;
        capabilities.next_rip = next_rip;
        Bench bench(capabilities);
        bench.backend->write(Register::rip, 0x1000);
        bench.backend->inject(
            {.type = Event::Type::software_interrupt, .vector = Vector(0x80), .instruction_length = 2});
        (void)bench.run();
        CHECK(bench.entry().control.event_injection == (event_info::valid | 4 << 8 | 0x80));
        if (next_rip) {
            CHECK(bench.entry().control.next_rip == 0x1002);
            CHECK(bench.entry().state.rip == 0x1000);
        } else {
            CHECK(bench.entry().state.rip == 0x1002);
        }
    }
}

TEST_CASE("What EXITINTINFO holds comes back as the interrupted event") {
    Bench bench;
    bench.fake.guest = [](GeneralRegisters&, Vmcb& block) {
        block.control.exit_code = exit_code::intr;
        block.control.exit_interrupt_info =
            encode_event({.type = Event::Type::external_interrupt, .vector = Vector(0x41)});
    };
    const Exit exit = bench.backend->run(~u64{0});
    REQUIRE(exit.interrupted);
    CHECK(exit.interrupted->type == Event::Type::external_interrupt);
    CHECK(exit.interrupted->vector == Vector(0x41));
    CHECK_FALSE(bench.backend->injection_pending());
}

TEST_CASE("The interrupt window is a virtual interrupt that ignores the TPR") {
    Bench bench;
    Backend& b = *bench.backend;
    b.set_cr8(15);
    b.set_interrupt_window(true);
    CHECK(bench.run(exit_code::vintr).reason == ExitReason::interrupt_window);
    const u64 wanted = bench.entry().control.virtual_interrupt;
    CHECK((wanted & vintr::irq) != 0);
    CHECK((wanted & vintr::ignore_tpr) != 0);
    CHECK((wanted & vintr::masking) != 0);
    CHECK((wanted & vintr::tpr_mask) == 15);
    CHECK((bench.entry().control.intercept_misc1 & intercept1::vintr) != 0);
    // It stays until taken back, and asking twice changes nothing.
    b.set_interrupt_window(true);
    (void)bench.run();
    CHECK((bench.entry().control.virtual_interrupt & vintr::irq) != 0);
    b.set_interrupt_window(false);
    (void)bench.run();
    CHECK(bench.entry().control.virtual_interrupt == (vintr::masking | 15));
    CHECK((bench.entry().control.intercept_misc1 & intercept1::vintr) == 0);
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
    for (const u64 flags : {u64{0x102}, u64{0x10002}}) {  // TF, RF
        b.write(Register::rflags, flags);
        CHECK_FALSE(b.advance(2));
        CHECK_FALSE(b.advance(0));
    }
    b.write(Register::rflags, 0x202);
    b.set_interruptibility({.sti_shadow = true});
    CHECK_FALSE(b.advance(2));
    b.set_interruptibility({});
    CHECK(b.read(Register::rip) == 0x1002);
    b.write(Register::rip, 0xFFFF'FFFE);
    CHECK_FALSE(b.advance(2));
    CHECK(b.advance(1));
    CHECK(b.read(Register::rip) == 0xFFFF'FFFF);
}

TEST_CASE("HLT is left to a guest that has shown an idle loop, until it is found with interrupts disabled") {
    Bench bench;
    Backend& b = *bench.backend;
    const auto intercepted = [&] {
        (void)bench.run();
        return (bench.entry().control.intercept_misc1 & intercept1::hlt) != 0;
    };
    const auto idles = [&](int times) {
        for (int i = 0; i < times; ++i) b.note_halt(true);
    };
    CHECK(intercepted());
    idles(100);
    CHECK(intercepted());
    b.let_halt(true);
    CHECK(intercepted());
    idles(7);
    CHECK(intercepted());
    b.note_halt(false);
    idles(7);
    CHECK(intercepted());
    idles(1);
    CHECK_FALSE(intercepted());
    CHECK((bench.entry().control.clean & clean::intercepts) == 0);

    b.write(Register::rflags, rflags::reserved_one | rflags::if_);
    CHECK_FALSE(b.take_halt());
    CHECK_FALSE(intercepted());
    b.write(Register::rflags, rflags::reserved_one);
    CHECK_FALSE(b.take_halt());
    CHECK(intercepted());
    idles(8);
    CHECK_FALSE(intercepted());
    b.let_halt(false);
    CHECK(intercepted());
    CHECK_FALSE(b.take_halt());
    idles(100);
    CHECK(intercepted());

    b.let_halt(true);
    idles(8);
    b.reset();
    CHECK(intercepted());
}

TEST_CASE("The interrupt shadow is one bit for STI and MOV SS alike") {
    Bench bench;
    Backend& b = *bench.backend;
    bench.fake.guest = [](GeneralRegisters&, Vmcb& block) {
        block.control.exit_code = exit_code::hlt;
        block.control.interrupt_shadow = 1;
    };
    (void)b.run(~u64{0});
    CHECK(b.interruptibility().sti_shadow);
    b.set_interruptibility({});
    CHECK_FALSE(b.interruptibility().sti_shadow);
    b.set_interruptibility({.mov_ss_shadow = true});
    (void)bench.run();
    CHECK(bench.entry().control.interrupt_shadow == 1);
}

TEST_CASE("An NMI blocks the next until its IRET has been executed") {
    Bench bench;
    Backend& b = *bench.backend;
    b.inject({.type = Event::Type::nmi, .vector = Vector(2)});
    CHECK(b.interruptibility().nmi_blocked);
    b.write(Register::rip, 0x5000);
    (void)bench.run();
    CHECK(intercepts_iret(bench.entry().control));
    CHECK(bench.entry().control.event_injection == 0x8000'0202);
    CHECK(b.interruptibility().nmi_blocked);

    // The intercept comes before IRET is executed: still blocked.
    CHECK(bench.run(exit_code::iret).reason == ExitReason::spurious);
    CHECK(b.interruptibility().nmi_blocked);
    CHECK_FALSE(intercepts_iret(bench.vmcb.control));
    // An exit without progress: the IRET is yet to come.
    (void)bench.run(exit_code::intr);
    CHECK(b.interruptibility().nmi_blocked);
    bench.fake.guest = [](GeneralRegisters&, Vmcb& block) {
        block.control.exit_code = exit_code::cpuid;
        block.state.rip = 0x7000;
    };
    (void)b.run(~u64{0});
    CHECK_FALSE(b.interruptibility().nmi_blocked);
}

TEST_CASE("An NMI whose delivery was broken off has blocked nothing") {
    Bench bench;
    Backend& b = *bench.backend;
    const Event nmi{.type = Event::Type::nmi, .vector = Vector(2)};
    b.inject(nmi);
    bench.fake.guest = [&](GeneralRegisters&, Vmcb& block) {
        block.control.exit_code = exit_code::nested_fault;
        block.control.exit_interrupt_info = encode_event(nmi);
    };
    const Exit exit = b.run(~u64{0});
    REQUIRE(exit.interrupted);
    CHECK(exit.interrupted->type == Event::Type::nmi);
    CHECK_FALSE(b.interruptibility().nmi_blocked);
    b.inject(*exit.interrupted);
    CHECK(b.interruptibility().nmi_blocked);
    CHECK(intercepts_iret(bench.vmcb.control));
}

TEST_CASE("A wanted NMI window brings the core back soon, unless an IRET will") {
    Bench bench;
    Backend& b = *bench.backend;
    const u64 far = bench.fake.tsc + 1'000'000'000;
    (void)bench.run(exit_code::cpuid, far);
    CHECK(bench.fake.deadlines.back() == far);
    b.set_nmi_window(true);
    (void)bench.run(exit_code::cpuid, far);
    CHECK(bench.fake.deadlines.back() < bench.fake.tsc + 100'000);
    (void)bench.run(exit_code::cpuid, bench.fake.tsc + 1);
    CHECK(bench.fake.deadlines.back() == bench.fake.tsc + 1);
    b.inject({.type = Event::Type::nmi, .vector = Vector(2)});
    (void)bench.run(exit_code::cpuid, far);
    CHECK(bench.fake.deadlines.back() == far);
    (void)bench.run(exit_code::iret, far);
    (void)bench.run(exit_code::cpuid, far);
    CHECK(bench.fake.deadlines.back() < far);
}

TEST_CASE("CR8 is V_TPR, and its writes exit only while an interrupt waits for one") {
    Bench bench;
    Backend& b = *bench.backend;
    b.set_cr8(9);
    (void)bench.run();
    CHECK((bench.entry().control.virtual_interrupt & vintr::tpr_mask) == 9);
    bench.fake.guest = [](GeneralRegisters&, Vmcb& block) {
        block.control.exit_code = exit_code::cpuid;
        block.control.virtual_interrupt = (block.control.virtual_interrupt & ~vintr::tpr_mask) | 3;
    };
    (void)b.run(~u64{0});
    CHECK(b.cr8() == 3);
    b.set_tpr_threshold(5);
    b.set_tpr_threshold(6);
    (void)bench.run();
    CHECK(bench.entry().control.intercept_cr == bit<u32>(24));
    b.set_tpr_threshold(0);
    (void)bench.run();
    CHECK(bench.entry().control.intercept_cr == 0);
}

TEST_CASE("What was changed is not called clean; what was not, is") {
    Bench bench;
    Backend& b = *bench.backend;
    (void)bench.run();
    CHECK(bench.entry().control.clean == 0);
    (void)bench.run();
    CHECK(bench.entry().control.clean == clean::all);

    struct Change {
        u32 dirty;
        std::function<void(Backend&)> apply;
    };
    const Change changes[] = {
        {clean::control_registers, [](Backend& x) { x.write(Register::cr0, cr0::pe); }},
        {clean::control_registers, [](Backend& x) { x.write(Register::cr3, 0x1000); }},
        {clean::control_registers, [](Backend& x) { x.write(Register::cr4, cr4::pae); }},
        {clean::control_registers, [](Backend& x) { x.write(Register::efer, efer::nxe); }},
        {clean::cr2, [](Backend& x) { x.write(Register::cr2, 1); }},
        {clean::cr2, [](Backend& x) { x.inject(make_page_fault(2, 0)); }},
        {clean::debug_registers, [](Backend& x) { x.write(Register::dr7, 0x401); }},
        {clean::debug_registers, [](Backend& x) { x.set_debug_register(6, 1); }},
        {clean::segments, [](Backend& x) { x.set_segment(SegmentName::ds, {}); }},
        {clean::segments, [](Backend& x) { x.write(Register::fs_base, 1); }},
        {clean::segments, [](Backend& x) { x.write(Register::gs_base, 1); }},
        {clean::descriptor_tables, [](Backend& x) { x.set_gdtr({}); }},
        {clean::descriptor_tables, [](Backend& x) { x.set_idtr({}); }},
        {clean::nested_paging, [](Backend& x) { x.write(Register::pat, 0); }},
        {clean::lbr, [](Backend& x) { x.write(Register::debugctl, 0); }},
        {clean::tpr, [](Backend& x) { x.set_cr8(7); }},
        {clean::tpr | clean::intercepts, [](Backend& x) { x.set_interrupt_window(true); }},
        {clean::intercepts, [](Backend& x) { x.set_tpr_threshold(1); }},
        {clean::intercepts, [](Backend& x) { x.set_tsc_offset(99); }},
        {clean::intercepts, [](Backend& x) { x.inject({.type = Event::Type::nmi, .vector = Vector(2)}); }},
        {0, [](Backend& x) { x.write(Register::rip, 5); }},
        {0, [](Backend& x) { x.write(Register::rflags, 2); }},
        {0, [](Backend& x) { x.set_interruptibility({.sti_shadow = true}); }},
        {0, [](Backend& x) { x.inject(make_invalid_opcode()); }},
        {clean::all, [](Backend& x) { x.load(); }},
    };
    for (const Change& change : changes) {
        change.apply(b);
        (void)bench.run();
        CAPTURE(&change - changes);
        CHECK(bench.entry().control.clean == (clean::all & ~change.dirty));
        (void)bench.run();
        CHECK(bench.entry().control.clean == clean::all);
    }
    // Taking the IRET intercept back is a change too.
    (void)bench.run(exit_code::iret);
    (void)bench.run();
    CHECK(bench.entry().control.clean == (clean::all & ~clean::intercepts));
}

TEST_CASE("A processor without clean bits is never told that anything is clean") {
    Bench bench(bare_capabilities);
    for (int i = 0; i < 3; ++i) {
        (void)bench.run();
        CHECK(bench.entry().control.clean == 0);
    }
}

TEST_CASE("Translations are flushed after a load and on wish, once, and by ASID where possible") {
    for (const Capabilities& capabilities : {full_capabilities, bare_capabilities}) {
        Bench bench(capabilities);
        Backend& b = *bench.backend;
        const u8 flush =
            static_cast<u8>(capabilities.flush_by_asid ? TlbControl::flush_this_asid : TlbControl::flush_all);
        const auto next = [&] {
            (void)bench.run();
            return bench.entry().control.tlb_control;
        };
        CHECK(next() == flush);
        CHECK(next() == 0);
        b.save();
        b.load();
        CHECK(next() == flush);
        CHECK(next() == 0);
        b.flush_translations();
        CHECK(next() == flush);
        for (const Register r : {Register::cr0, Register::cr3, Register::cr4, Register::efer}) {
            CHECK(next() == 0);
            b.write(r, b.read(r));
            CHECK(next() == flush);
        }
        b.write(Register::cr2, 5);
        CHECK(next() == 0);
    }
}

TEST_CASE("The MSR permission map opens what the hardware switches, and nothing else") {
    Bench bench;
    const u8* map = bench.pages->msr_permissions;
    const std::set<u32> owned = {msr::fs_base.raw(),     msr::gs_base.raw(),     msr::kernel_gs_base.raw(),
                                 msr::star.raw(),        msr::lstar.raw(),       msr::cstar.raw(),
                                 msr::sfmask.raw(),      msr::sysenter_cs.raw(), msr::sysenter_esp.raw(),
                                 msr::sysenter_eip.raw()};
    const std::set<u32> readable = {msr::tsc.raw()};
    for (const u32 base : {0U, 0xC0000000U, 0xC0010000U}) {
        for (u32 number = base; number < base + 0x2000; ++number) {
            MsrBits expected{true, true};
            if (owned.contains(number)) expected = {false, false};
            if (readable.contains(number)) expected = {false, true};
            if (msr_bits(map, number) != expected) {
                CAPTURE(number);
                CHECK(msr_bits(map, number) == expected);
            }
        }
    }
    CHECK(msr_bits(map, msr::efer.raw()) == MsrBits{true, true});
    for (unsigned i = 0x1800; i < 0x2000; ++i) REQUIRE(map[i] == 0xFF);
}

TEST_CASE("Extended state moves with load and save; DR6 is the VMCB's") {
    Bench bench;
    Backend& b = *bench.backend;
    b.set_debug_register(2, 0x1234);
    CHECK(bench.extended.debug[2] == 0x1234);
    b.set_xcr0(3);
    CHECK(bench.extended.xcr0 == 3);
    b.save();
    bench.extended.debug[2] = 0;
    CHECK(b.debug_register(2) == 0x1234);
    CHECK(b.xcr0() == 3);
    b.load();
    CHECK(bench.extended.debug[2] == 0x1234);
    b.set_debug_register(6, 0xFFFF'4FF0);
    CHECK(bench.vmcb.state.dr6 == 0xFFFF'4FF0);
    bench.vmcb.state.dr6 = 0xFFFF'0FF1;
    CHECK(b.debug_register(6) == 0xFFFF'0FF1);
}

TEST_CASE("No entry is ever made in a state that the manual forbids") {
    Bench bench;
    Backend& b = *bench.backend;
    b.write(Register::cr4, cr4::pae);
    b.write(Register::cr3, 0x1000);
    b.write(Register::efer, efer::lme | efer::nxe);
    b.write(Register::cr0, cr0::pe | cr0::pg);
    b.set_segment(SegmentName::cs, {.selector = 8, .limit = ~0U, .access = 0xA09B});
    const Event events[] = {
        make_page_fault(1, 2),
        make_invalid_opcode(),
        make_exception(exception::double_fault, 0),
        {.type = Event::Type::nmi, .vector = Vector(2)},
        {.type = Event::Type::external_interrupt, .vector = Vector(0xFF)},
        {.type = Event::Type::software_interrupt, .vector = Vector(0x80), .instruction_length = 2},
        {.type = Event::Type::software_exception, .vector = Vector(3), .instruction_length = 1}};
    for (const Event& event : events) {
        b.inject(event);
        CHECK(bench.violations().empty());
        (void)bench.run();
        CHECK(bench.violations().empty());
    }
}

TEST_CASE("A processor that needs it is entered by the guarded world switch, others are not") {
    Bench bench;
    (void)bench.run();
    CHECK(bench.fake.guarded_entries == 0);
    Bench guarded(full_capabilities, false, true);
    (void)guarded.run();
    (void)guarded.run();
    CHECK(guarded.fake.guarded_entries == 2);
    CHECK(guarded.fake.entries.size() == 2);
}
