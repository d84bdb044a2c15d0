// The interval timer of a PC: an 8254 at 1.193182 MHz, and the part of port 61h that belongs to it (gate and
// output of counter 2, refresh toggle). References: Intel 8254 data sheet (order 231164-005, September 1993);
// port 61h: Intel 82371FB/SB PIIX3 data sheet (order 290550-002, April 1997), "NMI status and control".
//
// Implemented: three counters in modes 0-5, binary and BCD, byte access modes, counter latch, read-back of
// count and status, null count, GATE 2. Counts are computed from guest time when they are read: they agree
// with the TSC and the PM timer to the cycle. OUT 0 drives the timer interrupt.
// Simplified: the interrupt line rises whenever OUT 0 does at the end of a count, and falls only just before
// the next rise or when mode 0 is programmed: the low half of mode 3 takes no request back. Setting a mode
// whose OUT is high at once is no interrupt. If several periods passed before expire() came, there is one
// edge. Periods shorter than `shortest_period` interrupt once in that time; their counts run true.
// Ignored: speaker (port 61h bit 1 is kept), parity and channel check (bits 2 and 3 are kept, 6 and 7 are 0).
// GATE 0 and GATE 1 are high, as wired on a PC. A BCD count with digits above 9 counts from their sum.
//
// Offsets: 0-3 the chip (40h-43h), 4 port 61h. Not synchronised: one caller at a time.
#pragma once

#include "vmm/dev/byte_device.hpp"
#include "vmm/dev/oscillator.hpp"

namespace bulkhead {

class Pit8254 final : public ByteDevice {
  public:
    // In cycles: about 100 us.
    static constexpr u64 shortest_period = 120;

    Pit8254(const Clock& clock, IrqLine& irq) : clock_(clock), irq_(irq) {}

    [[nodiscard]] std::string_view name() const override { return "pit-8254"; }
    // The chip comes up undefined; here it comes up stopped.
    void reset() override;
    [[nodiscard]] Ticks deadline() const override { return deadline_; }
    [[nodiscard]] bool has_timer() const override { return true; }
    void expire() override;

  private:
    struct Counter {
        u8 mode = 0;    // 0-5
        u8 access = 3;  // 1: low byte, 2: high byte, 3: low then high
        bool bcd = false;
        bool gate = true;

        u32 reload = 0;         // the last count written, 1..65536; 0: none since the control word
        u32 count = 0;          // what the counting element was loaded with
        bool loaded = false;    // it was, since the control word
        bool counting = false;  // it runs; else `frozen` holds how far it came
        u64 start = 0;          // the cycle in which it was loaded, may lie one ahead
        u64 frozen = 0;
        bool pending = false;  // modes 2 and 3: `reload` is taken over at `pending_at`
        bool pending_falls = false;
        u64 pending_at = 0;

        bool high_byte_next_write = false;
        bool high_byte_next_read = false;
        u8 low_byte = 0;
        u8 latched_bytes = 0;
        u16 latched = 0;
        bool status_latched = false;
        u8 status = 0;

        [[nodiscard]] bool periodic() const { return mode == 2 || mode == 3; }
        [[nodiscard]] u32 high_part(u32 n) const { return mode == 3 ? (n + 1) / 2 : n - 1; }
        // Cycles since the load; negative before it.
        [[nodiscard]] i64 elapsed(u64 now) const;
        [[nodiscard]] bool out(u64 now) const;
        [[nodiscard]] u16 value(u64 now) const;
        [[nodiscard]] bool null_count(u64 now) const;
        // The first cycle after `cycle` in which OUT rises at the end of a count; `never` if none.
        [[nodiscard]] u64 rise_after(u64 cycle) const;

        void advance(u64 now);
        void program(u8 control);
        void set_count(u32 n, u64 now);
        void set_gate(bool level, u64 now);
        void write(u8 byte, u64 now);
        [[nodiscard]] u8 read(u64 now);
        void latch_count(u64 now);
        void latch_status(u64 now);
    };

    u8 read_byte(u64 offset) override;
    void write_byte(u64 offset, u8 value) override;
    void write_control(u8 value, u64 now);
    void schedule(u64 now);
    [[nodiscard]] u64 now() const { return pit_oscillator.cycles(clock_, clock_.now()); }

    const Clock& clock_;
    IrqLine& irq_;
    Counter counters_[3];
    u8 port61_ = 0;
    u64 next_rise_ = never;  // of OUT 0, in cycles
    u64 last_rise_ = 0;
    Ticks deadline_ = never;
};

}  // namespace bulkhead
