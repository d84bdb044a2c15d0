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
    CHECK(one.run_time(123'456) == 123'456);
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
            total += r.run_time(now);
            const u64 fair = span * r.weight() / weights;
            // Off by no more than some slices.
            const u64 off = r.run_time(now) > fair ? r.run_time(now) - fair : fair - r.run_time(now);
            INFO("set " << set << " runnable " << r.id() << " of " << count << " weight " << r.weight());
            if (off > 3 * latency) FAIL("ran " << r.run_time(now) << " instead of " << fair);
            if (r.run_time(now) == 0) FAIL("starved");
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
        for (const Runnable& r : all) total += r.run_time(now);
        CHECK(total == now);
        // The one that never sleeps has at least its share among all, less some slices.
        u64 weights = 0;
        for (const Runnable& r : all) weights += r.weight();
        CHECK(all[0].run_time(now) + 3 * latency + 500 * granularity >= now * all[0].weight() / weights);
        // A long sleep is no licence to run for as long.
        for (Runnable& r : all) queue.wake(r, now);
        const u64 before = all[0].run_time(now);
        run(queue, now, now + 20 * latency);
        CHECK(all[0].run_time(now) - before > latency);
    }
}

TEST_CASE(
    "a limit holds over every period, with one or many contenders, and the idle core knows when to look "
    "again") {
    RunQueue queue(latency, granularity);
    Bandwidth fifth;
    REQUIRE(fifth.set(20'000, 100'000));
    Runnable capped(1, 100, &fifth);
    REQUIRE(queue.add(capped, 0));
    queue.wake(capped, 0);
    const auto first = queue.pick(0);
    CHECK(first.until == 20'000);
    const auto second = queue.pick(20'000);
    CHECK(second.next == nullptr);
    CHECK(second.until == 100'000);
    u64 now = 20'000;
    CHECK(run(queue, now, 1'000'000) == 800'000);
    CHECK(capped.run_time(now) == 200'000);
    CHECK(queue.busy_ticks(now) == 200'000);
    CHECK(queue.idle_ticks(now) == 800'000);
    CHECK(fifth.throttled_count() == 10);

    Runnable free(2);
    REQUIRE(queue.add(free, now));
    queue.wake(free, now);
    CHECK(run(queue, now, 2'000'000) == 0);
    CHECK(capped.run_time(now) == 400'000);
    CHECK(free.run_time(now) == 800'000);
}

TEST_CASE("what a runnable overran its part by is missing in the next period") {
    RunQueue queue(latency, granularity);
    Bandwidth tenth;
    REQUIRE(tenth.set(10'000, 100'000));
    Runnable capped(1, 100, &tenth);
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

TEST_CASE(
    "random limits and weights: limits hold, nobody starves, and no time is lost while someone may run") {
    std::mt19937_64 random(23);
    for (int set = 0; set < 1000; ++set) {
        RunQueue queue(latency, granularity);
        std::deque<Bandwidth> limits;
        std::deque<Runnable> all;
        const usize count = 1 + random() % 6;
        u64 quotas = 0;
        bool all_capped = true;
        for (usize i = 0; i < count; ++i) {
            Bandwidth& limit = limits.emplace_back();
            if (random() % 2 == 0) REQUIRE(limit.set(1'000 * (1 + random() % 99), 100'000));
            all_capped = all_capped && limit.quota() != 0;
            quotas += limit.quota();
            all.emplace_back(static_cast<u32>(i), static_cast<u32>(1 + random() % 1000), &limit);
            REQUIRE(queue.add(all.back(), 0));
            queue.wake(all.back(), 0);
        }
        u64 now = 0;
        const u64 idle = run(queue, now, 4'000'000);
        u64 total = 0;
        for (const Runnable& r : all) {
            const u64 ran = r.run_time(now), quota = r.bandwidth()->quota();
            total += ran;
            if (ran == 0) FAIL("set " << set << ": starved");
            if (quota != 0 && ran > 40 * quota + granularity) FAIL("set " << set << ": over its limit");
        }
        REQUIRE(total + idle == now);
        REQUIRE(queue.idle_ticks(now) == idle);
        if (!all_capped) REQUIRE(idle == 0);
        if (all_capped && quotas >= 100'000) REQUIRE(idle <= now / 2);
        if (all_capped && quotas <= 100'000) {
            REQUIRE(idle + 40 * quotas <= now + count * granularity);
            REQUIRE(idle + 40 * quotas + count * granularity >= now);
        }
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
    CHECK(all[3].run_time(500) == 500);
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
    CHECK(a.run_time(1000) == 0);
    (void)queue.pick(1001);
    CHECK(a.run_time(1001) == 1);
}

TEST_CASE("weights are kept within bounds") {
    CHECK(Runnable(1, 0).weight() == 1);
    CHECK(Runnable(1, 1'000'000).weight() == 10000);
    RunQueue queue(latency, granularity);
    Runnable a(1);
    CHECK_FALSE(queue.set_weight(a, 0, 0));
    CHECK(a.weight() == 1);
    CHECK_FALSE(queue.set_weight(a, 1'000'000, 0));
    CHECK(a.weight() == 10000);
}

TEST_CASE("a weight that changes counts from then on, for the one that runs and for the one that waits") {
    RunQueue queue(latency, granularity);
    Runnable a(1), b(2);
    for (Runnable* r : {&a, &b}) {
        REQUIRE(queue.add(*r, 0));
        queue.wake(*r, 0);
    }
    u64 now = 0;
    run(queue, now, 1'000'000);
    const auto near = [](u64 value, u64 wanted) {
        return value + 2 * latency > wanted && value < wanted + 2 * latency;
    };
    CHECK(near(a.run_time(now), 500'000));
    for (const bool change_the_running : {true, false}) {
        u64 a_before = a.run_time(now), b_before = b.run_time(now);
        Runnable& heavy = (queue.current() == &a) == change_the_running ? a : b;
        CHECK(queue.set_weight(heavy, 300, now));
        run(queue, now, now + 1'000'000);
        CHECK(near(a.run_time(now) - a_before, &heavy == &a ? 750'000 : 250'000));
        CHECK(near(b.run_time(now) - b_before, &heavy == &b ? 750'000 : 250'000));
        CHECK(queue.set_weight(heavy, 100, now));
    }
    // Alone on the core it has no slice that could be wrong.
    queue.block(b, now);
    (void)queue.pick(now);
    CHECK_FALSE(queue.set_weight(a, 200, now));
}

TEST_CASE("from the least weight to the greatest and back, nobody waits longer than its weight says") {
    RunQueue queue(latency, granularity);
    Runnable a(1, 1), b(2);
    for (Runnable* r : {&a, &b}) {
        REQUIRE(queue.add(*r, 0));
        queue.wake(*r, 0);
    }
    u64 now = 0;
    run(queue, now, 10'000'000);
    CHECK(a.run_time(now) > 80'000);
    CHECK(a.run_time(now) < 120'000);
    // A turn at weight 1 counts as much as 100 of b's: that is what it waits for at most.
    queue.set_weight(a, 10'000, now);
    const u64 before = a.run_time(now);
    run(queue, now, now + 1'000'000);
    CHECK(a.run_time(now) - before > 880'000);
    queue.set_weight(a, 1, now);
    const u64 other = b.run_time(now);
    run(queue, now, now + 1'000'000);
    CHECK(b.run_time(now) - other > 970'000);
}

TEST_CASE(
    "the first competitor of one that runs without timer is picked for, even if it is no further behind") {
    RunQueue queue(latency, granularity);
    Runnable a(1), b(2);
    for (Runnable* r : {&a, &b}) REQUIRE(queue.add(*r, 0));
    queue.wake(b, 0);
    (void)queue.pick(0);
    queue.block(b, 5'000);  // ahead of a by its turn
    queue.wake(a, 5'000);
    CHECK(queue.pick(5'000).until == RunQueue::forever);
    CHECK(queue.wake(b, 5'001));
    const auto choice = queue.pick(5'001);
    CHECK(choice.next == &a);
    CHECK(choice.until < 5'001 + latency);
}

TEST_CASE("one that wakes without quota makes an idle core look again when the period ends") {
    RunQueue queue(latency, granularity);
    Bandwidth tenth;
    REQUIRE(tenth.set(10'000, 100'000));
    Runnable a(1, 100, &tenth);
    REQUIRE(queue.add(a, 0));
    queue.wake(a, 0);
    (void)queue.pick(0);
    queue.block(a, 10'000);
    CHECK(queue.pick(10'000).until == RunQueue::forever);
    CHECK(queue.wake(a, 20'000));
    const auto choice = queue.pick(20'000);
    CHECK(choice.next == nullptr);
    CHECK(choice.until == 100'000);
}

TEST_CASE(
    "a runnable that moves to another core keeps its claim, without starving there or making up for sleep") {
    for (const u64 other_clock : {u64{0}, u64{3'000'000}}) {
        RunQueue first(latency, granularity), second(latency, granularity);
        Runnable a(1), b(2), c(3), mover(4);
        u64 now = 0;
        REQUIRE(second.add(c, 0));
        second.wake(c, 0);
        (void)second.pick(0);
        (void)second.pick(other_clock);
        now = other_clock;
        for (Runnable* r : {&a, &b, &mover}) {
            REQUIRE(first.add(*r, now));
            first.wake(*r, now);
        }
        run(first, now, now + 5'000'000);
        // It moves back and forth: half of the second core, a third of the first.
        const u64 start = now, ran = mover.run_time(now);
        u64 on_second = 0;
        for (int move = 0; move < 400; ++move) {
            RunQueue& from = move % 2 == 0 ? first : second;
            RunQueue& to = move % 2 == 0 ? second : first;
            const u64 before = mover.run_time(now);
            from.remove(mover, now);
            CHECK_FALSE(mover.is_queued());
            REQUIRE(to.add(mover, now));
            to.wake(mover, now);
            u64 both = now;
            run(to, both, now + 7 * latency);
            run(from, now, now + 7 * latency);
            if (move % 2 == 0) on_second += mover.run_time(now) - before;
        }
        const u64 span = now - start;
        const u64 on_first = mover.run_time(now) - ran - on_second;
        CHECK(on_second * 100 > span / 2 * 45);
        CHECK(on_second * 100 < span / 2 * 55);
        CHECK(on_first * 100 > span / 2 * 28);
        CHECK(on_first * 100 < span / 2 * 38);
    }
}
