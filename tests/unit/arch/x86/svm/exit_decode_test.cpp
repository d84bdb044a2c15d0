#include "arch/x86/svm/exit_decode.hpp"

#include <catch2/catch.hpp>
#include <map>
#include <memory>

#include "fixture.hpp"

using namespace bulkhead;
using namespace bulkhead::svm;

namespace {

struct Decoder {
    std::unique_ptr<Vmcb> vmcb = std::make_unique<Vmcb>();
    GeneralRegisters registers{};
    Capabilities capabilities = full_capabilities;

    VmcbControl& control() { return vmcb->control; }
    Exit operator()(u64 code, u64 info1 = 0, u64 info2 = 0) {
        vmcb->control.exit_code = code;
        vmcb->control.exit_info1 = info1;
        vmcb->control.exit_info2 = info2;
        return decode_exit(*vmcb, registers, capabilities);
    }
};

}  // namespace

TEST_CASE("Every exit code of the manual's table comes out as what it is") {
    using enum ExitReason;
    const std::map<u64, ExitReason> single = {{0x60, external_interrupt},
                                              {0x61, host_nmi},
                                              {0x62, spurious},
                                              {0x63, init_signal},
                                              {0x64, interrupt_window},
                                              {0x65, control_register},
                                              {0x6E, rdtsc},
                                              {0x6F, rdpmc},
                                              {0x72, cpuid},
                                              {0x73, undefined_instruction},
                                              {0x74, spurious},
                                              {0x76, invd},
                                              {0x77, pause},
                                              {0x78, hlt},
                                              {0x79, invlpg},
                                              {0x7A, undefined_instruction},
                                              {0x7B, port_io},
                                              {0x7D, task_switch},
                                              {0x7F, triple_fault},
                                              {0x80, undefined_instruction},
                                              {0x81, hypercall},
                                              {0x82, undefined_instruction},
                                              {0x83, undefined_instruction},
                                              {0x84, undefined_instruction},
                                              {0x85, undefined_instruction},
                                              {0x86, undefined_instruction},
                                              {0x87, rdtsc},
                                              {0x89, wbinvd},
                                              {0x8A, monitor},
                                              {0x8B, mwait},
                                              {0x8C, mwait},
                                              {0x8D, xsetbv},
                                              {0x8E, undefined_instruction},
                                              {0x400, nested_page_fault},
                                              {~u64{0}, entry_failure}};
    Decoder decode;
    for (u64 code = 0; code < 0x500; ++code) {
        ExitReason expected = hardware_error;
        if (code < 0x20) {
            expected = control_register;
        } else if (code < 0x40) {
            expected = debug_register;
        } else if (code < 0x60) {
            expected = exception;
        } else if (code == 0x7C) {
            expected = msr_read;
        } else if (const auto at = single.find(code); at != single.end()) {
            expected = at->second;
        }
        CAPTURE(code);
        const Exit exit = decode(code);
        CHECK(exit.reason == expected);
        CHECK(exit.raw_code == code);
        CHECK_FALSE(exit.interrupted);
    }
    CHECK(decode(~u64{0}).reason == entry_failure);
    // 32-bit -1 is what some hardware stores for VMEXIT_INVALID in the low half only; it is no exit code.
    CHECK(decode(0xFFFF'FFFF).reason == hardware_error);
}

TEST_CASE("Port exits tell port, direction, size, string and repeat") {
    Decoder decode;
    decode.vmcb->state.rip = 0x1000;
    for (const unsigned size : {1U, 2U, 4U}) {
        for (const bool in : {false, true}) {
            for (const bool string : {false, true}) {
                for (const bool repeat : {false, true}) {
                    const u64 info = u64{0xCF8} << 16 | u64{size} << 4 | (repeat ? 8 : 0) | (string ? 4 : 0) |
                                     (in ? 1 : 0) | bit(9);
                    const Exit exit = decode(exit_code::ioio, info, 0x1002);
                    CHECK(exit.port.port == Port(0xCF8));
                    CHECK(exit.port.size == size);
                    CHECK(exit.port.in == in);
                    CHECK(exit.port.string == string);
                    CHECK(exit.port.repeat == repeat);
                    CHECK_FALSE(exit.port.string_details);
                    CHECK(exit.instruction_length == 2);
                }
            }
        }
    }
    CHECK(decode(exit_code::ioio, 0xFFFF'0010, 0x1001).port.port == Port(0xFFFF));
}

TEST_CASE("A port exit's length comes from EXITINFO2 alone, and a senseless one is not believed") {
    Decoder decode;
    decode.capabilities = bare_capabilities;
    decode.vmcb->state.rip = 0xFFFF'FFFF'FFFF'FFFE;
    CHECK(decode(exit_code::ioio, 0x10, 0).instruction_length == 2);
    decode.vmcb->state.rip = 0x1000;
    CHECK(decode(exit_code::ioio, 0x10, 0x100F).instruction_length == 15);
    CHECK(decode(exit_code::ioio, 0x10, 0x1010).instruction_length == 0);
    CHECK(decode(exit_code::ioio, 0x10, 0x1000).instruction_length == 0);
    CHECK(decode(exit_code::ioio, 0x10, 0).instruction_length == 0);
}

TEST_CASE("MSR exits tell direction; the index is ECX, its upper half ignored") {
    Decoder decode;
    decode.registers.rcx = 0xDEAD'BEEF'C000'0080;
    CHECK(decode(exit_code::msr, 0).reason == ExitReason::msr_read);
    const Exit write = decode(exit_code::msr, 1);
    CHECK(write.reason == ExitReason::msr_write);
    CHECK(write.msr.index == MsrIndex(0xC000'0080));
}

TEST_CASE("Nested faults tell address, access, and whether the guest's own walk made them") {
    Decoder decode;
    // A data read of a hole.
    Exit exit = decode(exit_code::nested_fault, bit(32) | bit(2), 0xFEC0'0010);
    CHECK(exit.nested.address == GuestPhysical(0xFEC0'0010));
    CHECK(exit.nested.read);
    CHECK_FALSE(exit.nested.write);
    CHECK_FALSE(exit.nested.fetch);
    CHECK_FALSE(exit.nested.present);
    CHECK_FALSE(exit.nested.during_walk);
    CHECK_FALSE(exit.nested.linear_known);
    // A write to a page that is there, read-only.
    exit = decode(exit_code::nested_fault, bit(32) | bit(2) | bit(1) | bit(0), 0xF0000);
    CHECK(exit.nested.write);
    CHECK(exit.nested.present);
    CHECK_FALSE(exit.nested.read);
    // A fetch.
    exit = decode(exit_code::nested_fault, bit(32) | bit(4) | bit(2), 0xC000'0000);
    CHECK(exit.nested.fetch);
    CHECK_FALSE(exit.nested.read);
    // The walk of the guest's page tables.
    exit = decode(exit_code::nested_fault, bit(33) | bit(2) | bit(1), 0xC000'1000);
    CHECK(exit.nested.during_walk);
    CHECK(exit.instruction_length == 0);
}

TEST_CASE("With decode assists a nested fault carries the instruction's bytes, at most fifteen") {
    Decoder decode;
    VmcbControl& control = decode.control();
    for (u8 i = 0; i < 15; ++i) control.fetched_bytes[i] = static_cast<u8>(0x40 + i);
    for (unsigned count = 0; count < 256; ++count) {
        control.fetched_byte_count = static_cast<u8>(count);
        const Exit exit = decode(exit_code::nested_fault, 0, 0xFEC0'0000);
        REQUIRE(exit.nested.byte_count == (count & 15));
        for (unsigned i = 0; i < exit.nested.byte_count; ++i) REQUIRE(exit.nested.bytes[i] == 0x40 + i);
    }
    decode.capabilities.decode_assists = false;
    control.fetched_byte_count = 15;
    CHECK(decode(exit_code::nested_fault, 0, 0xFEC0'0000).nested.byte_count == 0);
}

TEST_CASE("Control register exits with decode assists name both registers of a MOV") {
    Decoder decode;
    for (const u8 number : {0, 2, 3, 4, 8, 15}) {
        for (u8 general = 0; general < 16; ++general) {
            const Exit write = decode(exit_code::cr_write + number, bit(63) | general);
            CHECK(write.control.number == number);
            CHECK(write.control.kind == ControlRegisterAccess::Kind::write);
            CHECK(write.control.operands_known);
            CHECK(write.control.general_register == general);
            const Exit read = decode(exit_code::cr_read + number, bit(63) | general);
            CHECK(read.control.kind == ControlRegisterAccess::Kind::read);
            CHECK(read.control.number == number);
        }
    }
    // CLTS and LMSW are CR0 writes without bit 63.
    CHECK_FALSE(decode(exit_code::cr_write, 3).control.operands_known);
    CHECK_FALSE(decode(exit_code::cr0_selective_write, bit(63)).control.operands_known);
    decode.capabilities.decode_assists = false;
    CHECK_FALSE(decode(exit_code::cr_write + 4, bit(63) | 3).control.operands_known);
}

TEST_CASE("Debug register exits tell the register and the direction") {
    Decoder decode;
    for (u8 number = 0; number < 8; ++number) {
        const Exit read = decode(exit_code::dr_read + number, 9);
        CHECK(read.debug.number == number);
        CHECK(read.debug.read);
        CHECK(read.debug.general_register == 9);
        CHECK(read.debug.operands_known);
        const Exit write = decode(exit_code::dr_write + number, 10);
        CHECK_FALSE(write.debug.read);
        CHECK(write.debug.general_register == 10);
    }
    decode.capabilities.decode_assists = false;
    CHECK_FALSE(decode(exit_code::dr_read, 9).debug.operands_known);
}

TEST_CASE("Exception exits have an error code exactly where the exception has one") {
    Decoder decode;
    for (unsigned vector = 0; vector < 32; ++vector) {
        const Exit exit = decode(exit_code::exception + vector, 0x1'0000'0004, 0xCAFE'F00D);
        const Event& event = exit.exception.event;
        CHECK(event.vector == Vector(static_cast<u8>(vector)));
        CHECK(event.type == Event::Type::hardware_exception);
        CHECK(exit.exception.debug_status == 0);
        const bool has_code = vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21;
        CAPTURE(vector);
        CHECK(event.error_code == (has_code ? std::optional<u32>(4) : std::nullopt));
        CHECK(event.fault_address == (vector == 14 ? std::optional<u64>(0xCAFE'F00D) : std::nullopt));
    }
}

TEST_CASE("Task switches tell the selector and what began them") {
    Decoder decode;
    CHECK(decode(exit_code::task_switch, 0x38, bit(36)).task_switch.source == TaskSwitchExit::Source::iret);
    CHECK(decode(exit_code::task_switch, 0x38, bit(38)).task_switch.source == TaskSwitchExit::Source::jmp);
    CHECK(decode(exit_code::task_switch, 0x38, 0).task_switch.source == TaskSwitchExit::Source::call);
    CHECK(decode(exit_code::task_switch, 0x38, bit(36)).task_switch.selector == 0x38);
    for (const u64 type :
         {event_info::type_interrupt, event_info::type_exception, event_info::type_software}) {
        decode.control().exit_interrupt_info = event_info::valid | type << event_info::type_shift | 0x80;
        CHECK(decode(exit_code::task_switch, 0x38, 0).task_switch.source == TaskSwitchExit::Source::gate);
    }
}

TEST_CASE("nRIP gives the length of instructions that have one") {
    Decoder decode;
    decode.vmcb->state.rip = 0x1000;
    decode.control().next_rip = 0x1003;
    for (const u64 code : {exit_code::cpuid, exit_code::hlt, exit_code::msr, exit_code::xsetbv,
                           exit_code::vmmcall, exit_code::wbinvd, exit_code::invd, exit_code::rdpmc,
                           exit_code::rdtsc, exit_code::pause, exit_code::monitor, exit_code::mwait,
                           exit_code::invlpg, exit_code::cr_write + 4, exit_code::dr_read + 1}) {
        CAPTURE(code);
        CHECK(decode(code).instruction_length == 3);
        decode.capabilities.next_rip = false;
        CHECK(decode(code).instruction_length == 0);
        decode.capabilities.next_rip = true;
    }
    // Of these nRIP says nothing.
    for (const u64 code : {exit_code::intr, exit_code::vintr, exit_code::shutdown, exit_code::exception + 1,
                           exit_code::nested_fault, exit_code::iret}) {
        CHECK(decode(code).instruction_length == 0);
    }
    decode.control().next_rip = 0;
    CHECK(decode(exit_code::cpuid).instruction_length == 0);
    decode.control().next_rip = 0x1010;
    CHECK(decode(exit_code::cpuid).instruction_length == 0);
}

TEST_CASE("Events survive the way into EVENTINJ and out of EXITINTINFO") {
    for (unsigned vector = 0; vector < 256; ++vector) {
        const Event event{.type = Event::Type::external_interrupt, .vector = Vector(static_cast<u8>(vector))};
        CHECK(decode_event(encode_event(event)) == event);
    }
    for (unsigned vector = 0; vector < 32; ++vector) {
        if (vector == 3 || vector == 4) continue;
        const Event plain = make_exception(Vector(static_cast<u8>(vector)));
        CHECK(decode_event(encode_event(plain)) == plain);
        const Event coded = make_exception(Vector(static_cast<u8>(vector)), 0xFFFF'FFFF);
        CHECK(decode_event(encode_event(coded)) == coded);
    }
    const Event nmi{.type = Event::Type::nmi, .vector = Vector(2)};
    CHECK(decode_event(encode_event(nmi)) == nmi);
    CHECK(encode_event(nmi) == 0x8000'0202);
    CHECK(encode_event(make_general_protection(0x18)) == 0x18'8000'0B0D);
    // INT3 and INTO have no type of their own here; they come out as what raised them.
    const auto breakpoint = decode_event(event_info::valid | event_info::type_exception << 8 | 3);
    REQUIRE(breakpoint);
    CHECK(breakpoint->type == Event::Type::software_exception);
}

TEST_CASE("EXITINTINFO without its valid bit is nothing") {
    CHECK_FALSE(decode_event(0));
    CHECK_FALSE(decode_event(0x7FFF'FFFF));
    CHECK_FALSE(decode_event(~event_info::valid));
    // Reserved types from hardware that should not exist are taken for exceptions, not for a crash.
    for (const u64 type : {1, 5, 6, 7}) CHECK(decode_event(event_info::valid | type << 8 | 13));
}

TEST_CASE("An interrupted page fault keeps its address, which is in CR2 by then") {
    Decoder decode;
    decode.vmcb->state.cr2 = 0xABC000;
    decode.control().exit_interrupt_info = encode_event(make_page_fault(0, 2));
    const Exit exit = decode(exit_code::nested_fault, 0, 0xFEC0'0000);
    REQUIRE(exit.interrupted);
    CHECK(*exit.interrupted == make_page_fault(0xABC000, 2));
}

TEST_CASE("A broken-off INT n is not delivered again: the instruction is executed again") {
    Decoder decode;
    decode.control().exit_interrupt_info =
        event_info::valid | event_info::type_software << event_info::type_shift | 0x80;
    CHECK_FALSE(decode(exit_code::intr).interrupted);
    for (const u64 vector : {3, 4}) {
        decode.control().exit_interrupt_info =
            event_info::valid | event_info::type_exception << event_info::type_shift | vector;
        CHECK_FALSE(decode(exit_code::intr).interrupted);
    }
    decode.control().exit_interrupt_info = encode_event(make_general_protection());
    CHECK(decode(exit_code::intr).interrupted);
}
