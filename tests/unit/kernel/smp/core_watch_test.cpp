#include "kernel/smp/core_watch.hpp"

#include <catch2/catch.hpp>

using namespace bulkhead;
using Verdict = CoreWatch::Verdict;

namespace {

constexpr u64 limit = 1000;

}  // namespace

TEST_CASE("a core in its guest may be silent for ever") {
    CoreWatch watch;
    for (u64 now = 0; now < 100 * limit; now += 100)
        REQUIRE(watch.look(now, {.heartbeat = 5, .accountable = false}, limit) == Verdict::fine);
}

TEST_CASE("a core that beats is fine, however long it is accountable") {
    CoreWatch watch;
    for (u64 now = 0; now < 100 * limit; now += limit - 1)
        REQUIRE(watch.look(now, {.heartbeat = now, .accountable = true}, limit) == Verdict::fine);
}

TEST_CASE("an accountable core without a beat for the limit is silent, which is said once") {
    CoreWatch watch;
    REQUIRE(watch.look(100, {.heartbeat = 5, .accountable = true}, limit) == Verdict::fine);
    REQUIRE(watch.look(100 + limit - 1, {.heartbeat = 5, .accountable = true}, limit) == Verdict::fine);
    REQUIRE(watch.look(100 + limit, {.heartbeat = 5, .accountable = true}, limit) == Verdict::silent);
    REQUIRE(watch.since() == 100);
    REQUIRE(watch.look(100 + 5 * limit, {.heartbeat = 5, .accountable = true}, limit) == Verdict::fine);
}

TEST_CASE("a core that was reported is reported again after it went on") {
    CoreWatch watch;
    (void)watch.look(0, {.heartbeat = 5, .accountable = true}, limit);
    REQUIRE(watch.look(limit, {.heartbeat = 5, .accountable = true}, limit) == Verdict::silent);
    REQUIRE(watch.look(limit + 1, {.heartbeat = 6, .accountable = true}, limit) == Verdict::recovered);
    REQUIRE(watch.look(limit + 2, {.heartbeat = 6, .accountable = true}, limit) == Verdict::fine);
    REQUIRE(watch.look(2 * limit + 1, {.heartbeat = 6, .accountable = true}, limit) == Verdict::silent);
    REQUIRE(watch.look(2 * limit + 2, {.heartbeat = 7, .accountable = false}, limit) == Verdict::recovered);
}

TEST_CASE("a watcher that was away for long does not hold it against a core that has just been called upon") {
    CoreWatch watch;
    REQUIRE(watch.look(0, {.heartbeat = 5, .accountable = false}, limit) == Verdict::fine);
    REQUIRE(watch.look(50 * limit, {.heartbeat = 5, .accountable = true}, limit) == Verdict::fine);
    REQUIRE(watch.look(50 * limit + 10, {.heartbeat = 5, .accountable = true}, limit) == Verdict::fine);
    REQUIRE(watch.look(51 * limit, {.heartbeat = 5, .accountable = true}, limit) == Verdict::silent);
}

TEST_CASE("a core that stays silent is first reported, then lost, each once until it goes on") {
    CoreWatch watch;
    const CoreSign sign{.heartbeat = 5, .accountable = true};
    const auto look = [&](u64 now) { return watch.look(now, sign, limit, 5 * limit); };
    REQUIRE(look(0) == Verdict::fine);
    REQUIRE(look(limit) == Verdict::silent);
    REQUIRE(look(5 * limit - 1) == Verdict::fine);
    REQUIRE(look(5 * limit) == Verdict::lost);
    REQUIRE(look(50 * limit) == Verdict::fine);
    REQUIRE(watch.look(51 * limit, {.heartbeat = 6, .accountable = true}, limit, 5 * limit) ==
            Verdict::recovered);
    REQUIRE(watch.look(52 * limit, {.heartbeat = 6, .accountable = true}, limit, 5 * limit) ==
            Verdict::silent);
    // A watcher that was away tells one after the other.
    REQUIRE(watch.look(90 * limit, {.heartbeat = 6, .accountable = true}, limit, 5 * limit) == Verdict::lost);
}
