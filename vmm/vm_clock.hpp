// The clocks of a VM.
#pragma once

#include "vmm/clock.hpp"
#include "vmm/physical_machine.hpp"

namespace bulkhead {

// A VM's clock: the physical TSC since power-on, with the time the VM was paused taken out. A guest that was
// paused resumes as if no time had passed; its wall clock (the RTC) lags by as much until the guest reads
// another. Any core reads it; it is started and stopped while no vCPU of the VM runs.
class VmClock final : public Clock {
  public:
    explicit VmClock(const PhysicalMachine& machine) : Clock(machine.tsc_hz()), machine_(&machine) {}

    [[nodiscard]] Ticks now() const override { return paused_ ? frozen_ : machine_->tsc() - base_; }

    // Starts again from zero.
    void restart() {
        base_ = machine_->tsc();
        frozen_ = 0;
    }
    void pause() {
        if (paused_) return;
        frozen_ = machine_->tsc() - base_;
        paused_ = true;
    }
    void resume() {
        if (!paused_) return;
        base_ = machine_->tsc() - frozen_;
        paused_ = false;
    }

    // What a guest TSC at offset zero adds to the physical TSC.
    [[nodiscard]] u64 tsc_offset() const { return 0 - base_; }
    // The physical TSC value at which now() reaches `ticks`.
    [[nodiscard]] u64 to_physical(Ticks ticks) const {
        const u64 at = ticks + base_;
        return ticks == never || at < ticks ? never : at;
    }

  private:
    const PhysicalMachine* machine_;
    u64 base_ = 0;
    Ticks frozen_ = 0;
    bool paused_ = true;
};

// The same time as the chips on the buses see it: never earlier than one of them has seen it, whichever core
// asks. RDTSC may be executed ahead of the lock that it stands behind, and cores' counters may be some ticks
// apart; a chip that computed the time since its start would take such a step back for centuries.
// Read under the chips' lock only.
class ChipClock final : public Clock {
  public:
    explicit ChipClock(const VmClock& clock) : Clock(clock.hz()), clock_(clock) {}

    [[nodiscard]] Ticks now() const override {
        const Ticks now = clock_.now();
        if (now > latest_) latest_ = now;
        return latest_;
    }
    // After VmClock::restart().
    void restart() { latest_ = 0; }

  private:
    const VmClock& clock_;
    mutable Ticks latest_ = 0;
};

}  // namespace bulkhead
