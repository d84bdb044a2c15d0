// One function on a PCI bus, as its configuration space, and a ready-made configuration space with read-only,
// writable and write-1-to-clear bits. Reference: PCI Local Bus Specification 3.0, chapter 6.
#pragma once

#include "kernel/base/types.hpp"

namespace bulkhead {

class PciFunction {
  public:
    // offset: 0-255; size: 1, 2 or 4; the access lies within one aligned doubleword.
    [[nodiscard]] virtual u32 config_read(u8 offset, unsigned size) = 0;
    virtual void config_write(u8 offset, unsigned size, u32 value) = 0;

    // RST#: everything but what strapping and wiring give.
    virtual void config_reset() = 0;

  protected:
    ~PciFunction() = default;
};

class PciConfigSpace {
  public:
    // Sets `size` bytes' value after reset, and which bits the guest may write. For the builder of a
    // function.
    void define(u8 offset, unsigned size, u32 value, u32 writable = 0);
    // Bits that the guest clears by writing 1; the function sets them.
    void define_write_1_to_clear(u8 offset, unsigned size, u32 bits);

    // All registers as defined.
    void reset();

    [[nodiscard]] u32 read(u8 offset, unsigned size) const;
    // As the guest writes: read-only bits stay.
    void write(u8 offset, unsigned size, u32 value);
    // As the function itself writes: all bits change, until the next reset.
    void set(u8 offset, unsigned size, u32 value);

  private:
    static constexpr unsigned length = 256;

    u8 value_[length] = {};
    u8 initial_[length] = {};
    u8 writable_[length] = {};
    u8 write_1_to_clear_[length] = {};
};

}  // namespace bulkhead
