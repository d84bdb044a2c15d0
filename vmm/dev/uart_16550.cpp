#include "vmm/dev/uart_16550.hpp"

#include "kernel/base/bits.hpp"

namespace bulkhead {

namespace {

constexpr u64 crystal_hz = 1'843'200;

// Offsets; 0 and 1 are the divisor latch while DLAB is set.
enum : u64 {
    rbr_thr = 0,
    ier = 1,
    iir_fcr = 2,
    lcr = 3,
    mcr = 4,
    lsr = 5,
    msr = 6,
    scr = 7,
};

enum : u8 {
    ier_receive = 1 << 0,
    ier_transmit = 1 << 1,
    ier_line = 1 << 2,
    ier_modem = 1 << 3,

    // IIR: bit 0 is set when nothing is pending. In order of priority.
    iir_line = 0x06,
    iir_receive = 0x04,
    iir_timeout = 0x0C,
    iir_transmit = 0x02,
    iir_modem = 0x00,
    iir_none = 0x01,
    iir_fifos_enabled = 0xC0,

    fcr_enable = 1 << 0,
    fcr_clear_receiver = 1 << 1,

    lcr_two_stop_bits = 1 << 2,
    lcr_parity = 1 << 3,
    lcr_break = 1 << 6,
    lcr_dlab = 1 << 7,

    mcr_dtr = 1 << 0,
    mcr_rts = 1 << 1,
    mcr_out1 = 1 << 2,
    mcr_out2 = 1 << 3,
    mcr_loop = 1 << 4,

    lsr_data_ready = 1 << 0,
    lsr_overrun = 1 << 1,
    lsr_framing = 1 << 3,
    lsr_break = 1 << 4,
    lsr_thr_empty = 1 << 5,
    lsr_transmitter_empty = 1 << 6,
    lsr_fifo_error = 1 << 7,

