#include "arch/x86/vmx/exit_decode.hpp"

#include <catch2/catch.hpp>

#include "arch/x86/regs/control.hpp"
#include "arch/x86/vmx/control_bits.hpp"
#include "fake_vmcs.hpp"

using namespace bulkhead;
using namespace bulkhead::vmx;

namespace {

GeneralRegisters registers;

Exit decode(u64 reason) {
    return decode_exit(reason, registers, true);
}

}  // namespace

TEST_CASE("Every basic exit reason of the manual has its neutral reason") {
    using enum ExitReason;
    const std::map<u16, ExitReason> expected = {{1, external_interrupt},
                                                {2, triple_fault},
                                                {3, init_signal},
                                                {4, sipi},
                                                {7, interrupt_window},
                                                {8, nmi_window},
                                                {9, task_switch},
                                                {10, cpuid},
                                                {11, undefined_instruction},
                                                {12, hlt},
                                                {13, invd},
                                                {14, invlpg},
                                                {15, rdpmc},
                                                {16, rdtsc},
                                                {17, undefined_instruction},
                                                {18, hypercall},
                                                {19, undefined_instruction},
                                                {20, undefined_instruction},
                                                {21, undefined_instruction},
                                                {22, undefined_instruction},
                                                {23, undefined_instruction},
                                                {24, undefined_instruction},
                                                {25, undefined_instruction},
                                                {26, undefined_instruction},
                                                {27, undefined_instruction},
                                                {28, control_register},
                                                {29, debug_register},
                                                {30, port_io},
                                                {31, msr_read},
                                                {32, msr_write},
                                                {36, mwait},
                                                {39, monitor},
                                                {40, pause},
                                                {43, tpr_below_threshold},
                                                {44, apic_access},
                                                {45, virtual_eoi},
                                                {46, descriptor_table},
                                                {47, descriptor_table},
                                                {48, nested_page_fault},
                                                {50, undefined_instruction},
                                                {51, rdtsc},
                                                {52, preemption},
                                                {53, undefined_instruction},
                                                {54, wbinvd},
                                                {55, xsetbv},
                                                {56, apic_write},
                                                {59, undefined_instruction},
                                                {60, undefined_instruction},
                                                {62, page_modification_log_full},
                                                {65, undefined_instruction},
                                                {67, undefined_instruction},
                                                {68, undefined_instruction},
                                                {69, undefined_instruction},
                                                {70, undefined_instruction},
                                                {72, undefined_instruction},
                                                {73, undefined_instruction},
                                                {74, spurious},
                                                {75, spurious},
                                                {76, undefined_instruction},
                                                {77, undefined_instruction}};
    for (u32 reason = 1; reason < 0x10000; reason += reason < 300 ? 1 : 997) {
        new_fake_vmx();
        const auto row = expected.find(static_cast<u16>(reason));
        INFO(reason);
        const Exit exit = decode(reason);
        CHECK(exit.reason == (row != expected.end() ? row->second : hardware_error));
        CHECK(exit.raw_code == reason);
        CHECK_FALSE(exit.interrupted.has_value());
    }
}

TEST_CASE("Failed entries are told from exits by bit 31") {
    new_fake_vmx();
    for (u64 reason : {u64{33}, u64{34}, u64{10}, u64{0xFFFF}}) {
        CHECK(decode(reason | bit(31)).reason == ExitReason::entry_failure);
    }
    // A machine check that strikes during the entry is one.
    const Exit machine_check = decode(41 | bit(31));
    CHECK(machine_check.reason == ExitReason::exception);
    CHECK(machine_check.exception.event == make_exception(exception::machine_check));
    for (u64 reason : {33, 34, 41}) CHECK(decode(reason).reason == ExitReason::hardware_error);
    // Bits 16 to 30 say more of the exit, not what it is.
    CHECK(decode(10 | bit(27)).reason == ExitReason::cpuid);
}

