#include "kernel/sched/stopwatch.hpp"

#include <catch2/catch.hpp>
#include <random>

using namespace bulkhead;

TEST_CASE("a stopwatch counts while it runs, and keeps its total while it does not") {
    Stopwatch watch;
    CHECK(watch.total(1'000) == 0);
    watch.start(1'000);
    CHECK(watch.total(1'000) == 0);
    CHECK(watch.total(1'700) == 700);
    watch.start(1'500);  // it runs already
    CHECK(watch.total(1'700) == 700);
    watch.stop(2'000);
    watch.stop(3'000);
    CHECK(watch.total(9'999) == 1'000);
    watch.start(10'000);
    CHECK(watch.total(10'001) == 1'001);
}

TEST_CASE("a reader whose clock lags sees no huge time") {
    Stopwatch watch;
    watch.start(1'000);
    CHECK(watch.total(990) == 0);
    watch.stop(2'000);
    watch.start(5'000);
    CHECK(watch.total(4'990) == 990);
}

TEST_CASE("random starts and stops add up, at any time of the clock") {
    std::mt19937_64 random(3);
    for (const u64 start : {u64{0}, u64{1} << 62, (u64{1} << 63) - 5'000, ~u64{0} - 5'000}) {
        Stopwatch watch;
        u64 now = start, total = 0;
        bool running = false;
        for (int i = 0; i < 1'000; ++i) {
            const u64 step = random() % 100;
            now += step;
            if (running) total += step;
            REQUIRE(watch.total(now) == total);
            running = random() % 2 == 0;
            running ? watch.start(now) : watch.stop(now);
        }
    }
}
