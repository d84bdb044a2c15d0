#include "kernel/sched/bandwidth.hpp"

#include <catch2/catch.hpp>

using namespace bulkhead;

namespace {

constexpr u64 granularity = 1'000, much = 1'000'000;

}  // namespace

TEST_CASE("without a limit a member may take what it wants") {
    Bandwidth group;
    group.join();
    CHECK(group.throttled_until(5) == 0);
    const auto part = group.take(5, ~u64{0} - 5, granularity);
    CHECK(part.ticks == ~u64{0} - 5);
    CHECK_FALSE(part.is_limited);
    group.charge(1'000'000, 999'995);
    group.give_back(part);
    CHECK(group.throttled_until(1'000'000) == 0);
    CHECK(group.quota() == 0);
}

TEST_CASE("limits out of range are refused and change nothing") {
    Bandwidth group;
    REQUIRE(group.set(10, 100));
    CHECK_FALSE(group.set(0, 100));
    CHECK_FALSE(group.set(10, 0));
    CHECK_FALSE(group.set(Bandwidth::greatest_quota + 1, 100));
    CHECK_FALSE(group.set(10, Bandwidth::longest_period + 1));
    CHECK(group.quota() == 10);
    CHECK(group.period() == 100);
    CHECK(group.set(Bandwidth::greatest_quota, Bandwidth::longest_period));
}

TEST_CASE("members that start together get even parts, and the last one the rest") {
    Bandwidth group;
    REQUIRE(group.set(20'000, 100'000));
    for (int i = 0; i < 4; ++i) group.join();
    for (int i = 0; i < 4; ++i) {
        CHECK(group.throttled_until(0) == 0);
        CHECK(group.take(0, much, granularity).ticks == 5'000);
    }
    CHECK(group.throttled_until(0) == 100'000);
    CHECK(group.throttled_until(99'999) == 100'000);
    CHECK(group.throttled_until(100'000) == 0);
    CHECK(group.take(100'000, much, granularity).ticks == 5'000);
}

TEST_CASE("a part ends with the period, is never more than wanted, and what is returned can be taken again") {
    Bandwidth group;
    REQUIRE(group.set(20'000, 100'000));
    group.join();
    CHECK(group.take(90'000, much, granularity).ticks == 10'000);
    CHECK(group.take(100'000, 3'000, granularity).ticks == 3'000);
    auto part = group.take(103'000, much, granularity);
    CHECK(part.ticks == 17'000);
    CHECK(group.throttled_until(104'000) == 200'000);
    part.ticks = 16'000;  // it ran 1000
    group.give_back(part);
    CHECK(group.throttled_until(104'000) == 0);
    CHECK(group.take(104'000, much, granularity).ticks == 16'000);
    // In the next period it is worth nothing.
    (void)group.take(200'000, much, granularity);
    group.give_back(part);
    CHECK(group.throttled_until(200'000) == 300'000);
}

TEST_CASE("debts are paid by the periods that follow, one quota each") {
    Bandwidth group;
    REQUIRE(group.set(10'000, 100'000));
    group.join();
    CHECK(group.take(0, much, granularity).ticks == 10'000);
    group.charge(35'000, 25'000);
    CHECK(group.throttled_until(40'000) == 100'000);
    CHECK(group.throttled_until(100'000) == 200'000);
    CHECK(group.throttled_until(200'000) == 300'000);
    CHECK(group.throttled_until(300'000) == 0);
    CHECK(group.take(300'000, much, granularity).ticks == 5'000);
}

TEST_CASE("an overrun across a period's end is charged to both periods") {
    Bandwidth group;
    REQUIRE(group.set(10'000, 100'000));
    group.join();
    CHECK(group.take(93'000, 2'000, granularity).ticks == 2'000);
    group.charge(104'000, 9'000);  // 5000 before the end, within its quota, and 4000 after
    CHECK(group.take(104'000, much, granularity).ticks == 6'000);
    // The whole of many periods.
    group.charge(1'000'000, 890'000);
    CHECK(group.throttled_until(1'000'000) == 1'100'000);
}

TEST_CASE("a core whose clock lags does not begin the last period again") {
    Bandwidth group;
    REQUIRE(group.set(10'000, 100'000));
    group.join();
    (void)group.take(200'001, much, granularity);
    CHECK(group.throttled_until(199'999) == 200'000);
    group.charge(199'999, 1'000);
    CHECK(group.throttled_until(299'999) == 300'000);
    CHECK(group.take(300'000, much, granularity).ticks == 9'000);
}

TEST_CASE("a limit that no number of members could reach needs no timer") {
    Bandwidth group;
    REQUIRE(group.set(200'000, 100'000));
    group.join();
    group.join();
    CHECK_FALSE(group.take(0, much, granularity).is_limited);
    group.join();
    CHECK(group.take(0, much, granularity).is_limited);
    group.leave();
    CHECK_FALSE(group.take(0, much, granularity).is_limited);
}

TEST_CASE("a new limit begins with nothing used, and none at all frees everyone") {
    Bandwidth group;
    REQUIRE(group.set(10'000, 100'000));
    group.join();
    (void)group.take(0, much, granularity);
    CHECK(group.throttled_until(1) != 0);
    REQUIRE(group.set(20'000, 50'000));
    CHECK(group.throttled_until(1) == 0);
    CHECK(group.take(1, much, granularity).ticks == 20'000);
    group.set_unlimited();
    CHECK(group.throttled_until(2) == 0);
    CHECK(group.take(2, much, granularity).ticks == much);
}

TEST_CASE("debts and quotas at the ends of their ranges do not overflow") {
    Bandwidth group;
    REQUIRE(group.set(Bandwidth::greatest_quota, Bandwidth::longest_period));
    for (int i = 0; i < 64; ++i) group.join();
    u64 now = ~u64{0} - 2 * Bandwidth::longest_period;
    for (int i = 0; i < 100; ++i) group.charge(now, u64{1} << 56);
    CHECK(group.throttled_until(now) > now);
    now += Bandwidth::longest_period;
    group.charge(now, 1);
    CHECK(group.take(now, ~u64{0}, granularity).ticks >= 1);
}
