#include "kernel/sync/storm_guard.hpp"

#include <catch2/catch.hpp>

using namespace bulkhead;

namespace {
constexpr u64 hz = 1'000'000'000;
}

TEST_CASE("a hundred thousand interrupts in a second are no storm, one more is, and it is told once") {
    StormGuard guard(hz);
    for (u32 i = 0; i < StormGuard::most_in_a_second; ++i) REQUIRE_FALSE(guard.strikes(5 * hz + i));
    CHECK(guard.strikes(5 * hz + hz));
    unsigned more = 0;
    for (u32 i = 0; i < 300'000; ++i) more += guard.strikes(5 * hz + hz) ? 1 : 0;
    CHECK(more == 0);
}

TEST_CASE("as many spread over more than a second are no storm") {
    StormGuard guard(hz);
    unsigned strikes = 0;
    for (u64 i = 0; i < 500'000; ++i) strikes += guard.strikes(i * (hz / 90'000)) ? 1 : 0;
    CHECK(strikes == 0);
}

TEST_CASE("a new second may bring a new storm, also when the counter of time wraps") {
    StormGuard guard(hz);
    unsigned strikes = 0;
    for (const u64 start : {u64{hz}, u64{3 * hz}, ~u64{0} - 10}) {
        for (u32 i = 0; i < 150'000; ++i) strikes += guard.strikes(start + i) ? 1 : 0;
    }
    CHECK(strikes == 3);
}
