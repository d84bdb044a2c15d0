#include "vmm/dev/rtc_mc146818.hpp"

#include "kernel/base/bits.hpp"

namespace bulkhead {

namespace {

enum : u8 {
    index_seconds = 0x00,
    index_seconds_alarm = 0x01,
    index_minutes = 0x02,
    index_minutes_alarm = 0x03,
    index_hours = 0x04,
    index_hours_alarm = 0x05,
    index_weekday = 0x06,
    index_day = 0x07,
    index_month = 0x08,
    index_year = 0x09,
    index_a = 0x0A,
    index_b = 0x0B,
    index_c = 0x0C,
    index_d = 0x0D,
    first_memory = 0x0E,
    index_century = 0x32,

    a_uip = 1 << 7,
    a_divider = 7 << 4,
    a_divider_32khz = 2 << 4,
    a_rate = 0x0F,

    b_24_hours = 1 << 1,
    b_binary = 1 << 2,
    b_update_interrupt = 1 << 4,  // the enables stand where their flags stand in C
    b_alarm_interrupt = 1 << 5,
    b_periodic_interrupt = 1 << 6,
    b_interrupts = b_update_interrupt | b_alarm_interrupt | b_periodic_interrupt,
    b_square_wave = 1 << 3,
    b_set = 1 << 7,

    c_any = 1 << 7,
    d_valid_ram_and_time = 1 << 7,

