// The machine's memory map: sorted, free of overlaps, neighbours of one type merged.
#pragma once

#include "kernel/base/fixed_vector.hpp"
#include "kernel/base/result.hpp"

namespace bulkhead {

// In rising order of precedence: where two ranges overlap, the later of these wins. So usable never does.
enum class MemoryKind : u8 { usable, acpi_reclaimable, reserved, acpi_nvs, defective };

[[nodiscard]] std::string_view name_of(MemoryKind kind);

struct MemoryRange {
    HostPhysical start{};
    u64 length = 0;
    MemoryKind kind = MemoryKind::reserved;

    [[nodiscard]] constexpr HostPhysical end() const { return start + length; }
    friend constexpr bool operator==(const MemoryRange&, const MemoryRange&) = default;
};

class MemoryMap {
  public:
    static constexpr usize max_ranges = 256;

    // length 0 adds nothing. Fails on a range that wraps (its end may be 2^64 - 1 at most) and when there
    // would be more than max_ranges; the map may then hold part of the range.
    [[nodiscard]] Result<> add(HostPhysical start, u64 length, MemoryKind kind);

    void clear() { ranges_.clear(); }
    [[nodiscard]] std::span<const MemoryRange> ranges() const { return ranges_; }
    // True where all of [start, start + length) is usable RAM.
    [[nodiscard]] bool is_usable(HostPhysical start, u64 length) const;
    [[nodiscard]] u64 usable_bytes() const;

  private:
    [[nodiscard]] bool insert(usize index, const MemoryRange& range);
    [[nodiscard]] bool split_at(HostPhysical address);
    void merge();

    FixedVector<MemoryRange, max_ranges> ranges_;
};

}  // namespace bulkhead
