#include "kernel/mem/unit_allocator.hpp"

#include <catch2/catch.hpp>
#include <memory>
#include <random>
#include <vector>

using namespace bulkhead;

namespace {

constexpr u64 unit = UnitAllocator::unit_size;

std::unique_ptr<UnitAllocator> with_memory(std::initializer_list<std::pair<u64, u64>> ranges) {
    auto allocator = std::make_unique<UnitAllocator>();
    for (const auto& [start, length] : ranges) REQUIRE(allocator->add_usable(HostPhysical(start), length));
    return allocator;
}

}  // namespace

TEST_CASE("only whole units of usable memory are managed") {
    // A PC: 639 KiB, a hole, then up to 1 GiB less the ACPI tables.
    auto a = with_memory({{0, 639 * kib}, {mib, gib - mib - 128 * kib}});
    CHECK(a->managed_units() == 510);  // without the first unit and the last
    CHECK(a->free_units() == 510);
    CHECK(a->largest_free_run() == 510);
    CHECK(a->allocate({.units = 510})->begin()->start == HostPhysical(unit));
}

TEST_CASE("ranges that overlap count once; those that wrap are refused; what is beyond 1 TiB is left") {
    auto a = with_memory({{0, 8 * mib}, {4 * mib, 8 * mib}});
    CHECK(a->managed_units() == 6);
    CHECK_FALSE(a->add_usable(HostPhysical(0xFFFF'FFFF'FFE0'0000), 4 * mib));
    CHECK_FALSE(a->reserve(HostPhysical(0xFFFF'FFFF'FFE0'0000), 4 * mib));
    CHECK(a->managed_units() == 6);
    auto b = with_memory({{1024 * gib - unit, 4 * gib}, {2048 * gib, gib}});
    CHECK(b->managed_units() == 1);
}

TEST_CASE("a reservation takes every unit it touches, and comes before allocations and after usable memory") {
    auto a = with_memory({{0, gib}});
    REQUIRE(a->reserve(HostPhysical(0), mib));                  // real-mode memory
    REQUIRE(a->reserve(HostPhysical(2 * mib), 8 * mib));        // the image
    REQUIRE(a->reserve(HostPhysical(100 * mib + 5), 2 * mib));  // a module: units 50 and 51
    REQUIRE(a->reserve(HostPhysical(100 * mib), 0));            // nothing
    REQUIRE(a->reserve(HostPhysical(gib - 1), 16 * gib));       // partly beyond all memory
    CHECK(a->managed_units() == 512 - 1 - 4 - 2 - 1);
    CHECK_FALSE(a->add_usable(HostPhysical(gib), gib));
    const auto runs = a->allocate({.units = 4});
    REQUIRE(runs);
    const u64 before = a->managed_units();
    CHECK_FALSE(a->reserve((*runs)[0].start - unit, 2 * unit));
    CHECK(a->managed_units() == before);
}

TEST_CASE(
    "memory above 4 GiB is given first, and low memory only where it is asked for or nothing else is left") {
    auto a = with_memory({{0, 3 * gib}, {4 * gib, gib}});
    CHECK((*a->allocate({.units = 100}))[0].start >= HostPhysical(4 * gib));
    CHECK((*a->allocate({.units = 100, .zone = UnitRequest::Zone::below_4gib}))[0].end() <=
          HostPhysical(3 * gib));
    // More than is left above, but it fits below in one piece.
    const auto runs = a->allocate({.units = 500, .max_runs = 4});
    REQUIRE(runs);
    CHECK(runs->size() == 1);
    CHECK((*runs)[0].end() <= HostPhysical(3 * gib));
    CHECK_FALSE(a->allocate({.units = 1400, .max_runs = 16, .zone = UnitRequest::Zone::below_4gib}));
}

TEST_CASE("big requests start on a 1 GiB boundary if there is one in the right place") {
    auto a = with_memory({{4 * gib + 6 * mib, 4 * gib}});
    const auto big = a->allocate({.units = 1024});
    REQUIRE(big);
    CHECK((*big)[0].start.is_aligned(gib));
    // A small one goes elsewhere.
    CHECK_FALSE((*a->allocate({.units = 3}))[0].start.is_aligned(gib));
    // No aligned place is long enough for this one.
    auto b = with_memory({{4 * gib + unit, gib + 2 * unit}});
    CHECK((*b->allocate({.units = 513}))[0].units == 513);
}

TEST_CASE("the shortest run that is long enough is taken; without one, the longest are put together") {
    auto a = with_memory({{2 * mib, 20 * unit}, {100 * mib, 5 * unit}, {200 * mib, 8 * unit}});
    CHECK((*a->allocate({.units = 4}))[0].start == HostPhysical(100 * mib));
    CHECK((*a->allocate({.units = 8}))[0].start == HostPhysical(200 * mib));
    CHECK_FALSE(a->allocate({.units = 21, .max_runs = 1}));
    const u64 before = a->free_units();
    CHECK(before == 21);
    const auto runs = a->allocate({.units = 21, .max_runs = 2});
    REQUIRE(runs);
    CHECK(runs->size() == 2);
    CHECK((*runs)[0] == UnitRun{HostPhysical(2 * mib), 20});
    CHECK((*runs)[1] == UnitRun{HostPhysical(100 * mib + 4 * unit), 1});
    CHECK(a->free_units() == 0);
    REQUIRE(a->free(*runs));
    CHECK(a->free_units() == 21);
}

TEST_CASE("a request that cannot be met in so many runs changes nothing") {
    auto a = with_memory({{0, unit}, {4 * mib, unit}, {8 * mib, unit}});
    CHECK_FALSE(a->allocate({.units = 3, .max_runs = 2}));
    CHECK_FALSE(a->allocate({.units = 4, .max_runs = 16}));
    CHECK_FALSE(a->allocate({.units = 0}));
    CHECK_FALSE(a->allocate({.units = 1, .max_runs = 0}));
    CHECK_FALSE(a->allocate({.units = ~u64{0}, .max_runs = 16}));
    CHECK(a->free_units() == 3);
    CHECK(a->allocate({.units = 3, .max_runs = 3}));
}

TEST_CASE("freeing what is not allocated is an error and changes nothing") {
    auto a = with_memory({{0, 64 * mib}});
    REQUIRE(a->reserve(HostPhysical(0), 4 * mib));
    const UnitRun run = (*a->allocate({.units = 4}))[0];
    CHECK_FALSE(a->free(UnitRun{run.start, 5}));
    CHECK_FALSE(a->free(UnitRun{run.start - unit, 2}));
    CHECK_FALSE(a->free(UnitRun{run.start + 1, 1}));
    CHECK_FALSE(a->free(UnitRun{run.start, 0}));
    CHECK_FALSE(a->free(UnitRun{HostPhysical(0), 1}));  // reserved
    CHECK_FALSE(a->free(UnitRun{HostPhysical(~(unit - 1)), 2}));
    CHECK_FALSE(a->free(UnitRun{run.start, ~u64{0}}));
    CHECK(a->free_units() == 26);
    REQUIRE(a->free(run));
    CHECK_FALSE(a->free(run));
    CHECK(a->free_units() == 30);
}

TEST_CASE("random allocations never overlap, never leave managed memory, and all come back") {
    std::mt19937_64 random(7);
    auto a = with_memory({{0, 3 * gib}, {4 * gib, 8 * gib}, {20 * gib + 4 * mib, 700 * mib}});
    REQUIRE(a->reserve(HostPhysical(0), 16 * mib));
    REQUIRE(a->reserve(HostPhysical(5 * gib), 10 * mib));
    const u64 total = a->free_units();
    std::vector<u8> taken(16384);
    std::vector<UnitRuns> live;
    u64 live_units = 0;
    for (int step = 0; step < 4000; ++step) {
        if (random() % 2 == 0 || live.empty()) {
            const UnitRequest request{.units = 1 + random() % (random() % 8 == 0 ? 1500 : 60),
                                      .max_runs = 1 + random() % 16,
                                      .zone = static_cast<UnitRequest::Zone>(random() % 2)};
            const auto runs = a->allocate(request);
            if (!runs) continue;
            u64 units = 0;
            if (runs->size() > request.max_runs) FAIL("too many runs");
            for (const UnitRun& run : *runs) {
                units += run.units;
                if (request.zone == UnitRequest::Zone::below_4gib && run.end() > HostPhysical(4 * gib))
                    FAIL("zone");
                for (u64 u = run.start.raw() / unit; u < run.end().raw() / unit; ++u) {
                    if (taken[u]++ != 0) FAIL("given twice");
                }
            }
            REQUIRE(units == request.units);
            live_units += units;
            live.push_back(*runs);
        } else {
            const usize i = random() % live.size();
            for (const UnitRun& run : live[i]) {
                live_units -= run.units;
                for (u64 u = run.start.raw() / unit; u < run.end().raw() / unit; ++u) --taken[u];
            }
            REQUIRE(a->free(live[i]));
            live.erase(live.begin() + static_cast<long>(i));
        }
        REQUIRE(a->free_units() == total - live_units);
    }
    for (const UnitRuns& runs : live) REQUIRE(a->free(runs));
    CHECK(a->free_units() == total);
}

TEST_CASE("a retired unit is given to nobody again, whether it was free or not") {
    const auto a = std::make_unique<UnitAllocator>();
    constexpr u64 unit = UnitAllocator::unit_size;
    REQUIRE(a->add_usable(HostPhysical(0), 8 * unit));
    const auto runs = a->allocate({.units = 4});
    REQUIRE(runs);
    REQUIRE(runs->size() == 1);
    const HostPhysical start = (*runs)[0].start;
    const HostPhysical held = start + unit, free = start.raw() == 0 ? start + 4 * unit : HostPhysical(0);
    CHECK(a->in_use(held));
    CHECK_FALSE(a->is_retired(held));
    CHECK(a->retire(held));
    CHECK_FALSE(a->in_use(held));
    CHECK(a->is_retired(held + (unit - 1)));
    CHECK(a->free_units() == 4);
    CHECK(a->retire(free));
    CHECK(a->free_units() == 3);
    CHECK(a->managed_units() == 6);
    for (const HostPhysical again : {held, free, HostPhysical(8 * unit), HostPhysical(gib)})
        CHECK_FALSE(a->retire(again));
    CHECK(a->is_retired(free));
    for (const HostPhysical other : {start, HostPhysical(8 * unit), HostPhysical(gib)})
        CHECK_FALSE(a->is_retired(other));
    CHECK_FALSE(a->add_usable(HostPhysical(0), 8 * unit));  // which would bring them back
    // Its holder cannot give it back, but all the others.
    CHECK_FALSE(a->free(UnitRun{.start = held, .units = 1}));
    for (u64 i = 0; i < 4; ++i) {
        if (i != 1) CHECK(a->free(UnitRun{.start = start + i * unit, .units = 1}));
    }
    CHECK(a->free_units() == 6);
    const auto rest = a->allocate({.units = 6, .max_runs = 16});
    REQUIRE(rest);
    for (const UnitRun& run : *rest) {
        CHECK_FALSE((run.start <= held && held < run.end()));
        CHECK_FALSE((run.start <= free && free < run.end()));
    }
}
