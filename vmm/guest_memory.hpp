// A VM's RAM, as the hypervisor sees it: guest-physical ranges backed by host-virtual memory of the VM's own
// arena.
#pragma once

#include <span>

#include "kernel/base/bytes.hpp"
#include "kernel/base/fixed_vector.hpp"
#include "kernel/base/result.hpp"
#include "kernel/base/types.hpp"

namespace bulkhead {

class GuestMemory {
  public:
    struct Range {
        GuestPhysical start;
        u64 length = 0;
        u8* host = nullptr;
        bool writable = true;  // to the guest; ROM is not
    };

    // Ranges may not overlap or wrap, and are page-aligned.
    [[nodiscard]] Result<> add(const Range& range);

    // The host address of [address, address + length), or null unless it lies wholly within one range.
    [[nodiscard]] u8* at(GuestPhysical address, u64 length) const;
    // RAM or ROM is there.
    [[nodiscard]] bool contains(GuestPhysical address) const { return find(address) != nullptr; }
    // ROM and what is no RAM is not.
    [[nodiscard]] bool is_writable(GuestPhysical address) const {
        const Range* range = find(address);
        return range != nullptr && range->writable;
    }

    // Copies, crossing adjacent ranges where need be. False, with nothing promised about the buffer, where
    // some byte is not RAM.
    [[nodiscard]] bool read(GuestPhysical address, MutableBytes to) const;
    [[nodiscard]] bool write(GuestPhysical address, Bytes from) const;  // ignores `writable`: for the loader
    [[nodiscard]] bool fill(GuestPhysical address, u64 length, u8 value) const;

    [[nodiscard]] std::span<const Range> ranges() const { return {ranges_.begin(), ranges_.size()}; }
    [[nodiscard]] u64 total_bytes() const;

  private:
    [[nodiscard]] const Range* find(GuestPhysical address) const {
        // Unsigned: an address below the start becomes a huge offset.
        if (address - largest_.start < largest_.length) return &largest_;
        return search(address);
    }
    [[nodiscard]] const Range* search(GuestPhysical address) const;

    Range largest_{};               // a copy: most addresses are there
    FixedVector<Range, 8> ranges_;  // sorted by start
};

}  // namespace bulkhead
