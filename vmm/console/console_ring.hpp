// The last bytes that a VM's serial port has sent. The VM's core writes, the console's core reads; neither
// ever waits for the other. New bytes overwrite the oldest: the reader notices what it missed and counts it.
#pragma once

#include <atomic>

#include "kernel/base/bits.hpp"
#include "kernel/base/bytes.hpp"

namespace bulkhead {

class ConsoleRing {
  public:
    // `storage`: as long-lived as the ring; what is beyond a power of two is not used. Empty: nothing is
    // kept.
    explicit ConsoleRing(MutableBytes storage);
    ConsoleRing(const ConsoleRing&) = delete;
    ConsoleRing& operator=(const ConsoleRing&) = delete;

    // --- The writer: one core at a time ---
    void write(Bytes bytes);

    // Bytes written since the beginning.
    [[nodiscard]] u64 total() const { return written_.load(std::memory_order_acquire); }
    [[nodiscard]] usize capacity() const { return storage_.size(); }

    // --- The reader: one core at a time ---
    // The next read() starts with the oldest byte that is still there, read before or not.
    void rewind();
    // The next bytes, at most out.size(); 0 when there are none. Bytes overwritten before they were read are
    // skipped and counted.
    [[nodiscard]] usize read(MutableBytes out);
    [[nodiscard]] bool has_news() const { return position_ != total(); }
    // Bytes skipped since the last rewind().
    [[nodiscard]] u64 dropped() const { return dropped_; }

  private:
    [[nodiscard]] std::atomic_ref<u8> byte_at(u64 position) const {
        return std::atomic_ref<u8>(storage_[position & (storage_.size() - 1)]);
    }

    MutableBytes storage_;  // a power of two, or empty
    // Positions count all bytes ever written. The writer announces in reserved_ how far it is going to write
    // before it touches the storage, so that a reader can tell afterwards which of the bytes it copied may be
    // new ones.
    std::atomic<u64> reserved_ = 0;
    std::atomic<u64> written_ = 0;
    u64 position_ = 0;
    u64 dropped_ = 0;
};

}  // namespace bulkhead
