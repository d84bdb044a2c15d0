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

    // Copies, crossing adjacent ranges where need be. False, with nothing promised about the buffer, where
    // some byte is not RAM.
    [[nodiscard]] bool read(GuestPhysical address, MutableBytes to) const;
    [[nodiscard]] bool write(GuestPhysical address, Bytes from) const;  // ignores `writable`: for the loader
    [[nodiscard]] bool fill(GuestPhysical address, u64 length, u8 value) const;

    [[nodiscard]] std::span<const Range> ranges() const { return {ranges_.begin(), ranges_.size()}; }
    [[nodiscard]] u64 total_bytes() const;

  private:
    [[nodiscard]] const Range* find(GuestPhysical address) const;

    FixedVector<Range, 8> ranges_;  // sorted by start
};

}  // namespace bulkhead
