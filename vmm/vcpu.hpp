// A virtual processor: the loop of entry, exit and dispatch, and the events that go into the guest. The
// vendor's hardware is behind VcpuBackend; the machine around it is VirtualMachine.
//
// One core at a time runs a vCPU; everything here is for that core, except what is marked "any core".
#pragma once

#include <atomic>
#include <optional>

#include "kernel/base/fixed_string.hpp"
#include "vmm/control_registers.hpp"
#include "vmm/cpuid_policy.hpp"
#include "vmm/decode/emulator.hpp"
#include "vmm/dev/local_apic.hpp"
#include "vmm/exit.hpp"
#include "vmm/exit_records.hpp"
#include "vmm/loader/start_state.hpp"
#include "vmm/msr_policy.hpp"
#include "vmm/quick_exits.hpp"
#include "vmm/vcpu_backend.hpp"

namespace bulkhead {

class VirtualMachine;

class Vcpu final {
  public:
    enum class RunResult : u8 {
        yielded,  // the deadline passed or the host has something to do
        blocked,  // halted or waiting for SIPI: run again at wake_deadline() or when woken
        stopped,  // the VM was stopped from within: see VirtualMachine::stop_reason()
    };

    Vcpu(VirtualMachine& vm, unsigned number, VcpuBackend& backend, LocalApic& apic,
         const CpuidPolicy& cpuid);

    // Runs the guest on this core until `deadline` (physical TSC), or until it blocks or stops. The core is
    // in the VM's compartment, interrupts are disabled, and the backend's state is loaded.
    //
    // No wake-up is lost, provided that Surroundings::wake() and the caller do their part. What wakes a vCPU
    // is stored before wake() is called, and run() looks for it with interrupts disabled before it has the
    // backend enter the guest: so either it sees it, or the kick that follows is pending by the time of the
    // entry, or of the next where exits are answered in between (quick_exits.hpp), and ends it at once (the
    // result is then `yielded`, as for every interrupt of the host's). For a vCPU that blocks the caller has
    // a flag, which wake() sets:
    //     clear the flag; run(); if the result is `blocked`: note wake_deadline(), mark the vCPU as blocked,
    //     and only then look at the flag: if it is set, the vCPU is not blocked.
    // and wake() sets the flag first and looks at the mark then. Both pairs are sequentially consistent.
    [[nodiscard]] RunResult run(u64 deadline);

    // After RESET: the bootstrap processor takes `start` when the loader gives one; others wait for SIPI.
    void reset(const StartState* start);

    // Any core.
    [[nodiscard]] Activity activity() const { return activity_.load(std::memory_order_relaxed); }
    // The physical TSC at which a blocked vCPU wants to run again; `never`: only an interrupt wakes it.
    [[nodiscard]] u64 wake_deadline();
    // True when a blocked vCPU has something to run for.
    [[nodiscard]] bool has_work();
    // Halted with interrupts disabled: only an NMI or a reset ends it. Any core.
    [[nodiscard]] bool halted_for_good() const {
        return activity() == Activity::halted && !halted_with_interrupts_.load(std::memory_order_relaxed);
    }

    // After the VM's clock has been set or resumed.
    void refresh_tsc_offset();

    // What its CPUID says at reset.
    [[nodiscard]] CpuidResult cpuid(u32 leaf) const { return cpuid_.lookup(leaf, 0, {}); }
    [[nodiscard]] unsigned number() const { return number_; }
    [[nodiscard]] VcpuBackend& backend() { return backend_; }
    [[nodiscard]] const VcpuBackend& backend() const { return backend_; }
    [[nodiscard]] LocalApic& apic() { return apic_; }
    [[nodiscard]] const CpuidPolicy& cpuid_policy() const { return cpuid_; }
    // Whether it has its core to itself and may sleep there in guest mode. Then activity() says `active`, and
    // the statistics count as the guest's, what it sleeps. While the backend is loaded.
    void set_alone(bool alone) {
        if (alone == alone_.load(std::memory_order_relaxed)) return;
        alone_.store(alone, std::memory_order_relaxed);
        backend_.let_halt(alone);
    }
    // Any core.
    [[nodiscard]] bool alone() const { return alone_.load(std::memory_order_relaxed); }
    // Keeps the last exits, with the instructions they came of, until the physical TSC has this value. Any
    // core.
    void watch(u64 until) {
        records_.clear();
        watched_until_.store(until, std::memory_order_relaxed);
        apic_.set_watched(true);
    }
    [[nodiscard]] const ExitRecords& records() const { return records_; }
    [[nodiscard]] const ExitStatistics& statistics() const { return quick_.account.statistics; }
    // The last exit and the vendor's code for it.
    [[nodiscard]] ExitReason last_exit() const { return quick_.account.last(); }
    [[nodiscard]] u64 last_code() const { return quick_.account.last_code(); }

