#include "vmm/vcpu.hpp"

#include "arch/x86/regs/control.hpp"
#include "vmm/inspection.hpp"
#include "vmm/loader/bios_state.hpp"
#include "vmm/platform.hpp"
#include "vmm/virtual_machine.hpp"

namespace bulkhead {
namespace {

// 10 ms: what a guest gets that exits all the time before the core looks at what else there is.
constexpr u64 longest_turns_per_second = 100;

}  // namespace

Vcpu::Vcpu(VirtualMachine& vm, unsigned number, VcpuBackend& backend, LocalApic& apic,
           const CpuidPolicy& cpuid)
    : vm_(vm),
      backend_(backend),
      apic_(apic),
      cpuid_(cpuid),
      number_(number),
      quick_(vm, number, msr_context()) {
    backend_.quick = &quick_;
}

void Vcpu::reset(const StartState* start) {
    backend_.reset();
    apic_.reset();
    msrs_.reset();
    set_activity(apic_.is_bootstrap() ? Activity::active : Activity::wait_for_sipi);
    interrupted_.reset();
    deferred_.reset();
    apic_.set_tsc_offset(0);
    refresh_tsc_offset();
    apply_apic_mode();
    if (start != nullptr) load_start_state(*start);
    if (vm_.starts_without_firmware()) leave_as_firmware_does();
}

// What a guest that starts without firmware finds in this processor's chips.
void Vcpu::leave_as_firmware_does() {
    MsrContext context = msr_context();
    for (const MsrWrite& write : bios_msr_writes(cpuid_.physical_bits())) {
        if (!write_msr(write.index, write.value, context)) crash("an MSR of the firmware's is not to be had");
    }
    if (apic_.is_bootstrap()) {
        for (const ApicWrite& write : bios_apic_writes()) apic_.write(write.offset, 4, write.value);
    }
}

MsrContext Vcpu::msr_context() {
    return {.backend = backend_, .apic = apic_, .cpuid = cpuid_, .clock = vm_.clock(), .state = msrs_};
}

void Vcpu::load_start_state(const StartState& start) {
    for (unsigned i = 0; i < 8; ++i) {
        backend_.set_segment(static_cast<SegmentName>(i), start.segments[i]);
    }
    backend_.set_gdtr(start.gdtr);
    backend_.set_idtr(start.idtr);
    backend_.gprs = start.gprs;
    // Long mode is entered in the order in which a processor would be told to: CR4, CR3, EFER, CR0 last.
    backend_.write(Register::cr4, start.cr4);
    backend_.write(Register::cr3, start.cr3);
    backend_.write(Register::efer, start.efer);
    backend_.write(Register::cr0, start.cr0);
    backend_.write(Register::rip, start.rip);
    backend_.write(Register::rflags, start.rflags);
}

Vcpu::RunResult Vcpu::run(u64 deadline) {
    // The time outside the guest is the last exit's.
    u64 now = vm_.machine().tsc();
    quick_.account.begin(now);
    const RunResult result = run_from(now, deadline);
    quick_.account.end(vm_.machine().tsc());
    return result;
}

// One entry, and the exit that ends it. That is ExitReason::answered where nothing is left to be done.
[[gnu::always_inline]] inline Exit Vcpu::enter(u64& now, u64 deadline) {
    const u64 timer = next_timer();
    timer_check_ = timer;
    const Exit exit = backend_.run(timer < deadline ? timer : deadline);
    now = backend_.left;
    if (exit.reason != ExitReason::answered)
        quick_.account.turn(backend_.entered, now, exit.reason, exit.raw_code);
    return exit;
}

// The same once more, for a vCPU that somebody watches.
std::optional<Vcpu::RunResult> Vcpu::run_watched(u64& now, u64 deadline) {
    if (now >= watched_until_.load(std::memory_order_relaxed)) apic_.set_watched(false);
    if (events_possible()) deliver_events();
    backend_.quick = nullptr;
    const Exit exit = enter(now, deadline);
    backend_.quick = &quick_;
    record(exit);
    handle(exit);
    if (is_asynchronous(exit.reason)) after_asynchronous(exit.reason, now, deadline);
    if (!turn_over_) return std::nullopt;
    turn_over_ = false;
    return vm_.stopped() ? RunResult::stopped : RunResult::yielded;
}

void Vcpu::record(const Exit& exit) {
    ExitRecord record{.vcpu = number_, .reason = exit.reason, .code = exit.raw_code};
    record.address = backend_.read(Register::rip);
    if (!backend_.in_64_bit_code())
        record.address = static_cast<u32>(record.address + backend_.segment(SegmentName::cs).base);
    const auto read =
        read_guest_memory(vm_.memory(), *this, Management::AddressKind::linear, record.address, record.bytes);
    if (read) record.size = static_cast<u8>(*read);
    records_.add(record);
}

// now: the TSC at the last exit, or at the beginning; it is what becomes of it.
Vcpu::RunResult Vcpu::run_from(u64& now, u64 deadline) {
    // Whatever happened to the chips since the last turn may have set a timer of theirs.
    timer_check_ = 0;
    // A guest that does nothing but exit, with interrupts and NMIs blocked, is not left to the host's
    // interrupts alone.
    const u64 turn = vm_.machine().tsc_hz() / longest_turns_per_second;
    const u64 turn_end = deadline > now && deadline - now > turn ? now + turn : deadline;
    quick_.turn_end = turn_end;
    quick_.apic_touched = true;
    while (true) {
        if (vm_.stopped()) return RunResult::stopped;
        if (now >= timer_check_) expire_timers();
        if (activity() != Activity::active || apic_.has_signal()) {
            const bool was_init = accept_signals();
            if (vm_.stopped()) return RunResult::stopped;
            if (activity() != Activity::active) {
                if (!has_work()) return RunResult::blocked;
                // Another vCPU may send one INIT after the other: each ends the turn, lest the host wait.
                if (was_init || activity() != Activity::halted) return RunResult::yielded;
                set_activity(Activity::active);
                quick_.apic_touched = true;
            }
            if (apic_.watched()) {
                if (now >= turn_end) return RunResult::yielded;
                if (const auto result = run_watched(now, deadline)) return *result;
                continue;
            }
        }
        if (now >= turn_end) return RunResult::yielded;
        if (events_possible()) deliver_events();
        const Exit exit = enter(now, deadline);
        if (exit.reason == ExitReason::answered) continue;
        handle(exit);
        if (is_asynchronous(exit.reason)) [[unlikely]]
            after_asynchronous(exit.reason, now, deadline);
        if (turn_over_) [[unlikely]] {
            turn_over_ = false;
            return vm_.stopped() ? RunResult::stopped : RunResult::yielded;
        }
    }
}

// Whether deliver_events() would do anything.
bool Vcpu::events_possible() const {
    return quick_.apic_touched || deferred_ || apic_.may_have_event();
}

// An exit that no instruction asked for: for whose sake it was, and whether the guest sleeps. `now`: of the
// exit; `deadline`: as given to run().
void Vcpu::after_asynchronous(ExitReason reason, u64 now, u64 deadline) {
    if (alone() && backend_.take_halt()) {
        halted_with_interrupts_.store((backend_.read(Register::rflags) & rflags::if_) != 0,
                                      std::memory_order_relaxed);
        if (!backend_.injection_pending()) set_activity(Activity::halted);
    }
    // Windows are for the guest's events, and so is its own timer.
    if (reason > ExitReason::preemption || now >= timer_check_) return;
    HostCause cause = HostCause::tick;
    if (now < deadline) {
        // An interrupt for it, or a timer that another vCPU has brought forward.
        if (apic_.has_posts() || vm_.stopped() || next_timer() < timer_check_) return;
        cause = vm_.waiting_interrupt();
        // The host's timer may be a little early, whoever's time it stands for.
        if (cause == HostCause::tick && timer_check_ <= deadline) return;
    }
    ExitStatistics::increase(quick_.account.statistics.host_caused[static_cast<usize>(cause)], 1);
}

// One exit: decides what becomes of it, and of the event whose delivery it broke off.
void Vcpu::handle(const Exit& exit) {
    if (exit.interrupted) [[unlikely]] {
        interrupted_ = exit.interrupted;
        turn_over_ = true;
    }
    quick_.read_task_priority();
    if (dispatch(exit) == Handling::unhandled && !vm_.stopped()) {
        FixedString<160> text;
        print(text, "nothing handles a {} (code {:#x})", name_of(exit.reason), exit.raw_code);
        crash(text);
    }
    // The guest may have written the TPR otherwise than by CR8, and reads it back by CR8 without an exit.
    if (vm_.apic_assist() == ApicAssist::none && apic_.cr8() != backend_.cr8()) backend_.set_cr8(apic_.cr8());
    if (interrupted_) [[unlikely]] {
        if (!backend_.injection_pending()) backend_.inject(*interrupted_);
        interrupted_.reset();
    }
}

void Vcpu::crash(std::string_view why) {
    if (vm_.stopped()) return;
    vm_.crash(*this, why);
}

// --- Time
// ---------------------------------------------------------------------------------------------------

void Vcpu::expire_timers() {
    const Ticks now = vm_.clock().now();
    if (apic_.deadline() <= now) {
        apic_.expire();
        quick_.apic_touched = true;
    }
    if (number_ == VirtualMachine::timekeeper) vm_.expire_devices(now);
}

u64 Vcpu::next_timer() {
    Ticks due = apic_.deadline();
    quick_.apic_deadline = due;
    if (number_ == VirtualMachine::timekeeper) {
        const Ticks devices = vm_.device_deadline();
        quick_.device_deadline = devices;
        if (devices < due) due = devices;
    }
    return vm_.clock().to_physical(due);
}

u64 Vcpu::wake_deadline() {
    return next_timer();
}

void Vcpu::refresh_tsc_offset() {
    msrs_.host_tsc_offset = vm_.clock().tsc_offset();
    backend_.set_tsc_offset(msrs_.host_tsc_offset + msrs_.tsc_adjust);
}

// --- Events into the guest
// ----------------------------------------------------------------------------------

namespace {

// Intel SDM Vol. 3A, table 6-4 and 6-5 (June 2023 edition).
bool is_contributory(Vector vector) {
    return vector == exception::divide_error ||
           (vector >= exception::invalid_tss && vector <= exception::general_protection) ||
           vector == exception::control_protection;
}

}  // namespace

// Raises an exception in the guest at the current RIP. An exception that strikes while another is being
// delivered makes a double fault, and one more than that a reset, by the processor's own rules.
void Vcpu::raise(const Event& event) {
    if (event.vector == exception::debug) {
        // Whatever its cause, a #DB disarms general detect, so that its handler can touch debug registers
        // (SDM Vol. 3B, 18.2.4, June 2023 edition). Neither an exit nor an injection does it.
        constexpr u64 general_detect = bit(13);
        const u64 dr7 = backend_.read(Register::dr7);
        if ((dr7 & general_detect) != 0) backend_.write(Register::dr7, dr7 & ~general_detect);
    }
    if (interrupted_ && interrupted_->type == Event::Type::hardware_exception) {
        const Vector first = interrupted_->vector;
        const Vector second = event.vector;
        if (first == exception::double_fault) {
            interrupted_.reset();
            vm_.triple_fault(*this);
            return;
        }
        const bool doubles =
            (is_contributory(first) && is_contributory(second)) ||
            (first == exception::page_fault && (is_contributory(second) || second == exception::page_fault));
        interrupted_.reset();
        backend_.inject(doubles ? make_exception(exception::double_fault, 0) : event);
        return;
    }
    // An interrupt or software event that was being delivered: the exception goes first. A software event is
    // repeated by its instruction; an external interrupt, acknowledged already, is delivered when the guest
    // can take it again.
    if (interrupted_ && interrupted_->type == Event::Type::external_interrupt) deferred_ = interrupted_;
    if (interrupted_ && interrupted_->type == Event::Type::nmi) apic_.post_nmi();
    interrupted_.reset();
    backend_.inject(event);
}

// INIT and SIPI. An NMI stays where it is until the vCPU runs. True if there was an INIT.
bool Vcpu::accept_signals() {
    const bool init = apic_.take_init();
    if (init) {
        // INIT does not make the bootstrap processor wait for SIPI: it starts at the reset vector (Intel SDM
        // Vol. 3A, 9.4.2, June 2023 edition). There the firmware looks at the CMOS shutdown status (0Fh) and,
        // unless an operating system of the 286's days has asked to be returned to, starts the whole machine
        // anew. With no firmware in the guest that is done for it. The other processors' INIT, which it would
        // send, and the chips' reset are part of it.
        if (apic_.is_bootstrap()) {
            vm_.reset_machine();
            return true;
        }
        apply_init();
    }
    if (const auto page = apic_.take_sipi(); page && activity() == Activity::wait_for_sipi) {
        Segment code = backend_.segment(SegmentName::cs);
        code.selector = static_cast<u16>(page->raw() << 8);
        code.base = u64{page->raw()} << 12;
        backend_.set_segment(SegmentName::cs, code);
        backend_.write(Register::rip, 0);
        set_activity(Activity::active);
    }
    return init;
}

// Intel SDM Vol. 3A, table 9-1, the column for INIT (June 2023 edition). Unlike RESET it leaves x87, SSE and
// AVX state with XCR0, CR0.CD and NW, the TSC, MTRRs, the PAT and most other MSRs as they are. EFER is
// cleared, with paging, as AMD's processors do it and Intel's have to.
void Vcpu::apply_init() {
    backend_.cancel_injection();
    deferred_.reset();
    interrupted_.reset();
    constexpr u64 kept = cr0::cd | cr0::nw;
    backend_.write(Register::cr0, (backend_.read(Register::cr0) & kept) | cr0::et);
    backend_.write(Register::efer, 0);
    backend_.write(Register::cr4, 0);
    backend_.write(Register::cr3, 0);
    backend_.write(Register::cr2, 0);
    backend_.write(Register::debugctl, 0);
    backend_.write(Register::rflags, rflags::reserved_one);
    backend_.write(Register::rip, 0xFFF0);
    backend_.set_interruptibility({});
    constexpr Segment data{.limit = 0xFFFF, .access = 0x93};
    for (const SegmentName name :
         {SegmentName::es, SegmentName::ss, SegmentName::ds, SegmentName::fs, SegmentName::gs}) {
        backend_.set_segment(name, data);
    }
    backend_.set_segment(SegmentName::cs,
                         {.selector = 0xF000, .base = 0xFFFF0000, .limit = 0xFFFF, .access = 0x9B});
    backend_.set_segment(SegmentName::ldtr, {.limit = 0xFFFF, .access = 0x82});
    backend_.set_segment(SegmentName::tr, {.limit = 0xFFFF, .access = 0x8B});
    constexpr DescriptorTable table{.base = 0, .limit = 0xFFFF};
    backend_.set_gdtr(table);
    backend_.set_idtr(table);
    for (const unsigned index : {0U, 1U, 2U, 3U}) backend_.set_debug_register(index, 0);
    constexpr u64 dr6 = 0xFFFF0FF0, dr7 = 0x400;
    backend_.set_debug_register(6, dr6);
    backend_.write(Register::dr7, dr7);
    backend_.gprs = {};
    backend_.gprs.rdx = cpuid(1).eax;
    backend_.flush_translations();
    apic_.init();
    backend_.set_cr8(0);
    apply_apic_mode();
    set_activity(Activity::wait_for_sipi);
}

bool Vcpu::has_work() {
    switch (activity()) {
        case Activity::active: return true;
        case Activity::wait_for_sipi: return apic_.init_pending() || apic_.sipi_pending();
        case Activity::shutdown: return false;
        case Activity::halted: break;
    }
    if (apic_.init_pending()) return true;
    if (apic_.nmi_pending() && !backend_.interruptibility().nmi_blocked) return true;
    return halted_with_interrupts_.load(std::memory_order_relaxed) &&
           (deferred_ || apic_.highest_pending().has_value() || apic_.has_extint());
}

void Vcpu::deliver_events() {
    const ApicAssist assist = vm_.apic_assist();
    quick_.read_task_priority();  // as it is now, whatever was answered since the last exit that came here
    apic_.collect();
    const bool collected = apic_.take_collected();
    const bool touched = quick_.apic_touched;
    quick_.apic_touched = false;
    if (assist == ApicAssist::full && (collected || touched)) {
        while (const auto vector = apic_.take_trigger_change()) {
            backend_.set_eoi_exit(*vector, apic_.is_level(*vector));
        }
        backend_.set_virtual_interrupt(apic_.highest_request(), apic_.highest_service());
    }

    const bool nmi = apic_.nmi_pending();
    const bool extint = apic_.has_extint();
    const auto pending = assist == ApicAssist::full ? std::optional<Vector>{} : apic_.highest_pending();
    if (!nmi && !extint && !pending && !deferred_) {
        if (assist != ApicAssist::full) backend_.set_tpr_threshold(apic_.tpr_threshold());
        if (windows_) {
            backend_.set_nmi_window(false);
            backend_.set_interrupt_window(false);
            windows_ = false;
        }
        return;
    }

    const Interruptibility blocked = backend_.interruptibility();
    bool free = !backend_.injection_pending() && !blocked.sti_shadow && !blocked.mov_ss_shadow;
    bool want_nmi_window = false;
    if (nmi) {
        if (free && !blocked.nmi_blocked) {
            apic_.take_nmi();
            backend_.inject({.type = Event::Type::nmi, .vector = Vector(2)});
            free = false;
        } else {
            want_nmi_window = true;
        }
    }
    bool want_window = false;
    if (extint || pending || deferred_) {
        if (free && has_bit(backend_.read(Register::rflags), 9)) {
            Vector vector{};
            if (deferred_) {
                vector = deferred_->vector;
                deferred_.reset();
            } else if (extint) {
                apic_.take_extint();
                vector = vm_.acknowledge_pic();
            } else {
                vector = apic_.acknowledge();
            }
            backend_.inject({.type = Event::Type::external_interrupt, .vector = vector});
            want_window = apic_.has_extint() || (assist != ApicAssist::full && apic_.highest_pending());
        } else {
            want_window = true;
        }
    }
    if (assist != ApicAssist::full) backend_.set_tpr_threshold(apic_.tpr_threshold());
    backend_.set_nmi_window(want_nmi_window);
    backend_.set_interrupt_window(want_window);
    windows_ = want_nmi_window || want_window;
}

ApicMode Vcpu::wanted_apic_mode() const {
    const ApicMode mode = apic_.mode();
    const bool at_its_place = apic_.page_address() == GuestPhysical(platform::local_apic);
    return mode == ApicMode::xapic && !at_its_place ? ApicMode::moved : mode;
}

void Vcpu::apply_apic_mode() {
    quick_.apic_touched = true;
    quick_.instructions.clear();
    apic_mode_ = wanted_apic_mode();
    backend_.set_apic_mode(apic_mode_);
}

// --- Instruction boundaries
// ---------------------------------------------------------------------------------

unsigned Vcpu::decoded_length() {
    if (const auto* known = quick_.instructions.find(backend_.code_place())) return known->instruction.length;
    Instruction instruction;
    if (!fetch(instruction)) return 0;
    return instruction.length;
}

void Vcpu::complete_instruction(unsigned length) {
    if (backend_.advance(length)) [[likely]]
        return;
    u64 rip = backend_.read(Register::rip) + length;
    if (!backend_.in_64_bit_code()) rip &= 0xFFFF'FFFF;
    backend_.write(Register::rip, rip);
    finish_instruction();
}

// What the processor does behind every instruction: the interrupt shadow ends, RF falls, a set TF traps.
void Vcpu::finish_instruction() {
    if (backend_.advance(0)) [[likely]]
        return;
    Interruptibility state = backend_.interruptibility();
    const bool shadow = state.sti_shadow || state.mov_ss_shadow;
    if (shadow) {
        state.sti_shadow = state.mov_ss_shadow = false;
        backend_.set_interruptibility(state);
    }
    const u64 flags = backend_.read(Register::rflags);
    if ((flags & rflags::rf) != 0) backend_.write(Register::rflags, flags & ~rflags::rf);
    if ((flags & rflags::tf) != 0) {
        constexpr u64 dr6_single_step = bit(14);
        backend_.set_debug_register(6, backend_.debug_register(6) | dr6_single_step);
        raise(make_exception(exception::debug));
    }
}

void Vcpu::describe(Sink& sink) const {
    static constexpr std::string_view names[16] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                                   "r8 ", "r9 ", "r10", "r11", "r12", "r13", "r14", "r15"};
    print(sink, "vcpu {}: rip {:016x} rflags {:08x} last exit: {} (code {:#x})\n", number_,
          backend_.read(Register::rip), backend_.read(Register::rflags), name_of(last_exit()), last_code());
    for (unsigned i = 0; i < 16; ++i) {
        print(sink, "  {} {:016x}{}", names[i], backend_.gprs[i], i % 4 == 3 ? "\n" : "");
    }
    print(sink, "  cr0 {:08x} cr2 {:016x} cr3 {:016x} cr4 {:08x} efer {:04x}\n", backend_.read(Register::cr0),
          backend_.read(Register::cr2), backend_.read(Register::cr3), backend_.read(Register::cr4),
          backend_.read(Register::efer));
    static constexpr std::string_view segments[8] = {"es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr"};
    for (unsigned i = 0; i < 8; ++i) {
        const Segment s = backend_.segment(static_cast<SegmentName>(i));
        print(sink, "  {:4} {:04x} base {:016x} limit {:08x} access {:04x}{}\n", segments[i], s.selector,
              s.base, s.limit, s.access, s.unusable ? " unusable" : "");
    }
}

}  // namespace bulkhead
