#include "vmm/instruction_cache.hpp"

#include <cstring>

#include "kernel/base/bits.hpp"

namespace bulkhead {

// Intel SDM Vol. 3A, 4.5 (June 2023 edition): four-level paging.
void InstructionCache::store(const CodePlace& place, const Instruction& instruction, Bytes bytes,
                             const GuestMemory& memory, GuestPhysical hidden) {
    const unsigned length = instruction.length;
    const u64 in_page = place.rip % page_size;
    if (!place.long_mode || length == 0 || length > bytes.size() || in_page + 15 >= page_size) return;

    constexpr u64 address_mask = low_mask(52) & ~low_mask(12);
    constexpr u64 present = bit(0), accessed = bit(5), large = bit(7);
    Entry entry;
    unsigned depth = 0;
    entry.rip = place.rip;
    entry.cr3 = place.cr3;
    u64 table = place.cr3 & address_mask;
    for (unsigned level = levels; level-- > 0;) {
        const unsigned shift = 12 + 9 * level;
        if (table == hidden.raw()) return;
        const u8* at = memory.at(GuestPhysical(table + (place.rip >> shift) % 512 * 8), 8);
        if (at == nullptr) return;
        const u64* slot = reinterpret_cast<const u64*>(at);
        const u64 value = load_entry(slot);
        if ((value & (present | accessed)) != (present | accessed)) return;
        entry.path[depth] = slot;
        entry.values[depth++] = value;
        const bool last = level == 0 || (value & large) != 0;
        if (!last) {
            table = value & address_mask;
            continue;
        }
        if (level == 3) return;
        const u64 page =
            (value & address_mask & ~low_mask(shift)) | ((place.rip & low_mask(shift)) - in_page);
        if (page == hidden.raw()) return;
        entry.code = memory.at(GuestPhysical(page + in_page), Instruction::max_length);
        break;
    }
    if (entry.code == nullptr || std::memcmp(entry.code, bytes.data(), length) != 0) return;
    std::memcpy(entry.found.bytes, bytes.data(), length);
    entry.found.instruction = instruction;
    entry.mask = length >= 8 ? ~u64{0} : low_mask(8 * length);
    entry.first = load_bytes(entry.found.bytes) & entry.mask;
    if (length > 8) {
        entry.tail = entry.code + length - 8;
        entry.last = load_bytes(entry.found.bytes + length - 8);
    }
    Entry& kept = entries_[slot_of(place.rip)];
    kept = entry;
    for (; depth < levels; ++depth) kept.path[depth] = &kept.values[depth];
    if (length <= 8) kept.tail = reinterpret_cast<const u8*>(&kept.last);
}

void InstructionCache::clear() {
    for (Entry& entry : entries_) {
        entry = {};
        for (unsigned i = 0; i < levels; ++i) entry.path[i] = &entry.values[i];
        entry.code = entry.tail = reinterpret_cast<const u8*>(&entry.last);
        entry.first = 1;  // of no byte
    }
}

}  // namespace bulkhead