TEST_CASE("CPUID and its like cost one field, external interrupts none") {
    auto& fake = new_fake_vmx();
    fake.set(vmcs::vm_exit_instruction_length, 2);
    for (u64 reason : {10, 12, 18, 13, 54, 55, 36, 39}) {
        fake.reads.clear();
        CHECK(decode(reason).instruction_length == 2);
        CHECK(fake.reads == std::vector{vmcs::vm_exit_instruction_length.encoding});
    }
    for (u64 reason : {1, 2, 7, 8, 52, 43}) {
        fake.reads.clear();
        CHECK(decode(reason).instruction_length == 0);
        CHECK(fake.reads.empty());
    }
}

TEST_CASE("Port I/O: OUT DX, AL") {
    auto& fake = new_fake_vmx();
    fake.set(vmcs::vm_exit_instruction_length, 1);
    fake.fields()[vmcs::exit_qualification.encoding] = 0x03F8'0000;
    const Exit exit = decode(30);
    CHECK(exit.port.port == Port(0x3F8));
    CHECK(exit.port.size == 1);
    CHECK_FALSE(exit.port.in);
    CHECK_FALSE(exit.port.string);
    CHECK(exit.instruction_length == 1);
}

TEST_CASE("Port I/O: REP OUTSB with a segment override, REP INSD") {
    auto& fake = new_fake_vmx();
    auto& fields = fake.fields();
    fields[vmcs::exit_qualification.encoding] = 0x03F8'0030;
    fields[vmcs::vm_exit_instruction_information.encoding] = 2u << 7 | 5u << 15;
    Exit exit = decode(30);
    CHECK((exit.port.string && exit.port.repeat && exit.port.string_details));
    CHECK(exit.port.address_size == 8);
    CHECK(exit.port.segment == SegmentName::gs);

    fields[vmcs::exit_qualification.encoding] = 0x01F0'003B;
    fields[vmcs::vm_exit_instruction_information.encoding] =
        0u << 7 | 7u << 15;  // INS: the segment is undefined
    exit = decode(30);
    CHECK(exit.port.size == 4);
    CHECK((exit.port.in && exit.port.string_details));
    CHECK(exit.port.address_size == 2);
    CHECK(exit.port.segment == SegmentName::es);

    // Without the information field, and with nonsense in it, the instruction has to be decoded.
    CHECK_FALSE(decode_exit(30, registers, false).port.string_details);
    fields[vmcs::vm_exit_instruction_information.encoding] = 3u << 7;
    CHECK_FALSE(decode(30).port.string_details);
}

TEST_CASE("The MSR is in ECX, whatever is above it") {
    new_fake_vmx();
    registers.rcx = 0xDEAD'BEEF'C000'0080;
    CHECK(decode(31).msr.index == MsrIndex(0xC0000080));
    CHECK(decode(32).reason == ExitReason::msr_write);
}

TEST_CASE("Control-register accesses of all four kinds") {
    auto& fake = new_fake_vmx();
    auto& qualification = fake.fields()[vmcs::exit_qualification.encoding];
    qualification = 0x0F00;  // MOV CR0, R15
    Exit exit = decode(28);
    CHECK(exit.control.number == 0);
    CHECK(exit.control.kind == ControlRegisterAccess::Kind::write);
    CHECK(exit.control.general_register == 15);
    CHECK(exit.control.operands_known);
    qualification = 0x0318;  // MOV RBX, CR8
    exit = decode(28);
    CHECK(exit.control.number == 8);
    CHECK(exit.control.kind == ControlRegisterAccess::Kind::read);
    CHECK(exit.control.general_register == 3);
    qualification = 0x0020;
    CHECK(decode(28).control.kind == ControlRegisterAccess::Kind::clts);
    qualification = 0x1234'0030;
    exit = decode(28);
    CHECK(exit.control.kind == ControlRegisterAccess::Kind::lmsw);
    CHECK(exit.control.lmsw_value == 0x1234);
}

