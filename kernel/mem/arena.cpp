#include "kernel/mem/arena.hpp"

namespace bulkhead {

Result<> Arena::add(const Chunk& chunk) {
    const auto base = reinterpret_cast<u64>(chunk.base);
    if (((base | chunk.physical.raw() | chunk.length) & (page_size - 1)) != 0 || chunk.length == 0 ||
        chunk.length > ~base || chunk.length > ~chunk.physical.raw()) {
        return fail("arena chunk {}+{:#x} is not made of whole pages", chunk.physical, chunk.length);
    }
    if (!chunks_.push_back(chunk)) return fail("an arena has at most {} chunks", max_chunks);
    return {};
}

Result<Arena::Pages> Arena::allocate_pages(u64 pages, u64 alignment) {
    if (alignment < page_size || pages > ~u64{0} / page_size) {
        return fail("{} pages aligned to {:#x} are beyond any arena", pages, alignment);
    }
    auto memory = allocate(pages * page_size, alignment);
    if (!memory) return std::unexpected(memory.error());
    const Chunk& chunk = chunks_[current_];
    return Pages{.base = *memory, .physical = chunk.physical + static_cast<u64>(*memory - chunk.base)};
}

Result<u8*> Arena::allocate(u64 bytes, u64 alignment) {
    if (!is_power_of_two(alignment) || alignment > large_page_size)
        return fail("no alignment to {:#x}", alignment);
    if (fault_ != nullptr && fault_->strikes()) return fail("out of arena memory, on purpose");
    for (; current_ < chunks_.size(); ++current_, offset_ = 0) {
        const Chunk& chunk = chunks_[current_];
        // The physical address is what has to be aligned; the virtual one follows, unless the window is odd.
        const u64 gap = (0 - (chunk.physical.raw() + offset_)) & (alignment - 1);
        if (gap <= chunk.length - offset_ && bytes <= chunk.length - offset_ - gap) {
            u8* memory = chunk.base + offset_ + gap;
            if ((reinterpret_cast<u64>(memory) & (alignment - 1)) != 0) {
                return fail("arena chunk {} is not mapped with an alignment of {:#x}", chunk.physical,
                            alignment);
            }
            offset_ += gap + bytes;
            std::memset(memory, 0, bytes);
            return memory;
        }
        if (current_ + 1 == chunks_.size()) break;  // a smaller request may still fit here
    }
    return fail("out of arena memory: {} bytes wanted, {} of {} left", bytes, free_bytes(), total_bytes());
}

std::optional<HostPhysical> Arena::physical_of(const void* address) const {
    const auto raw = reinterpret_cast<u64>(address);
    for (const Chunk& chunk : chunks_) {
        const auto base = reinterpret_cast<u64>(chunk.base);
        if (raw >= base && raw - base < chunk.length) return chunk.physical + (raw - base);
    }
    return std::nullopt;
}

u8* Arena::at(HostPhysical physical, u64 length) const {
    for (const Chunk& chunk : chunks_) {
        if (physical >= chunk.physical && range_within(physical - chunk.physical, length, chunk.length)) {
            return chunk.base + (physical - chunk.physical);
        }
    }
    return nullptr;
}

void Arena::release() {
    current_ = 0;
    offset_ = 0;
}

void Arena::clear() {
    release();
    chunks_.clear();
}

u64 Arena::total_bytes() const {
    u64 total = 0;
    for (const Chunk& chunk : chunks_) total += chunk.length;
    return total;
}

u64 Arena::used_bytes() const {
    u64 used = offset_;
    for (usize i = 0; i < current_ && i < chunks_.size(); ++i) used += chunks_[i].length;
    return used;
}

}  // namespace bulkhead
