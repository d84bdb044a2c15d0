// Ticket spinlocks, and guards that hold them.
//
// Lock order: every lock has a rank, and a core takes locks in ascending rank only. The rule is checked where
// the core's HeldLocks are passed to the guard: one bit test.
#pragma once

#include <atomic>

#include "kernel/base/types.hpp"

namespace bulkhead {

// Fair: cores get the lock in the order in which they asked. At most 65535 may wait.
class TicketLock {
  public:
    constexpr TicketLock() = default;
    TicketLock(const TicketLock&) = delete;
    TicketLock& operator=(const TicketLock&) = delete;

    void lock() {
        const u16 ticket = next_.fetch_add(1, std::memory_order_relaxed);
        while (serving_.load(std::memory_order_acquire) != ticket) __builtin_ia32_pause();
    }
    [[nodiscard]] bool try_lock() {
        u16 ticket = serving_.load(std::memory_order_acquire);
        return next_.compare_exchange_strong(ticket, static_cast<u16>(ticket + 1), std::memory_order_acquire,
                                             std::memory_order_relaxed);
    }
    // Tries for a bounded time: for NMI and panic paths, which may have interrupted the holder.
    [[nodiscard]] bool try_lock_for(u32 attempts) {
        for (u32 i = 0; i < attempts; ++i) {
            if (try_lock()) return true;
            __builtin_ia32_pause();
        }
        return false;
    }
    // By the holder only.
    void unlock() {
        serving_.store(static_cast<u16>(serving_.load(std::memory_order_relaxed) + 1),
                       std::memory_order_release);
    }
    [[nodiscard]] bool is_locked() const {
        return serving_.load(std::memory_order_relaxed) != next_.load(std::memory_order_relaxed);
    }

  private:
    std::atomic<u16> next_{0};
    std::atomic<u16> serving_{0};
};

// This core's interrupt flag. On hardware RFLAGS.IF; in tests a variable.
class InterruptFlag {
  public:
    virtual bool disable() = 0;  // returns whether interrupts were enabled
    virtual void restore(bool enabled) = 0;

  protected:
    ~InterruptFlag() = default;
};

enum class LockRank : u8 { memory, vm_list, vm, device, scheduler, channel, console, log, count };

// The ranks one core holds. Part of the core's private data.
class HeldLocks {
  public:
    // False on a breach of the order: `rank` is not above every rank held. It is recorded all the same.
    [[nodiscard]] bool acquire(LockRank rank) {
        const u32 bit = u32{1} << static_cast<unsigned>(rank);
        const bool in_order = held_ < bit;
        if (!in_order) ++breaches_;
        held_ |= bit;
        return in_order;
    }
    void release(LockRank rank) { held_ &= ~(u32{1} << static_cast<unsigned>(rank)); }
    [[nodiscard]] bool none() const { return held_ == 0; }
    [[nodiscard]] u32 breaches() const { return breaches_; }

  private:
    u32 held_ = 0;
    u32 breaches_ = 0;
};

class [[nodiscard]] LockGuard {
  public:
    explicit LockGuard(TicketLock& lock) : lock_(lock) { lock_.lock(); }
    ~LockGuard() { lock_.unlock(); }
    LockGuard(const LockGuard&) = delete;
    LockGuard& operator=(const LockGuard&) = delete;

  private:
    TicketLock& lock_;
};

// With interrupts off for as long: for locks that interrupt handlers take too.
class [[nodiscard]] InterruptLockGuard {
  public:
    InterruptLockGuard(TicketLock& lock, InterruptFlag& flag)
        : lock_(lock), flag_(flag), enabled_(flag.disable()) {
        lock_.lock();
    }
    ~InterruptLockGuard() {
        lock_.unlock();
        flag_.restore(enabled_);
    }
    InterruptLockGuard(const InterruptLockGuard&) = delete;
    InterruptLockGuard& operator=(const InterruptLockGuard&) = delete;

  private:
    TicketLock& lock_;
    InterruptFlag& flag_;
    bool enabled_;
};

// Checks the order. A breach is counted in HeldLocks, where the watchdog and the tests look.
class [[nodiscard]] RankedLockGuard {
  public:
    RankedLockGuard(TicketLock& lock, LockRank rank, HeldLocks& held)
        : lock_(lock), rank_(rank), held_(held) {
        (void)held_.acquire(rank_);
        lock_.lock();
    }
    ~RankedLockGuard() {
        lock_.unlock();
        held_.release(rank_);
    }
    RankedLockGuard(const RankedLockGuard&) = delete;
    RankedLockGuard& operator=(const RankedLockGuard&) = delete;

  private:
    TicketLock& lock_;
    LockRank rank_;
    HeldLocks& held_;
};

}  // namespace bulkhead
