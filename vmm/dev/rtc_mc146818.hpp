// The real-time clock of a PC and its 128 bytes of battery-backed memory (CMOS). References: Motorola
// MC146818A data sheet (1984); Dallas DS12887 data sheet for the timing of UIP and the divider.
//
// Implemented: time and date from the wall clock at power-on plus guest time, in BCD or binary, 12 or 24
// hours; setting them (which moves an offset of this VM only); UIP; SET; divider reset; alarm with "don't
// care" codes, periodic and update-ended interrupts; register C cleared by reading; century in byte 32h; the
// memory-size bytes of a PC firmware.
// Simplified: an update takes no time, UIP announces it 244 us ahead. Time stands still unless the divider
// (register A bits 6:4) selects the 32.768 kHz crystal, and starts again half a second before the next
// update. What a guest writes into time registers that is no time (month 13) counts as the nearest valid
// value. The day of the week follows from the date; writing it does nothing. Periods that passed unserved are
// one interrupt.
// Ignored: daylight saving (DSE), square wave output (SQWE is kept), the NMI mask in bit 7 of the index.
//
// Offsets: 0 index (70h; reads FFh), 1 data (71h). Not synchronised: one caller at a time.
#pragma once

#include "vmm/dev/byte_device.hpp"

namespace bulkhead {

class RtcMc146818 final : public ByteDevice {
  public:
    static constexpr unsigned memory_size = 128;

    // `wall_clock`: seconds since 1970-01-01 00:00 UTC at the clock's present tick.
    RtcMc146818(const Clock& clock, IrqLine& irq, u64 wall_clock);

    [[nodiscard]] std::string_view name() const override { return "rtc-mc146818"; }
    // The RESET pin: interrupts off. Time and memory have a battery: where guest time itself began anew, the
    // clock goes on from the last second it showed, until set_wall_clock() tells it better.
    void reset() override;
    // Seconds since 1970 at the clock's present tick, as the constructor's: after guest time was restarted or
    // paused. By how much the guest had set its clock off is kept.
    void set_wall_clock(u64 seconds);
    [[nodiscard]] Ticks deadline() const override { return deadline_; }
    [[nodiscard]] bool has_timer() const override { return true; }
    void expire() override;

    // Bytes 0Eh-7Fh but 32h, which are plain memory; others read as 0 and cannot be set.
    void set_memory(u8 index, u8 value);
    [[nodiscard]] u8 memory(u8 index) const;

    // The bytes in which firmware finds how much RAM there is: 15h-18h, 30h-31h, 34h-35h and 5Bh-5Dh, as QEMU
    // has them.
    void set_memory_size(u64 bytes_below_4g, u64 bytes_above_4g);

    // Seconds since 1970 as the guest's clock shows them.
    [[nodiscard]] i64 time() const;

  private:
    struct Fields {
        unsigned second, minute, hour, weekday, day, month, year, century;
    };

    u8 read_byte(u64 offset) override;
    void write_byte(u64 offset, u8 value) override;

    [[nodiscard]] u8 read_register(u8 index);
    void write_register(u8 index, u8 value);

    [[nodiscard]] bool running() const;
    [[nodiscard]] i64 seconds_at(Ticks ticks) const;
    [[nodiscard]] u64 period_in_cycles() const;
    [[nodiscard]] u64 periods_at(Ticks ticks) const;
    [[nodiscard]] bool update_in_progress() const;
    // Seconds from `second_of_day` to the next alarm, 1..86400; 0: the alarm matches no time.
    [[nodiscard]] unsigned seconds_to_alarm(unsigned second_of_day) const;

    void stop();
    void start();
    [[nodiscard]] i64 wall_seconds_at(Ticks ticks) const;
    // Guest time began anew: what was seen lies ahead.
    [[nodiscard]] bool time_went_back() const;
    void rebase(i64 seconds);
    void collect_events();
    void update();

    [[nodiscard]] u8 encode(unsigned value) const;
    [[nodiscard]] unsigned decode(u8 value) const;
    [[nodiscard]] u8 encode_hour(unsigned hour) const;
    [[nodiscard]] unsigned decode_hour(u8 value) const;
    [[nodiscard]] u8 time_register(u8 index, const Fields& fields) const;
    void set_time_register(u8 index, u8 value);
    static Fields fields_of(i64 seconds);
    static i64 seconds_of(const Fields& fields);

    const Clock& clock_;
    IrqLine& irq_;

    // While running the time is base_seconds_ at base_ticks_, the begin of a second; while stopped it is
    // `stopped_at_`, which the guest may be writing to and need not be a valid date. Differences of ticks are
    // taken modulo 2^64: a base may lie before power-on.
    i64 base_seconds_;
    Ticks base_ticks_;
    Fields stopped_at_{};

    // What the constructor or set_wall_clock() said, and how far off the guest has set its clock.
    i64 wall_seconds_;
    Ticks wall_ticks_;
    i64 guest_offset_ = 0;

    // What the flags of register C were last brought up to.
    i64 seconds_seen_;
    u64 periods_seen_ = 0;
    Ticks period_base_;

    u8 index_ = 0;
    u8 register_a_ = 0x26;
    u8 register_b_ = 0x02;
    u8 register_c_ = 0;
    u8 alarm_[3] = {};  // second, minute, hour as written
    u8 memory_[memory_size] = {};
    Ticks deadline_ = never;
    bool irq_level_ = false;
};

}  // namespace bulkhead