    // Registers and the last exit, for a report.
    void describe(Sink& sink) const;

  private:
    // What a handler says. unhandled: nobody knows what to do with this exit, and the VM stops with a report.
    enum class Handling : u8 { handled, unhandled };

    [[nodiscard]] RunResult run_from(u64& now, u64 deadline);
    [[nodiscard]] Exit enter(u64& now, u64 deadline);
    [[nodiscard, gnu::noinline, gnu::cold]] std::optional<RunResult> run_watched(u64& now, u64 deadline);
    void record(const Exit& exit);
    void handle(const Exit& exit);
    void after_asynchronous(ExitReason reason, u64 now, u64 deadline);
    [[nodiscard]] Handling dispatch(const Exit& exit);
    [[nodiscard]] Handling handle_cpuid(const Exit& exit);
    [[nodiscard]] Handling handle_hlt(const Exit& exit);
    [[nodiscard]] Handling handle_hypercall(const Exit& exit);
    [[nodiscard]] Handling handle_msr_read(const Exit& exit);
    [[nodiscard]] Handling handle_msr_write(const Exit& exit);
    [[nodiscard]] Handling handle_xsetbv(const Exit& exit);
    [[nodiscard]] Handling handle_control_register(const Exit& exit);
    [[nodiscard]] Handling handle_debug_register(const Exit& exit);
    [[nodiscard]] Handling handle_exception(const Exit& exit);
    [[nodiscard]] Handling handle_port(const Exit& exit);
    [[nodiscard]] Handling handle_nested_fault(const Exit& exit);
    [[nodiscard]] Handling handle_apic_access(const Exit& exit);
    [[nodiscard]] Handling raise_or_skip(const Exit& exit, const std::optional<Event>& event);
    [[nodiscard]] Handling emulate_instruction(const KnownTranslation& known);
    [[nodiscard]] GuestPhysical hidden_page() const;
    void finish_emulation(const Outcome& outcome, Bytes bytes);
    std::optional<Event> read_control_register(const ControlRegisterAccess& access);
    std::optional<Event> write_control_register(const ControlRegisterAccess& access);
    [[nodiscard]] ControlState control_state() const;
    [[nodiscard]] MsrContext msr_context();

    // The instruction at RIP; false: the fault that the guest deserves instead, or a retry, is arranged.
    [[nodiscard]] bool fetch(Instruction& instruction);
    // The length of the exiting instruction: the hardware's, or what the decoder says; 0 as fetch() has
    // false.
    [[nodiscard]] unsigned length_of(const Exit& exit) {
        return exit.instruction_length != 0 ? exit.instruction_length : decoded_length();
    }
    [[nodiscard]] unsigned decoded_length();
    // Moves RIP past the exiting instruction and does what the processor does at an instruction boundary.
    void complete_instruction(unsigned length);
    void finish_instruction();
    void raise(const Event& event);
    void crash(std::string_view why);

    void load_start_state(const StartState& start);
    [[nodiscard]] bool events_possible() const;
    void deliver_events();
    [[nodiscard]] bool accept_signals();
    void apply_init();
    void set_activity(Activity activity) { activity_.store(activity, std::memory_order_relaxed); }
    void expire_timers();
    [[nodiscard]] u64 next_timer();
    void leave_as_firmware_does();
    [[nodiscard]] ApicMode wanted_apic_mode() const;
    void apply_apic_mode();

    VirtualMachine& vm_;
    VcpuBackend& backend_;
    LocalApic& apic_;
    const CpuidPolicy& cpuid_;
    MsrState msrs_{};
    unsigned number_;
    std::atomic<Activity> activity_{Activity::active};
    ApicMode apic_mode_ = ApicMode::xapic;  // what the backend was told
    std::atomic<bool> halted_with_interrupts_{false};
    std::atomic<bool> alone_{false};
    bool windows_ = false;  // the backend was asked for a window
    // The exit was for an interrupt of the host's; or an exception, or broke off an event's delivery: the
    // guest may have arranged for the next to strike before any instruction of its own, and with it before
    // any interrupt of the host's is taken.
    bool turn_over_ = false;
    std::optional<Event> interrupted_{};  // during dispatch: the event whose delivery the exit broke off
    std::optional<Event> deferred_{};     // an acknowledged interrupt that has yet to be delivered
    u64 timer_check_ = 0;                 // the physical TSC at which a timer is due
    std::atomic<u64> watched_until_{0};
    ExitRecords records_;
    QuickExits quick_;
};

}  // namespace bulkhead
