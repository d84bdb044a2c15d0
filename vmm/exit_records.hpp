// The last exits of a vCPU, while the operator watches it: what the guest was at.
#pragma once

#include <algorithm>
#include <span>

#include "kernel/sync/lock.hpp"
#include "vmm/exit.hpp"

namespace bulkhead {

struct ExitRecord {
    unsigned vcpu = 0;
    ExitReason reason = ExitReason::spurious;
    u64 code = 0;     // the vendor's
    u64 address = 0;  // linear, of the instruction that exited or would have been next
    u8 size = 0;      // of `bytes`; 0: they cannot be read
    u8 bytes[15] = {};
};

// Its lock is taken only while somebody watches.
class ExitRecords {
  public:
    static constexpr usize capacity = 8;

    void clear() {
        const LockGuard guard(lock_);
        count_ = 0;
    }
    void add(const ExitRecord& record) {
        const LockGuard guard(lock_);
        records_[count_++ % capacity] = record;
    }
    // The latest, the last one first. Returns how many. Any core.
    usize copy(std::span<ExitRecord> out) const {
        const LockGuard guard(lock_);
        const usize count = std::min({out.size(), capacity, count_});
        for (usize i = 0; i < count; ++i) out[i] = records_[(count_ - 1 - i) % capacity];
        return count;
    }

  private:
    mutable TicketLock lock_;
    usize count_ = 0;
    ExitRecord records_[capacity];
};

}  // namespace bulkhead
