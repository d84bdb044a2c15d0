// Ports 80h and EDh: where firmware shows its progress, and to which operating systems write to pass a
// microsecond. The last value is kept for the operator; reads return it, as a PC's DMA page register does.
#pragma once

#include "vmm/dev/byte_device.hpp"

namespace bulkhead {

class PostPort final : public ByteDevice {
  public:
    [[nodiscard]] std::string_view name() const override { return "post-port"; }
    void reset() override { value_ = 0; }
    [[nodiscard]] u8 value() const { return value_; }

  private:
    u8 read_byte(u64) override { return value_; }
    void write_byte(u64 offset, u8 value) override {
        if (offset == 0) value_ = value;
    }

    u8 value_ = 0;
};

}  // namespace bulkhead
