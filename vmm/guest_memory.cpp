#include "vmm/guest_memory.hpp"

namespace bulkhead {

Result<> GuestMemory::add(const Range& range) {
    const u64 start = range.start.raw();
    if (range.length == 0 || range.host == nullptr) return fail("guest memory at {:#x} is empty", start);
    if (!range.start.is_aligned(page_size) || range.length % page_size != 0) {
        return fail("guest memory at {:#x}, {:#x} long, is not made of whole pages", start, range.length);
    }
    if (!range_within(start, range.length, ~u64{0})) {
        return fail("guest memory at {:#x}, {:#x} long, passes the end of the address space", start,
                    range.length);
    }
    for (const Range& other : ranges_) {
        if (start < other.start.raw() + other.length && other.start.raw() < start + range.length) {
            return fail("guest memory at {:#x}, {:#x} long, overlaps that at {:#x}", start, range.length,
                        other.start.raw());
        }
    }
    if (ranges_.size() < ranges_.capacity() && range.length > largest_.length) largest_ = range;
    if (!ranges_.push_back(range)) return fail("guest memory has too many ranges, {}", ranges_.size());
    for (usize i = ranges_.size() - 1; i > 0 && ranges_[i - 1].start > ranges_[i].start; --i) {
        const Range moved = ranges_[i - 1];
        ranges_[i - 1] = ranges_[i];
        ranges_[i] = moved;
    }
    return {};
}

const GuestMemory::Range* GuestMemory::search(GuestPhysical address) const {
    for (const Range& range : ranges_) {
        if (address - range.start < range.length) return &range;
    }
    return nullptr;
}

u8* GuestMemory::at(GuestPhysical address, u64 length) const {
    const Range* range = find(address);
    if (range == nullptr) return nullptr;
    const u64 offset = address - range->start;
    return length <= range->length - offset ? range->host + offset : nullptr;
}

namespace {

// Calls `copy(host, done, count)` for each contiguous piece of [address, address + length). Ranges end below
// 2^64, so the address never wraps.
template <class Find, class Copy>
bool for_each_piece(GuestPhysical address, u64 length, Find find, Copy copy) {
    u64 done = 0;
    while (done < length) {
        const GuestMemory::Range* range = find(address + done);
        if (range == nullptr) return false;
        const u64 offset = (address + done) - range->start;
        const u64 left_in_range = range->length - offset;
        const u64 count = length - done < left_in_range ? length - done : left_in_range;
        copy(range->host + offset, done, count);
        done += count;
    }
    return true;
}

}  // namespace

bool GuestMemory::read(GuestPhysical address, MutableBytes to) const {
    return for_each_piece(
        address, to.size(), [this](GuestPhysical a) { return find(a); },
        [to](const u8* host, u64 done, u64 count) { std::memcpy(to.data() + done, host, count); });
}

bool GuestMemory::write(GuestPhysical address, Bytes from) const {
    return for_each_piece(
        address, from.size(), [this](GuestPhysical a) { return find(a); },
        [from](u8* host, u64 done, u64 count) { std::memcpy(host, from.data() + done, count); });
}

bool GuestMemory::fill(GuestPhysical address, u64 length, u8 value) const {
    return for_each_piece(
        address, length, [this](GuestPhysical a) { return find(a); },
        [value](u8* host, u64, u64 count) { std::memset(host, value, count); });
}

u64 GuestMemory::total_bytes() const {
    u64 total = 0;
    for (const Range& range : ranges_) total += range.length;
    return total;
}

}  // namespace bulkhead
