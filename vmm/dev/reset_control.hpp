// The reset control register of a PC chipset, port CF9h. Reference: Intel 82371FB/SB PIIX3 data sheet (order
// 290550-002, April 1997), "RC: reset control register".
//
// Implemented: a 0-to-1 transition of bit 2 resets the machine. Bits 1 (hard) and 3 (full) are kept and make
// no difference: every reset is a hard one.
//
// Offsets: as the neighbours of CF8h that are not the PCI address register: 1 is CF9h; 0, 2 and 3 are empty.
#pragma once

#include "vmm/dev/byte_device.hpp"
#include "vmm/dev/power_control.hpp"

namespace bulkhead {

class ResetControl final : public ByteDevice {
  public:
    explicit ResetControl(PowerControl& power) : power_(power) {}

    [[nodiscard]] std::string_view name() const override { return "reset-control"; }
    void reset() override { value_ = 0; }

  private:
    u8 read_byte(u64 offset) override { return offset == 1 ? value_ : u8{0xFF}; }
    void write_byte(u64 offset, u8 value) override {
        if (offset != 1) return;
        constexpr u8 reset_cpu = 1 << 2;
        const bool rises = (value & reset_cpu) != 0 && (value_ & reset_cpu) == 0;
        value_ = value & 0x0E;
        if (rises) power_.reset_machine();
    }

    PowerControl& power_;
    u8 value_ = 0;
};

}  // namespace bulkhead
