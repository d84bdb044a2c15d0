#include "arch/x86/vmx/exit_decode.hpp"

#include "arch/x86/regs/control.hpp"
#include "arch/x86/vmx/control_bits.hpp"
#include "arch/x86/vmx/events.hpp"
#include "arch/x86/vmx/vmcs_access.hpp"

namespace bulkhead::vmx {
namespace {

// What has to be read besides the reason.
enum class Detail : u8 {
    none,
    instruction,  // the instruction length
    port_io,
    control_register,
    debug_register,
    msr,
    exception,
    ept_violation,
    apic_access,
    apic_write,
    vector,
    task_switch,
    machine_check,  // during the entry
    vectoring,      // an event may have been broken off
};

struct Row {
    ExitReason reason = ExitReason::hardware_error;
    Detail detail = Detail::none;
};

constexpr u32 row_count = 78;

struct Table {
    Row rows[row_count] = {};  // what is not named below: hardware_error

    consteval Table() {
        using namespace basic_exit_reason;
        const auto set = [&](u16 number, ExitReason reason, Detail detail) {
            rows[number] = {reason, detail};
        };
        using enum ExitReason;
        set(basic_exit_reason::exception_or_nmi, exception, Detail::exception);
        set(basic_exit_reason::external_interrupt, ExitReason::external_interrupt, Detail::none);
        set(basic_exit_reason::triple_fault, ExitReason::triple_fault, Detail::none);
        set(basic_exit_reason::init_signal, ExitReason::init_signal, Detail::none);
        set(basic_exit_reason::startup_ipi, ExitReason::sipi, Detail::vector);
        set(basic_exit_reason::interrupt_window, ExitReason::interrupt_window, Detail::none);
        set(basic_exit_reason::nmi_window, ExitReason::nmi_window, Detail::none);
        set(basic_exit_reason::task_switch, ExitReason::task_switch, Detail::task_switch);
        set(basic_exit_reason::cpuid, ExitReason::cpuid, Detail::instruction);
        set(basic_exit_reason::hlt, ExitReason::hlt, Detail::instruction);
        set(basic_exit_reason::invd, ExitReason::invd, Detail::instruction);
        set(basic_exit_reason::invlpg, ExitReason::invlpg, Detail::instruction);
        set(basic_exit_reason::rdpmc, ExitReason::rdpmc, Detail::instruction);
        set(basic_exit_reason::rdtsc, ExitReason::rdtsc, Detail::instruction);
        set(basic_exit_reason::rdtscp, ExitReason::rdtsc, Detail::instruction);
        set(basic_exit_reason::vmcall, ExitReason::hypercall, Detail::instruction);
        set(basic_exit_reason::control_register, ExitReason::control_register, Detail::control_register);
        set(basic_exit_reason::mov_dr, ExitReason::debug_register, Detail::debug_register);
        set(basic_exit_reason::io_instruction, ExitReason::port_io, Detail::port_io);
        set(basic_exit_reason::rdmsr, ExitReason::msr_read, Detail::msr);
        set(basic_exit_reason::wrmsr, ExitReason::msr_write, Detail::msr);
        set(basic_exit_reason::mwait, ExitReason::mwait, Detail::instruction);
        set(basic_exit_reason::monitor, ExitReason::monitor, Detail::instruction);
        set(basic_exit_reason::pause, ExitReason::pause, Detail::instruction);
        set(basic_exit_reason::tpr_below_threshold, ExitReason::tpr_below_threshold, Detail::none);
        set(basic_exit_reason::apic_access, ExitReason::apic_access, Detail::apic_access);
        set(basic_exit_reason::virtualized_eoi, ExitReason::virtual_eoi, Detail::vector);
        set(basic_exit_reason::access_to_gdtr_or_idtr, ExitReason::descriptor_table, Detail::instruction);
        set(basic_exit_reason::access_to_ldtr_or_tr, ExitReason::descriptor_table, Detail::instruction);
        set(basic_exit_reason::ept_violation, ExitReason::nested_page_fault, Detail::ept_violation);
        set(basic_exit_reason::ept_misconfiguration, ExitReason::hardware_error, Detail::vectoring);
        set(basic_exit_reason::preemption_timer, ExitReason::preemption, Detail::none);
        set(basic_exit_reason::wbinvd, ExitReason::wbinvd, Detail::instruction);
        set(basic_exit_reason::xsetbv, ExitReason::xsetbv, Detail::instruction);
        set(basic_exit_reason::apic_write, ExitReason::apic_write, Detail::apic_write);
        set(basic_exit_reason::pml_full, ExitReason::page_modification_log_full, Detail::vectoring);
        // Trap-like, after the instruction: the guest goes on.
        set(basic_exit_reason::bus_lock, ExitReason::spurious, Detail::none);
        set(basic_exit_reason::instruction_timeout, ExitReason::spurious, Detail::vectoring);
        for (u16 number :
             {getsec,  rsm,    vmclear,   vmlaunch, vmptrld,      vmptrst,       vmread,   vmresume,
              vmwrite, vmxoff, vmxon,     invept,   invvpid,      vmfunc,        encls,    pconfig,
              umwait,  tpause, loadiwkey, enclv,    enqcmd_pasid, enqcmds_pasid, seamcall, tdcall}) {
            set(number, ExitReason::undefined_instruction, Detail::instruction);
        }
        // The reasons of failed entries come with bit 31 set, which is looked at first.
    }
};
constexpr Table table;

// In the exit-reason field.
constexpr u64 entry_failed = bit(31);

// What follows is out of line where only some reasons need it: the commonest exits save no registers for the
// others.

[[gnu::noinline]] void block_nmis() {
    vmcs::write(vmcs::guest_interruptibility,
                vmcs::read(vmcs::guest_interruptibility) | interruptibility::blocking_by_nmi);
}

[[gnu::noinline]] void decode_vectoring(Exit& exit) {
    const u32 information = vmcs::read(vmcs::idt_vectoring_information);
    if ((information & interruption::valid) == 0) [[likely]]
        return;
    const u32 error_code = (information & interruption::deliver_error_code) != 0
                               ? vmcs::read(vmcs::idt_vectoring_error_code)
                               : 0;
    exit.interrupted = decode_event(information, error_code, vmcs::read(vmcs::vm_exit_instruction_length));
}

// IRET had unblocked NMIs when it faulted, and will be executed again (SDM Vol. 3C, 28.2.3). Where an event's
// delivery was broken off, or the fault is #DF, the bit means nothing.
void restore_nmi_blocking(const Exit& exit, bool unblocking_by_iret) {
    if (unblocking_by_iret && !exit.interrupted.has_value()) block_nmis();
}

// Exits with #DB in a STI or MOV SS shadow and TF set: re-entry wants a pending single-step trap to match
// (SDM Vol. 3C, 27.3.1.5), or fails.
[[gnu::noinline]] void match_pending_single_step() {
    if ((vmcs::read(vmcs::guest_interruptibility) & interruptibility::shadows) == 0) return;
    constexpr u64 btf = bit(1);
    const bool stepping =
        (vmcs::read(vmcs::guest_rflags) & rflags::tf) != 0 && (vmcs::read(vmcs::guest_debugctl) & btf) == 0;
    const u64 pending = vmcs::read(vmcs::guest_pending_debug_exceptions) & ~debug_exception::single_step;
    vmcs::write(vmcs::guest_pending_debug_exceptions,
                pending | (stepping ? debug_exception::single_step : 0));
}

[[gnu::noinline]] void decode_exception(Exit& exit) {
    const u32 information = vmcs::read(vmcs::vm_exit_interruption_information);
    const u8 vector = interruption::vector_of(information);
    if (interruption::type_of(information) == interruption::type_nmi) {
        exit.reason = ExitReason::host_nmi;
        return;
    }
    const u32 error_code = (information & interruption::deliver_error_code) != 0
                               ? vmcs::read(vmcs::vm_exit_interruption_error_code)
                               : 0;
    const auto event = decode_event(information, error_code, vmcs::read(vmcs::vm_exit_instruction_length));
    if (!event.has_value()) {
        exit.reason = ExitReason::hardware_error;
        return;
    }
    exit.exception = {.event = *event};
    exit.instruction_length = event->instruction_length;
    decode_vectoring(exit);
    restore_nmi_blocking(exit, (information & interruption::nmi_unblocking) != 0 &&
                                   vector != bulkhead::exception::double_fault.raw());
    if (vector == bulkhead::exception::debug.raw()) {
        constexpr u64 status_bits = 0x600F;  // B0-B3, BD, BS; not RTM, which is inverted and not announced
        exit.exception.debug_status = vmcs::read(vmcs::exit_qualification) & status_bits;
        match_pending_single_step();
    } else if (vector == bulkhead::exception::page_fault.raw()) {
        exit.exception.event.fault_address = vmcs::read(vmcs::exit_qualification);
    }
}

[[gnu::noinline]] void decode_port_io(Exit& exit, bool instruction_information) {
    PortAccess access = port_access(vmcs::read(vmcs::exit_qualification));
    if (access.string && instruction_information) describe_string(access);
    exit.port = access;
    exit.instruction_length = instruction_length();
}

[[gnu::noinline]] void decode_control_register(Exit& exit) {
    const u64 qualification = vmcs::read(vmcs::exit_qualification);
    constexpr ControlRegisterAccess::Kind kinds[] = {
        ControlRegisterAccess::Kind::write, ControlRegisterAccess::Kind::read,
        ControlRegisterAccess::Kind::clts, ControlRegisterAccess::Kind::lmsw};
    exit.control = {.number = static_cast<u8>(extract(qualification, 3, 0)),
                    .kind = kinds[extract(qualification, 5, 4)],
                    .general_register = static_cast<u8>(extract(qualification, 11, 8)),
                    .lmsw_value = static_cast<u16>(extract(qualification, 31, 16))};
    exit.instruction_length = instruction_length();
}

[[gnu::noinline]] void decode_ept_violation(Exit& exit) {
    const u64 qualification = vmcs::read(vmcs::exit_qualification);
    NestedPageFault fault{.address = vmcs::read(vmcs::guest_physical_address),
                          .read = has_bit(qualification, 0),
                          .write = has_bit(qualification, 1),
                          .fetch = has_bit(qualification, 2),
                          .present = extract(qualification, 6, 3) != 0,
                          .linear_known = has_bit(qualification, 7)};
    if (fault.linear_known) {
        fault.linear = vmcs::read(vmcs::guest_linear_address);
        fault.during_walk = !has_bit(qualification, 8);
    }
    exit.nested = fault;
    decode_vectoring(exit);
    restore_nmi_blocking(exit, has_bit(qualification, 12));
}

[[gnu::noinline]] void decode_apic_access(Exit& exit) {
    const u64 qualification = vmcs::read(vmcs::exit_qualification);
    enum : u64 { read = 0, write = 1, fetch = 2, event = 3, physical_event = 10, physical = 15 };
    const u64 type = extract(qualification, 15, 12);
    exit.apic = {.offset = static_cast<u16>(extract(qualification, 11, 0)),
                 .write = type == write,
                 .fetch = type == fetch,
                 .during_event = type == event || type == physical_event};
    decode_vectoring(exit);
}

[[gnu::noinline]] void decode_debug_register(Exit& exit) {
    const u64 qualification = vmcs::read(vmcs::exit_qualification);
    exit.debug = {.number = static_cast<u8>(extract(qualification, 2, 0)),
                  .read = has_bit(qualification, 4),
                  .general_register = static_cast<u8>(extract(qualification, 11, 8))};
    exit.instruction_length = instruction_length();
}

[[gnu::noinline]] void decode_task_switch(Exit& exit) {
    const u64 qualification = vmcs::read(vmcs::exit_qualification);
    exit.task_switch = {.selector = static_cast<u16>(qualification),
                        .source = static_cast<TaskSwitchExit::Source>(extract(qualification, 31, 30))};
    exit.instruction_length = instruction_length();
    decode_vectoring(exit);
}

// Failed entries, and numbers that no manual has. A machine check during the entry is one.
[[gnu::noinline, gnu::cold]] Row odd_row(u64 reason) {
    if (reason == (entry_failed | basic_exit_reason::entry_failure_machine_check))
        return {.reason = ExitReason::exception, .detail = Detail::machine_check};
    return {.reason = (reason & entry_failed) != 0 ? ExitReason::entry_failure : ExitReason::hardware_error};
}

}  // namespace

Exit decode_exit(u64 reason, const GeneralRegisters& registers, bool instruction_information) {
    const u64 number = reason & 0xFFFF;
    const bool odd = number >= row_count || (reason & entry_failed) != 0;
    const Row row = odd ? odd_row(reason) : table.rows[number];
    Exit exit(row.reason);
    exit.raw_code = reason;
    switch (row.detail) {
        case Detail::none: break;
        case Detail::instruction: exit.instruction_length = instruction_length(); break;
        case Detail::port_io: decode_port_io(exit, instruction_information); break;
        case Detail::msr:
            exit.msr = {.index = MsrIndex(static_cast<u32>(registers.rcx))};
            exit.instruction_length = instruction_length();
            break;
        case Detail::control_register: decode_control_register(exit); break;
        case Detail::debug_register: decode_debug_register(exit); break;
        case Detail::exception: decode_exception(exit); break;
        case Detail::ept_violation: decode_ept_violation(exit); break;
        case Detail::apic_access: decode_apic_access(exit); break;
        case Detail::apic_write:
            exit.apic = {.offset = static_cast<u16>(vmcs::read(vmcs::exit_qualification) & 0xFFF),
                         .write = true};
            break;
        case Detail::vector:
            exit.vector = Vector(static_cast<u8>(vmcs::read(vmcs::exit_qualification)));
            break;
        case Detail::task_switch: decode_task_switch(exit); break;
        case Detail::vectoring: decode_vectoring(exit); break;
        case Detail::machine_check:
            exit.exception = {.event = make_exception(exception::machine_check)};
            break;
    }
    return exit;
}

}  // namespace bulkhead::vmx
