// The host's serial port: an 8250 to 16550A or compatible. National Semiconductor PC16550D data sheet (June
// 1995).
#pragma once

#include <optional>
#include <span>

#include "kernel/base/format.hpp"
#include "kernel/base/types.hpp"

namespace bulkhead::drivers {

// Unlocked: whoever shares it among cores locks. Every wait is bounded, by 10 ms or, at low speeds, what two
// full FIFOs take. A transmitter that is not ready by then counts as stuck. From then on nobody waits for it:
// what it does not take is queued, and goes out when it shows itself ready again, be it a terminal's XOFF or
// an emulator whose reader was slow. What the queue does not take, either, is dropped and counted; the log
// has it in memory.
class Uart16550 final : public Sink {
  public:
    static constexpr u32 patience = 10;          // ms
    static constexpr u32 last_patience = 1'000;  // ms without progress, before the machine halts or is reset
    static constexpr u32 clock_hz = 115200;      // 1.8432 MHz / 16

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
    // Where to queue, from now on: while nothing is queued. Without it nothing is.
    void set_queue(std::span<u8> storage) { queue_ = storage; }
    // Sends of the queue what the chip takes. True if put() would neither wait nor queue.
    [[nodiscard]] bool ready_to_send();
    // A byte that has been received, if there is one.
    [[nodiscard]] std::optional<u8> receive();
    // For last words: waits until the queue is empty and the last bit has left the shift register. Bounded by
    // `last_patience` without progress, once: a transmitter that has disappointed so is not waited for again.
    void flush();

    // Interrupt on received data. The handler calls receive() until it returns nothing.
    void enable_receive_interrupt();
    void disable_receive_interrupt();

  private:
    [[nodiscard]] Port port(u16 offset) const { return Port(static_cast<u16>(base_.raw() + offset)); }
    [[nodiscard]] bool shows(u8 line_status_bits);
    [[nodiscard]] bool wait_for(u8 line_status_bits, u32 milliseconds);
    [[nodiscard]] bool has_room();
    void send(u8 byte);
    [[nodiscard]] bool loops_back(u8 value);

    // All zero until initialize(), so that static storage takes no room in the image.
    Port base_{};
    bool present_ = false;
    bool stuck_ = false;
    bool gave_up_ = false;  // on last words
    u8 room_ = 0;           // bytes that fit the FIFO without looking at the line status
    u8 fifo_size_ = 0;
    u32 baud_ = 0;
    u64 tsc_hz_ = 0;
    u64 dropped_ = 0;
    u32 head_ = 0, tail_ = 0;  // of the queue, counting up for ever
    std::span<u8> queue_;
};

}  // namespace bulkhead::drivers
