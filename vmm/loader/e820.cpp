#include "vmm/loader/e820.hpp"

#include "vmm/platform.hpp"

namespace bulkhead {
namespace {

// What a PC reserves for its firmware's flash under 4 GiB, whether or not the VM has one.
constexpr u64 reserved_firmware = 256 * kib;

}  // namespace

bool GuestMemoryMap::add(u64 start, u64 end, MemoryKind kind) {
    if (end <= start) return true;
    usize at = entries_.size();
    if (!entries_.push_back({start, end - start, kind})) return false;
    while (at > 0 && entries_[at - 1].start > start) {
        entries_[at] = entries_[at - 1];
        --at;
    }
    entries_[at] = {start, end - start, kind};
    return true;
}

Result<GuestMemoryMap> GuestMemoryMap::build(const GuestMemory& memory) {
    Result<GuestMemoryMap> result{GuestMemoryMap{}};
    GuestMemoryMap& map = *result;
    bool fits = true;
    bool base_memory = false;
    const std::span<const GuestMemory::Range> ranges = memory.ranges();
    for (usize i = 0; i < ranges.size(); ++i) {
        if (!ranges[i].writable) continue;
        // One stretch of RAM may be several ranges.
        const u64 start = ranges[i].start.raw();
        u64 end = start + ranges[i].length;
        while (i + 1 < ranges.size() && ranges[i + 1].writable && ranges[i + 1].start.raw() == end) {
            end += ranges[++i].length;
        }
        if (start >= platform::vga_window && end <= platform::bios_area_end) continue;
        if (start == 0 && end == platform::base_memory_end) {
            base_memory = true;
            fits = fits && map.add(0, platform::ebda, MemoryKind::ram) &&
                   map.add(platform::ebda, end, MemoryKind::reserved);
        } else if (start == platform::high_memory && end <= platform::mmio_hole) {
            if (end - start <= platform::acpi_zone_size) {
                return fail("{} KiB of RAM at 1 MiB is too little; give the VM more memory",
                            (end - start) / kib);
            }
            map.acpi_zone_ = end - platform::acpi_zone_size;
            const u64 nvs = end - platform::acpi_nvs_size;
            fits = fits && map.add(start, map.acpi_zone_, MemoryKind::ram) &&
                   map.add(map.acpi_zone_, nvs, MemoryKind::acpi_reclaimable) &&
                   map.add(nvs, end, MemoryKind::acpi_nvs);
        } else if (start >= platform::mmio_hole_end) {
            fits = fits && map.add(start, end, MemoryKind::ram);
        } else {
            return fail(
                "RAM from {:#x} to {:#x} does not follow the platform's map: 0 to {:#x}, 1 MiB to at most "
                "{:#x}, 4 GiB and up",
                start, end, platform::base_memory_end, platform::mmio_hole);
        }
    }
    if (!base_memory) return fail("the VM has no RAM from 0 to {:#x}", platform::base_memory_end);
    if (map.acpi_zone_ == 0) return fail("the VM has no RAM at 1 MiB; give it at least 2 MiB of memory");
    fits =
        fits &&
        map.add(platform::bios_area_end - platform::bios_alias_size, platform::bios_area_end,
                MemoryKind::reserved) &&
        map.add(platform::io_apic, platform::io_apic + platform::io_apic_size, MemoryKind::reserved) &&
        map.add(platform::local_apic, platform::local_apic + platform::local_apic_size,
                MemoryKind::reserved) &&
        map.add(platform::mmio_hole_end - reserved_firmware, platform::mmio_hole_end, MemoryKind::reserved);
    if (!fits) return fail("the VM's RAM is in too many pieces for the memory map");
    return result;
}

bool GuestMemoryMap::is_ram(u64 start, u64 length) const {
    for (const MemoryMapEntry& entry : entries_) {
        if (entry.kind == MemoryKind::ram && start >= entry.start &&
            range_within(start - entry.start, length, entry.length)) {
            return true;
        }
    }
    return false;
}

u64 GuestMemoryMap::main_start() const {
    return platform::high_memory;
}

std::optional<u64> GuestMemoryMap::place_high(u64 length, u64 limit, u64 taken_start, u64 taken_end) const {
    const u64 bottom = main_start();
    const auto below = [&](u64 top) -> std::optional<u64> {
        if (top < bottom || length > top - bottom) return std::nullopt;
        const u64 place = (top - length) & ~(page_size - 1);
        if (place < bottom) return std::nullopt;
        return place;
    };
    const u64 top = limit < main_end() ? limit : main_end();
    const std::optional<u64> place = below(top);
    if (!place || *place >= taken_end || *place + length <= taken_start) return place;
    return below(top < taken_start ? top : taken_start);
}

}  // namespace bulkhead
