// What becomes of each exit.
#include "arch/x86/regs/msr.hpp"
#include "vm_bench.hpp"

using namespace bulkhead;

namespace {

using Ran = Vcpu::RunResult;

Exit port_exit(u16 port, u8 size, bool in, u8 length = 0) {
    Exit exit(ExitReason::port_io);
    exit.instruction_length = length;
    exit.port = {.port = Port(port), .size = size, .in = in};
    return exit;
}

Exit nested(u64 address, bool write) {
    Exit exit(ExitReason::nested_page_fault);
    exit.nested = {.address = GuestPhysical(address), .read = !write, .write = write};
    return exit;
}

Exit msr_exit(MsrIndex index, bool write) {
    Exit exit(write ? ExitReason::msr_write : ExitReason::msr_read);
    exit.instruction_length = 2;
    exit.msr = {.index = index};
    return exit;
}

Exit exception_exit(const Event& event, u64 status = 0) {
    Exit exit(ExitReason::exception);
    exit.exception = {.event = event, .debug_status = status};
    return exit;
}

std::string stop_text(const VmBench& bench) {
    return std::string(bench.vm->stop_text());
}

}  // namespace

TEST_CASE("exits without a cause of the guest's change nothing in it") {
    VmBench bench;
    for (const ExitReason reason :
         {ExitReason::preemption, ExitReason::interrupt_window, ExitReason::nmi_window,
          ExitReason::tpr_below_threshold, ExitReason::spurious, ExitReason::host_nmi}) {
        bench.cpu().gprs.rax = 7;
        CHECK(bench.exit(reason) == Ran::yielded);
        CHECK(bench.rip() == VmBench::code);
        CHECK(bench.cpu().gprs.rax == 7);
        CHECK_FALSE(bench.cpu().injection_pending());
    }
    CHECK(bench.vcpu().statistics().of(ExitReason::preemption).count == 1);
    CHECK_FALSE(bench.vm->stopped());
}

// --- Instructions ----------------------------------------------------------------------------------------

TEST_CASE("CPUID answers by the policy, its results zero-extended, and is passed") {
    VmBench bench;
    GeneralRegisters& r = bench.cpu().gprs;
    r.rax = 0xFFFF'FFFF'0000'0000;
    r.rbx = r.rcx = r.rdx = ~u64{0};
    r.rcx = 0xFFFF'FFFF'0000'0000;
    bench.exit(ExitReason::cpuid, 2);
    CHECK(r.rbx == 0x756E6547);
    CHECK(r.rcx == 0x6C65746E);
    CHECK(r.rdx == 0x49656E69);
    CHECK(r.rax >> 32 == 0);
    CHECK(bench.rip() == VmBench::code + 2);
    // OSXSAVE follows CR4.
    r.rax = 1;
    bench.exit(ExitReason::cpuid, 2);
    CHECK_FALSE(has_bit(r.rcx, 27));
    bench.cpu().write(Register::cr4, cr4::osxsave);
    r.rax = 1;
    bench.exit(ExitReason::cpuid, 2);
    CHECK(has_bit(r.rcx, 27));
}

