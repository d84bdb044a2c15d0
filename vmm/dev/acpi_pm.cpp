#include "vmm/dev/acpi_pm.hpp"

#include "kernel/base/bits.hpp"

namespace bulkhead {

namespace {

// PM1 status and enable, ACPI 6.4, tables 4.13 and 4.14.
enum : u16 {
    event_timer = 1 << 0,
    event_global = 1 << 5,
    event_power_button = 1 << 8,
    event_sleep_button = 1 << 9,
    event_rtc = 1 << 10,
    events = event_timer | event_global | event_power_button | event_sleep_button | event_rtc,
    status_wake = 1 << 15,

    control_sci_enable = 1 << 0,
    control_bus_master_reload = 1 << 1,
    control_sleep_type = 7 << 10,
    control_sleep_enable = 1 << 13,
    control_kept = control_sci_enable | control_bus_master_reload | control_sleep_type,
};

constexpr unsigned top_bit = 31;

}  // namespace

void AcpiPm::reset() {
    status_ = 0;
    enable_ = 0;
    control_ = 0;
    smi_command_ = 0;
    smi_status_ = 0;
    half_periods_seen_ = pm_timer_oscillator.cycles(clock_, clock_.now()) >> top_bit;
    update();
}

u32 AcpiPm::timer() const {
    return static_cast<u32>(pm_timer_oscillator.cycles(clock_, clock_.now()));
}

void AcpiPm::collect_timer_event() {
    const u64 half_periods = pm_timer_oscillator.cycles(clock_, clock_.now()) >> top_bit;
    if (half_periods != half_periods_seen_) status_ |= event_timer;
    half_periods_seen_ = half_periods;
}

void AcpiPm::update() {
    const bool level = (control_ & control_sci_enable) != 0 && (status_ & enable_ & events) != 0;
    if (level != sci_level_) {
        sci_level_ = level;
        sci_.set(level);
    }
    const bool timer_matters =
        (control_ & control_sci_enable) != 0 && (enable_ & event_timer) != 0 && (status_ & event_timer) == 0;
    deadline_ =
        timer_matters ? pm_timer_oscillator.first_tick(clock_, (half_periods_seen_ + 1) << top_bit) : never;
}

void AcpiPm::expire() {
    collect_timer_event();
    update();
}

bool AcpiPm::press_power_button() {
    status_ |= event_power_button;
    update();
    return (control_ & control_sci_enable) != 0 && (enable_ & event_power_button) != 0;
}

u64 AcpiPm::read(u64 offset, unsigned size) {
    // All bytes of one access show the timer at one instant.
    const u32 now = timer();
    if (offset == timer_block && size == 4) return now;
    collect_timer_event();
    u64 value = 0;
    for (unsigned i = 0; i < size; ++i) value |= static_cast<u64>(read_byte(offset + i, now)) << (8 * i);
    update();
    return value;
}

u8 AcpiPm::read_byte(u64 offset, u32 timer_now) const {
    switch (offset) {
        case 0: return static_cast<u8>(status_);
        case 1: return static_cast<u8>(status_ >> 8);
        case 2: return static_cast<u8>(enable_);
        case 3: return static_cast<u8>(enable_ >> 8);
        case 4: return static_cast<u8>(control_);
        case 5: return static_cast<u8>(control_ >> 8);
        case 6:
        case 7: return 0;
        case 8:
        case 9:
        case 10:
        case 11: return static_cast<u8>(timer_now >> (8 * (offset - timer_block)));
        case smi_command: return smi_command_;
        case smi_command + 1: return smi_status_;
        default: return offset < block_length ? 0 : 0xFF;
    }
}

void AcpiPm::write(u64 offset, unsigned size, u64 value) {
    collect_timer_event();
    // The control register acts on a whole value: its two bytes are taken together where both are written.
    if (offset == control_block && size >= 2) {
        write_control(static_cast<u16>(value));
        update();
        return;
    }
    for (unsigned i = 0; i < size; ++i) write_byte(offset + i, static_cast<u8>(value >> (8 * i)));
    update();
}

void AcpiPm::write_byte(u64 offset, u8 value) {
    const u16 high = static_cast<u16>(value << 8);
    switch (offset) {
        case 0: status_ &= static_cast<u16>(~value); break;
        case 1: status_ &= static_cast<u16>(~(high & (events | status_wake))); break;
        case 2: enable_ = static_cast<u16>((enable_ & 0xFF00) | (value & events)); break;
        case 3: enable_ = static_cast<u16>((enable_ & 0x00FF) | (high & events)); break;
        case 4: write_control(static_cast<u16>((control_ & 0xFF00) | value)); break;
        case 5: write_control(static_cast<u16>((control_ & 0x00FF) | high)); break;
        case smi_command:
            smi_command_ = value;
            if (value == acpi_enable) control_ |= control_sci_enable;
            if (value == acpi_disable) control_ &= static_cast<u16>(~control_sci_enable);
            break;
        case smi_command + 1: smi_status_ = value; break;
        default: break;
    }
}

void AcpiPm::write_control(u16 value) {
    control_ = value & control_kept;
    if ((value & control_sleep_enable) != 0 && extract(value, 12, 10) == soft_off_type) power_.power_off();
}

}  // namespace bulkhead
