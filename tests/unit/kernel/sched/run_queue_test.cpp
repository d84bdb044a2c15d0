#include "kernel/sched/run_queue.hpp"

#include <catch2/catch.hpp>
#include <deque>
#include <random>

using namespace bulkhead;

namespace {

constexpr u64 latency = 10'000, granularity = 1'000;

// Runs the queue as a core would, until `end`. Returns the time it was idle.
u64 run(RunQueue& queue, u64& now, u64 end) {
    u64 idle = 0;
    while (now < end) {
        const RunQueue::Choice choice = queue.pick(now);
        REQUIRE(choice.until > now);
        const u64 next = std::min(choice.until, end);
        if (choice.next == nullptr) idle += next - now;
        now = next;
    }
    (void)queue.pick(now);  // charges
    return idle;
}

}  // namespace

TEST_CASE("with nothing to run there is no choice and no timer") {
    RunQueue queue(latency, granularity);
    const auto choice = queue.pick(5);
    CHECK(choice.next == nullptr);
    CHECK(choice.until == RunQueue::forever);
}

TEST_CASE("the only one that can run needs no timer") {
    RunQueue queue(latency, granularity);
    Runnable one(1), other(2);
    REQUIRE(queue.add(one, 0));
    REQUIRE(queue.add(other, 0));
    CHECK(queue.wake(one, 0));
    const auto choice = queue.pick(0);
    CHECK(choice.next == &one);
    CHECK(choice.until == RunQueue::forever);
    CHECK(queue.pick(123'456).next == &one);
    CHECK(one.run_time() == 123'456);
    CHECK(queue.wake(other, 200'000));  // it is entitled to run at once
    const auto second = queue.pick(200'000);
    CHECK(second.next == &other);
    CHECK(second.until == 205'000);
}

TEST_CASE("two of equal weight take turns in slices of half the latency") {
    RunQueue queue(latency, granularity);
    Runnable a(1), b(2);
    for (Runnable* r : {&a, &b}) {
        REQUIRE(queue.add(*r, 0));
        queue.wake(*r, 0);
    }
    u64 now = 0;
    const Runnable* previous = nullptr;
    for (int i = 0; i < 20; ++i) {
        const auto choice = queue.pick(now);
        CHECK(choice.next != previous);
        CHECK(choice.until == now + latency / 2);
        previous = choice.next;
        now = choice.until;
    }
}

TEST_CASE("run time is shared by weight, and nobody waits for long, in thousands of random sets") {
    std::mt19937_64 random(11);
    for (int set = 0; set < 2000; ++set) {
        RunQueue queue(latency, granularity);
        std::deque<Runnable> all;
        u64 weights = 0;
        const usize count = 1 + random() % 8;
        for (usize i = 0; i < count; ++i) {
            all.emplace_back(static_cast<u32>(i), static_cast<u32>(20 + random() % 500));
            weights += all.back().weight();
            REQUIRE(queue.add(all.back(), 0));
            queue.wake(all.back(), 0);
        }
        u64 now = 0;
        const u64 span = 200 * latency;
        CHECK(run(queue, now, span) == 0);  // work-conserving
        u64 total = 0;
        for (const Runnable& r : all) {
            total += r.run_time();
            const u64 fair = span * r.weight() / weights;
            // Off by no more than some slices.
            const u64 off = r.run_time() > fair ? r.run_time() - fair : fair - r.run_time();
            INFO("set " << set << " runnable " << r.id() << " of " << count << " weight " << r.weight());
            if (off > 3 * latency) FAIL("ran " << r.run_time() << " instead of " << fair);
            if (r.run_time() == 0) FAIL("starved");
        }
        REQUIRE(total == span);
    }
}

TEST_CASE("sleepers wake to a prompt turn but do not hoard, under random sleeping and waking") {
    std::mt19937_64 random(5);
    for (int set = 0; set < 300; ++set) {
        RunQueue queue(latency, granularity);
        std::deque<Runnable> all;
        for (u32 i = 0; i < 5; ++i) {
            all.emplace_back(i, static_cast<u32>(100 + random() % 100));
            REQUIRE(queue.add(all.back(), 0));
        }
        queue.wake(all[0], 0);  // this one never sleeps
        u64 now = 0, idle = 0;
        std::vector<u64> waiting_since(5, 0);
        for (int step = 0; step < 500; ++step) {
            idle += run(queue, now, now + 1 + random() % latency);
            Runnable& r = all[1 + random() % 4];
            if (r.state() == Runnable::State::runnable) {
                queue.block(r, now);
            } else {
                queue.wake(r, now);
            }
        }
        CHECK(idle == 0);
        u64 total = 0;
        for (const Runnable& r : all) total += r.run_time();
        CHECK(total == now);
        // The one that never sleeps has at least its share among all, less some slices.
        u64 weights = 0;
        for (const Runnable& r : all) weights += r.weight();
        CHECK(all[0].run_time() + 3 * latency + 500 * granularity >= now * all[0].weight() / weights);
        // A long sleep is no licence to run for as long.
        for (Runnable& r : all) queue.wake(r, now);
        const u64 before = all[0].run_time();
        run(queue, now, now + 20 * latency);
        CHECK(all[0].run_time() - before > latency);
    }
}

TEST_CASE(
    "a cap holds over every period, with one or many contenders, and the idle core knows when to look "
    "again") {
    RunQueue queue(latency, granularity);
    Runnable capped(1, 100, Runnable::Cap{.quota = 20'000, .period = 100'000});
    REQUIRE(queue.add(capped, 0));
    queue.wake(capped, 0);
    const auto first = queue.pick(0);
    CHECK(first.until == 20'000);
    const auto second = queue.pick(20'000);
    CHECK(second.next == nullptr);
    CHECK(second.until == 100'000);
    u64 now = 20'000;
    CHECK(run(queue, now, 1'000'000) == 800'000);
    CHECK(capped.run_time() == 200'000);

    Runnable free(2);
    REQUIRE(queue.add(free, now));
    queue.wake(free, now);
    CHECK(run(queue, now, 2'000'000) == 0);
    CHECK(capped.run_time() == 400'000);
    CHECK(free.run_time() == 800'000);
}

TEST_CASE("what a runnable overran its quota by is missing in the next period") {
    RunQueue queue(latency, granularity);
    Runnable capped(1, 100, Runnable::Cap{.quota = 10'000, .period = 100'000});
    REQUIRE(queue.add(capped, 0));
    queue.wake(capped, 0);
    CHECK(queue.pick(0).until == 10'000);
    CHECK(queue.pick(14'000).next == nullptr);  // the timer came late
    const auto next = queue.pick(100'000);
    CHECK(next.next == &capped);
    CHECK(next.until == 106'000);
    // After a gap of many periods it has one quota, not many.
    queue.block(capped, 103'000);
    queue.wake(capped, 5'000'000);
    CHECK(queue.pick(5'000'000).until == 5'010'000);
}

TEST_CASE("random caps and weights: caps hold, nobody starves, and no time is lost while someone may run") {
    std::mt19937_64 random(23);
    for (int set = 0; set < 1000; ++set) {
        RunQueue queue(latency, granularity);
        std::deque<Runnable> all;
        const usize count = 1 + random() % 6;
        u64 quotas = 0;
        bool all_capped = true;
        for (usize i = 0; i < count; ++i) {
            std::optional<Runnable::Cap> cap;
            if (random() % 2 == 0)
                cap = Runnable::Cap{.quota = 1'000 * (1 + random() % 99), .period = 100'000};
            all_capped = all_capped && cap;
            if (cap) quotas += cap->quota;
            all.emplace_back(static_cast<u32>(i), static_cast<u32>(1 + random() % 1000), cap);
            REQUIRE(queue.add(all.back(), 0));
            queue.wake(all.back(), 0);
        }
        u64 now = 0;
        const u64 idle = run(queue, now, 4'000'000);
        u64 total = 0;
        for (const Runnable& r : all) {
            total += r.run_time();
            if (r.run_time() == 0) FAIL("set " << set << ": starved");
            if (r.cap() && r.run_time() > 40 * r.cap()->quota) FAIL("set " << set << ": over its cap");
        }
        REQUIRE(total + idle == now);
        if (!all_capped) REQUIRE(idle == 0);
        if (all_capped && quotas >= 100'000) REQUIRE(idle <= now / 2);
        if (all_capped && quotas <= 100'000) REQUIRE(idle + 40 * quotas == now);
    }
}

TEST_CASE("adding twice, a full queue, removing a stranger and removing the current one") {
    RunQueue queue(latency, granularity), other(latency, granularity);
    std::deque<Runnable> all;
    for (u32 i = 0; i < RunQueue::max_runnables; ++i) {
        all.emplace_back(i);
        REQUIRE(queue.add(all.back(), 0));
    }
    Runnable extra(99);
    CHECK_FALSE(queue.add(extra, 0));
    CHECK_FALSE(queue.add(all[0], 0));
    CHECK_FALSE(other.add(all[0], 0));
    queue.remove(extra, 0);
    CHECK_FALSE(queue.wake(extra, 0));
    CHECK(queue.size() == RunQueue::max_runnables);
    queue.wake(all[3], 0);
    CHECK(queue.pick(0).next == &all[3]);
    queue.remove(all[3], 500);
    CHECK(queue.current() == nullptr);
    CHECK(all[3].run_time() == 500);
    CHECK(queue.runnable_count() == 0);
    CHECK(queue.pick(600).next == nullptr);
    CHECK(other.add(all[3], 0));
    queue.block(all[5], 0);  // it is blocked already
    CHECK(queue.runnable_count() == 0);
}

TEST_CASE("a clock that stands still or steps back charges nothing") {
    RunQueue queue(latency, granularity);
    Runnable a(1);
    REQUIRE(queue.add(a, 1000));
    queue.wake(a, 1000);
    (void)queue.pick(1000);
    (void)queue.pick(900);
    (void)queue.pick(1000);
    CHECK(a.run_time() == 0);
    (void)queue.pick(1001);
    CHECK(a.run_time() == 1);
}

TEST_CASE("weights are kept within bounds, and caps that cap nothing are none") {
    CHECK(Runnable(1, 0).weight() == 1);
    CHECK(Runnable(1, 1'000'000).weight() == 10000);
    CHECK_FALSE(Runnable(1, 100, Runnable::Cap{0, 100}).cap());
    CHECK_FALSE(Runnable(1, 100, Runnable::Cap{100, 100}).cap());
    CHECK_FALSE(Runnable(1, 100, Runnable::Cap{100, 0}).cap());
}