TEST_CASE("without the hardware's word the instruction is decoded for its length") {
    VmBench bench;
    bench.put(VmBench::code, {0x66, 0x0F, 0xA2});  // CPUID with a prefix that means nothing
    bench.exit(ExitReason::cpuid);
    CHECK(bench.rip() == VmBench::code + 3);
    // RIP wraps at 4 GiB outside 64-bit code.
    bench.cpu().write(Register::rip, 0xFFFF'FFFF);
    bench.exit(ExitReason::cpuid, 2);
    CHECK(bench.rip() == 1);
}

TEST_CASE("an instruction that cannot be fetched for its length gets the fault it is due") {
    VmBench bench;
    Segment cs = bench.cpu().segment(SegmentName::cs);
    cs.limit = 0x0FFF;
    bench.cpu().set_segment(SegmentName::cs, cs);
    bench.exit(ExitReason::cpuid);
    CHECK(bench.injected() == make_general_protection());
    CHECK(bench.rip() == VmBench::code);
}

TEST_CASE("RDMSR and WRMSR work on EDX:EAX; what no rule names is #GP and stays put") {
    VmBench bench;
    GeneralRegisters& r = bench.cpu().gprs;
    r.rax = 0xFFFF'FFFF'8123'4567;
    r.rdx = 0xEEEE'EEEE'FFFF'8000;
    bench.exit(msr_exit(msr::lstar, true));
    CHECK(bench.reg(Register::lstar) == 0xFFFF'8000'8123'4567);
    CHECK(bench.rip() == VmBench::code + 2);
    r.rax = r.rdx = ~u64{0};
    bench.exit(msr_exit(msr::lstar, false));
    CHECK(r.rax == 0x8123'4567);
    CHECK(r.rdx == 0xFFFF'8000);
    CHECK(bench.rip() == VmBench::code + 4);
    for (const bool write : {false, true}) {
        bench.exit(msr_exit(MsrIndex(0x4B564D00), write));
        CHECK(bench.injected() == make_general_protection());
        CHECK(bench.rip() == VmBench::code + 4);
    }
    CHECK(r.rax == 0x8123'4567);
    // A value that the register cannot hold.
    r.rax = 0;
    r.rdx = 0x8000;
    bench.exit(msr_exit(msr::lstar, true));
    CHECK(bench.injected() == make_general_protection());
}

TEST_CASE("a write of IA32_APIC_BASE that changes the mode is told to the hardware") {
    VmBench bench;
    GeneralRegisters& r = bench.cpu().gprs;
    CHECK(bench.cpu().apic_modes == std::vector{ApicMode::xapic});
    r.rax = 0xFEE00000 | apic::base_enable | apic::base_x2apic | apic::base_bsp;
    r.rdx = 0;
    bench.exit(msr_exit(MsrIndex(0x1B), true));
    CHECK(bench.cpu().apic_modes == std::vector{ApicMode::xapic, ApicMode::x2apic});
    bench.exit(msr_exit(MsrIndex(0x1B), true));
    CHECK(bench.cpu().apic_modes.size() == 2);
}

TEST_CASE("an xAPIC that is moved is told to the hardware, and answers at its new place alone") {
    VmBench bench(ApicAssist::full);
    GeneralRegisters& r = bench.cpu().gprs;
    const auto set_base = [&](u64 value) {
        r.rax = static_cast<u32>(value);
        r.rdx = value >> 32;
        bench.exit(msr_exit(MsrIndex(0x1B), true));
    };
    constexpr u64 on = apic::base_enable | apic::base_bsp;
    // MOV EAX, [ESI]
    const auto read = [&](u64 address) {
        bench.put(VmBench::code, {0x8B, 0x06});
        bench.cpu().write(Register::rip, VmBench::code);
        r.rsi = address;
        bench.exit(nested(address, false));
        return static_cast<u32>(r.rax);
    };
    set_base(0xFED00000 | on);
    CHECK(bench.cpu().apic_modes == std::vector{ApicMode::xapic, ApicMode::moved});
    CHECK(read(0xFED00030) == 0x00050014);  // its version register
    CHECK(read(0xFEE00030) == 0xFFFF'FFFF);
    set_base(0xFED10000 | on);
    CHECK(bench.cpu().apic_modes.size() == 2);
    CHECK(read(0xFED00030) == 0xFFFF'FFFF);
    CHECK(read(0xFED10030) == 0x00050014);
    set_base(0xFEE00000 | on);
    CHECK(bench.cpu().apic_modes == std::vector{ApicMode::xapic, ApicMode::moved, ApicMode::xapic});
}

TEST_CASE("IN and OUT work on AL, AX and EAX as the architecture merges them") {
    VmBench bench;
    GeneralRegisters& r = bench.cpu().gprs;
    const u64 before = 0x1122'3344'5566'7788;
    // Scratch register of the UART.
    r.rax = before;
    bench.exit(port_exit(0x3FF, 1, false, 1));
    r.rax = before & ~u64{0xFF};
    bench.exit(port_exit(0x3FF, 1, true, 1));
    CHECK(r.rax == before);
    CHECK(bench.rip() == VmBench::code + 2);
    // The PCI address register takes all four bytes.
    r.rax = 0xFFFF'FFFF'8000'0000;
    bench.exit(port_exit(0xCF8, 4, false, 1));
    r.rax = ~u64{0};
    bench.exit(port_exit(0xCF8, 4, true, 1));
    CHECK(r.rax == 0x8000'0000);
    // The host bridge's vendor, 16 bits: the upper part of RAX stays.
    r.rax = before;
    bench.exit(port_exit(0xCFC, 2, true, 1));
    CHECK(r.rax == ((before & ~u64{0xFFFF}) | 0x8086));
    // Nobody there.
    for (const u8 size : {1, 2, 4}) {
        r.rax = 0;
        bench.exit(port_exit(0x1234, size, true, 1));
        CHECK(r.rax == all_ones(size));
    }
    r.rax = 0;
    bench.exit(port_exit(0xFFFF, 4, true, 1));
    CHECK(r.rax == 0xFFFF'FFFF);
}

TEST_CASE("what the guest writes to its serial port leaves it") {
    VmBench bench;
    for (const char c : std::string("Hi")) {
        bench.cpu().gprs.rax = static_cast<u8>(c);
        bench.exit(port_exit(0x3FB, 1, true, 1));  // the line control register says 8 bits or not
        bench.cpu().gprs.rax = 3;
        bench.exit(port_exit(0x3FB, 1, false, 1));
        bench.cpu().gprs.rax = static_cast<u8>(c);
        bench.exit(port_exit(0x3F8, 1, false, 1));
        bench.machine.now += bench.machine.tsc_hz();
        bench.run();
    }
    CHECK(bench.surroundings.output == "Hi");
}

TEST_CASE("string port instructions are executed element by element from the guest's code") {
    VmBench bench;
    bench.put(VmBench::code, {0xF3, 0x6E});  // REP OUTSB
    bench.put(0x3000, {'a', 'b', 'c'});
    GeneralRegisters& r = bench.cpu().gprs;
    r.rdx = 0x3FF;
    r.rsi = 0x3000;
    r.rcx = 3;
    Exit exit = port_exit(0x3FF, 1, false);
    exit.port.string = exit.port.repeat = true;
    bench.exit(exit);
    CHECK(r.rcx == 0);
    CHECK(r.rsi == 0x3003);
    CHECK(bench.rip() == VmBench::code + 2);
    // INSB reads back the last one.
    bench.put(VmBench::code, {0x6C});
    bench.cpu().write(Register::rip, VmBench::code);
    r.rdi = 0x4000;
    exit = port_exit(0x3FF, 1, true);
    exit.port.string = true;
    bench.exit(exit);
    CHECK(bench.byte_at(0x4000) == 'c');
    CHECK(r.rdi == 0x4001);
}

TEST_CASE("HLT with interrupts disabled halts for good; an NMI still ends it") {
    VmBench bench;
    bench.enable_apic();
    CHECK(bench.exit(ExitReason::hlt, 1) == Ran::blocked);
    CHECK(bench.rip() == VmBench::code + 1);
    CHECK(bench.vcpu().activity() == Activity::halted);
    CHECK(bench.vcpu().halted_for_good());
    REQUIRE(bench.apic().post(Vector(0x41), false));
    CHECK_FALSE(bench.vcpu().has_work());
    CHECK(bench.run() == Ran::blocked);
    REQUIRE(bench.apic().post_nmi());
    CHECK(bench.run() == Ran::yielded);
    CHECK(bench.vcpu().activity() == Activity::active);
    CHECK(bench.injected()->type == Event::Type::nmi);
}

TEST_CASE("HLT with interrupts enabled ends with an interrupt, at the instruction behind it") {
    VmBench bench;
    bench.enable_apic();
    bench.enable_interrupts();
    bench.cpu().then([](FakeBackend& cpu) {
        cpu.blocked.sti_shadow = true;  // STI; HLT
        Exit exit(ExitReason::hlt);
        exit.instruction_length = 1;
        return exit;
    });
    CHECK(bench.run() == Ran::blocked);
    CHECK_FALSE(bench.vcpu().halted_for_good());
    CHECK_FALSE(bench.vcpu().has_work());
    REQUIRE(bench.apic().post(Vector(0x41), false));
    CHECK(bench.vcpu().has_work());
    CHECK(bench.run() == Ran::yielded);
    CHECK(bench.injected() == Event{.type = Event::Type::external_interrupt, .vector = Vector(0x41)});
    CHECK(bench.cpu().entries.back().rip == VmBench::code + 1);
}

TEST_CASE("a VMCALL of the kernel is told that there is no such call, of a program it is #UD") {
    VmBench bench;
    bench.cpu().gprs.rax = 1;
    bench.exit(ExitReason::hypercall, 3);
    CHECK(bench.cpu().gprs.rax == 0xFFFF'FFDA);
    CHECK(bench.rip() == VmBench::code + 3);
    bench.enter_long_mode();
    bench.exit(ExitReason::hypercall, 3);
    CHECK(static_cast<i64>(bench.cpu().gprs.rax) == -38);
    CHECK(bench.rip() == VmBench::code + 6);
    bench.set_cpl(3);
    bench.cpu().gprs.rax = 1;
    bench.exit(ExitReason::hypercall, 3);
    CHECK(bench.injected() == make_invalid_opcode());
    CHECK(bench.cpu().gprs.rax == 1);
    CHECK(bench.rip() == VmBench::code + 6);
    VmBench old;
    old.cpu().set_flag(rflags::vm, true);
    old.exit(ExitReason::hypercall, 3);
    CHECK(old.injected() == make_invalid_opcode());
}

TEST_CASE("XSETBV is checked by the policy: CR4.OSXSAVE, CPL, and the value") {
    VmBench bench;
    GeneralRegisters& r = bench.cpu().gprs;
    r.rcx = 0;
    r.rax = 7;
    bench.exit(ExitReason::xsetbv, 3);
    CHECK(bench.injected() == make_invalid_opcode());
    bench.cpu().write(Register::cr4, cr4::osxsave);
    bench.exit(ExitReason::xsetbv, 3);
    CHECK(bench.cpu().extended_control == 7);
    CHECK(bench.rip() == VmBench::code + 3);
    r.rax = 6;  // without x87
    bench.exit(ExitReason::xsetbv, 3);
    CHECK(bench.injected() == make_general_protection());
    CHECK(bench.cpu().extended_control == 7);
    r.rax = 7;
    bench.set_cpl(3);
    bench.exit(ExitReason::xsetbv, 3);
    CHECK(bench.injected() == make_general_protection());
}

TEST_CASE("instructions that need nothing done are passed, those that do not exist are #UD") {
    VmBench bench;
    u64 at = VmBench::code;
    for (const ExitReason reason :
         {ExitReason::invd, ExitReason::wbinvd, ExitReason::pause, ExitReason::invlpg}) {
        bench.exit(reason, 2);
        at += 2;
        CHECK(bench.rip() == at);
        CHECK_FALSE(bench.injected());
    }
    for (const ExitReason reason :
         {ExitReason::undefined_instruction, ExitReason::monitor, ExitReason::mwait}) {
        bench.exit(reason, 3);
        CHECK(bench.rip() == at);
        CHECK(bench.injected() == make_invalid_opcode());
    }
    bench.exit(ExitReason::rdpmc, 2);
    CHECK(bench.injected() == make_general_protection());
    CHECK(bench.rip() == at);
}

// --- Control and debug registers -------------------------------------------------------------------------

namespace {

Exit control_exit(u8 number, ControlRegisterAccess::Kind kind, u8 general, u8 length = 3) {
    Exit exit(ExitReason::control_register);
    exit.instruction_length = length;
    exit.control = {.number = number, .kind = kind, .general_register = general};
    return exit;
}

}  // namespace

TEST_CASE("control registers are read and written, decoded by the hardware") {
    using Kind = ControlRegisterAccess::Kind;
    VmBench bench;
    GeneralRegisters& r = bench.cpu().gprs;
    r.rbx = 0xFFFF'FFFF'0000'0000 | cr4::pae | cr4::pge;
    bench.exit(control_exit(4, Kind::write, 3));
    CHECK(bench.reg(Register::cr4) == (cr4::pae | cr4::pge));
    CHECK(bench.rip() == VmBench::code + 3);
    r.r9 = ~u64{0};
    bench.exit(control_exit(4, Kind::read, 9));
    CHECK(r.r9 == (cr4::pae | cr4::pge));
    r.rax = 0x5000;
    bench.exit(control_exit(3, Kind::write, 0));
    CHECK(bench.reg(Register::cr3) == 0x5000);
    bench.cpu().write(Register::cr2, 0xABC);
    bench.exit(control_exit(2, Kind::read, 1));
    CHECK(r.rcx == 0xABC);
    bench.exit(control_exit(0, Kind::read, 2));
    CHECK(r.rdx == bench.reg(Register::cr0));
    // CR8 goes to the APIC, and to the hardware's copy.
    r.rax = 9;
    bench.exit(control_exit(8, Kind::write, 0));
    CHECK(bench.apic().cr8() == 9);
    CHECK(bench.cpu().task_priority == 9);
    bench.exit(control_exit(8, Kind::read, 7));
    CHECK(r.rdi == 9);
    // #GP and #UD.
    r.rax = cr4::vmxe;
    bench.exit(control_exit(4, Kind::write, 0));
    CHECK(bench.injected() == make_general_protection());
    CHECK(bench.reg(Register::cr4) == (cr4::pae | cr4::pge));
    r.rax = 16;
    bench.exit(control_exit(8, Kind::write, 0));
    CHECK(bench.injected() == make_general_protection());
    for (const Kind kind : {Kind::read, Kind::write}) {
        for (const u8 number : {1, 5, 7, 9, 15}) {
            bench.exit(control_exit(number, kind, 0));
            CHECK(bench.injected() == make_invalid_opcode());
        }
    }
}

TEST_CASE("CLTS and LMSW change the bits they may") {
    using Kind = ControlRegisterAccess::Kind;
    VmBench bench;
    bench.cpu().write(Register::cr0, cr0::pe | cr0::et | cr0::ts | cr0::ne);
    bench.exit(control_exit(0, Kind::clts, 0, 2));
    CHECK(bench.reg(Register::cr0) == (cr0::pe | cr0::et | cr0::ne));
    Exit lmsw = control_exit(0, Kind::lmsw, 0, 3);
    lmsw.control.lmsw_value = 0xFFFA;  // TS and MP, not PE; the rest of it is ignored
    bench.exit(lmsw);
    CHECK(bench.reg(Register::cr0) == (cr0::pe | cr0::et | cr0::ne | cr0::ts | cr0::mp));
}

TEST_CASE("control register instructions are decoded where the hardware does not") {
    using Kind = ControlRegisterAccess::Kind;
    VmBench bench;
    const auto run = [&](std::initializer_list<u8> bytes) {
        bench.put(VmBench::code, bytes);
        bench.cpu().write(Register::rip, VmBench::code);
        Exit exit = control_exit(0, Kind::write, 0, 0);
        exit.control.operands_known = false;
        bench.exit(exit);
        return bench.rip() - VmBench::code;
    };
    GeneralRegisters& r = bench.cpu().gprs;
    r.rcx = cr4::pae;
    CHECK(run({0x0F, 0x22, 0xE1}) == 3);  // MOV CR4, ECX
    CHECK(bench.reg(Register::cr4) == cr4::pae);
    CHECK(run({0x0F, 0x20, 0xE7}) == 3);  // MOV EDI, CR4
    CHECK(r.rdi == cr4::pae);
    r.rax = cr0::pe | cr0::ts | cr0::ne;
    CHECK(run({0x0F, 0x22, 0xC0}) == 3);  // MOV CR0, EAX
    CHECK(run({0x0F, 0x06}) == 2);        // CLTS
    CHECK(bench.reg(Register::cr0) == (cr0::pe | cr0::ne | cr0::et));
    r.rax = 0xF;
    CHECK(run({0x0F, 0x01, 0xF0}) == 3);  // LMSW AX
    CHECK((bench.reg(Register::cr0) & 0xF) == 0xF);
    r.rax = 5;
    CHECK(run({0xF0, 0x0F, 0x22, 0xC0}) == 4);  // LOCK MOV CR0, EAX: AMD's CR8
    CHECK(bench.apic().cr8() == 5);
    CHECK_FALSE(bench.vm->stopped());
    // An exit that says control register where the guest's code is something else by now.
    CHECK(run({0x90}) == 0);
    CHECK(bench.vm->stop_reason() == StopReason::crashed);
    CHECK(stop_text(bench).find("nothing handles a control register") != std::string::npos);
}

TEST_CASE("PAE paging with impossible page-directory pointers is #GP before anything changes") {
    using Kind = ControlRegisterAccess::Kind;
    VmBench bench;
    bench.put64(0x5000, 0x6000 | 1);
    bench.put64(0x5018, 0x6000 | 3);  // a reserved bit, present
    bench.cpu().write(Register::cr4, cr4::pae);
    bench.cpu().write(Register::cr3, 0x5000);
    GeneralRegisters& r = bench.cpu().gprs;
    r.rax = cr0::pe | cr0::pg | cr0::et;
    const u64 before = bench.reg(Register::cr0);
    bench.exit(control_exit(0, Kind::write, 0));
    CHECK(bench.injected() == make_general_protection());
    CHECK(bench.reg(Register::cr0) == before);
    bench.put64(0x5018, 2);  // not present: anything goes
    bench.exit(control_exit(0, Kind::write, 0));
    CHECK((bench.reg(Register::cr0) & cr0::pg) != 0);
    bench.put64(0x7000, 0x6000 | bit(63));
    bench.put64(0x7008, 1 | bit(63));
    r.rax = 0x7000;
    bench.exit(control_exit(3, Kind::write, 0));
    CHECK(bench.injected() == make_general_protection());
    CHECK(bench.reg(Register::cr3) == 0x5000);
    bench.put64(0x5000, 0x6000 | 5 | 2);
    r.rax = cr4::pae | cr4::pge;
    bench.exit(control_exit(4, Kind::write, 0));
    CHECK(bench.injected() == make_general_protection());
    CHECK(bench.reg(Register::cr4) == cr4::pae);
}

TEST_CASE("debug registers are moved; GD makes every access #DB") {
    VmBench bench;
    GeneralRegisters& r = bench.cpu().gprs;
    const auto debug_exit = [&](u8 number, bool read, u8 general) {
        Exit exit(ExitReason::debug_register);
        exit.instruction_length = 3;
        exit.debug = {.number = number, .read = read, .general_register = general};
        bench.exit(exit);
    };
    r.rax = 0x1234;
    for (const u8 number : {0, 1, 2, 3}) {
        debug_exit(number, false, 0);
        CHECK(bench.cpu().debug[number] == 0x1234);
    }
    debug_exit(2, true, 5);
    CHECK(r.rbp == 0x1234);
    r.rax = 0x401;
    debug_exit(7, false, 0);
    CHECK(bench.reg(Register::dr7) == 0x401);
    debug_exit(5, true, 1);  // DR5 is DR7 without CR4.DE
    CHECK(r.rcx == 0x401);
    debug_exit(4, true, 1);
    CHECK(r.rcx == 0xFFFF0FF0);
    bench.cpu().write(Register::cr4, cr4::de);
    debug_exit(4, true, 1);
    CHECK(bench.injected() == make_invalid_opcode());
    const u64 at = bench.rip();
    bench.cpu().write(Register::dr7, 0x400 | bit(13));
    debug_exit(0, true, 1);
    CHECK(bench.injected() == make_exception(exception::debug));
    CHECK(bench.rip() == at);
    CHECK(has_bit(bench.cpu().debug[6], 13));
    CHECK_FALSE(has_bit(bench.reg(Register::dr7), 13));
}

TEST_CASE("debug register instructions are decoded where the hardware does not") {
    VmBench bench;
    bench.put(VmBench::code, {0x0F, 0x23, 0xD1});  // MOV DR2, ECX
    bench.cpu().gprs.rcx = 0x77;
    Exit exit(ExitReason::debug_register);
    exit.debug = {.operands_known = false};
    bench.exit(exit);
    CHECK(bench.cpu().debug[2] == 0x77);
    CHECK(bench.rip() == VmBench::code + 3);
    bench.put(VmBench::code + 3, {0x0F, 0x21, 0xD6});  // MOV ESI, DR2
    bench.exit(exit);
    CHECK(bench.cpu().gprs.rsi == 0x77);
}

// --- Exceptions ------------------------------------------------------------------------------------------

TEST_CASE("intercepted exceptions go on to the guest unchanged") {
    VmBench bench;
    bench.exit(exception_exit(make_exception(exception::alignment_check, 0)));
    CHECK(bench.injected() == make_exception(exception::alignment_check, 0));
    bench.cpu().debug[6] = 0xFFFF0FF0 | 0xF;
    bench.exit(exception_exit(make_exception(exception::debug), 1 | bit(14)));
    CHECK(bench.injected() == make_exception(exception::debug));
    CHECK(bench.cpu().debug[6] == (0xFFFF0FF0 | 1 | bit(14)));
    bench.exit(exception_exit(make_page_fault(0x1234, 2)));
    CHECK(bench.injected() == make_page_fault(0x1234, 2));
}

TEST_CASE(
    "general detect is off once a #DB is the guest's, whatever caused it; other exceptions leave it on") {
    VmBench bench;
    bench.cpu().write(Register::dr7, 0x2400);
    bench.exit(exception_exit(make_page_fault(0x1234, 2)));
    CHECK(bench.cpu().read(Register::dr7) == 0x2400);
    bench.exit(exception_exit(make_exception(exception::debug), bit(14)));
    CHECK(bench.cpu().read(Register::dr7) == 0x400);
    bench.cpu().write(Register::dr7, 0x2400);
    bench.exit(exception_exit(make_exception(exception::debug), bit(13)));
    CHECK(bench.injected() == make_exception(exception::debug));
    CHECK(bench.cpu().read(Register::dr7) == 0x400);
    CHECK(has_bit(bench.cpu().debug[6], 13));
}

TEST_CASE("a machine check is the host's, and stops the VM only if it cannot go on") {
    VmBench survivor;
    survivor.surroundings.machine_checks_survived = true;
    CHECK(survivor.exit(exception_exit(make_exception(exception::machine_check))) == Ran::yielded);
    CHECK_FALSE(survivor.vm->stopped());
    CHECK_FALSE(survivor.cpu().injection_pending());
    VmBench bench;
    CHECK(bench.exit(exception_exit(make_exception(exception::machine_check))) == Ran::stopped);
    CHECK(bench.vm->stop_reason() == StopReason::crashed);
    CHECK(stop_text(bench).find("machine check") != std::string::npos);
}

TEST_CASE("an exception during the delivery of another combines with it as in a processor") {
    const Event de = make_exception(exception::divide_error), db = make_exception(exception::debug),
                gp = make_general_protection(), np = make_exception(exception::segment_not_present, 0),
                ac = make_exception(exception::alignment_check, 0), pf = make_page_fault(0x1000, 2);
    const Event df = make_exception(exception::double_fault, 0);
    struct Case {
        Event first, second, result;
    };
    const Case cases[] = {{de, gp, df}, {gp, np, df}, {np, pf, pf}, {pf, pf, df}, {pf, gp, df}, {gp, pf, pf},
                          {db, gp, gp}, {gp, db, db}, {ac, pf, pf}, {pf, ac, ac}, {db, db, db}};
    for (const Case& c : cases) {
        VmBench bench;
        Exit exit = exception_exit(c.second);
        exit.interrupted = c.first;
        CHECK(bench.exit(exit) == Ran::yielded);
        CAPTURE(c.first.vector.raw(), c.second.vector.raw());
        CHECK(bench.injected() == c.result);
        CHECK(bench.cpu().replaced == 0);
    }
    VmBench bench;
    Exit exit = exception_exit(gp);
    exit.interrupted = df;
    CHECK(bench.exit(exit) == Ran::stopped);
    CHECK(bench.vm->stop_reason() == StopReason::reset);
    CHECK(stop_text(bench) == "triple fault");
}

TEST_CASE("an event whose delivery was broken off is delivered again") {
    for (const Event& event :
         {Event{.type = Event::Type::external_interrupt, .vector = Vector(0x41)},
          Event{.type = Event::Type::nmi, .vector = Vector(2)}, make_page_fault(0x5000, 6),
          Event{.type = Event::Type::software_interrupt, .vector = Vector(0x80), .instruction_length = 2}}) {
        VmBench bench;
        bench.enable_interrupts();
        Exit exit(ExitReason::external_interrupt);
        exit.interrupted = event;
        bench.cpu().then(exit);
        CHECK(bench.run() == Ran::yielded);
        CHECK(bench.cpu().injection == event);
        CHECK(bench.run() == Ran::yielded);
        CHECK(bench.injected() == event);
        CHECK(bench.run() == Ran::yielded);
        CHECK_FALSE(bench.injected());
    }
}

TEST_CASE("an NMI that an exception overtakes is not lost") {
    VmBench bench;
    Exit exit = exception_exit(make_exception(exception::debug));
    exit.interrupted = Event{.type = Event::Type::nmi, .vector = Vector(2)};
    bench.exit(exit);
    CHECK(bench.injected() == make_exception(exception::debug));
    CHECK(bench.apic().nmi_pending());
    bench.run();
    CHECK(bench.injected()->type == Event::Type::nmi);
}

// --- Memory ----------------------------------------------------------------------------------------------

TEST_CASE("accesses to the I/O APIC's page are emulated") {
    VmBench bench;
    GeneralRegisters& r = bench.cpu().gprs;
    bench.put(VmBench::code, {0xA3, 0x00, 0x00, 0xC0, 0xFE,    // MOV [FEC00000], EAX
                              0xA1, 0x10, 0x00, 0xC0, 0xFE});  // MOV EAX, [FEC00010]
    r.rax = 1;
    bench.exit(nested(0xFEC00000, true));
    CHECK(bench.rip() == VmBench::code + 5);
    r.rax = ~u64{0};
    bench.exit(nested(0xFEC00010, false));
    CHECK(bench.rip() == VmBench::code + 10);
    CHECK((r.rax & 0xFFFF'FFFF) == 0x00170020);
    CHECK_FALSE(bench.vm->stopped());
}

TEST_CASE("a hole reads as ones and swallows writes; ROM reads, and swallows writes") {
    VmBench bench;
    GeneralRegisters& r = bench.cpu().gprs;
    const auto run = [&](std::initializer_list<u8> bytes, u64 address, bool write) {
        bench.put(VmBench::code, bytes);
        bench.cpu().write(Register::rip, VmBench::code);
        r.rsi = address;
        CHECK(bench.exit(nested(address, write)) == Ran::yielded);
        CHECK(bench.rip() == VmBench::code + bytes.size());
        CHECK_FALSE(bench.injected());
    };
    r.rax = 0x1122334455667788;
    run({0x8A, 0x06}, 0xC000'0000, false);  // MOV AL, [ESI]
    CHECK(r.rax == 0x11223344556677FF);
    run({0x66, 0x8B, 0x06}, 0xFED0'0000, false);
    CHECK(r.rax == 0x112233445566FFFF);
    run({0x8B, 0x06}, 0x4000'0000, false);
    CHECK(r.rax == 0xFFFF'FFFF);
    run({0x89, 0x06}, 0x4000'0000, true);
    const u8 rom = bench.byte_at(0xF0000);
    r.rax = rom ^ 0xFF;
    run({0x88, 0x06}, 0xF0000, true);
    CHECK(bench.byte_at(0xF0000) == rom);
    // Read-modify-write, locked, at the end of RAM: ones come back.
    r.rax = 0;
    run({0xF0, 0x0F, 0xC1, 0x06}, 8 * mib, true);  // LOCK XADD [ESI], EAX
    CHECK(r.rax == 0xFFFF'FFFF);
}

TEST_CASE("a fetch from where there is no memory is #UD: a bus of ones is no instruction") {
    VmBench bench;
    Exit exit = nested(0xC000'0000, false);
    exit.nested.fetch = true;
    bench.cpu().write(Register::rip, 0xC000'0000);
    bench.exit(exit);
    CHECK(bench.injected() == make_invalid_opcode());
    CHECK(bench.rip() == 0xC000'0000);
}

TEST_CASE("the local APIC's page answers where IA32_APIC_BASE puts it") {
    VmBench bench;
    GeneralRegisters& r = bench.cpu().gprs;
    bench.put(VmBench::code, {0x8B, 0x06});
    r.rsi = 0xFEE00030;
    bench.exit(nested(0xFEE00030, false));
    CHECK((r.rax & 0xFF) == 0x14);
    // In x2APIC mode the page is a hole.
    REQUIRE(bench.apic().write_base(bench.apic().base() | apic::base_x2apic));
    bench.cpu().write(Register::rip, VmBench::code);
    bench.exit(nested(0xFEE00030, false));
    CHECK(r.rax == 0xFFFF'FFFF);
}

TEST_CASE("under APIC virtualisation accesses name an offset in the page") {
    VmBench bench(ApicAssist::full);
    GeneralRegisters& r = bench.cpu().gprs;
    bench.put(VmBench::code, {0x89, 0x06});
    r.rsi = 0xFEE000B0 - 0xB0 + 0x80;
    r.rax = 0x50;
    Exit exit(ExitReason::apic_access);
    exit.apic = {.offset = 0x80, .write = true};
    bench.exit(exit);
    CHECK(bench.apic().cr8() == 5);
    CHECK(bench.rip() == VmBench::code + 2);
    exit.apic = {.offset = 0x80, .fetch = true};
    bench.exit(exit);
    CHECK(bench.injected() == make_invalid_opcode());
    exit.apic = {.offset = 0x80, .during_event = true};
    CHECK(bench.exit(exit) == Ran::stopped);
    CHECK(stop_text(bench).find("local APIC's page") != std::string::npos);
}

TEST_CASE("an event whose stack or table is not RAM stops the VM with a reason") {
    VmBench bench;
    Exit exit = nested(0xC000'0000, true);
    exit.interrupted = make_page_fault(0, 0);
    CHECK(bench.exit(exit) == Ran::stopped);
    CHECK(bench.vm->stop_reason() == StopReason::crashed);
    CHECK(stop_text(bench).find("not RAM") != std::string::npos);
}

TEST_CASE("an instruction that the emulator does not know stops the VM and is shown") {
    VmBench bench;
    bench.put(VmBench::code, {0xD9, 0x3D, 0x00, 0x00, 0xC0, 0xFE});  // FNSTCW [FEC00000]
    CHECK(bench.exit(nested(0xFEC00000, true)) == Ran::stopped);
    CHECK(bench.vm->stop_reason() == StopReason::crashed);
    // Its own bytes, though more are fetched.
    CHECK(stop_text(bench) ==
          "vCPU 0 at 0x1000: unsupported instruction at 0x1000 on device memory: d9 3d 00 00 c0 fe");
    // It stays stopped.
    CHECK(bench.run() == Ran::stopped);
}

TEST_CASE("an emulated access that the guest's own tables forbid is the guest's page fault") {
    VmBench bench;
    bench.enter_long_mode();
    // MOV [RSI], EAX behind a page that is not mapped.
    bench.put(VmBench::code, {0x89, 0x06});
    bench.cpu().gprs.rsi = 0x1'0000'0010;
    bench.exit(nested(0xFEC00000, true));
    CHECK(bench.injected() == make_page_fault(0x1'0000'0010, 2));
    CHECK(bench.rip() == VmBench::code);
}

TEST_CASE("TF traps behind an emulated instruction; its shadow and RF end there") {
    VmBench bench;
    bench.put(VmBench::code, {0xA1, 0x10, 0x00, 0xC0, 0xFE});
    bench.cpu().set_flag(rflags::tf | rflags::rf, true);
    bench.cpu().then([](FakeBackend& cpu) {
        cpu.blocked = {.mov_ss_shadow = true, .nmi_blocked = true};
        return nested(0xFEC00010, false);
    });
    bench.run();
    CHECK(bench.injected() == make_exception(exception::debug));
    CHECK(bench.rip() == VmBench::code + 5);
    CHECK(has_bit(bench.cpu().debug[6], 14));
    CHECK((bench.reg(Register::rflags) & rflags::rf) == 0);
    CHECK(bench.cpu().blocked == Interruptibility{.nmi_blocked = true});
    // And behind a skipped one.
    bench.exit(ExitReason::cpuid, 2);
    CHECK(bench.injected() == make_exception(exception::debug));
}

// --- What ends the VM ------------------------------------------------------------------------------------

TEST_CASE("a triple fault resets the machine") {
    VmBench bench;
    CHECK(bench.exit(ExitReason::triple_fault) == Ran::stopped);
    CHECK(bench.vm->stop_reason() == StopReason::reset);
    CHECK(stop_text(bench) == "triple fault");
}

TEST_CASE("a refused entry stops the VM with the backend's explanation") {
    for (const ExitReason reason : {ExitReason::entry_failure, ExitReason::hardware_error}) {
        VmBench bench;
        CHECK(bench.exit(reason) == Ran::stopped);
        CHECK(bench.vm->stop_reason() == StopReason::crashed);
        CHECK(stop_text(bench).find("the fake refuses") != std::string::npos);
    }
}

TEST_CASE("what nothing handles stops the VM by name") {
    for (const ExitReason reason :
         {ExitReason::rdtsc, ExitReason::descriptor_table, ExitReason::init_signal, ExitReason::sipi,
          ExitReason::task_switch, ExitReason::page_modification_log_full}) {
        VmBench bench;
        Exit exit(reason);
        exit.raw_code = 0x77;
        CHECK(bench.exit(exit) == Ran::stopped);
        CHECK(bench.vm->stop_reason() == StopReason::crashed);
        CHECK(stop_text(bench).find(name_of(reason)) != std::string::npos);
        CHECK(stop_text(bench).find("0x77") != std::string::npos);
    }
}
