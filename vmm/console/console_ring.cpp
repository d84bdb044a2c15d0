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

ConsoleRing::ConsoleRing(MutableBytes storage, std::span<LineStamp> stamps)
    : storage_(storage.first(power_of_two_below(storage.size()))),
      stamps_(stamps.first(power_of_two_below(stamps.size()))) {}

void ConsoleRing::write(Bytes bytes, u64 time) {
    const u64 start = written_.load(std::memory_order_relaxed);
    const u64 end = start + bytes.size();
    if (!storage_.empty()) {
        reserved_.store(end, std::memory_order_relaxed);
        // The announcement is seen no later than any byte written after it.
        std::atomic_thread_fence(std::memory_order_release);
        const usize kept = std::min(bytes.size(), storage_.size());
        if (kept < bytes.size()) at_line_start_ = bytes[bytes.size() - kept - 1] == '\n';
        for (u64 i = end - kept; i != end; ++i) {
            const u8 byte = bytes[i - start];
            byte_at(i).store(byte, std::memory_order_relaxed);
            // Before the bytes are announced: a line that can be read has its time.
            if (at_line_start_) stamp(i, time);
            at_line_start_ = byte == '\n';
        }
    }
    written_.store(end, std::memory_order_release);
}

void ConsoleRing::stamp(u64 position, u64 time) {
    if (stamps_.empty()) return;
    const u64 index = stamps_written_.load(std::memory_order_relaxed);
    stamps_reserved_.store(index + 1, std::memory_order_relaxed);
    std::atomic_thread_fence(std::memory_order_release);
    LineStamp& entry = stamps_[index & (stamps_.size() - 1)];
    std::atomic_ref<u64>(entry.position).store(position, std::memory_order_relaxed);
    std::atomic_ref<u64>(entry.time).store(time, std::memory_order_relaxed);
    stamps_written_.store(index + 1, std::memory_order_release);
}

LineStamp ConsoleRing::stamp_at(u64 index) const {
    LineStamp& entry = stamps_[index & (stamps_.size() - 1)];
    return {.position = std::atomic_ref<u64>(entry.position).load(std::memory_order_relaxed),
            .time = std::atomic_ref<u64>(entry.time).load(std::memory_order_relaxed)};
}

// Stamps are in the order of their positions. What the writer overwrites meanwhile may lead the search
// astray, but is not believed in the end.
std::optional<u64> ConsoleRing::line_time(u64 position) const {
    const u64 end = stamps_written_.load(std::memory_order_acquire);
    u64 low = end < stamps_.size() ? 0 : end - stamps_.size();
    u64 high = end;
    while (low < high) {
        const u64 middle = low + (high - low) / 2;
        if (stamp_at(middle).position < position) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    if (low == end) return std::nullopt;
    const LineStamp found = stamp_at(low);
    std::atomic_thread_fence(std::memory_order_acquire);
    if (stamps_reserved_.load(std::memory_order_relaxed) > low + stamps_.size()) return std::nullopt;
    if (found.position != position) return std::nullopt;
    return found.time;
}

usize ConsoleRing::read(Cursor& cursor, MutableBytes out) const {
    const u64 end = total();
    const u64 size = storage_.size();
    // A cursor of an earlier life of the VM may be ahead.
    if (cursor.position > end) cursor.position = oldest();
    if (end - cursor.position > size) {
        cursor.dropped += end - size - cursor.position;
        cursor.position = end - size;
    }
    usize count = std::min<u64>(end - cursor.position, out.size());
    for (usize i = 0; i < count; ++i) out[i] = byte_at(cursor.position + i).load(std::memory_order_relaxed);
    // Whatever the writer may have overwritten meanwhile is not what stood there: forget it.
    std::atomic_thread_fence(std::memory_order_acquire);
    const u64 reserved = reserved_.load(std::memory_order_relaxed);
    const u64 oldest_kept = reserved > size ? reserved - size : 0;
    if (oldest_kept > cursor.position) {
        const usize lost = std::min<u64>(oldest_kept - cursor.position, count);
        std::copy(out.begin() + lost, out.begin() + count, out.begin());
        cursor.dropped += lost;
        cursor.position += lost;
        count -= lost;
    }
    cursor.position += count;
    return count;
}

}  // namespace bulkhead