TEST_CASE("Debug-register accesses") {
    auto& fake = new_fake_vmx();
    fake.fields()[vmcs::exit_qualification.encoding] = 0x0817;  // MOV R8, DR7
    const Exit exit = decode(29);
    CHECK(exit.debug.number == 7);
    CHECK(exit.debug.read);
    CHECK(exit.debug.general_register == 8);
}

TEST_CASE("EPT violations: a write into a hole, a read-only page, the guest's own page walk") {
    auto& fake = new_fake_vmx();
    auto& fields = fake.fields();
    fields[vmcs::guest_physical_address.encoding] = 0xFEC0'0010;
    fields[vmcs::guest_linear_address.encoding] = 0xFFFF'8000'0000'0010;
    auto& qualification = fields[vmcs::exit_qualification.encoding];
    qualification = 0x182;
    Exit exit = decode(48);
    CHECK(exit.nested.address == GuestPhysical(0xFEC0'0010));
    CHECK((exit.nested.write && !exit.nested.read && !exit.nested.fetch));
    CHECK_FALSE(exit.nested.present);
    CHECK_FALSE(exit.nested.during_walk);
    CHECK(exit.nested.linear_known);
    CHECK(exit.nested.linear == GuestVirtual(0xFFFF'8000'0000'0010));
    CHECK(exit.nested.byte_count == 0);

    qualification = 0x182 | 0x28;
    CHECK(decode(48).nested.present);
    qualification = 0x081;
    CHECK(decode(48).nested.during_walk);
    qualification = 0x001;  // MOV CR3 loading PDPTEs: no linear address, and it is not read
    fake.reads.clear();
    exit = decode(48);
    CHECK_FALSE(exit.nested.linear_known);
    CHECK_FALSE(exit.nested.during_walk);
    CHECK(std::count(fake.reads.begin(), fake.reads.end(), vmcs::guest_linear_address.encoding) == 0);
    qualification = 0x184;
    CHECK(decode(48).nested.fetch);
}

TEST_CASE("An event whose delivery an EPT violation broke off is reported") {
    auto& fake = new_fake_vmx();
    auto& fields = fake.fields();
    fields[vmcs::exit_qualification.encoding] = 0x182;
    fields[vmcs::idt_vectoring_information.encoding] = 0x8000'0B0E;
    fields[vmcs::idt_vectoring_error_code.encoding] = 7;
    const Exit exit = decode(48);
    REQUIRE(exit.interrupted.has_value());
    CHECK(*exit.interrupted == make_exception(exception::page_fault, 7));
    fields[vmcs::idt_vectoring_information.encoding] = 0x8000'0480;
    fields[vmcs::vm_exit_instruction_length.encoding] = 2;
    CHECK(decode(48).interrupted->instruction_length == 2);
    fields[vmcs::idt_vectoring_information.encoding] = 0x0000'0480;
    CHECK_FALSE(decode(48).interrupted.has_value());
}

TEST_CASE("An IRET that unblocked NMIs and faulted has them blocked again") {
    auto& fake = new_fake_vmx();
    auto& fields = fake.fields();
    fields[vmcs::exit_qualification.encoding] = 0x181 | bit(12);
    (void)decode(48);
    CHECK(fake[vmcs::guest_interruptibility] == interruptibility::blocking_by_nmi);

    // Not where the exit broke off an event's delivery.
    fields[vmcs::guest_interruptibility.encoding] = 0;
    fields[vmcs::idt_vectoring_information.encoding] = 0x8000'0202;
    (void)decode(48);
    CHECK(fake[vmcs::guest_interruptibility] == 0);

    // An intercepted exception says it in its interruption information; #DF's bit means nothing.
    fields[vmcs::idt_vectoring_information.encoding] = 0;
    fields[vmcs::vm_exit_interruption_information.encoding] = 0x8000'1B08;
    (void)decode(0);
    CHECK(fake[vmcs::guest_interruptibility] == 0);
    fields[vmcs::vm_exit_interruption_information.encoding] = 0x8000'1B11;
    (void)decode(0);
    CHECK(fake[vmcs::guest_interruptibility] == interruptibility::blocking_by_nmi);
}

TEST_CASE("Exceptions: #AC, #DB, #MC, INT1, and the host's NMI") {
    auto& fake = new_fake_vmx();
    auto& fields = fake.fields();
    auto& information = fields[vmcs::vm_exit_interruption_information.encoding];
    information = 0x8000'0B11;
    Exit exit = decode(0);
    CHECK(exit.reason == ExitReason::exception);
    CHECK(exit.exception.event == make_exception(exception::alignment_check, 0));

    information = 0x8000'0301;
    fields[vmcs::exit_qualification.encoding] = 0xFFFF'FFFF;
    exit = decode(0);
    CHECK(exit.exception.event == make_exception(exception::debug));
    CHECK(exit.exception.debug_status == 0x600F);

    information = 0x8000'0312;
    CHECK(decode(0).exception.event.vector == exception::machine_check);

    information = 0x8000'0501;
    fields[vmcs::vm_exit_instruction_length.encoding] = 1;
    exit = decode(0);
    CHECK(exit.exception.event.type == Event::Type::privileged_software_exception);
    CHECK(exit.instruction_length == 1);

    information = 0x8000'0202;
    CHECK(decode(0).reason == ExitReason::host_nmi);

    information = 0x8000'0700;
    CHECK(decode(0).reason == ExitReason::hardware_error);
}

TEST_CASE("A #DB in a MOV SS shadow with TF set leaves a state that can be entered") {
    auto& fake = new_fake_vmx();
    auto& fields = fake.fields();
    fields[vmcs::vm_exit_interruption_information.encoding] = 0x8000'0301;
    fields[vmcs::guest_interruptibility.encoding] = interruptibility::blocking_by_mov_ss;
    fields[vmcs::guest_rflags.encoding] = 2 | rflags::tf;
    (void)decode(0);
    CHECK(fake[vmcs::guest_pending_debug_exceptions] == debug_exception::single_step);
    fields[vmcs::guest_debugctl.encoding] = 2;  // BTF: single-stepping on branches
    (void)decode(0);
    CHECK(fake[vmcs::guest_pending_debug_exceptions] == 0);
}

TEST_CASE("APIC accesses, writes, and virtual EOIs") {
    auto& fake = new_fake_vmx();
    auto& qualification = fake.fields()[vmcs::exit_qualification.encoding];
    qualification = 0x1300;  // linear write to ICR
    Exit exit = decode(44);
    CHECK(exit.apic.offset == 0x300);
    CHECK((exit.apic.write && !exit.apic.fetch && !exit.apic.during_event));
    qualification = 0x2000;
    CHECK(decode(44).apic.fetch);
    qualification = 0x3FF0;
    CHECK(decode(44).apic.during_event);
    qualification = 0xA000;
    CHECK(decode(44).apic.during_event);
    qualification = 0x0390;
    exit = decode(44);
    CHECK((exit.apic.offset == 0x390 && !exit.apic.write && !exit.apic.fetch));
    qualification = 0xFFFF'F310;
    exit = decode(56);
    CHECK((exit.apic.offset == 0x310 && exit.apic.write));
    qualification = 0x31;
    CHECK(decode(45).vector == Vector(0x31));
}

TEST_CASE("Task switches by all four ways") {
    auto& fake = new_fake_vmx();
    using Source = TaskSwitchExit::Source;
    for (u64 i = 0; i < 4; ++i) {
        fake.fields()[vmcs::exit_qualification.encoding] = i << 30 | 0x28;
        const Exit exit = decode(9);
        CHECK(exit.task_switch.selector == 0x28);
        CHECK(exit.task_switch.source ==
              std::array{Source::call, Source::iret, Source::jmp, Source::gate}[i]);
    }
}
