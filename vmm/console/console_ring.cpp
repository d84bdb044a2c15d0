#include "vmm/console/console_ring.hpp"

#include <algorithm>

namespace bulkhead {
namespace {

usize power_of_two_below(usize size) {
    if (size == 0) return 0;
    while (!is_power_of_two(size)) size &= size - 1;
    return size;
}

}  // namespace

ConsoleRing::ConsoleRing(MutableBytes storage)
    : storage_(storage.first(power_of_two_below(storage.size()))) {}

void ConsoleRing::write(Bytes bytes) {
    const u64 start = written_.load(std::memory_order_relaxed);
    const u64 end = start + bytes.size();
    if (!storage_.empty()) {
        reserved_.store(end, std::memory_order_relaxed);
        // The announcement is seen no later than any byte written after it.
        std::atomic_thread_fence(std::memory_order_release);
        const usize kept = std::min(bytes.size(), storage_.size());
        for (u64 i = end - kept; i != end; ++i) {
            byte_at(i).store(bytes[i - start], std::memory_order_relaxed);
        }
    }
    written_.store(end, std::memory_order_release);
}

void ConsoleRing::rewind() {
    const u64 end = total();
    position_ = end - std::min<u64>(end, storage_.size());
    dropped_ = 0;
}

usize ConsoleRing::read(MutableBytes out) {
    const u64 end = total();
    const u64 size = storage_.size();
    if (end - position_ > size) {
        dropped_ += end - size - position_;
        position_ = end - size;
    }
    usize count = std::min<u64>(end - position_, out.size());
    for (usize i = 0; i < count; ++i) out[i] = byte_at(position_ + i).load(std::memory_order_relaxed);
    // Whatever the writer may have overwritten meanwhile is not what stood there: forget it.
    std::atomic_thread_fence(std::memory_order_acquire);
    const u64 reserved = reserved_.load(std::memory_order_relaxed);
    const u64 oldest = reserved > size ? reserved - size : 0;
    if (oldest > position_) {
        const usize lost = std::min<u64>(oldest - position_, count);
        std::copy(out.begin() + lost, out.begin() + count, out.begin());
        dropped_ += lost;
        position_ += lost;
        count -= lost;
    }
    position_ += count;
    return count;
}

}  // namespace bulkhead
