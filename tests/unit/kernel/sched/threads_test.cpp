// Bandwidth, Gang and Stopwatch under real concurrency.
#include <atomic>
#include <catch2/catch.hpp>
#include <deque>
#include <random>
#include <thread>
#include <vector>

#include "kernel/sched/run_queue.hpp"

using namespace bulkhead;

namespace {

constexpr usize threads = 4;

template <class Body>
void in_threads(Body body) {
    std::vector<std::thread> all;
    for (usize i = 0; i < threads; ++i) all.emplace_back([&body, i] { body(i); });
    for (std::thread& thread : all) thread.join();
}

// The clock waits for a thread that the host does not run: whoever is ahead of it does.
void wait_for_others(const std::atomic<u64> (&reached)[threads], const std::atomic<u64>& clock, usize index,
                     u64 span) {
    for (const std::atomic<u64>& other : reached) {
        while (other.load() + span < clock.load() && other.load() < reached[index].load())
            std::this_thread::yield();
    }
}

}  // namespace

TEST_CASE("cores that take, return and overrun at once use no more than the quotas, and no less") {
    constexpr u64 quota = 4'000, period = 10'000, granularity = 400;
    for (int round = 0; round < 5; ++round) {
        Bandwidth group;
        REQUIRE(group.set(quota, period));
        for (usize i = 0; i < threads; ++i) group.join();
        std::atomic<u64> clock{0}, ran{0};
        std::atomic<u64> reached[threads] = {};
        constexpr u64 end = 200 * period;
        in_threads([&](usize index) {
            std::mt19937_64 random(index);
            for (;;) {
                wait_for_others(reached, clock, index, period);
                const u64 now = clock.fetch_add(random() % 20);
                reached[index] = now < end ? now : ~u64{0} / 2;
                if (now >= end) return;
                if (group.throttled_until(now) != 0) continue;
                auto part = group.take(now, 1 + random() % 2'000, granularity);
                u64 used = part.ticks;
                if (random() % 4 == 0) used = random() % part.ticks;
                part.ticks -= used;
                group.give_back(part);
                if (random() % 4 == 0) {
                    const u64 more = random() % 100;
                    used += more;
                    group.charge(clock.load(), more);
                }
                ran.fetch_add(used);
            }
        });
        // Parts of a period that is over by the time they are returned are lost; few here.
        const u64 wanted = 200 * quota;
        CHECK(ran.load() <= wanted + quota + threads * (granularity / 4 + 1 + 100));
        CHECK(ran.load() > wanted * 9 / 10);
    }
}

TEST_CASE("a limit that changes while cores use it is never a wrong time, and counts in the end") {
    Bandwidth group;
    for (usize i = 0; i < threads; ++i) group.join();
    std::atomic<u64> clock{0};
    std::atomic<bool> bad{false};
    in_threads([&](usize index) {
        std::mt19937_64 random(index);
        for (int i = 0; i < 50'000; ++i) {
            const u64 now = clock.fetch_add(random() % 50);
            if (index == 0 && i % 10 == 0) {
                const bool is_set = group.set(1 + random() % 10'000, 1 + random() % 10'000).has_value();
                if (!is_set) bad = true;
                if (random() % 8 == 0) group.set_unlimited();
            }
            const u64 until = group.throttled_until(now);
            if (until != 0 && (until <= now || until > now + 10'000)) bad = true;
            auto part = group.take(now, 1 + random() % 1'000, 100);
            if (part.ticks == 0 || part.ticks > 1'000) bad = true;
            if (random() % 2 == 0) group.give_back(part);
            group.charge(now, random() % 100);
        }
    });
    CHECK_FALSE(bad.load());
    REQUIRE(group.set(1'000, 10'000));
    CHECK(group.take(clock.load() + 20'000, 5'000, 100).ticks <= 1'000);
}

TEST_CASE("calls are seen whole or not at all, one at a time, and each is counted once") {
    Gang gang;
    std::atomic<u64> clock{1}, made{0};
    std::atomic<bool> bad{false};
    in_threads([&](usize index) {
        std::mt19937_64 random(index);
        u64 followed = 0;
        for (int i = 0; i < 100'000; ++i) {
            const u64 now = clock.fetch_add(1 + random() % 5);
            gang.set_contended(static_cast<u32>(index), random() % 4 != 0);
            if (const auto call = gang.call_at(now)) {
                // How long a call is follows from its start, so that parts of two calls would show.
                if (call->until != call->start + 50 + call->start % 97 || call->generation == 0) bad = true;
                if (call->generation < followed) bad = true;
                if (call->generation > followed) {
                    followed = call->generation;
                    gang.follow(*call, now);
                }
            } else if (const auto made_call = gang.call(now, now + 50 + now % 97)) {
                if (made_call->generation <= followed) bad = true;
                followed = made_call->generation;
                made.fetch_add(1);
            }
        }
    });
    CHECK_FALSE(bad.load());
    CHECK(made.load() > 1'000);
    CHECK(gang.calls() == made.load());
    const auto skew = gang.skew();
    CHECK(skew.count > 0);
    CHECK(skew.count < made.load());
    CHECK(skew.max >= skew.last);
    CHECK(skew.sum >= skew.max);
    CHECK(skew.sum <= skew.max * skew.count);
}

TEST_CASE("queues on their own threads share a limit and a gang, while another core reads and changes it") {
    constexpr u64 latency = 20'000, granularity = 1'000;
    Bandwidth limit;
    Gang gang;
    REQUIRE(limit.set(20'000, 100'000));
    std::deque<RunQueue> queues;
    std::deque<Runnable> members, others;
    for (u32 i = 0; i < threads; ++i) {
        queues.emplace_back(latency, granularity, i);
        members.emplace_back(i, 100, &limit, &gang);
        others.emplace_back(threads + i);
    }
    std::atomic<u64> clock{0}, kicked{0};
    std::atomic<u64> reached[threads] = {};
    std::atomic<usize> finished{0};
    constexpr u64 end = 3'000'000;
    std::thread reader([&] {
        u64 last = 0;
        while (finished.load() != threads) {
            const u64 now = clock.load();
            u64 sum = 0;
            for (const Runnable& member : members) sum += member.run_time(now);
            for (const RunQueue& queue : queues) sum += queue.busy_ticks(now) + queue.idle_ticks(now);
            last = std::max(last, sum);
            gang.enable(false);
            gang.enable(true);
            std::this_thread::yield();
        }
        CHECK(last > 0);
    });
    in_threads([&](usize index) {
        std::mt19937_64 random(index);
        RunQueue& queue = queues[index];
        if (!queue.add(members[index], 0) || !queue.add(others[index], 0)) return;
        queue.wake(members[index], 0);
        queue.wake(others[index], 0);
        u64 until = 0;
        for (;;) {
            wait_for_others(reached, clock, index, granularity);
            const u64 now = clock.fetch_add(random() % 30);
            reached[index] = now < end ? now : ~u64{0} / 2;
            if (now >= end) break;
            const u64 bit = u64{1} << index;
            if (random() % 512 == 0) {
                queue.block(members[index], now);
                until = 0;
            }
            if (random() % 128 == 0 && queue.wake(members[index], now)) until = 0;
            if (now < until && (kicked.load() & bit) == 0) continue;
            kicked.fetch_and(~bit);
            const auto choice = queue.pick(now);
            until = choice.until;
            kicked.fetch_or(choice.kick);
        }
        (void)queue.pick(end + index);
        finished.fetch_add(1);
    });
    reader.join();
    u64 sum = 0;
    for (const Runnable& member : members) sum += member.run_time(end + threads);
    CHECK(sum <= (end / 100'000 + 1) * 20'000 + threads * 2 * granularity);
    CHECK(sum > end / 100'000 * 20'000 * 8 / 10);
    CHECK(gang.calls() > 0);
}
