// The serial port of a PC: a PC16550D with its baud-rate crystal (1.8432 MHz) and the gate by which OUT2
// enables the interrupt. Reference: National Semiconductor PC16550D data sheet, June 1995.
//
// Implemented: all registers and DLAB; both FIFOs' control with the receiver's 16 bytes, trigger levels and
// the timeout interrupt after four character times; line and modem status with their deltas; interrupt
// priorities; loop-back of data, break and modem lines; overrun; break.
// Simplified: transmission takes no time. The transmitter is empty as soon as THR is written, so no depth of
// the transmit FIFO shows and characters leave at the guest's pace: a flood costs the guest its own exits and
// one call of the sink each. DCD, DSR and CTS are always asserted and RI never, as by a cable with a
// listener.
// Ignored: DMA mode (FCR bit 3), parity and framing (no character ever arrives broken), writes to LSR and
// MSR (factory test).
//
// Registers at offsets 0-7. Not synchronised: one caller at a time.
#pragma once

#include "vmm/dev/byte_device.hpp"
#include "vmm/dev/character_sink.hpp"

namespace bulkhead {

class Uart16550 final : public ByteDevice {
  public:
    Uart16550(const Clock& clock, IrqLine& irq, CharacterSink& output)
        : clock_(clock), irq_(irq), output_(output) {}

    [[nodiscard]] std::string_view name() const override { return "uart-16550"; }
    void reset() override;
    [[nodiscard]] Ticks deadline() const override;
    [[nodiscard]] bool has_timer() const override { return true; }
    void expire() override;

    // A character comes in on the line. False if it was lost: to an overrun, which the guest sees as such
    // (LSR.OE), or because loop-back has disconnected the line.
    bool receive(u8 character);

    // The line is held low for longer than a character (SysRq on Linux). Lost as characters are.
    bool receive_break();

    // How many characters receive() takes before it overruns: what a console may type ahead.
    [[nodiscard]] unsigned space() const;

  private:
    static constexpr unsigned fifo_depth = 16;

    struct Entry {
        u8 character = 0;
        u8 errors = 0;  // LSR bits that belong to this character
    };

    u8 read_byte(u64 offset) override;
    void write_byte(u64 offset, u8 value) override;

    [[nodiscard]] bool divisor_access() const;
    [[nodiscard]] bool fifo_enabled() const { return fifo_enabled_; }
    [[nodiscard]] unsigned depth() const { return fifo_enabled_ ? fifo_depth : 1; }
    [[nodiscard]] unsigned trigger_level() const;
    [[nodiscard]] Ticks timeout_ticks() const;
    [[nodiscard]] u8 pending_interrupt() const;

    bool accept(u8 character, u8 errors);
    u8 take();
    void show_head_errors();
    void clear_receiver();
    void restart_timeout();
    void transmit(u8 character);
    void write_fifo_control(u8 value);
    void write_line_control(u8 value);
    void write_modem_control(u8 value);
    void update_modem_status();
    u8 read_line_status();
    u8 read_interrupt_identity();
    void update_irq();

    const Clock& clock_;
    IrqLine& irq_;
    CharacterSink& output_;

    u16 divisor_ = 12;
    u8 interrupt_enable_ = 0;
    u8 line_control_ = 0;
    u8 modem_control_ = 0;
    u8 modem_status_ = 0;
    u8 scratch_ = 0;
    u8 fifo_control_ = 0;
    bool fifo_enabled_ = false;

    // A ring of depth() entries.
    Entry fifo_[fifo_depth] = {};
    unsigned head_ = 0;
    unsigned count_ = 0;
    unsigned entries_with_errors_ = 0;
    u8 last_character_ = 0;
    u8 line_errors_ = 0;  // OE, PE, FE, BI as LSR shows them

    bool transmitter_interrupt_ = false;
    bool timeout_interrupt_ = false;
    Ticks timeout_at_ = never;
    bool irq_level_ = false;
};

}  // namespace bulkhead
