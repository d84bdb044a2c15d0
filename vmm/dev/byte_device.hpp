// A chip with an 8-bit data bus. Wider accesses reach it as the ISA bus would deliver them: one byte cycle
// after the other, at ascending offsets.
#pragma once

#include "vmm/dev/device.hpp"

namespace bulkhead {

class ByteDevice : public Device {
  public:
    [[nodiscard]] u64 read(u64 offset, unsigned size) final {
        return size == 1 ? read_byte(offset) : read_bytes(offset, size);
    }
    void write(u64 offset, unsigned size, u64 value) final {
        if (size == 1) return write_byte(offset, static_cast<u8>(value));
        write_bytes(offset, size, value);
    }

    void read_string(u64 offset, MutableBytes bytes) final {
        for (u8& byte : bytes) byte = read_byte(offset);
    }
    void write_string(u64 offset, Bytes bytes) final {
        for (const u8 byte : bytes) write_byte(offset, byte);
    }

  protected:
    ~ByteDevice() = default;

    // An offset the chip does not know reads as FFh and swallows writes.
    [[nodiscard]] virtual u8 read_byte(u64 offset) = 0;
    virtual void write_byte(u64 offset, u8 value) = 0;

  private:
    [[nodiscard, gnu::noinline]] u64 read_bytes(u64 offset, unsigned size) {
        u64 value = 0;
        for (unsigned i = 0; i < size; ++i) value |= static_cast<u64>(read_byte(offset + i)) << (8 * i);
        return value;
    }
    [[gnu::noinline]] void write_bytes(u64 offset, unsigned size, u64 value) {
        for (unsigned i = 0; i < size; ++i) write_byte(offset + i, static_cast<u8>(value >> (8 * i)));
    }
};

}  // namespace bulkhead
