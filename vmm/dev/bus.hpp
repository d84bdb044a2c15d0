// A bus: which device answers which addresses. Port I/O and MMIO are two instances.
// What no device claims behaves as an empty slot: reads are all-ones, writes are dropped. An access that
// spans two devices, or the end of one, is split into bytes.
#pragma once

#include <string_view>

#include "kernel/base/fixed_vector.hpp"
#include "kernel/base/result.hpp"
#include "vmm/dev/device.hpp"

namespace bulkhead {

class Bus {
  public:
    struct Region {
        u64 base = 0;
        u64 length = 0;
        Device* device = nullptr;
        u64 device_offset = 0;  // the device's offset for an access at `base`
    };

    // `limit`: one past the last address (10000h for ports). An access past it reads ones and is dropped.
    explicit Bus(u64 limit) : limit_(limit) {}

    // Refused when the region is empty, out of range, overlaps another or the table is full.
    [[nodiscard]] Result<> attach(u64 base, u64 length, Device& device, u64 device_offset = 0);

    // size: 1, 2, 4 or 8 bytes.
    [[nodiscard]] u64 read(u64 address, unsigned size) const;
    void write(u64 address, unsigned size, u64 value) const;

    // The region that holds `address`, or null.
    [[nodiscard]] const Region* find(u64 address) const;

  private:
    static constexpr usize max_regions = 48;

    u64 limit_;
    FixedVector<Region, max_regions> regions_;  // sorted by base
};

}  // namespace bulkhead
