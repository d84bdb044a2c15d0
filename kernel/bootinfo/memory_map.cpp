#include "kernel/bootinfo/memory_map.hpp"

#include "kernel/base/bits.hpp"
#include "kernel/bootinfo/boot_errors.hpp"

namespace bulkhead {

std::string_view name_of(MemoryKind kind) {
    switch (kind) {
        case MemoryKind::usable: return "usable";
        case MemoryKind::acpi_reclaimable: return "ACPI tables";
        case MemoryKind::reserved: return "reserved";
        case MemoryKind::acpi_nvs: return "ACPI NVS";
        case MemoryKind::defective: return "defective";
    }
    return "?";
}

bool MemoryMap::insert(usize index, const MemoryRange& range) {
    if (!ranges_.push_back(range)) return false;
    for (usize i = ranges_.size() - 1; i > index; --i) ranges_[i] = ranges_[i - 1];
    ranges_[index] = range;
    return true;
}

// Makes `address` a boundary: the range that contains it, if any, becomes two.
bool MemoryMap::split_at(HostPhysical address) {
    for (usize i = 0; i < ranges_.size(); ++i) {
        MemoryRange& range = ranges_[i];
        if (!(range.start < address && address < range.end())) continue;
        const MemoryRange upper{.start = address, .length = range.end() - address, .kind = range.kind};
        range.length = address - range.start;
        return insert(i + 1, upper);
    }
    return true;
}

void MemoryMap::merge() {
    usize kept = 0;
    for (usize i = 1; i < ranges_.size(); ++i) {
        if (ranges_[i].start == ranges_[kept].end() && ranges_[i].kind == ranges_[kept].kind) {
            ranges_[kept].length += ranges_[i].length;
        } else {
            ranges_[++kept] = ranges_[i];
        }
    }
    while (ranges_.size() > kept + 1) ranges_.pop_back();
}

Result<> MemoryMap::add(HostPhysical start, u64 length, MemoryKind kind) {
    if (length == 0) return {};
    if (length > ~start.raw()) return fail("range {}+{:#x} wraps", start, length);
    const HostPhysical end = start + length;
    if (!split_at(start) || !split_at(end)) return fail(boot_error::too_many_ranges, max_ranges);
    // Now every range lies inside or outside; the gaps between those inside are filled.
    HostPhysical at = start;
    for (usize i = 0; at < end; ++i) {
        if (i < ranges_.size() && ranges_[i].end() <= at) continue;
        if (i < ranges_.size() && ranges_[i].start == at) {
            if (ranges_[i].kind < kind) ranges_[i].kind = kind;
        } else {
            const HostPhysical next = i < ranges_.size() && ranges_[i].start < end ? ranges_[i].start : end;
            if (!insert(i, {.start = at, .length = next - at, .kind = kind})) {
                return fail(boot_error::too_many_ranges, max_ranges);
            }
        }
        at = ranges_[i].end();
    }
    merge();
    return {};
}

bool MemoryMap::is_usable(HostPhysical start, u64 length) const {
    for (const MemoryRange& range : ranges_) {
        if (range.kind != MemoryKind::usable || start < range.start) continue;
        if (range_within(start - range.start, length, range.length)) return true;  // neighbours are merged
    }
    return false;
}

u64 MemoryMap::usable_bytes() const {
    u64 bytes = 0;
    for (const MemoryRange& range : ranges_) {
        if (range.kind == MemoryKind::usable) bytes += range.length;
    }
    return bytes;
}

}  // namespace bulkhead
