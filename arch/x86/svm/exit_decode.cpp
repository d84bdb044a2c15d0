#include "arch/x86/svm/exit_decode.hpp"

#include <algorithm>

namespace bulkhead::svm {
namespace {

void decode_control_register(const VmcbControl& control, const Capabilities& capabilities, Exit& exit) {
    exit.reason = ExitReason::control_register;
    ControlRegisterAccess& access = exit.control = {};
    const u64 code = control.exit_code;
    if (code == exit_code::cr0_selective_write) {
        access.operands_known = false;
        return;
    }
    access.number = static_cast<u8>(code & 15);
    access.kind =
        code < exit_code::cr_write ? ControlRegisterAccess::Kind::read : ControlRegisterAccess::Kind::write;
    // Bit 63 tells MOV from CLTS, LMSW and SMSW (APM Vol. 2, 15.8.1).
    access.operands_known = capabilities.decode_assists && has_bit(control.exit_info1, 63);
    access.general_register = static_cast<u8>(control.exit_info1 & 15);
}

void decode_debug_register(const VmcbControl& control, const Capabilities& capabilities, Exit& exit) {
    exit.reason = ExitReason::debug_register;
    DebugRegisterAccess& access = exit.debug = {};
    access.number = static_cast<u8>(control.exit_code & 15);
    access.read = control.exit_code < exit_code::dr_write;
    access.operands_known = capabilities.decode_assists;
    access.general_register = static_cast<u8>(control.exit_info1 & 15);
}

void decode_exception(const Vmcb& vmcb, Exit& exit) {
    exit.reason = ExitReason::exception;
    const Vector vector(static_cast<u8>(vmcb.control.exit_code - exit_code::exception));
    exit.exception = {};
    exit.exception.event = make_exception(vector);
    switch (vector.raw()) {
        case 8:
        case 10:
        case 11:
        case 12:
        case 13:
        case 17:
        case 21: exit.exception.event.error_code = static_cast<u32>(vmcb.control.exit_info1); break;
        case 14:
            exit.exception.event.error_code = static_cast<u32>(vmcb.control.exit_info1);
            exit.exception.event.fault_address = vmcb.control.exit_info2;
            break;
        default: break;
    }
}

void decode_port(const Vmcb& vmcb, Exit& exit) {
    exit.reason = ExitReason::port_io;
    exit.port = port_access(vmcb.control.exit_info1);
    exit.instruction_length = port_instruction_length(vmcb);
}

// APM Vol. 2, 15.25.6.
void decode_nested_fault(const VmcbControl& control, const Capabilities& capabilities, Exit& exit) {
    const u64 info = control.exit_info1;
    exit.reason = ExitReason::nested_page_fault;
    NestedPageFault& fault = exit.nested = {};
    fault.address = GuestPhysical(control.exit_info2);
    fault.present = has_bit(info, 0);
    fault.write = has_bit(info, 1);
    fault.fetch = has_bit(info, 4);
    fault.read = !fault.write && !fault.fetch;
    fault.during_walk = has_bit(info, 33);
    if (capabilities.decode_assists) {
        fault.byte_count = std::min<u8>(control.fetched_byte_count & 15, sizeof fault.bytes);
        for (unsigned i = 0; i < fault.byte_count; ++i) fault.bytes[i] = control.fetched_bytes[i];
    }
}

// APM Vol. 2, 15.14.1.
void decode_task_switch(const VmcbControl& control, bool in_delivery, Exit& exit) {
    exit.reason = ExitReason::task_switch;
    exit.task_switch = {};
    exit.task_switch.selector = static_cast<u16>(control.exit_info1);
    if (has_bit(control.exit_info2, 36)) {
        exit.task_switch.source = TaskSwitchExit::Source::iret;
    } else if (has_bit(control.exit_info2, 38)) {
        exit.task_switch.source = TaskSwitchExit::Source::jmp;
    } else {
        exit.task_switch.source = in_delivery ? TaskSwitchExit::Source::gate : TaskSwitchExit::Source::call;
    }
}

ExitReason simple_reason(u64 code) {
    switch (code) {
        case exit_code::intr: return ExitReason::external_interrupt;
        case exit_code::nmi: return ExitReason::host_nmi;
        case exit_code::smi: return ExitReason::spurious;
        case exit_code::init: return ExitReason::init_signal;
        case exit_code::vintr: return ExitReason::interrupt_window;
        case exit_code::rdtsc:
        case exit_code::rdtscp: return ExitReason::rdtsc;
        case exit_code::rdpmc: return ExitReason::rdpmc;
        case exit_code::cpuid: return ExitReason::cpuid;
        case exit_code::iret: return ExitReason::spurious;
        case exit_code::invd: return ExitReason::invd;
        case exit_code::pause: return ExitReason::pause;
        case exit_code::hlt: return ExitReason::hlt;
        case exit_code::invlpg: return ExitReason::invlpg;
        case exit_code::shutdown: return ExitReason::triple_fault;
        case exit_code::vmmcall: return ExitReason::hypercall;
        case exit_code::rsm:
        case exit_code::invlpga:
        case exit_code::vmrun:
        case exit_code::vmload:
        case exit_code::vmsave:
        case exit_code::stgi:
        case exit_code::clgi:
        case exit_code::skinit:
        case exit_code::rdpru: return ExitReason::undefined_instruction;
        case exit_code::wbinvd: return ExitReason::wbinvd;
        case exit_code::monitor: return ExitReason::monitor;
        case exit_code::mwait:
        case exit_code::mwait_armed: return ExitReason::mwait;
        case exit_code::xsetbv: return ExitReason::xsetbv;
        case exit_code::invalid: return ExitReason::entry_failure;
        default: return ExitReason::hardware_error;
    }
}

// Where nRIP is saved it is the next instruction for exits that come from an instruction, zero or stale
// otherwise.
bool has_instruction_length(ExitReason reason) {
    switch (reason) {
        case ExitReason::cpuid:
        case ExitReason::hlt:
        case ExitReason::pause:
        case ExitReason::rdtsc:
        case ExitReason::rdpmc:
        case ExitReason::invd:
        case ExitReason::wbinvd:
        case ExitReason::invlpg:
        case ExitReason::xsetbv:
        case ExitReason::hypercall:
        case ExitReason::monitor:
        case ExitReason::mwait:
        case ExitReason::msr_read:
        case ExitReason::msr_write:
        case ExitReason::control_register:
        case ExitReason::debug_register: return true;
        default: return false;
    }
}

}  // namespace

u64 encode_event(const Event& event) {
    u64 type = event_info::type_exception;
    switch (event.type) {
        case Event::Type::external_interrupt: type = event_info::type_interrupt; break;
        case Event::Type::nmi: type = event_info::type_nmi; break;
        case Event::Type::hardware_exception:
        case Event::Type::privileged_software_exception:
        case Event::Type::software_exception: type = event_info::type_exception; break;
        case Event::Type::software_interrupt: type = event_info::type_software; break;
    }
    u64 info = event_info::valid | type << event_info::type_shift | event.vector.raw();
    if (event.error_code)
        info |= event_info::has_error_code | u64{*event.error_code} << event_info::error_code_shift;
    return info;
}

std::optional<Event> decode_event(u64 info) {
    if ((info & event_info::valid) == 0) return std::nullopt;
    Event event;
    event.vector = Vector(static_cast<u8>(info));
    switch (extract(info, 10, 8)) {
        case event_info::type_interrupt: event.type = Event::Type::external_interrupt; break;
        case event_info::type_nmi: event.type = Event::Type::nmi; break;
        case event_info::type_software: event.type = Event::Type::software_interrupt; break;
        default: {
            const bool software =
                event.vector == exception::breakpoint || event.vector == exception::overflow;
            event.type = software ? Event::Type::software_exception : Event::Type::hardware_exception;
            break;
        }
    }
    if ((info & event_info::has_error_code) != 0) event.error_code = static_cast<u32>(info >> 32);
    return event;
}

Exit decode_exit(const Vmcb& vmcb, const GeneralRegisters& registers, const Capabilities& capabilities) {
    const VmcbControl& control = vmcb.control;
    const u64 code = control.exit_code;
    Exit exit;
    exit.raw_code = code;
    exit.interrupted = decode_event(control.exit_interrupt_info);
    const bool in_delivery = exit.interrupted.has_value();
    // INT n, INT3 and INTO: RIP is still at the instruction, whose execution delivers the event anew.
    if (exit.interrupted && (exit.interrupted->type == Event::Type::software_interrupt ||
                             exit.interrupted->type == Event::Type::software_exception)) {
        exit.interrupted.reset();
    }
    if (exit.interrupted && exit.interrupted->vector == exception::page_fault) {
        exit.interrupted->fault_address = vmcb.state.cr2;
    }
    if (code == exit_code::ioio) {
        decode_port(vmcb, exit);
    } else if (code == exit_code::nested_fault) {
        decode_nested_fault(control, capabilities, exit);
    } else if (code == exit_code::msr) {
        exit.reason = (control.exit_info1 & 1) != 0 ? ExitReason::msr_write : ExitReason::msr_read;
        exit.msr = {.index = MsrIndex(static_cast<u32>(registers.rcx))};
    } else if (code < exit_code::dr_read || code == exit_code::cr0_selective_write) {
        decode_control_register(control, capabilities, exit);
    } else if (code < exit_code::exception) {
        decode_debug_register(control, capabilities, exit);
    } else if (code <= exit_code::exception_last) {
        decode_exception(vmcb, exit);
    } else if (code == exit_code::task_switch) {
        decode_task_switch(control, in_delivery, exit);
    } else {
        exit.reason = simple_reason(code);
    }
    if (capabilities.next_rip && has_instruction_length(exit.reason)) {
        const u64 length = control.next_rip - vmcb.state.rip;
        if (length >= 1 && length <= 15) exit.instruction_length = static_cast<u8>(length);
    }
    return exit;
}

}  // namespace bulkhead::svm