    msr_delta_cts = 1 << 0,
    msr_delta_dsr = 1 << 1,
    msr_trailing_ri = 1 << 2,
    msr_delta_dcd = 1 << 3,
    msr_deltas = 0x0F,
    msr_cts = 1 << 4,
    msr_dsr = 1 << 5,
    msr_ri = 1 << 6,
    msr_dcd = 1 << 7,
};

}  // namespace

// PC16550D, table I (reset). The divisor latch and the scratch register are undefined at power-on: 9600 baud
// and 0 here.
void Uart16550::reset() {
    divisor_ = 12;
    scratch_ = 0;
    interrupt_enable_ = 0;
    line_control_ = 0;
    modem_control_ = 0;
    modem_status_ = msr_cts | msr_dsr | msr_dcd;
    fifo_control_ = 0;
    fifo_enabled_ = false;
    clear_receiver();
    last_character_ = 0;
    line_errors_ = 0;
    transmitter_interrupt_ = false;
    update_irq();
}

bool Uart16550::divisor_access() const {
    return (line_control_ & lcr_dlab) != 0;
}

unsigned Uart16550::trigger_level() const {
    constexpr u8 levels[4] = {1, 4, 8, 14};
    return fifo_enabled() ? levels[fifo_control_ >> 6] : 1;
}

// Four characters with their start, parity and stop bits; a bit lasts 16 divisors of the crystal. A divisor
// of 0 divides by 65536, as a 16-bit down-counter does.
Ticks Uart16550::timeout_ticks() const {
    const unsigned bits = 1 + 5 + (line_control_ & 3) + ((line_control_ & lcr_parity) != 0 ? 1 : 0) +
                          ((line_control_ & lcr_two_stop_bits) != 0 ? 2 : 1);
    const u64 divisor = divisor_ == 0 ? 65536 : divisor_;
    return clock_.from_count(u64{4} * bits * 16 * divisor, crystal_hz);
}

u8 Uart16550::pending_interrupt() const {
    if ((interrupt_enable_ & ier_line) != 0 && line_errors_ != 0) return iir_line;
    if ((interrupt_enable_ & ier_receive) != 0) {
        if (count_ >= trigger_level()) return iir_receive;
        if (timeout_interrupt_) return iir_timeout;
    }
    if ((interrupt_enable_ & ier_transmit) != 0 && transmitter_interrupt_) return iir_transmit;
    if ((interrupt_enable_ & ier_modem) != 0 && (modem_status_ & msr_deltas) != 0) return iir_modem;
    return iir_none;
}

// OUT2 gates the interrupt on a PC, and loop-back forces the OUT2 pin inactive.
void Uart16550::update_irq() {
    const bool gate = (modem_control_ & (mcr_out2 | mcr_loop)) == mcr_out2;
    const bool level = gate && pending_interrupt() != iir_none;
    if (level == irq_level_) return;
    irq_level_ = level;
    irq_.set(level);
}

Ticks Uart16550::deadline() const {
    return (interrupt_enable_ & ier_receive) != 0 ? timeout_at_ : never;
}

void Uart16550::expire() {
    if (clock_.now() < timeout_at_) return;
    timeout_at_ = never;
    timeout_interrupt_ = count_ > 0;
    update_irq();
}

// Received characters that wait below the trigger level interrupt when nothing happened for a while. With the
// level reached the receive interrupt stands anyway.
void Uart16550::restart_timeout() {
    timeout_at_ = fifo_enabled() && count_ > 0 && count_ < trigger_level() && !timeout_interrupt_
                      ? clock_.now() + timeout_ticks()
                      : never;
}

unsigned Uart16550::space() const {
    return (modem_control_ & mcr_loop) != 0 ? 0 : depth() - count_;
}

bool Uart16550::receive(u8 character) {
    if ((modem_control_ & mcr_loop) != 0) return false;
    const bool accepted = accept(character, 0);
    update_irq();
    return accepted;
}

bool Uart16550::receive_break() {
    if ((modem_control_ & mcr_loop) != 0) return false;
    const bool accepted = accept(0, lsr_break | lsr_framing);
    update_irq();
    return accepted;
}

// With FIFOs a character that finds no room is lost; without, it replaces the one not read.
bool Uart16550::accept(u8 character, u8 errors) {
    const bool full = count_ == depth();
    if (full) {
        line_errors_ |= lsr_overrun;
        if (fifo_enabled()) return false;
        take();
    }
    character &= static_cast<u8>(low_mask(5 + (line_control_ & 3)));
    fifo_[(head_ + count_) % fifo_depth] = {character, errors};
    ++count_;
    if (errors != 0) ++entries_with_errors_;
    if (count_ == 1) show_head_errors();
    restart_timeout();
    return !full;
}

u8 Uart16550::take() {
    if (count_ == 0) return last_character_;
    const Entry entry = fifo_[head_];
    head_ = (head_ + 1) % fifo_depth;
    --count_;
    if (entry.errors != 0) --entries_with_errors_;
    last_character_ = entry.character;
    timeout_interrupt_ = false;
    if (count_ > 0) show_head_errors();
    restart_timeout();
    return entry.character;
}

// A character's errors show in LSR when it comes to the top of the FIFO.
void Uart16550::show_head_errors() {
    line_errors_ |= fifo_[head_].errors;
}

void Uart16550::clear_receiver() {
    head_ = 0;
    count_ = 0;
    entries_with_errors_ = 0;
    timeout_interrupt_ = false;
    timeout_at_ = never;
}

void Uart16550::transmit(u8 character) {
    const bool interrupts = (interrupt_enable_ & ier_transmit) != 0;
    // The request falls and comes back, so that an edge-triggered controller sees a new one.
    transmitter_interrupt_ = false;
    if (interrupts) update_irq();
    character &= static_cast<u8>(low_mask(5 + (line_control_ & 3)));
    if ((modem_control_ & mcr_loop) != 0) {
        accept(character, 0);
        update_irq();
    } else if ((line_control_ & lcr_break) == 0) {
        output_.write(character);
    }
    transmitter_interrupt_ = true;
    if (interrupts) update_irq();
}

u8 Uart16550::read_line_status() {
    u8 value = lsr_thr_empty | lsr_transmitter_empty | line_errors_;
    if (count_ > 0) value |= lsr_data_ready;
    if (fifo_enabled() && entries_with_errors_ > 0) value |= lsr_fifo_error;
    if (count_ > 0 && fifo_[head_].errors != 0) {
        fifo_[head_].errors = 0;
        --entries_with_errors_;
    }
    if (line_errors_ != 0) {
        line_errors_ = 0;
        update_irq();
    }
    return value;
}

u8 Uart16550::read_interrupt_identity() {
    const u8 identity = pending_interrupt();
    if (identity == iir_transmit) {
        transmitter_interrupt_ = false;
        update_irq();
    }
    return identity | (fifo_enabled() ? u8{iir_fifos_enabled} : u8{0});
}

u8 Uart16550::read_byte(u64 offset) {
    switch (offset) {
        case lsr: return read_line_status();
        case rbr_thr: {
            if (divisor_access()) return static_cast<u8>(divisor_);
            const u8 character = take();
            update_irq();
            return character;
        }
        case ier: return divisor_access() ? static_cast<u8>(divisor_ >> 8) : interrupt_enable_;
        case iir_fcr: return read_interrupt_identity();
        case lcr: return line_control_;
        case mcr: return modem_control_;
        case msr: {
            const u8 value = modem_status_;
            modem_status_ &= static_cast<u8>(~msr_deltas);
            update_irq();
            return value;
        }
        case scr: return scratch_;
        default: return 0xFF;
    }
}

void Uart16550::write_byte(u64 offset, u8 value) {
    switch (offset) {
        case rbr_thr:
            if (divisor_access()) {
                divisor_ = static_cast<u16>((divisor_ & 0xFF00) | value);
            } else {
                transmit(value);
            }
            break;
        case ier:
            if (divisor_access()) {
                divisor_ = static_cast<u16>((divisor_ & 0x00FF) | value << 8);
            } else {
                const u8 risen = static_cast<u8>(value & ~interrupt_enable_);
                interrupt_enable_ = value & 0x0F;
                // Enabling the interrupt with THR empty requests it at once; drivers start sending that way.
                if ((risen & ier_transmit) != 0) transmitter_interrupt_ = true;
                update_irq();
            }
            break;
        case iir_fcr: write_fifo_control(value); break;
        case lcr: write_line_control(value); break;
        case mcr: write_modem_control(value); break;
        case scr: scratch_ = value; break;
        default: break;
    }
}

void Uart16550::write_fifo_control(u8 value) {
    const bool enable = (value & fcr_enable) != 0;
    const bool changed = enable != fifo_enabled_;
    fifo_enabled_ = enable;
    // The other bits are only programmed while bit 0 is written as 1.
    fifo_control_ = enable ? value : u8{0};
    if (changed || (enable && (value & fcr_clear_receiver) != 0)) clear_receiver();
    restart_timeout();
    update_irq();
}

void Uart16550::write_line_control(u8 value) {
    const bool break_begins = (value & lcr_break) != 0 && (line_control_ & lcr_break) == 0;
    line_control_ = value;
    if (break_begins && (modem_control_ & mcr_loop) != 0) {
        accept(0, lsr_break | lsr_framing);
        update_irq();
    }
}

void Uart16550::write_modem_control(u8 value) {
    modem_control_ = value & 0x1F;
    update_modem_status();
    update_irq();
}

void Uart16550::update_modem_status() {
    u8 lines = msr_cts | msr_dsr | msr_dcd;
    if ((modem_control_ & mcr_loop) != 0) {
        lines = 0;
        if ((modem_control_ & mcr_rts) != 0) lines |= msr_cts;
        if ((modem_control_ & mcr_dtr) != 0) lines |= msr_dsr;
        if ((modem_control_ & mcr_out1) != 0) lines |= msr_ri;
        if ((modem_control_ & mcr_out2) != 0) lines |= msr_dcd;
    }
    const u8 changed = lines ^ (modem_status_ & 0xF0);
    u8 deltas = modem_status_ & msr_deltas;
    if ((changed & msr_cts) != 0) deltas |= msr_delta_cts;
    if ((changed & msr_dsr) != 0) deltas |= msr_delta_dsr;
    if ((changed & msr_ri) != 0 && (lines & msr_ri) == 0) deltas |= msr_trailing_ri;
    if ((changed & msr_dcd) != 0) deltas |= msr_delta_dcd;
    modem_status_ = lines | deltas;
}

}  // namespace bulkhead
