// What becomes of each exit. The handlers of a kind stand together; what they decide by is in the policies.
#include "arch/x86/regs/control.hpp"
#include "arch/x86/regs/msr.hpp"
#include "vmm/control_registers.hpp"
#include "vmm/vcpu.hpp"
#include "vmm/vcpu_context.hpp"
#include "vmm/virtual_machine.hpp"

namespace bulkhead {

Vcpu::Handling Vcpu::dispatch(const Exit& exit) {
    switch (exit.reason) {
        case ExitReason::external_interrupt:
        case ExitReason::host_nmi: turn_over_ = true; return Handling::handled;
        case ExitReason::preemption:
        case ExitReason::answered:
        case ExitReason::spurious: return Handling::handled;
        case ExitReason::interrupt_window:
        case ExitReason::nmi_window:
        case ExitReason::tpr_below_threshold: quick_.apic_touched = true; return Handling::handled;
        case ExitReason::cpuid: return handle_cpuid(exit);
        case ExitReason::port_io: return handle_port(exit);
        case ExitReason::nested_page_fault: return handle_nested_fault(exit);
        case ExitReason::apic_access: return handle_apic_access(exit);
        case ExitReason::apic_write:
            quick_.apic_touched = true;
            apic_.apic_write(exit.apic.offset);
            return Handling::handled;
        case ExitReason::virtual_eoi:
            quick_.apic_touched = true;
            apic_.virtual_eoi(exit.vector);
            return Handling::handled;
        case ExitReason::hlt: return handle_hlt(exit);
        case ExitReason::msr_read: return handle_msr_read(exit);
        case ExitReason::msr_write: return handle_msr_write(exit);
        case ExitReason::control_register: return handle_control_register(exit);
        case ExitReason::debug_register: return handle_debug_register(exit);
        case ExitReason::xsetbv: return handle_xsetbv(exit);
        case ExitReason::exception: return handle_exception(exit);
        case ExitReason::hypercall: return handle_hypercall(exit);
        case ExitReason::undefined_instruction: raise(make_invalid_opcode()); return Handling::handled;
        case ExitReason::monitor:
        case ExitReason::mwait: return raise_or_skip(exit, check_monitor(cpuid_, control_state()));
        case ExitReason::rdpmc: return raise_or_skip(exit, check_rdpmc(control_state()));
        // The guest's memory is the host's write-back memory: there is nothing to write back that the
        // processor's coherence does not keep, and INVD must not throw away what is the host's.
        case ExitReason::invd:
        case ExitReason::wbinvd:
        case ExitReason::pause:
        case ExitReason::invlpg: return raise_or_skip(exit, std::nullopt);
        case ExitReason::triple_fault: vm_.triple_fault(*this); return Handling::handled;
        case ExitReason::entry_failure:
        case ExitReason::hardware_error: {
            FixedString<160> text;
            print(text, "the processor refused the guest's state ({}, code {:#x}): ", name_of(exit.reason),
                  exit.raw_code);
            backend_.explain(text);
            crash(text);
            return Handling::handled;
        }
        // Descriptor tables are not intercepted, RDTSC neither; a guest has no INIT or SIPI but from its own
        // APIC.
        case ExitReason::rdtsc:
        case ExitReason::descriptor_table:
        case ExitReason::init_signal:
        case ExitReason::sipi:
        case ExitReason::task_switch:
        case ExitReason::page_modification_log_full:
        case ExitReason::count: break;
    }
    return Handling::unhandled;
}

ControlState Vcpu::control_state() const {
    const Segment code = backend_.segment(SegmentName::cs);
    return {.cr0 = backend_.read(Register::cr0),
            .cr3 = backend_.read(Register::cr3),
            .cr4 = backend_.read(Register::cr4),
            .efer = backend_.read(Register::efer),
            .cs_long = code.long_mode(),
            .cpl = static_cast<u8>(backend_.segment(SegmentName::ss).dpl())};
}

Vcpu::Handling Vcpu::raise_or_skip(const Exit& exit, const std::optional<Event>& event) {
    if (event) {
        raise(*event);
    } else if (const unsigned length = length_of(exit); length != 0) {
        complete_instruction(length);
    }
    return Handling::handled;
}

// --- Instructions
// -------------------------------------------------------------------------------------------

Vcpu::Handling Vcpu::handle_cpuid(const Exit& exit) {
    const unsigned length = length_of(exit);
    if (length == 0) return Handling::handled;
    GeneralRegisters& r = backend_.gprs;
    const u32 leaf = static_cast<u32>(r.rax);
    CpuidState state;
    if (CpuidPolicy::may_depend_on_state(leaf)) {
        state = {.cr4 = backend_.read(Register::cr4),
                 .xcr0 = backend_.xcr0(),
                 .xss = 0,
                 .apic_enabled = apic_.mode() != ApicMode::disabled};
    }
    const CpuidResult result = cpuid_.lookup(leaf, static_cast<u32>(r.rcx), state);
    r.rax = result.eax;
    r.rbx = result.ebx;
    r.rcx = result.ecx;
    r.rdx = result.edx;
    complete_instruction(length);
    return Handling::handled;
}

Vcpu::Handling Vcpu::handle_hlt(const Exit& exit) {
    const unsigned length = length_of(exit);
    if (length == 0) return Handling::handled;
    complete_instruction(length);
    // STI; HLT: the shadow that STI left ends with HLT, so the flag alone decides what can wake it.
    halted_with_interrupts_.store((backend_.read(Register::rflags) & rflags::if_) != 0,
                                  std::memory_order_relaxed);
    backend_.note_halt(halted_with_interrupts_.load(std::memory_order_relaxed));
    if (!backend_.injection_pending()) set_activity(Activity::halted);
    return Handling::handled;
}

// No hypercall is offered. VMCALL and VMMCALL of a kernel get an error, of a user program #UD.
Vcpu::Handling Vcpu::handle_hypercall(const Exit& exit) {
    if (backend_.cpl() != 0) {
        raise(make_invalid_opcode());
        return Handling::handled;
    }
    const unsigned length = length_of(exit);
    if (length == 0) return Handling::handled;
    backend_.gprs.rax = QuickExits::hypercall(backend_.in_64_bit_code());
    complete_instruction(length);
    return Handling::handled;
}

Vcpu::Handling Vcpu::handle_msr_read(const Exit& exit) {
    const unsigned length = length_of(exit);
    if (length == 0) return Handling::handled;
    MsrContext context = msr_context();
    const auto value = read_msr(exit.msr.index, context);
    // The timer may have struck.
    if (QuickExits::reaches_apic(exit.msr.index)) quick_.apic_touched = true;
    if (!value) {
        raise(value.error());
        return Handling::handled;
    }
    backend_.gprs.rax = static_cast<u32>(*value);
    backend_.gprs.rdx = *value >> 32;
    complete_instruction(length);
    return Handling::handled;
}

Vcpu::Handling Vcpu::handle_msr_write(const Exit& exit) {
    const unsigned length = length_of(exit);
    if (length == 0) return Handling::handled;
    const u64 value = backend_.gprs.rdx << 32 | static_cast<u32>(backend_.gprs.rax);
    const GuestPhysical page = apic_.page_address();
    MsrContext context = msr_context();
    if (const auto written = write_msr(exit.msr.index, value, context); !written) {
        raise(written.error());
        return Handling::handled;
    }
    if (exit.msr.index == msr::apic_base && apic_.page_address() != page) quick_.instructions.clear();
    if (wanted_apic_mode() != apic_mode_) apply_apic_mode();
    quick_.apic_touched = true;
    complete_instruction(length);
    return Handling::handled;
}

Vcpu::Handling Vcpu::handle_xsetbv(const Exit& exit) {
    const GeneralRegisters& r = backend_.gprs;
    const auto value =
        check_xsetbv(cpuid_, control_state(), static_cast<u32>(r.rcx), r.rdx << 32 | static_cast<u32>(r.rax));
    if (!value) {
        raise(value.error());
        return Handling::handled;
    }
    const unsigned length = length_of(exit);
    if (length == 0) return Handling::handled;
    backend_.set_xcr0(*value);
    complete_instruction(length);
    return Handling::handled;
}

// --- Control and debug registers
// ----------------------------------------------------------------------------

Vcpu::Handling Vcpu::handle_control_register(const Exit& exit) {
    ControlRegisterAccess access = exit.control;
    unsigned length = exit.instruction_length;
    if (!access.operands_known || length == 0) {
        Instruction instruction;
        if (!fetch(instruction)) return Handling::handled;
        length = instruction.length;
        const auto operands = control_register_operands(instruction);
        if (!operands || operands->debug) return Handling::unhandled;
        using Kind = ControlRegisterOperands::Kind;
        // LMSW from memory is the one form that no backend leaves to us undecoded.
        if (operands->memory || operands->kind == Kind::smsw) return Handling::unhandled;
        access.number = operands->number;
        access.general_register = operands->general_register;
        access.kind = operands->kind == Kind::read   ? ControlRegisterAccess::Kind::read
                      : operands->kind == Kind::clts ? ControlRegisterAccess::Kind::clts
                      : operands->kind == Kind::lmsw ? ControlRegisterAccess::Kind::lmsw
                                                     : ControlRegisterAccess::Kind::write;
        if (access.kind == ControlRegisterAccess::Kind::lmsw) {
            access.lmsw_value = static_cast<u16>(backend_.gprs[access.general_register]);
        }
    }
    std::optional<Event> event;
    if (access.kind == ControlRegisterAccess::Kind::read) {
        event = read_control_register(access);
    } else {
        event = write_control_register(access);
    }
    if (event) {
        raise(*event);
    } else {
        complete_instruction(length);
    }
    return Handling::handled;
}

std::optional<Event> Vcpu::read_control_register(const ControlRegisterAccess& access) {
    u64 value = 0;
    switch (access.number) {
        case 0: value = backend_.read(Register::cr0); break;
        case 2: value = backend_.read(Register::cr2); break;
        case 3: value = backend_.read(Register::cr3); break;
        case 4: value = backend_.read(Register::cr4); break;
        case 8: value = apic_.cr8(); break;
        default: return make_invalid_opcode();
    }
    u64& to = backend_.gprs[access.general_register];
    to = backend_.in_64_bit_code() ? value : static_cast<u32>(value);
    return std::nullopt;
}

std::optional<Event> Vcpu::write_control_register(const ControlRegisterAccess& access) {
    using Kind = ControlRegisterAccess::Kind;
    const ControlState state = control_state();
    u64 value = backend_.gprs[access.general_register];
    if (!backend_.in_64_bit_code()) value = static_cast<u32>(value);
    if (access.kind == Kind::clts) value = clts_value(state.cr0);
    if (access.kind == Kind::lmsw) value = lmsw_value(state.cr0, access.lmsw_value);
    switch (access.kind == Kind::write ? access.number : 0) {
        case 0: {
            const auto change = check_cr0(cpuid_, state, value);
            if (!change) return change.error();
            if (change->loads_pdptes) {
                if (const auto entries = read_pdptes(cpuid_, vm_.memory(), state.cr3); !entries)
                    return entries.error();
            }
            backend_.write(Register::cr0, change->cr0);
            return std::nullopt;
        }
        case 3: {
            const auto checked = check_cr3(cpuid_, state, value);
            if (!checked) return checked.error();
            if (uses_pae_paging(state.cr0, state.cr4, state.efer)) {
                if (const auto entries = read_pdptes(cpuid_, vm_.memory(), *checked); !entries)
                    return entries.error();
            }
            backend_.write(Register::cr3, *checked);
            return std::nullopt;
        }
        case 4: {
            const auto checked = check_cr4(cpuid_, state, value);
            if (!checked) return checked.error();
            if (cr4_loads_pdptes(state.cr0, state.cr4, *checked, state.efer)) {
                if (const auto entries = read_pdptes(cpuid_, vm_.memory(), state.cr3); !entries)
                    return entries.error();
            }
            backend_.write(Register::cr4, *checked);
            return std::nullopt;
        }
        case 8: {
            const auto checked = check_cr8(value);
            if (!checked) return checked.error();
            apic_.set_cr8(static_cast<u8>(*checked));
            quick_.apic_touched = true;
            backend_.set_cr8(static_cast<u8>(*checked));
            return std::nullopt;
        }
        default: return make_invalid_opcode();
    }
}

Vcpu::Handling Vcpu::handle_debug_register(const Exit& exit) {
    DebugRegisterAccess access = exit.debug;
    unsigned length = exit.instruction_length;
    if (!access.operands_known || length == 0) {
        Instruction instruction;
        if (!fetch(instruction)) return Handling::handled;
        length = instruction.length;
        const auto operands = control_register_operands(instruction);
        if (!operands || !operands->debug) return Handling::unhandled;
        access.number = operands->number;
        access.general_register = operands->general_register;
        access.read = operands->kind == ControlRegisterOperands::Kind::read;
    }
    u64& general = backend_.gprs[access.general_register];
    const u64 dr7 = backend_.read(Register::dr7);
    const auto checked = check_debug_register(control_state(), dr7, access.number, !access.read, general);
    if (!checked) {
        constexpr u64 access_detected = bit(13);
        if (checked.error().vector == exception::debug)
            backend_.set_debug_register(6, backend_.debug_register(6) | access_detected);
        raise(checked.error());
        return Handling::handled;
    }
    if (access.read) {
        general = checked->number == 7 ? dr7 : backend_.debug_register(checked->number);
    } else if (checked->number == 7) {
        backend_.write(Register::dr7, checked->value);
    } else {
        backend_.set_debug_register(checked->number, checked->value);
    }
    complete_instruction(length);
    return Handling::handled;
}

// --- Exceptions
// ---------------------------------------------------------------------------------------------

// #DB and #AC are intercepted so that a guest which raises them without end comes back to us each time; they
// are the guest's own and go on to it unchanged.
Vcpu::Handling Vcpu::handle_exception(const Exit& exit) {
    const Event& event = exit.exception.event;
    turn_over_ = true;
    if (event.vector == exception::machine_check) {
        // The host's business. The core that manages the VM says more about it.
        if (!vm_.survives_machine_check()) crash("a machine check struck while it ran");
        return Handling::handled;
    }
    if (event.vector == exception::debug && exit.exception.debug_status != 0) {
        // Bits 3:0, BD, BS and RTM of this trap join those that software has not cleared (SDM Vol.
        // 3C, 28.2.1).
        constexpr u64 replaced = low_mask(4) | bit(13) | bit(14);
        const u64 dr6 = backend_.debug_register(6) & ~low_mask(4);
        backend_.set_debug_register(6, dr6 | (exit.exception.debug_status & replaced));
    }
    raise(event);
    return Handling::handled;
}

// --- Ports and memory
// ---------------------------------------------------------------------------------------

Vcpu::Handling Vcpu::handle_port(const Exit& exit) {
    const PortAccess& access = exit.port;
    if (access.string) return emulate_instruction({});
    const unsigned length = length_of(exit);
    if (length == 0) return Handling::handled;
    (void)quick_.port(access, backend_.gprs);
    complete_instruction(length);
    return Handling::handled;
}

Vcpu::Handling Vcpu::handle_nested_fault(const Exit& exit) {
    const NestedPageFault& fault = exit.nested;
    if (exit.interrupted) {
        crash(
            "an event's delivery touched memory that is not RAM: its stack or descriptor tables are "
            "misplaced");
        return Handling::handled;
    }
    if (fault.fetch) {
        // The bus answers all-ones there: FFh FFh is no instruction.
        if (vm_.memory().at(fault.address, 1) == nullptr) {
            raise(make_invalid_opcode());
            return Handling::handled;
        }
    }
    return emulate_instruction({.physical = fault.address,
                                .linear = fault.linear,
                                .valid = !fault.during_walk,
                                .linear_known = fault.linear_known,
                                .writable = fault.write});
}

Vcpu::Handling Vcpu::handle_apic_access(const Exit& exit) {
    const ApicAccess& access = exit.apic;
    if (access.during_event || exit.interrupted) {
        crash(
            "an event's delivery touched the local APIC's page: its stack or descriptor tables are "
            "misplaced");
        return Handling::handled;
    }
    if (access.fetch) {
        raise(make_invalid_opcode());
        return Handling::handled;
    }
    return emulate_instruction({.physical = apic_.page_address() + access.offset,
                                .linear = {},
                                .valid = true,
                                .linear_known = false,
                                .writable = access.write});
}

// Fetches and decodes what RIP points at. False when there is no instruction to go on with: the exception
// that the guest is due, or a retry, is arranged then.
bool Vcpu::fetch(Instruction& instruction) {
    VcpuContext context(vm_, number_, backend_, apic_, cpuid_);
    FetchedInstruction fetched;
    if (fetch_instruction(context, execution_mode(context), fetched)) {
        instruction = fetched.instruction;
        quick_.instructions.store(backend_.code_place(), instruction, {fetched.bytes, fetched.byte_count},
                                  vm_.memory(), hidden_page());
        return true;
    }
    finish_emulation(fetched.outcome, {fetched.bytes, fetched.byte_count});
    return false;
}

// The local APIC's page wins over RAM.
GuestPhysical Vcpu::hidden_page() const {
    constexpr GuestPhysical none{~u64{0}};
    return apic_.mode() == ApicMode::xapic ? apic_.page_address() : none;
}

Vcpu::Handling Vcpu::emulate_instruction(const KnownTranslation& known) {
    VcpuContext context(vm_, number_, backend_, apic_, cpuid_);
    const ExecutionMode mode = backend_.in_64_bit_code()
                                   ? ExecutionMode{.cpl = static_cast<u8>(backend_.cpl())}
                                   : execution_mode(context);
    const CodePlace place = backend_.code_place();
    if (const auto* known_instruction = quick_.instructions.find(place)) {
        const Instruction& instruction = known_instruction->instruction;
        const Outcome outcome = emulate(context, mode, instruction, {.known = known});
        quick_.apic_touched = quick_.apic_touched || context.apic_accessed();
        finish_emulation(outcome, {known_instruction->bytes, instruction.length});
        return Handling::handled;
    }
    FetchedInstruction fetched;
    Outcome outcome;
    if (fetch_instruction(context, mode, fetched)) {
        quick_.instructions.store(place, fetched.instruction, {fetched.bytes, fetched.byte_count},
                                  vm_.memory(), hidden_page());
        outcome = emulate(context, mode, fetched.instruction, {.known = known});
    } else {
        outcome = fetched.outcome;
    }
    quick_.apic_touched = quick_.apic_touched || context.apic_accessed();
    // Of what was fetched, the instruction alone, where it is known how long that is.
    const usize length = fetched.status == DecodeStatus::ok ? fetched.instruction.length : fetched.byte_count;
    finish_emulation(outcome, {fetched.bytes, length});
    return Handling::handled;
}

void Vcpu::finish_emulation(const Outcome& outcome, Bytes bytes) {
    switch (outcome.kind) {
        case Outcome::Kind::done:
        case Outcome::Kind::stepped: finish_instruction(); break;
        case Outcome::Kind::exception: raise(outcome.event); break;
        case Outcome::Kind::interrupted: break;
        case Outcome::Kind::unsupported: {
            FixedString<160> text;
            print(text, "unsupported instruction at {:#x} on device memory:", backend_.read(Register::rip));
            for (const u8 byte : bytes) print(text, " {:02x}", byte);
            crash(text);
            break;
        }
    }
}

}  // namespace bulkhead
