// The last bytes that a VM's serial port has sent, and when each of its lines began. The VM's core writes;
// the console's core reads, with as many cursors as it likes. Neither ever waits for the other. New bytes
// overwrite the oldest: the reader notices what it missed and counts it.
#pragma once

#include <atomic>
#include <optional>
#include <span>

#include "kernel/base/bits.hpp"
#include "kernel/base/bytes.hpp"

namespace bulkhead {

// When the line that begins at a position was begun.
struct LineStamp {
    u64 position = 0;
    u64 time = 0;
};

class ConsoleRing {
  public:
    // `storage`, `stamps`: as long-lived as the ring; what is beyond a power of two is not used. Empty:
    // nothing is kept.
    explicit ConsoleRing(MutableBytes storage, std::span<LineStamp> stamps = {});
    ConsoleRing(const ConsoleRing&) = delete;
    ConsoleRing& operator=(const ConsoleRing&) = delete;

    // --- The writer: one core at a time ---
    // `time`: now, by the time-stamp counter. Lines end with a line feed.
    void write(Bytes bytes, u64 time = 0);

    // Bytes written since the beginning.
    [[nodiscard]] u64 total() const { return written_.load(std::memory_order_acquire); }
    [[nodiscard]] usize capacity() const { return storage_.size(); }

    // --- Readers: one core at a time ---
    // A place in the stream, for a reader of its own.
    struct Cursor {
        u64 position = 0;  // counts all bytes ever written
        u64 dropped = 0;   // bytes overwritten before they were read
    };
    // The oldest byte that is still there.
    [[nodiscard]] u64 oldest() const {
        const u64 end = total();
        return end < storage_.size() ? 0 : end - storage_.size();
    }
    // The bytes from the cursor on, at most out.size(); 0 when there are none. The cursor moves behind them.
    [[nodiscard]] usize read(Cursor& cursor, MutableBytes out) const;
    // When the line that begins at `position` was begun; nothing when that is forgotten, or when no line
    // begins there.
    [[nodiscard]] std::optional<u64> line_time(u64 position) const;

    // The ring's own cursor. After rewind(), read() starts with the oldest byte that is still there, read
    // before or not.
    void rewind() { own_ = {.position = oldest(), .dropped = 0}; }
    void rewind_to(u64 position) { own_ = {.position = position, .dropped = 0}; }
    [[nodiscard]] usize read(MutableBytes out) { return read(own_, out); }
    [[nodiscard]] bool has_news() const { return own_.position != total(); }
    // Bytes skipped since the last rewind().
    [[nodiscard]] u64 dropped() const { return own_.dropped; }

  private:
    [[nodiscard]] std::atomic_ref<u8> byte_at(u64 position) const {
        return std::atomic_ref<u8>(storage_[position & (storage_.size() - 1)]);
    }
    void stamp(u64 position, u64 time);
    [[nodiscard]] LineStamp stamp_at(u64 index) const;

    MutableBytes storage_;         // a power of two, or empty
    std::span<LineStamp> stamps_;  // a power of two, or empty
    // Positions count all bytes ever written. The writer announces in reserved_ how far it is going to write
    // before it touches the storage, so that a reader can tell afterwards which of the bytes it copied may be
    // new ones. Likewise for stamps.
    std::atomic<u64> reserved_ = 0;
    std::atomic<u64> written_ = 0;
    std::atomic<u64> stamps_reserved_ = 0;
    std::atomic<u64> stamps_written_ = 0;
    bool at_line_start_ = true;  // the writer's
    Cursor own_;
};

}  // namespace bulkhead
