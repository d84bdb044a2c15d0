// The keyboard controller of a PC with a keyboard on its first port and nothing on its second. References:
// IBM Personal System/2 Hardware Interface Technical Reference (1988), "Keyboard and Auxiliary Device
// Controller" and "101-/102-key keyboard".
//
// Implemented: status and command byte, self and port tests, enabling and disabling both ports, input and
// output port, echo to either port's buffer (D2h, D3h), CPU reset by the pulse commands and by the output
// port; the keyboard's commands (reset, identify, LEDs, scan code set, typematic, enable, disable, echo,
// resend), scan code sets 2 and 1, and the controller's translation from set 2 to set 1.
// Simplified: no command takes time, nor does a byte from the keyboard. A response of the controller passes
// before waiting key strokes. A byte for the second port comes back as FEh with the time-out bit, as when no
// device is plugged in. The command byte comes up as firmware leaves it: translation and the keyboard's
// interrupt on.
// Missing: scan code set 3 (selecting it is answered by FEh). Ignored: A20 (always on, and reads so),
// passwords, typematic repeat.
//
// Offsets: 0 data (60h), 1 status and command (64h). Not synchronised: one caller at a time.
#pragma once

#include <span>

#include "vmm/dev/byte_device.hpp"
#include "vmm/dev/power_control.hpp"

namespace bulkhead {

class I8042 final : public ByteDevice {
  public:
    I8042(IrqLine& keyboard_irq, IrqLine& auxiliary_irq, PowerControl& power)
        : keyboard_irq_(keyboard_irq), auxiliary_irq_(auxiliary_irq), power_(power) {}

    [[nodiscard]] std::string_view name() const override { return "i8042"; }
    void reset() override;

    // Scan codes of set 2 that the keyboard sends. All or none: false when they do not fit, or when the guest
    // has told the keyboard to be silent.
    bool press(std::span<const u8> scan_codes);

    // How many scan codes press() takes.
    [[nodiscard]] unsigned space() const { return queue_size - queued_; }

    // The LEDs as the guest set them: bit 0 scroll lock, 1 num lock, 2 caps lock.
    [[nodiscard]] u8 leds() const { return leds_; }

  private:
    static constexpr unsigned queue_size = 64;
    static constexpr unsigned reply_size = 4;

    enum class Source : u8 { keyboard, controller, auxiliary, auxiliary_timeout };

    u8 read_byte(u64 offset) override;
    void write_byte(u64 offset, u8 value) override;

    [[nodiscard]] u8 status() const;
    void command(u8 value);
    void parameter(u8 value);
    void write_output_port(u8 value);
    void keyboard_command(u8 value);
    void keyboard_defaults();
    void reply(u8 value);
    void respond(u8 value, Source source);
    void fill();
    void update_irqs();
    [[nodiscard]] bool key_ready() const;

    IrqLine& keyboard_irq_;
    IrqLine& auxiliary_irq_;
    PowerControl& power_;

    u8 memory_[32] = {};   // the controller's RAM; byte 0 is the command byte
    u8 last_command_ = 0;  // one that waits for its parameter
    bool command_last_ = false;

    u8 output_ = 0;
    bool output_full_ = false;
    Source output_source_ = Source::keyboard;
    // A byte of the keyboard that a response of the controller pushed out of the way, translated already.
    u8 displaced_ = 0;
    bool displaced_valid_ = false;

    // The keyboard.
    bool scanning_ = true;
    u8 scan_code_set_ = 2;
    u8 leds_ = 0;
    u8 keyboard_waits_for_ = 0;  // the command whose parameter comes next
    u8 last_sent_ = 0;
    u8 replies_[reply_size] = {};
    unsigned replied_ = 0;
    u8 queue_[queue_size] = {};
    unsigned head_ = 0;
    unsigned queued_ = 0;
    bool release_prefix_ = false;  // F0h was translated away, the next code gets bit 7
};

}  // namespace bulkhead
