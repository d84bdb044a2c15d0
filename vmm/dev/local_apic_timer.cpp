// The local APIC's timer. Intel SDM Vol. 3A, 11.5.4 (June 2023 edition).
#include "vmm/dev/local_apic.hpp"

namespace bulkhead {

using apic::TimerMode;

namespace {

// One-shot and periodic count down alike; TSC-deadline (and the reserved mode, which does nothing) are apart.
constexpr unsigned timer_kind(TimerMode mode) {
    return mode == TimerMode::periodic ? 0 : static_cast<unsigned>(mode);
}

}  // namespace

// Kept apart from their callers (noipa): knowing an argument's range, the compiler would take signed 128-bit
// division for cheaper, which the image's runtime does not have.
[[gnu::noipa]] u64 LocalApic::scaled_counts(Ticks ticks) const {
    return clock_.to_count(ticks, timer_hz_);
}

[[gnu::noipa]] Ticks LocalApic::scaled_ticks(u64 count) const {
    return clock_.from_count(count, timer_hz_);
}

u32 LocalApic::current_count(Ticks now) const {
    if (!armed_ || timer_kind(timer_mode()) != 0) return 0;
    const u64 elapsed = counts(now - start_) >> divide_shift_;
    if (elapsed < start_count_) return static_cast<u32>(start_count_ - elapsed);
    if (timer_mode() != TimerMode::periodic || initial_count_ == 0) return 0;
    return static_cast<u32>(initial_count_ - (elapsed - start_count_) % initial_count_);
}

Ticks LocalApic::deadline() const {
    return armed_ && (timer_entry_ & apic::masked) == 0 ? due_ : never;
}

// Brings the timer up to now. A timer that expired under its mask has expired all the same: unmasking it
// later raises nothing.
void LocalApic::settle() {
    if (!armed_) return;
    const Ticks now = clock_.now();
    if (now < due_) return;
    if (timer_mode() == TimerMode::periodic && initial_count_ != 0) {
        // Expiries fall on start_ + first + k * period. Missed ones collapse into one, as they do in the IRR.
        const u64 first = u64{start_count_} << divide_shift_;
        const u64 period = u64{initial_count_} << divide_shift_;
        const u64 elapsed = counts(now - start_);
        u64 next = first + ((elapsed - first) / period + 1) * period;
        // No oftener than the minimum, but on the timer's own grid.
        const u64 earliest = counts(now - start_ + minimum_period_);
        if (next < earliest) next = first + (earliest - first + period - 1) / period * period;
        due_ = start_ + ticks_for(next);
    } else {
        armed_ = false;
        tsc_deadline_ = 0;
    }
    raise(timer_entry_);
}

// Makes the count of now the starting point, before what it is counted by changes.
void LocalApic::rebase(Ticks now) {
    settle();
    if (!armed_ || timer_kind(timer_mode()) != 0) return;
    start_count_ = current_count(now);
    start_ = now;
}

void LocalApic::start_timer(u32 initial) {
    settle();
    if (timer_kind(timer_mode()) != 0) {
        store(apic::timer_initial, initial_count_);  // ignored; undoes what hardware may have written
        return;
    }
    store(apic::timer_initial, initial);
    initial_count_ = start_count_ = initial;
    armed_ = initial != 0;
    start_ = clock_.now();
    due_ = armed_ ? start_ + ticks_for(u64{initial} << divide_shift_) : never;
}

void LocalApic::stop_timer() {
    store(apic::timer_initial, 0);
    initial_count_ = start_count_ = 0;
    armed_ = false;
    due_ = never;
}

void LocalApic::write_timer_entry(u32 value) {
    settle();
    value &= 0xFF | apic::masked | bit<u32>(17) | (tsc_deadline_supported_ ? bit<u32>(18) : 0);
    const TimerMode from = timer_mode();
    const TimerMode to = static_cast<TimerMode>(extract(value, 18, 17));
    if (timer_kind(from) != timer_kind(to)) {
        // Changing to or from TSC-deadline mode disarms (Intel SDM Vol. 3A, 11.5.4.1).
        stop_timer();
        tsc_deadline_ = 0;
    } else if (from != to && armed_) {
        const Ticks now = clock_.now();
        rebase(now);
        due_ = start_ + ticks_for(u64{start_count_} << divide_shift_);
    }
    timer_entry_ = value;
    store(apic::lvt_timer, value);
}

void LocalApic::write_divide(u32 value) {
    const Ticks now = clock_.now();
    rebase(now);
    store(apic::timer_divide, value & 0xB);
    // 0: by 2, ... 6: by 128, 7: by 1.
    divide_shift_ = static_cast<unsigned>(((value & 3) | ((value >> 1) & 4)) + 1) & 7;
    if (armed_ && timer_kind(timer_mode()) == 0)
        due_ = start_ + ticks_for(u64{start_count_} << divide_shift_);
}

u64 LocalApic::tsc_deadline() {
    settle();
    return timer_mode() == TimerMode::tsc_deadline ? tsc_deadline_ : 0;
}

void LocalApic::set_tsc_deadline(u64 value) {
    settle();
    if (timer_mode() != TimerMode::tsc_deadline) return;
    tsc_deadline_ = value;
    armed_ = value != 0;
    if (armed_) arm_deadline(clock_.now());
}

void LocalApic::set_tsc_offset(u64 offset) {
    settle();
    tsc_offset_ = offset;
    if (armed_ && timer_mode() == TimerMode::tsc_deadline) arm_deadline(clock_.now());
}

void LocalApic::arm_deadline(Ticks now) {
    const u64 tsc = now + tsc_offset_;
    if (tsc_deadline_ <= tsc) {
        due_ = now;
        settle();
        return;
    }
    const u64 ahead = tsc_deadline_ - tsc;
    due_ = ahead < never - 1 - now ? now + ahead : never - 1;
}

}  // namespace bulkhead
