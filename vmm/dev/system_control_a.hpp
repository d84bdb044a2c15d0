// Port 92h, "system control port A": fast reset and fast A20. Reference: IBM Personal System/2 Hardware
// Interface Technical Reference (1988), "System control port A".
//
// Implemented: a 0-to-1 transition of bit 0 resets. Bit 1 (A20) reads as 1 whatever is written: the address
// line is never masked, as on processors without an A20M# pin. Others read as 0.
#pragma once

#include "vmm/dev/byte_device.hpp"
#include "vmm/dev/power_control.hpp"

namespace bulkhead {

class SystemControlA final : public ByteDevice {
  public:
    explicit SystemControlA(PowerControl& power) : power_(power) {}

    [[nodiscard]] std::string_view name() const override { return "system-control-a"; }
    void reset() override { reset_bit_ = 0; }

  private:
    u8 read_byte(u64 offset) override { return offset == 0 ? u8(reset_bit_ | 2) : u8{0xFF}; }
    void write_byte(u64 offset, u8 value) override {
        if (offset != 0) return;
        const bool rises = (value & 1) != 0 && reset_bit_ == 0;
        reset_bit_ = value & 1;
        if (rises) power_.reset_machine();
    }

    PowerControl& power_;
    u8 reset_bit_ = 0;
};

}  // namespace bulkhead
