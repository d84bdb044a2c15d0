// The host's serial port: an 8250 to 16550A or compatible. National Semiconductor PC16550D data sheet (June
// 1995).
#pragma once

#include <optional>

#include "kernel/base/format.hpp"
#include "kernel/base/types.hpp"

namespace bulkhead::drivers {

// Unlocked: whoever shares it among cores locks. Every wait is bounded: for an answer to the loop-back test
// by about 10 ms; for the transmitter by that and 50000 looks at it (50 ms on a real machine), so that an
// emulator that was kept from running for a moment loses nothing. A transmitter that is not ready by then
// counts as stuck, and text is dropped until it shows itself ready again.
class Uart16550 final : public Sink {
  public:
    static constexpr u32 clock_hz = 115200;  // 1.8432 MHz / 16

    // Tests the chip by its loop-back mode, then sets 8 data bits, no parity, one stop bit, and `baud`, a
    // divisor of 115200. False where no working UART answers.
    [[nodiscard]] bool initialize(Port base, u32 baud);
    [[nodiscard]] bool present() const { return present_; }
    [[nodiscard]] bool stuck() const { return stuck_; }
    [[nodiscard]] Port base() const { return base_; }
    [[nodiscard]] u64 dropped() const { return dropped_; }

    // Ticks of the TSC a second, once known: makes the waits exact.
    void set_tsc_hz(u64 hz) { tsc_hz_ = hz; }

    // '\n' becomes CR LF.
    void write(std::string_view text) override;
    // One byte as it is.
    void put(u8 byte);
    // True if put() would not wait.
    [[nodiscard]] bool ready_to_send();
    // A byte that has been received, if there is one.
    [[nodiscard]] std::optional<u8> receive();
    // Waits (bounded) until the last bit has left the shift register.
    void flush();

    // Interrupt on received data. The handler calls receive() until it returns nothing.
    void enable_receive_interrupt();
    void disable_receive_interrupt();

  private:
    [[nodiscard]] Port port(u16 offset) const { return Port(static_cast<u16>(base_.raw() + offset)); }
    [[nodiscard]] bool wait_for(u8 line_status_bits, u32 least_looks);
    [[nodiscard]] bool loops_back(u8 value);

    Port base_{};
    bool present_ = false;
    bool stuck_ = false;
    u8 room_ = 0;  // bytes that fit the FIFO without looking at the line status
    u8 fifo_size_ = 1;
    u32 baud_ = clock_hz;
    u64 tsc_hz_ = 0;
    u64 dropped_ = 0;
};

}  // namespace bulkhead::drivers
