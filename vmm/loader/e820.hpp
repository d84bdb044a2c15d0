// The guest's memory map, in the form of the BIOS call INT 15h, AX=E820h (ACPI 5.0, 15.1), which every boot
// protocol has adopted. One builder for all of them.
#pragma once

#include <optional>

#include "kernel/base/fixed_vector.hpp"
#include "kernel/base/result.hpp"
#include "vmm/guest_memory.hpp"

namespace bulkhead {

enum class MemoryKind : u32 { ram = 1, reserved = 2, acpi_reclaimable = 3, acpi_nvs = 4 };

struct MemoryMapEntry {
    u64 start = 0;
    u64 length = 0;
    MemoryKind kind = MemoryKind::ram;
    [[nodiscard]] constexpr u64 end() const { return start + length; }
    friend constexpr bool operator==(const MemoryMapEntry&, const MemoryMapEntry&) = default;
};

class GuestMemoryMap {
  public:
    // The map of a VM with this RAM: what the guest may write is RAM, except the EBDA, and the ACPI zone at
    // the end of the range that holds 1 MiB; the BIOS area and the chip set's addresses under 4 GiB are
    // reserved; the VGA window and the PCI hole are not mentioned, as on a PC, whether or not memory backs
    // them. Sorted, without overlaps. Adjacent ranges count as one.
    // Refused when base memory (0 to A0000h) or RAM at 1 MiB is missing, or too small for the ACPI zone.
    [[nodiscard]] static Result<GuestMemoryMap> build(const GuestMemory& memory);

    [[nodiscard]] std::span<const MemoryMapEntry> entries() const { return entries_; }

    // True where [start, start + length) is RAM throughout, within one entry.
    [[nodiscard]] bool is_ram(u64 start, u64 length) const;

    // The RAM at 1 MiB: where images go.
    [[nodiscard]] u64 main_start() const;
    [[nodiscard]] u64 main_end() const { return acpi_zone_; }
    // The ACPI tables' place, of platform::acpi_zone_size.
    [[nodiscard]] GuestPhysical acpi_zone() const { return GuestPhysical(acpi_zone_); }

    // The highest page-aligned place in the RAM at 1 MiB for `length` bytes that ends at or below `limit` and
    // stays clear of [taken_start, taken_end). Nothing if there is none.
    [[nodiscard]] std::optional<u64> place_high(u64 length, u64 limit, u64 taken_start, u64 taken_end) const;

  private:
    static constexpr usize max_entries = 16;

    [[nodiscard]] bool add(u64 start, u64 end, MemoryKind kind);

    FixedVector<MemoryMapEntry, max_entries> entries_;
    u64 acpi_zone_ = 0;
};

}  // namespace bulkhead
