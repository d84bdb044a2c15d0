#include "drivers/uart_16550.hpp"

#include <algorithm>

#include "arch/x86/cpu/injected_faults.hpp"
#include "arch/x86/cpu/intrinsics.hpp"

namespace bulkhead::drivers {
namespace {

// Registers; the first two are the divisor's while LCR bit 7 is set.
constexpr u16 data = 0, interrupt_enable = 1, interrupt_identification = 2, fifo_control = 2,
              line_control = 3, modem_control = 4, line_status = 5, modem_status = 6;

constexpr u8 received_data_interrupt = bit<u8>(0);
constexpr u8 fifo_enable = bit<u8>(0), fifo_clear = bit<u8>(1) | bit<u8>(2), fifo_trigger_8 = bit<u8>(7);
constexpr u8 fifos_enabled = bit<u8>(6) | bit<u8>(7);  // in interrupt identification
constexpr u8 eight_bits = 3, divisor_access = bit<u8>(7);
constexpr u8 dtr = bit<u8>(0), rts = bit<u8>(1), out1 = bit<u8>(2), out2 = bit<u8>(3), loop = bit<u8>(4);
constexpr u8 data_ready = bit<u8>(0), transmitter_ready = bit<u8>(5), transmitter_empty = bit<u8>(6);

constexpr u64 assumed_tsc_hz = 3'000'000'000;
constexpr u8 absent = 0xFF;

}  // namespace

bool Uart16550::shows(u8 line_status_bits) {
    u8 status = cpu::in8(port(line_status));
    if (injected(Fault::uart_stuck) && present_) status &= ~(transmitter_ready | transmitter_empty);
    return status != absent && (status & line_status_bits) == line_status_bits;
}

bool Uart16550::wait_for(u8 line_status_bits, u32 milliseconds) {
    const u64 hz = tsc_hz_ != 0 ? tsc_hz_ : assumed_tsc_hz;
    // 10 bits a byte; at a low speed twice the time of a full FIFO and the shift register.
    const u64 fifo_ticks = scale(hz, 2u * 10u * (fifo_size_ + 1u), baud_);
    const u64 limit = std::max(fifo_ticks, scale(hz, milliseconds, 1000));
    const u64 start = cpu::read_tsc();
    do {
        if (shows(line_status_bits)) return true;
        cpu::pause();
    } while (cpu::read_tsc() - start < limit);
    return shows(line_status_bits);
}

bool Uart16550::loops_back(u8 value) {
    cpu::out8(port(data), value);
    return wait_for(data_ready, patience) && cpu::in8(port(data)) == value && !injected(Fault::uart_absent);
}

bool Uart16550::initialize(Port base, u32 baud) {
    base_ = base;
    present_ = false;
    stuck_ = gave_up_ = false;
    room_ = 0;
    fifo_size_ = 16;
    baud_ = baud == 0 || baud > clock_hz ? clock_hz : baud;

    // Bits 4-7 of interrupt enable are zero in every 8250 to 16550A; an empty slot reads as ones.
    if ((cpu::in8(port(interrupt_enable)) & 0xF0) != 0) return false;
    // The boot loader's last words may still be on their way.
    (void)wait_for(transmitter_empty, patience);

    cpu::out8(port(interrupt_enable), 0);
    const auto divisor = static_cast<u16>(clock_hz / baud_);
    cpu::out8(port(line_control), divisor_access | eight_bits);
    cpu::out8(port(data), static_cast<u8>(divisor));
    cpu::out8(port(interrupt_enable), static_cast<u8>(divisor >> 8));
    cpu::out8(port(line_control), eight_bits);
    cpu::out8(port(fifo_control), fifo_enable | fifo_clear | fifo_trigger_8);

    cpu::out8(port(modem_control), loop | out1 | out2 | rts);
    const bool works = loops_back(0xA5) && loops_back(0x5A);
    cpu::out8(port(modem_control), dtr | rts | out2);
    if (!works) return false;

    if ((cpu::in8(port(interrupt_identification)) & fifos_enabled) != fifos_enabled) fifo_size_ = 1;
    // Whatever the test left behind.
    cpu::out8(port(fifo_control), fifo_enable | fifo_clear | fifo_trigger_8);
    (void)cpu::in8(port(line_status));
    (void)cpu::in8(port(data));
    (void)cpu::in8(port(modem_status));
    present_ = true;
    return true;
}

bool Uart16550::has_room() {
    if (room_ != 0) return true;
    if (!shows(transmitter_ready)) return false;
    room_ = fifo_size_;
    stuck_ = gave_up_ = false;
    return true;
}

void Uart16550::send(u8 byte) {
    cpu::out8(port(data), byte);
    --room_;
}

bool Uart16550::ready_to_send() {
    if (!present_) return false;
    while (tail_ != head_ && has_room()) send(queue_[tail_++ % queue_.size()]);
    return tail_ == head_ && has_room();
}

void Uart16550::put(u8 byte) {
    if (!present_) {
        ++dropped_;
        return;
    }
    if (ready_to_send()) return send(byte);
    // One wait; once found stuck the transmitter gets a look, not another wait, for each byte.
    if (!stuck_) {
        if (wait_for(transmitter_ready, patience) && ready_to_send()) return send(byte);
        stuck_ = !has_room();
    }
    if (head_ - tail_ == queue_.size()) {
        ++dropped_;
        return;
    }
    queue_[head_++ % queue_.size()] = byte;
}

void Uart16550::write(std::string_view text) {
    for (const char c : text) {
        if (c == '\n') put('\r');
        put(static_cast<u8>(c));
    }
}

std::optional<u8> Uart16550::receive() {
    if (!present_ || !shows(data_ready)) return std::nullopt;
#ifdef BULKHEAD_FAULT_INJECTION
    (void)injected_faults.take(Fault::uart_stuck);
#endif
    return cpu::in8(port(data));
}

void Uart16550::flush() {
    if (!present_ || gave_up_) return;
    while (!ready_to_send()) {
        if (wait_for(transmitter_ready, last_patience)) continue;
        gave_up_ = true;
        return;
    }
    (void)wait_for(transmitter_empty, patience);
}

void Uart16550::enable_receive_interrupt() {
    if (present_) cpu::out8(port(interrupt_enable), received_data_interrupt);
}

void Uart16550::disable_receive_interrupt() {
    if (present_) cpu::out8(port(interrupt_enable), 0);
}

}  // namespace bulkhead::drivers