    hour_pm = 1 << 7,
    alarm_any = 0xC0,
};

constexpr u64 divider_hz = 32768;
constexpr i64 seconds_a_day = 86400;
constexpr u64 uip_ahead_us = 244;

constexpr i64 floor_divide(i64 a, i64 b) {
    return a / b - (a % b < 0 ? 1 : 0);
}

constexpr bool is_leap(i64 year) {
    return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
}

constexpr unsigned days_in_month(i64 year, unsigned month) {
    constexpr u8 days[12] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    return days[month - 1] + (month == 2 && is_leap(year) ? 1u : 0u);
}

// Days from 1970-01-01 to the first of January of `year`, in the Gregorian calendar.
constexpr i64 days_before_year(i64 year) {
    const i64 past = year - 1;
    return 365 * (year - 1970) + (floor_divide(past, 4) - 492) - (floor_divide(past, 100) - 19) +
           (floor_divide(past, 400) - 4);
}
static_assert(days_before_year(1970) == 0 && days_before_year(2000) == 10957 &&
              days_before_year(2001) == 11323);

constexpr unsigned clamp(unsigned value, unsigned low, unsigned high) {
    return value < low ? low : value > high ? high : value;
}

}  // namespace

RtcMc146818::RtcMc146818(const Clock& clock, IrqLine& irq, u64 wall_clock)
    : clock_(clock),
      irq_(irq),
      base_seconds_(static_cast<i64>(wall_clock & low_mask(40))),
      base_ticks_(clock.now()),
      wall_seconds_(base_seconds_),
      wall_ticks_(clock.now()),
      seconds_seen_(base_seconds_),
      period_base_(clock.now()) {}

i64 RtcMc146818::wall_seconds_at(Ticks ticks) const {
    return wall_seconds_ + static_cast<i64>((ticks - wall_ticks_) / clock_.hz());
}

// The second `seconds` begins with the present tick, and so does a period.
void RtcMc146818::rebase(i64 seconds) {
    base_seconds_ = seconds_seen_ = seconds;
    base_ticks_ = period_base_ = clock_.now();
    periods_seen_ = 0;
}

bool RtcMc146818::time_went_back() const {
    const Ticks now = clock_.now();
    return static_cast<i64>(now - base_ticks_) < 0 || static_cast<i64>(now - period_base_) < 0 ||
           seconds_at(now) < seconds_seen_ || periods_at(now) < periods_seen_;
}

void RtcMc146818::set_wall_clock(u64 seconds) {
    wall_seconds_ = static_cast<i64>(seconds & low_mask(40));
    wall_ticks_ = clock_.now();
    if (!time_went_back()) collect_events();
    if (running()) {
        rebase(wall_seconds_ + guest_offset_);
    } else {
        rebase(seconds_seen_);
    }
    update();
}

void RtcMc146818::reset() {
    if (time_went_back()) {
        rebase(seconds_seen_);
        wall_seconds_ = seconds_seen_ - guest_offset_;
        wall_ticks_ = clock_.now();
    }
    collect_events();
    register_b_ &= static_cast<u8>(~(b_interrupts | b_square_wave));
    register_c_ = 0;
    index_ = 0;
    update();
}

void RtcMc146818::set_memory(u8 index, u8 value) {
    if (index >= first_memory && index < memory_size && index != index_century) memory_[index] = value;
}

u8 RtcMc146818::memory(u8 index) const {
    return index < memory_size ? memory_[index] : 0;
}

void RtcMc146818::set_memory_size(u64 bytes_below_4g, u64 bytes_above_4g) {
    const auto set_word = [this](u8 index, u64 value, u64 most) {
        value = value < most ? value : most;
        memory_[index] = static_cast<u8>(value);
        memory_[index + 1] = static_cast<u8>(value >> 8);
    };
    const auto above = [bytes_below_4g](u64 start) {
        return bytes_below_4g > start ? bytes_below_4g - start : 0;
    };
    set_word(0x15, bytes_below_4g / kib, 640);
    set_word(0x17, above(mib) / kib, 0xFFFF);
    set_word(0x30, above(mib) / kib, 0xFFFF);
    set_word(0x34, above(16 * mib) / (64 * kib), 0xFFFF);
    const u64 chunks = bytes_above_4g / (64 * kib);
    set_word(0x5B, chunks & 0xFFFF, 0xFFFF);
    memory_[0x5D] = static_cast<u8>(chunks >> 16);
}

bool RtcMc146818::running() const {
    return (register_b_ & b_set) == 0 && (register_a_ & a_divider) == a_divider_32khz;
}

i64 RtcMc146818::seconds_at(Ticks ticks) const {
    return base_seconds_ + static_cast<i64>((ticks - base_ticks_) / clock_.hz());
}

i64 RtcMc146818::time() const {
    return running() ? seconds_at(clock_.now()) : seconds_of(stopped_at_);
}

// In cycles of the divider; 0: no periodic rate is selected. The two lowest rates of the table repeat those
// of 8 and 9 (MC146818A, table 5, for a 32.768 kHz time base).
u64 RtcMc146818::period_in_cycles() const {
    const u8 rate = register_a_ & a_rate;
    if (rate == 0 || (register_a_ & a_divider) != a_divider_32khz) return 0;
    return rate <= 2 ? u64{64} << rate : u64{1} << (rate - 1);
}

u64 RtcMc146818::periods_at(Ticks ticks) const {
    const u64 period = period_in_cycles();
    return period == 0 ? 0 : clock_.to_count(ticks - period_base_, divider_hz) / period;
}

bool RtcMc146818::update_in_progress() const {
    if (!running()) return false;
    const Ticks left = clock_.hz() - (clock_.now() - base_ticks_) % clock_.hz();
    return left <= clock_.from_count(uip_ahead_us, 1'000'000);
}

unsigned RtcMc146818::seconds_to_alarm(unsigned second_of_day) const {
    const auto any = [](u8 value) { return (value & alarm_any) == alarm_any; };
    const bool any_second = any(alarm_[0]);
    const bool any_minute = any(alarm_[1]);
    const bool any_hour = any(alarm_[2]);
    const unsigned alarm_second = decode(alarm_[0]);
    const unsigned alarm_minute = decode(alarm_[1]);
    const unsigned alarm_hour = decode_hour(alarm_[2]);
    if ((!any_second && alarm_second > 59) || (!any_minute && alarm_minute > 59) ||
        (!any_hour && alarm_hour > 23)) {
        return 0;
    }
    const unsigned hour_now = second_of_day / 3600;
    const unsigned minute_now = second_of_day / 60 % 60;
    const unsigned second_now = second_of_day % 60;
    // Today's hours from the present one, and the present one tomorrow.
    for (unsigned ahead = 0; ahead <= 24; ++ahead) {
        if (!any_hour && (hour_now + ahead) % 24 != alarm_hour) continue;
        for (unsigned minute = ahead == 0 ? minute_now : 0; minute < 60; ++minute) {
            if (!any_minute && minute != alarm_minute) continue;
            const unsigned earliest = ahead == 0 && minute == minute_now ? second_now + 1 : 0;
            const unsigned second = any_second ? earliest : alarm_second;
            if (second < earliest || second > 59) continue;
            return ahead * 3600 + minute * 60 + second - minute_now * 60 - second_now;
        }
    }
    return 0;
}

// Brings the flags of register C up to the present.
void RtcMc146818::collect_events() {
    const Ticks now = clock_.now();
    if (running()) {
        const i64 seconds = seconds_at(now);
        if (seconds > seconds_seen_) {
            register_c_ |= b_update_interrupt;
            const i64 second_of_day =
                seconds_seen_ - floor_divide(seconds_seen_, seconds_a_day) * seconds_a_day;
            const unsigned ahead = seconds_to_alarm(static_cast<unsigned>(second_of_day));
            if (ahead != 0 && ahead <= seconds - seconds_seen_) register_c_ |= b_alarm_interrupt;
        }
        seconds_seen_ = seconds;
    }
    const u64 periods = periods_at(now);
    if (periods > periods_seen_) register_c_ |= b_periodic_interrupt;
    periods_seen_ = periods;
}

// Sets the interrupt line and the next deadline from the flags. While the line is high nothing is due: the
// guest learns of further events when it reads register C.
void RtcMc146818::update() {
    const bool level = (register_c_ & register_b_ & b_interrupts) != 0;
    if (level != irq_level_) {
        irq_level_ = level;
        irq_.set(level);
    }
    deadline_ = never;
    if (level) return;
    const auto due = [this](Ticks ticks) { deadline_ = ticks < deadline_ ? ticks : deadline_; };
    const u64 period = period_in_cycles();
    if ((register_b_ & b_periodic_interrupt) != 0 && period != 0) {
        due(period_base_ + clock_.from_count((periods_seen_ + 1) * period, divider_hz));
    }
    if (!running()) return;
    const Ticks second_begun = base_ticks_ + static_cast<u64>(seconds_seen_ - base_seconds_) * clock_.hz();
    if ((register_b_ & b_update_interrupt) != 0) due(second_begun + clock_.hz());
    if ((register_b_ & b_alarm_interrupt) != 0) {
        const i64 second_of_day = seconds_seen_ - floor_divide(seconds_seen_, seconds_a_day) * seconds_a_day;
        const unsigned ahead = seconds_to_alarm(static_cast<unsigned>(second_of_day));
        if (ahead != 0) due(second_begun + ahead * clock_.hz());
    }
}

void RtcMc146818::expire() {
    collect_events();
    update();
}

// To be called while the clock still runs.
void RtcMc146818::stop() {
    const Ticks now = clock_.now();
    stopped_at_ = fields_of(seconds_at(now));
    base_ticks_ = now - (now - base_ticks_) % clock_.hz();
}

// The time goes on from what the guest left in the registers; base_ticks_ holds the phase of the second.
void RtcMc146818::start() {
    const Ticks now = clock_.now();
    base_ticks_ = now - (now - base_ticks_) % clock_.hz();
    base_seconds_ = seconds_of(stopped_at_);
    seconds_seen_ = base_seconds_;
    guest_offset_ = base_seconds_ - wall_seconds_at(now);
}

u8 RtcMc146818::encode(unsigned value) const {
    if ((register_b_ & b_binary) != 0) return static_cast<u8>(value);
    return static_cast<u8>((value / 10 % 10) << 4 | value % 10);
}

unsigned RtcMc146818::decode(u8 value) const {
    return (register_b_ & b_binary) != 0 ? value : (value >> 4) * 10u + (value & 15);
}

u8 RtcMc146818::encode_hour(unsigned hour) const {
    if ((register_b_ & b_24_hours) != 0) return encode(hour);
    const unsigned twelve = hour % 12 == 0 ? 12 : hour % 12;
    return encode(twelve) | (hour >= 12 ? u8{hour_pm} : u8{0});
}

unsigned RtcMc146818::decode_hour(u8 value) const {
    if ((register_b_ & b_24_hours) != 0) return decode(value);
    const unsigned twelve = decode(value & static_cast<u8>(~hour_pm));
    if (twelve > 12) return 24;  // no hour
    return twelve % 12 + ((value & hour_pm) != 0 ? 12 : 0);
}

RtcMc146818::Fields RtcMc146818::fields_of(i64 seconds) {
    const i64 days = floor_divide(seconds, seconds_a_day);
    const unsigned rest = static_cast<unsigned>(seconds - days * seconds_a_day);
    // 146097 days are 400 years; the estimate is at most one year off.
    i64 year = 1970 + floor_divide(days * 400, 146097);
    while (days < days_before_year(year)) --year;
    while (days >= days_before_year(year + 1)) ++year;
    unsigned day = static_cast<unsigned>(days - days_before_year(year));
    unsigned month = 1;
    while (day >= days_in_month(year, month)) day -= days_in_month(year, month++);
    const i64 weekday = days + 4 - floor_divide(days + 4, 7) * 7;  // 1970-01-01 was a Thursday
    return {.second = rest % 60,
            .minute = rest / 60 % 60,
            .hour = rest / 3600,
            .weekday = static_cast<unsigned>(weekday) + 1,
            .day = day + 1,
            .month = month,
            .year = static_cast<unsigned>(year - floor_divide(year, 100) * 100),
            .century = static_cast<unsigned>(year / 100 % 100)};
}

i64 RtcMc146818::seconds_of(const Fields& fields) {
    const i64 year = clamp(fields.century, 0, 99) * 100 + clamp(fields.year, 0, 99);
    const unsigned month = clamp(fields.month, 1, 12);
    i64 days = days_before_year(year);
    for (unsigned m = 1; m < month; ++m) days += days_in_month(year, m);
    days += clamp(fields.day, 1, days_in_month(year, month)) - 1;
    return days * seconds_a_day + clamp(fields.hour, 0, 23) * 3600 + clamp(fields.minute, 0, 59) * 60 +
           clamp(fields.second, 0, 59);
}

u8 RtcMc146818::time_register(u8 index, const Fields& fields) const {
    switch (index) {
        case index_seconds: return encode(fields.second);
        case index_minutes: return encode(fields.minute);
        case index_hours: return encode_hour(fields.hour);
        case index_weekday: return encode(fields.weekday);
        case index_day: return encode(fields.day);
        case index_month: return encode(fields.month);
        case index_year: return encode(fields.year);
        default: return encode(fields.century);
    }
}

void RtcMc146818::set_time_register(u8 index, u8 value) {
    Fields fields = running() ? fields_of(seconds_at(clock_.now())) : stopped_at_;
    switch (index) {
        case index_seconds: fields.second = decode(value); break;
        case index_minutes: fields.minute = decode(value); break;
        case index_hours: fields.hour = decode_hour(value); break;
        case index_day: fields.day = decode(value); break;
        case index_month: fields.month = decode(value); break;
        case index_year: fields.year = decode(value); break;
        case index_century: fields.century = decode(value); break;
        default: return;
    }
    const bool was_running = running();
    stopped_at_ = fields;
    if (was_running) start();
}

u8 RtcMc146818::read_register(u8 index) {
    switch (index) {
        case index_seconds:
        case index_minutes:
        case index_hours:
        case index_weekday:
        case index_day:
        case index_month:
        case index_year:
        case index_century:
            return time_register(index, running() ? fields_of(seconds_at(clock_.now())) : stopped_at_);
        case index_seconds_alarm:
        case index_minutes_alarm:
        case index_hours_alarm: return alarm_[index / 2];
        case index_a: return register_a_ | (update_in_progress() ? u8{a_uip} : u8{0});
        case index_b: return register_b_;
        case index_c: {
            collect_events();
            u8 value = register_c_;
            if ((value & register_b_ & b_interrupts) != 0) value |= c_any;
            register_c_ = 0;
            update();
            return value;
        }
        case index_d: return d_valid_ram_and_time;
        default: return memory_[index];
    }
}

void RtcMc146818::write_register(u8 index, u8 value) {
    collect_events();
    const bool was_running = running();
    switch (index) {
        case index_seconds:
        case index_minutes:
        case index_hours:
        case index_weekday:
        case index_day:
        case index_month:
        case index_year:
        case index_century: set_time_register(index, value); break;
        case index_seconds_alarm:
        case index_minutes_alarm:
        case index_hours_alarm: alarm_[index / 2] = value; break;
        case index_a: {
            const bool divider_ran = (register_a_ & a_divider) == a_divider_32khz;
            const bool divider_runs = (value & a_divider) == a_divider_32khz;
            if (was_running && !divider_runs) stop();
            register_a_ = value & static_cast<u8>(~a_uip);
            if (!divider_ran && divider_runs) {
                period_base_ = clock_.now();
                base_ticks_ = clock_.now() - clock_.hz() / 2;
            }
            if (!was_running && running()) start();
            periods_seen_ = periods_at(clock_.now());
            break;
        }
        case index_b:
            if (was_running && (value & b_set) != 0) stop();
            // Setting SET clears the enable of the update interrupt.
            register_b_ = (value & b_set) != 0 ? value & static_cast<u8>(~b_update_interrupt) : value;
            if (!was_running && running()) start();
            break;
        case index_c:
        case index_d: break;
        default: memory_[index] = value; break;
    }
    update();
}

u8 RtcMc146818::read_byte(u64 offset) {
    return offset == 1 ? read_register(index_) : u8{0xFF};
}

void RtcMc146818::write_byte(u64 offset, u8 value) {
    if (offset == 0) {
        index_ = value & (memory_size - 1);
    } else if (offset == 1) {
        write_register(index_, value);
    }
}

}  // namespace bulkhead
