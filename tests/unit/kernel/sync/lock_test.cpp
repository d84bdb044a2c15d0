#include "kernel/sync/lock.hpp"

#include <catch2/catch.hpp>
#include <thread>
#include <vector>

using namespace bulkhead;

namespace {

struct FakeInterrupts final : InterruptFlag {
    bool disable() override { return std::exchange(enabled, false); }
    void restore(bool value) override { enabled = value; }
    bool enabled = true;
};

}  // namespace

TEST_CASE("a lock lets one in at a time") {
    TicketLock lock;
    u64 count = 0;
    std::vector<std::thread> threads;
    for (int t = 0; t < 3; ++t) {
        threads.emplace_back([&] {
            for (int i = 0; i < 2000; ++i) {
                LockGuard guard(lock);
                ++count;
            }
        });
    }
    for (auto& thread : threads) thread.join();
    CHECK(count == 6000);
    CHECK_FALSE(lock.is_locked());
}

TEST_CASE("trying does not wait, and tickets survive wrapping") {
    TicketLock lock;
    for (int i = 0; i < 70000; ++i) {
        lock.lock();
        lock.unlock();
    }
    REQUIRE(lock.try_lock());
    CHECK(lock.is_locked());
    CHECK_FALSE(lock.try_lock());
    CHECK_FALSE(lock.try_lock_for(100));
    lock.unlock();
    CHECK(lock.try_lock_for(1));
}

TEST_CASE("interrupts are off while the lock is held, and afterwards as before") {
    TicketLock lock, inner;
    FakeInterrupts flag;
    {
        InterruptLockGuard guard(lock, flag);
        CHECK_FALSE(flag.enabled);
        { InterruptLockGuard second(inner, flag); }
        CHECK_FALSE(flag.enabled);
    }
    CHECK(flag.enabled);
}

TEST_CASE("a breach of the lock order is counted") {
    TicketLock vm, log;
    HeldLocks held;
    {
        RankedLockGuard a(vm, LockRank::vm, held);
        RankedLockGuard b(log, LockRank::log, held);
        CHECK_FALSE(held.none());
    }
    CHECK(held.none());
    CHECK(held.breaches() == 0);
    {
        RankedLockGuard b(log, LockRank::log, held);
        RankedLockGuard a(vm, LockRank::vm, held);
    }
    CHECK(held.breaches() == 1);
    CHECK(held.none());
    CHECK(held.acquire(LockRank::device));
    CHECK_FALSE(held.acquire(LockRank::device));  // twice the same rank
}
