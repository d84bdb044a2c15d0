// What a device model knows of the world: offsets into its own registers, an interrupt line and a clock.
// Never its address, another device, or the host.
#pragma once

#include <string_view>

#include "kernel/base/bytes.hpp"
#include "kernel/base/types.hpp"
#include "vmm/clock.hpp"

namespace bulkhead {

// A wire from a device to an interrupt controller. Level changes only matter when they happen: setting the
// level a line already has is harmless.
class IrqLine {
  public:
    virtual void set(bool level) = 0;
    void pulse() {
        set(true);
        set(false);
    }

  protected:
    ~IrqLine() = default;
};

// A chip. `offset` is relative to the region under which the chip was put on a bus (a chip with several
// regions is several `Region`s on the bus, distinguished by a base offset of the chip's own choosing); `size`
// is 1, 2, 4 or 8 bytes. A read returns the value in its `size` low bytes; the bus drops higher ones.
class Device {
  public:
    [[nodiscard]] virtual std::string_view name() const = 0;

    [[nodiscard]] virtual u64 read(u64 offset, unsigned size) = 0;
    virtual void write(u64 offset, unsigned size, u64 value) = 0;

    // As so many accesses of one byte at the same offset.
    virtual void read_string(u64 offset, MutableBytes bytes) {
        for (u8& byte : bytes) byte = static_cast<u8>(read(offset, 1));
    }
    virtual void write_string(u64 offset, Bytes bytes) {
        for (const u8 byte : bytes) write(offset, 1, byte);
    }

    // Power-on reset: every register as the data sheet says, all lines low.
    virtual void reset() = 0;

    // When the device next wants expire() called, in guest time; `never` if no timer of it runs. A deadline
    // in the past is due at once.
    [[nodiscard]] virtual Ticks deadline() const { return never; }
    // False: deadline() is `never` for good, and nobody need ask after each access.
    [[nodiscard]] virtual bool has_timer() const { return false; }

    // Called at or after deadline(), with clock.now() >= deadline(). Work is bounded however late the call
    // comes.
    virtual void expire() {}

  protected:
    ~Device() = default;
};

}  // namespace bulkhead
