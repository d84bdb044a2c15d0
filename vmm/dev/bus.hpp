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
        bool timed = false;     // an access may change the device's deadline
    };

    // `limit`: one past the last address (10000h for ports). An access past it reads ones and is dropped.
    explicit Bus(u64 limit) : limit_(limit), slot_shift_(limit <= 0x10000 ? 3 : 12) {}

    // Refused when the region is empty, out of range, overlaps another or the table is full.
    [[nodiscard]] Result<> attach(u64 base, u64 length, Device& device, u64 device_offset = 0);

    // size: 1, 2, 4 or 8 bytes.
    [[nodiscard]] u64 read(u64 address, unsigned size) const {
        const Device* touched = nullptr;
        return read(address, size, touched);
    }
    void write(u64 address, unsigned size, u64 value) const {
        const Device* touched = nullptr;
        write(address, size, value, touched);
    }
    // `touched`: the one device that the access went to; null where it went to none or to several.
    [[nodiscard]] u64 read(u64 address, unsigned size, const Device*& touched) const;
    void write(u64 address, unsigned size, u64 value, const Device*& touched) const;

    // The region that holds `address`, or null.
    [[nodiscard]] const Region* find(u64 address) const {
        const Region& guess = regions_[slots_[slot_of(address)]];
        // An empty table's element has no length.
        if (address - guess.base < guess.length) return &guess;
        return crowded_[slot_of(address)] ? search(address) : nullptr;
    }

  private:
    static constexpr usize max_regions = 48;

    [[nodiscard, gnu::noinline]] const Region* search(u64 address) const;
    // Byte by byte: out of line, to keep the common path short.
    [[nodiscard, gnu::noinline]] u64 read_bytes(u64 address, unsigned size) const;
    [[gnu::noinline]] void write_bytes(u64 address, unsigned size, u64 value) const;

    // A guess at an address's region, from some of its bits: most accesses find theirs without a search.
    static constexpr usize slot_count = 256;
    [[nodiscard]] usize slot_of(u64 address) const { return (address >> slot_shift_) % slot_count; }

    u64 limit_;
    unsigned slot_shift_;
    FixedVector<Region, max_regions> regions_;  // sorted by base
    u8 slots_[slot_count] = {};                 // indices into regions_
    bool crowded_[slot_count] = {};             // more than one region is there
};

}  // namespace bulkhead
