// Backend: entries, and the exits that are answered between two of them.
#include "arch/x86/regs/control.hpp"
#include "arch/x86/svm/backend.hpp"
#include "arch/x86/svm/exit_decode.hpp"
#include "arch/x86/svm/processor_access.hpp"

namespace bulkhead::svm {
namespace {

// How long an NMI that waits for the end of a shadow or of IRET may wait at the most before the host looks
// again.
constexpr u64 nmi_retry_ticks = 1000;

}  // namespace

// RIP moves in one step where nothing else happens at the instruction's end. length 0: not known.
inline bool Backend::skip(unsigned length) {
    VmcbState& state = vmcb_.state;
    const u64 after = state.rip + length;
    if ((vmcb_.control.interrupt_shadow & 1) != 0 || (state.rflags & (rflags::rf | rflags::tf)) != 0 ||
        ((state.rip ^ after) >> 32) != 0) {
        return false;
    }
    state.rip = after;
    return true;
}

bool Backend::advance(unsigned length) {
    return skip(length);
}

// Past an instruction whose length the processor tells where it saves nRIP.
inline bool Backend::skip_instruction() {
    const u64 length = capabilities_.next_rip ? vmcb_.control.next_rip - vmcb_.state.rip
                                              : quick->length_at(Backend::code_place());
    return length - 1 < 15 && skip(static_cast<unsigned>(length));
}

// Which segment OUTS reads from the processor tells with decode assists only: the instruction does always.
QuickExits::Answer Backend::answer_string(PortAccess& access, unsigned length) {
    const Instruction* instruction = quick->instruction_at(Backend::code_place());
    if (instruction == nullptr || instruction->length != length) return QuickExits::Answer::no;
    access.string_details = true;
    access.address_size = instruction->address_size;
    access.segment = access.in ? SegmentName::es : instruction->segment;
    const VmcbState& state = vmcb_.state;
    u8* bytes = quick->string_bytes(
        access, {.cr3 = state.cr3, .cr4 = state.cr4, .efer = state.efer, .cpl = state.cpl}, state.rflags,
        gprs);
    if (bytes == nullptr || !skip(length)) return QuickExits::Answer::no;
    quick->account.turn(entered, left, ExitReason::port_io, vmcb_.control.exit_code);
    return quick->string(access, bytes, gprs);
}

// The exits that need nothing but the general registers and RIP, or a chip's. None of them comes with an
// event whose delivery it broke off: an instruction caused it.
inline QuickExits::Answer Backend::answer() {
    using Answer = QuickExits::Answer;
    switch (vmcb_.control.exit_code) {
        case exit_code::cpuid: {
            const CpuidResult* result = quick->cpuid(gprs);
            if (result == nullptr || !skip_instruction()) return Answer::no;
            QuickExits::store(gprs, *result);
            quick->account.turn(entered, left, ExitReason::cpuid, vmcb_.control.exit_code);
            return Answer::done;
        }
        case exit_code::msr: {
            const u32 index = static_cast<u32>(gprs.rcx);
            if ((vmcb_.control.exit_info1 & 1) != 0) {
                const u64 before = vmcb_.state.rip;
                if (!skip_instruction()) return Answer::no;
                const Answer written = quick->write_msr(index, gprs.rdx << 32 | static_cast<u32>(gprs.rax));
                if (written == Answer::no) {
                    vmcb_.state.rip = before;
                } else {
                    quick->account.turn(entered, left, ExitReason::msr_write, vmcb_.control.exit_code);
                }
                return written;
            }
            u64 value = 0;
            if (!quick->read_msr(index, value) || !skip_instruction()) return Answer::no;
            gprs.rax = static_cast<u32>(value);
            gprs.rdx = value >> 32;
            quick->account.turn(entered, left, ExitReason::msr_read, vmcb_.control.exit_code);
            return Answer::done;
        }
        case exit_code::nested_fault: {
            const u64 info = vmcb_.control.exit_info1;
            constexpr u64 fetch = bit(4), during_walk = bit(33);
            if ((info & (fetch | during_walk)) != 0 ||
                (vmcb_.control.exit_interrupt_info & event_info::valid) != 0) {
                return Answer::no;
            }
            GuestPhysical address;
            const Instruction* move = quick->device_move(Backend::code_place(), vmcb_.state.cpl,
                                                         {.physical = GuestPhysical(vmcb_.control.exit_info2),
                                                          .linear = {},
                                                          .valid = true,
                                                          .linear_known = false,
                                                          .writable = has_bit(info, 1)},
                                                         gprs, address);
            if (move == nullptr || !skip(move->length)) return Answer::no;
            quick->account.turn(entered, left, ExitReason::nested_page_fault, vmcb_.control.exit_code);
            return quick->move(*move, address, gprs);
        }
        case exit_code::vmmcall:
            if (vmcb_.state.cpl != 0 || !skip_instruction()) return Answer::no;
            gprs.rax = QuickExits::hypercall(Backend::in_64_bit_code());
            quick->account.turn(entered, left, ExitReason::hypercall, vmcb_.control.exit_code);
            return Answer::done;
        case exit_code::ioio: {
            PortAccess access = port_access(vmcb_.control.exit_info1);
            const unsigned length = port_instruction_length(vmcb_);
            if (length == 0) return Answer::no;
            if (access.string) [[unlikely]]
                return answer_string(access, length);
            if (!skip(length)) return Answer::no;
            quick->account.turn(entered, left, ExitReason::port_io, vmcb_.control.exit_code);
            return quick->port(access, gprs);
        }
        default: return Answer::no;
    }
}

// Where EVENTINJ may deliver an external interrupt twice it goes as a virtual one, which that processor takes
// at once, since the guest's RFLAGS.IF is 1 and there is no shadow. While the virtual one serves as interrupt
// window it has to be EVENTINJ.
void Backend::offer_interrupt() {
    VmcbControl& control = vmcb_.control;
    constexpr u64 kind = event_info::valid | u64{7} << event_info::type_shift;
    const u64 event = control.event_injection;
    if (!capabilities_.repeats_injections ||
        (event & kind) != (event_info::valid | event_info::type_interrupt << event_info::type_shift) ||
        (control.intercept_misc1 & intercept1::vintr) != 0) {
        return;
    }
    offered_ = event;
    control.event_injection = 0;
    control.virtual_interrupt |= vintr::request | (event & 0xFF) << vintr::vector_shift;
    touch(clean::tpr);
}

// After the exit. What was not taken, since an interrupt of the host's came first, still is to be injected.
// What is left of one whose delivery failed, by an exit or by a fault of the guest's, counts as delivered;
// the exit does not name its type.
void Backend::settle_interrupt() {
    VmcbControl& control = vmcb_.control;
    if ((control.virtual_interrupt & vintr::irq) != 0) {
        const bool host = control.exit_code >= exit_code::intr && control.exit_code <= exit_code::init;
        const bool ready = (vmcb_.state.rflags & rflags::if_) != 0 && (control.interrupt_shadow & 1) == 0;
        if ((control.exit_interrupt_info & (event_info::valid | 0xFF)) ==
            (event_info::valid | (offered_ & 0xFF))) {
            control.exit_interrupt_info = offered_;
        } else if (control.exit_code == exit_code::invalid || (host && ready)) {
            control.event_injection = offered_;
        }
    }
    control.virtual_interrupt &= ~(vintr::request | u64{0xFF} << vintr::vector_shift);
    offered_ = 0;
    touch(clean::tpr);
}

[[gnu::no_stack_protector]] Exit Backend::run(u64 deadline) {
    VmcbControl& control = vmcb_.control;
    if (nmi_window_ && (!nmi_blocked_ || iret_running_)) {
        const u64 soon = bulkhead_svm_rdtsc() + nmi_retry_ticks;
        if (soon < deadline) deadline = soon;
    }
    bulkhead_svm_arm_timer(deadline);
    if (flush_wanted_) {
        flush_wanted_ = false;
        control.tlb_control = static_cast<u8>(capabilities_.flush_by_asid ? TlbControl::flush_this_asid
                                                                          : TlbControl::flush_all);
    }
    if (!capabilities_.clean_bits) control.clean = 0;
    if (control.event_injection != 0) offer_interrupt();
    const u64 until = quick != nullptr && quick->turn_end < deadline ? quick->turn_end : deadline;
    for (;;) {
        vmcb_.state.rax = gprs.rax;
        vmcb_.state.rsp = gprs.rsp;
        entered = bulkhead_svm_rdtsc();
        enter_(&gprs, vmcb_physical_);
        left = bulkhead_svm_rdtsc();
        gprs.rax = vmcb_.state.rax;
        gprs.rsp = vmcb_.state.rsp;
        control.tlb_control = 0;
        control.event_injection = 0;
        control.clean = capabilities_.clean_bits ? clean::all : 0;
        if (offered_ != 0) [[unlikely]]
            settle_interrupt();
        // NMIs are looked after by the general way.
        if (quick == nullptr || nmi_blocked_) break;
        const QuickExits::Answer answered = answer();
        if (answered == QuickExits::Answer::no) break;
        if (answered == QuickExits::Answer::look || left >= until) return Exit(ExitReason::answered);
    }
    if (iret_running_ && vmcb_.state.rip != iret_rip_) iret_running_ = nmi_blocked_ = false;
    if (control.exit_code == exit_code::iret) {
        control.intercept_misc1 &= ~intercept1::iret;
        touch(clean::intercepts);
        iret_running_ = true;
        iret_rip_ = vmcb_.state.rip;
    }
    // With nobody else wanting this core there is no reason to leave the guest.
    if (control.exit_code == exit_code::intr && left >= deadline && bulkhead_svm_take_timer()) {
        Exit exit(ExitReason::preemption);
        exit.raw_code = control.exit_code;
        exit.interrupted = decode_event(control.exit_interrupt_info);
        if (!exit.interrupted) return exit;
    }
    const Exit exit = decode_exit(vmcb_, gprs, capabilities_);
    // An NMI whose delivery was broken off has not blocked anything yet.
    if (exit.interrupted && exit.interrupted->type == Event::Type::nmi) nmi_blocked_ = false;
    return exit;
}

}  // namespace bulkhead::svm
