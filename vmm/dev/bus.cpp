#include "vmm/dev/bus.hpp"

#include "kernel/base/bits.hpp"

namespace bulkhead {

Result<> Bus::attach(u64 base, u64 length, Device& device, u64 device_offset) {
    if (length == 0) return fail("device {}: a region at {:#x} of no length", device.name(), base);
    if (!range_within(base, length, limit_)) {
        return fail("device {}: region {:#x}, {:#x} long, lies past the end of the bus at {:#x}",
                    device.name(), base, length, limit_);
    }
    for (const Region& other : regions_) {
        if (base < other.base + other.length && other.base < base + length) {
            return fail("device {}: region {:#x}, {:#x} long, overlaps {} at {:#x}", device.name(), base,
                        length, other.device->name(), other.base);
        }
    }
    if (!regions_.push_back({base, length, &device, device_offset, device.has_timer()})) {
        return fail("device {}: the bus is full, {} regions", device.name(), regions_.size());
    }
    for (usize i = regions_.size() - 1; i > 0 && regions_[i - 1].base > regions_[i].base; --i) {
        const Region moved = regions_[i - 1];
        regions_[i - 1] = regions_[i];
        regions_[i] = moved;
    }
    bool taken[slot_count] = {};
    for (bool& crowded : crowded_) crowded = false;
    for (usize i = 0; i < regions_.size(); ++i) {
        const Region& region = regions_[i];
        u64 address = region.base;
        // One address in each slot that the region touches, and no slot twice.
        for (usize n = 0; n < slot_count && address - region.base < region.length; ++n) {
            const usize slot = slot_of(address);
            slots_[slot] = static_cast<u8>(i);
            crowded_[slot] = taken[slot];
            taken[slot] = true;
            address = ((address >> slot_shift_) + 1) << slot_shift_;
        }
    }
    return {};
}

const Bus::Region* Bus::search(u64 address) const {
    // Invariant: every region before `low` starts at or below the address, every one from `high` on above it.
    usize low = 0;
    usize high = regions_.size();
    while (low < high) {
        const usize middle = (low + high) / 2;
        if (regions_[middle].base <= address) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    if (low == 0) return nullptr;
    const Region& candidate = regions_[low - 1];
    return address - candidate.base < candidate.length ? &candidate : nullptr;
}

u64 Bus::read(u64 address, unsigned size, const Device*& touched) const {
    const Region* region = find(address);
    touched = nullptr;
    if (region == nullptr && size == 1) return 0xFF;
    if (region == nullptr || size > region->length - (address - region->base))
        return read_bytes(address, size);
    touched = region->device;
    return region->device->read(address - region->base + region->device_offset, size) & low_mask(8 * size);
}

void Bus::write(u64 address, unsigned size, u64 value, const Device*& touched) const {
    const Region* region = find(address);
    touched = nullptr;
    if (region == nullptr || size > region->length - (address - region->base)) {
        return write_bytes(address, size, value);
    }
    touched = region->device;
    region->device->write(address - region->base + region->device_offset, size, value & low_mask(8 * size));
}

// An address that wraps is past the limit as well.

u64 Bus::read_bytes(u64 address, unsigned size) const {
    u64 value = 0;
    for (unsigned i = 0; i < size; ++i) {
        const u64 here = address + i;
        const Region* owner = here >= address && here < limit_ ? find(here) : nullptr;
        const u64 byte = owner != nullptr
                             ? owner->device->read(here - owner->base + owner->device_offset, 1) & 0xFF
                             : 0xFF;
        value |= byte << (8 * i);
    }
    return value;
}

void Bus::write_bytes(u64 address, unsigned size, u64 value) const {
    for (unsigned i = 0; i < size; ++i) {
        const u64 here = address + i;
        const Region* owner = here >= address && here < limit_ ? find(here) : nullptr;
        if (owner == nullptr) continue;
        owner->device->write(here - owner->base + owner->device_offset, 1, (value >> (8 * i)) & 0xFF);
    }
}

}  // namespace bulkhead
