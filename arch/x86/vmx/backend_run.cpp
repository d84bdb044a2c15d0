// Backend: entries, and the exits that are answered between two of them.
#include "arch/x86/regs/control.hpp"
#include "arch/x86/vmx/backend.hpp"
#include "arch/x86/vmx/control_bits.hpp"
#include "arch/x86/vmx/exit_decode.hpp"
#include "arch/x86/vmx/processor_access.hpp"
#include "vmm/platform.hpp"

namespace bulkhead::vmx {

using namespace vmcs;

namespace {

constexpr u64 no_deadline = ~u64{0};

constexpr u64 vm_fail_mark = bit(32);  // in Exit::raw_code, above the VM-instruction error

}  // namespace

// It counts when bit `timer_shift_` of the TSC changes: so many such changes lie before the deadline, and it
// does not run out early, unless 32 bits are too few.
void Backend::arm_timer(u64 deadline, u64 now) {
    constexpr u64 most = low_mask(32);
    const u64 ticks = deadline > now ? ((deadline - 1) >> timer_shift_) - (now >> timer_shift_) + 1 : 0;
    vmcs::write(vmcs::preemption_timer_value, static_cast<u32>(ticks < most ? ticks : most));
}

void Backend::use_timer(bool wanted) {
    const u32 pin = wanted ? pin_ | pin_based::preemption_timer : pin_ & ~pin_based::preemption_timer;
    if (pin == pin_) return;
    pin_ = pin;
    vmcs::write(vmcs::pin_based_controls, pin);
}

// Neither VMfail nor a failed entry has run the guest: what was to be injected still is.
Exit Backend::explain_failure(u64 reason) {
    if (reason != bulkhead_vmx_failed)
        return decode_exit(reason, gprs, capabilities_.instruction_information);
    Exit exit(ExitReason::hardware_error);
    exit.raw_code = vm_fail_mark | vmcs::read(vmcs::vm_instruction_error);
    return exit;
}

// The exits that concern the host. External interrupts stay pending; an NMI has to be handled now, since NMIs
// are blocked until its handler's IRET.
Exit Backend::host_exit(u64 reason, u64 deadline) {
    Exit exit = decode_exit(reason, gprs, capabilities_.instruction_information);
    if (exit.reason == ExitReason::host_nmi) bulkhead_vmx_take_nmi();
    if (exit.reason == ExitReason::preemption && left < deadline) exit.reason = ExitReason::spurious;
    return exit;
}

// RIP moves in one step where nothing else happens at the instruction's end.
inline bool Backend::skip(unsigned length) {
    const u64 shadows = vmcs::read(guest_interruptibility) & interruptibility::shadows;
    if ((shadows | (vmcs::read(guest_rflags) & (rflags::rf | rflags::tf))) != 0) return false;
    const u64 before = vmcs::read(guest_rip);
    const u64 after = before + length;
    if (((before ^ after) >> 32) != 0) return false;
    vmcs::write(guest_rip, after);
    return true;
}

bool Backend::advance(unsigned length) {
    return skip(length);
}

// A length that the processor does not tell is the general way's to find out.
inline bool Backend::skip_instruction() {
    const unsigned length = instruction_length();
    return length != 0 && skip(length);
}

QuickExits::Answer Backend::answer_string(PortAccess& access) {
    constexpr u64 reason = basic_exit_reason::io_instruction;
    if (!capabilities_.instruction_information || !Backend::in_64_bit_code()) return QuickExits::Answer::no;
    describe_string(access);
    u8* bytes = quick->string_bytes(access,
                                    {.cr3 = vmcs::read(guest_cr3),
                                     .cr4 = vmcs::read(guest_cr4),
                                     .efer = vmcs::read(guest_efer),
                                     .cpl = Backend::cpl()},
                                    vmcs::read(guest_rflags), gprs);
    if (bytes == nullptr || !skip_instruction()) return QuickExits::Answer::no;
    quick->account.turn(entered, left, ExitReason::port_io, reason);
    return quick->string(access, bytes, gprs);
}

// Where the instruction read or wrote. False: it was something else, or there is more to be put right.
inline bool Backend::own_access(bool apic_access, KnownTranslation& known) const {
    const u64 qualification = vmcs::read(vmcs::exit_qualification);
    if ((vmcs::read(idt_vectoring_information) & interruption::valid) != 0) return false;
    if (apic_access) {
        constexpr u64 most = 1;  // 0: a read, 1: a write; above, fetches and accesses of other kinds
        const u64 type = extract(qualification, 15, 12);
        known = {.physical = GuestPhysical(platform::local_apic) + extract(qualification, 11, 0),
                 .linear = {},
                 .valid = true,
                 .linear_known = false,
                 .writable = type == most};
        return type <= most;
    }
    constexpr u64 expected = bit(7) | bit(8), forbidden = bit(2) | bit(12);
    known = {.physical = vmcs::read(guest_physical_address),
             .linear = vmcs::read(guest_linear_address),
             .valid = true,
             .linear_known = true,
             .writable = has_bit(qualification, 1)};
    return (qualification & (expected | forbidden)) == expected;
}

// The exits that need nothing but the general registers and RIP, or a chip's. None of them comes with an
// event whose delivery it broke off: an instruction caused it.
inline QuickExits::Answer Backend::answer(u64 reason) {
    using Answer = QuickExits::Answer;
    switch (reason) {
        case basic_exit_reason::cpuid: {
            const CpuidResult* result = quick->cpuid(gprs);
            if (result == nullptr || !skip_instruction()) return Answer::no;
            QuickExits::store(gprs, *result);
            quick->account.turn(entered, left, ExitReason::cpuid, reason);
            return Answer::done;
        }
        case basic_exit_reason::rdmsr: {
            u64 value = 0;
            if (!quick->read_msr(static_cast<u32>(gprs.rcx), value) || !skip_instruction()) return Answer::no;
            gprs.rax = static_cast<u32>(value);
            gprs.rdx = value >> 32;
            quick->account.turn(entered, left, ExitReason::msr_read, reason);
            return Answer::done;
        }
        case basic_exit_reason::wrmsr: {
            if (!skip_instruction()) return Answer::no;
            const Answer written =
                quick->write_msr(static_cast<u32>(gprs.rcx), gprs.rdx << 32 | static_cast<u32>(gprs.rax));
            if (written == Answer::no) {
                vmcs::write(guest_rip, vmcs::read(guest_rip) - instruction_length());
            } else {
                quick->account.turn(entered, left, ExitReason::msr_write, reason);
            }
            return written;
        }
        case basic_exit_reason::ept_violation:
        case basic_exit_reason::apic_access: {
            KnownTranslation known;
            if (!own_access(reason == basic_exit_reason::apic_access, known)) return Answer::no;
            GuestPhysical address;
            const Instruction* move =
                quick->device_move(Backend::code_place(), Backend::cpl(), known, gprs, address);
            if (move == nullptr || !skip(move->length)) return Answer::no;
            quick->account.turn(entered, left,
                                reason == basic_exit_reason::apic_access ? ExitReason::apic_access
                                                                         : ExitReason::nested_page_fault,
                                reason);
            return quick->move(*move, address, gprs);
        }
        case basic_exit_reason::xsetbv: {
            const u64 value = gprs.rdx << 32 | static_cast<u32>(gprs.rax);
            if (!quick->allows_xcr0(static_cast<u32>(gprs.rcx), value, Backend::read(Register::cr4), cpl()) ||
                !skip_instruction()) {
                return Answer::no;
            }
            set_xcr0(value);
            quick->account.turn(entered, left, ExitReason::xsetbv, reason);
            return Answer::done;
        }
        case basic_exit_reason::vmcall:
            if (cpl() != 0 || !skip_instruction()) return Answer::no;
            gprs.rax = QuickExits::hypercall(in_64_bit_code());
            quick->account.turn(entered, left, ExitReason::hypercall, reason);
            return Answer::done;
        case basic_exit_reason::io_instruction: {
            PortAccess access = port_access(vmcs::read(vmcs::exit_qualification));
            if (access.string) [[unlikely]]
                return answer_string(access);
            if (!skip_instruction()) return Answer::no;
            quick->account.turn(entered, left, ExitReason::port_io, reason);
            return quick->port(access, gprs);
        }
        default: return Answer::no;
    }
}

// There is no array here to protect, and this is on the path of every exit.
[[gnu::no_stack_protector]] Exit Backend::run(u64 deadline) {
    constexpr u64 first_failure = bit(31);  // a failed entry, or VMfail
    const bool timed = deadline != no_deadline && has_timer_;
    use_timer(timed);
    const u64 until = quick != nullptr && quick->turn_end < deadline ? quick->turn_end : deadline;
    for (;;) {
        entered = bulkhead_vmx_rdtsc();
        if (timed) arm_timer(deadline, entered);
        const u64 reason = enter_(&gprs, launched_);
        left = bulkhead_vmx_rdtsc();
        if (reason >= first_failure) [[unlikely]]
            return explain_failure(reason);
        launched_ = true;
        injection_pending_ = false;
        const QuickExits::Answer answered = quick != nullptr ? answer(reason) : QuickExits::Answer::no;
        if (answered == QuickExits::Answer::done && left < until) continue;
        if (answered != QuickExits::Answer::no) return Exit(ExitReason::answered);
        if (reason == basic_exit_reason::preemption_timer || reason == basic_exit_reason::exception_or_nmi)
            [[unlikely]] {
            return host_exit(reason, deadline);
        }
        return decode_exit(reason, gprs, capabilities_.instruction_information);
    }
}

}  // namespace bulkhead::vmx
