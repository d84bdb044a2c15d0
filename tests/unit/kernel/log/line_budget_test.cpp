#include "kernel/log/line_budget.hpp"

#include <catch2/catch.hpp>

using namespace bulkhead;

namespace {

constexpr u64 hz = 1'000'000;
constexpr u64 line_time = LineBudget::seconds_a_line * hz;

unsigned written(LineBudget& budget, u64 now, unsigned lines) {
    unsigned count = 0;
    for (unsigned i = 0; i < lines; ++i) count += budget.take(now, hz) ? 1 : 0;
    return count;
}

}  // namespace

TEST_CASE("A burst of lines is written, the rest is counted") {
    LineBudget budget;
    CHECK(written(budget, 5, 1000) == LineBudget::burst);
    CHECK(budget.take_dropped() == 1000 - LineBudget::burst);
    CHECK(budget.take_dropped() == 0);
}

TEST_CASE("Afterwards a line is written each ten seconds, however many come") {
    LineBudget budget;
    CHECK(written(budget, 0, 100) == LineBudget::burst);
    unsigned count = 0;
    for (u64 second = 1; second <= 1000; ++second) count += written(budget, second * hz, 50);
    CHECK(count == 1000 / LineBudget::seconds_a_line);
}

TEST_CASE("What comes seldom is always written") {
    LineBudget budget;
    for (u64 i = 0; i < 1000; ++i) CHECK(budget.take(i * line_time, hz));
    CHECK(budget.take_dropped() == 0);
}

TEST_CASE("After a long silence there is a burst again, and no more") {
    LineBudget budget;
    (void)written(budget, 0, 100);
    CHECK(written(budget, 1'000'000 * line_time, 100) == LineBudget::burst);
    CHECK(written(budget, ~u64{0}, 100) == LineBudget::burst);
}

TEST_CASE("A clock that goes back, or is not known, does not open the gate") {
    LineBudget budget;
    CHECK(written(budget, 100 * line_time, 100) == LineBudget::burst);
    CHECK(written(budget, 0, 100) == 0);
    LineBudget timeless;
    unsigned count = 0;
    for (u64 i = 0; i < 100; ++i) count += timeless.take(i * line_time, 0) ? 1 : 0;
    CHECK(count == LineBudget::burst);
}
