// The local APIC of the host's cores, as xAPIC or x2APIC. Intel SDM Vol. 3A, chapter 11 (June 2023 edition).
#pragma once

#include "arch/x86/regs/apic.hpp"
#include "kernel/base/result.hpp"
#include "kernel/base/types.hpp"

namespace bulkhead::drivers {

// One object serves all cores: each method acts on the APIC of the core that calls it. All cores run in the
// mode that the first one chose. The APIC is never globally disabled: some cannot be enabled again.
class LocalApic {
  public:
    // On the first core: x2APIC where the processor has it, or where the firmware left it on; else xAPIC at
    // `page`, a mapping of the register page (uncacheable).
    [[nodiscard]] Result<> initialize(HostVirtual page);

    // On each core, the first included: software-enabled, all local interrupts masked but NMI at LINT1,
    // priority 0, errors cleared.
    [[nodiscard]] Result<> enable_on_this_core();

    [[nodiscard]] bool x2apic() const { return x2apic_; }
    [[nodiscard]] u32 id() const;
    void end_of_interrupt() { write(apic::eoi, 0); }
    // True if `vector` awaits an end_of_interrupt().
    [[nodiscard]] bool in_service(Vector vector) const;
    [[nodiscard]] bool requested(Vector vector) const;

    // To the core with that APIC ID. False if the APIC does not get rid of the message within about 1 ms
    // (xAPIC only; an x2APIC has no such state).
    bool send(u32 apic_id, Vector vector);
    bool send_nmi(u32 apic_id);
    bool send_init(u32 apic_id);
    // The core starts in real mode at `page` * 4096.
    bool send_startup(u32 apic_id, u8 page);

    // The timer, one shot at a time, in TSC ticks of the host. Calibrates where there is no TSC-deadline
    // mode, or where that turns out not to interrupt, which takes about 2 ms; on the first core only, with
    // interrupts disabled. Then enable_timer() on each core.
    [[nodiscard]] Result<> calibrate_timer(u64 tsc_hz);
    void enable_timer(Vector vector);
    [[nodiscard]] bool has_tsc_deadline() const { return tsc_deadline_; }
    // The processor has that mode, but it does not interrupt; the one-shot mode takes its place.
    [[nodiscard]] bool deadline_is_silent() const { return deadline_silent_; }
    // Fires once, at or shortly after `deadline`, at once if it has passed. Replaces what was armed. A
    // deadline beyond what the counter can hold fires early: the caller looks at the clock and arms again.
    void arm_timer(u64 deadline);
    void disarm_timer();

    // Since the last call, as in the error status register.
    u32 take_errors();

  private:
    [[nodiscard]] u32 read(u32 offset) const;
    void write(u32 offset, u32 value);
    bool send_command(u32 apic_id, u32 low);
    [[nodiscard]] bool deadline_interrupts();

    HostVirtual page_{};
    bool x2apic_ = false;
    bool tsc_deadline_ = false;
    bool deadline_silent_ = false;
    u64 tsc_hz_ = 0;
    u64 timer_hz_ = 0;
};

}  // namespace bulkhead::drivers
