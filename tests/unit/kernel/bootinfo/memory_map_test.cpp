#include "kernel/bootinfo/memory_map.hpp"

#include <catch2/catch.hpp>
#include <random>
#include <vector>

using namespace bulkhead;

TEST_CASE("ranges are sorted, and neighbours of one kind are merged") {
    MemoryMap map;
    REQUIRE(map.add(HostPhysical(0x2000), 0x1000, MemoryKind::usable));
    REQUIRE(map.add(HostPhysical(0x0000), 0x1000, MemoryKind::usable));
    REQUIRE(map.add(HostPhysical(0x5000), 0, MemoryKind::usable));
    CHECK(map.ranges().size() == 2);
    REQUIRE(map.add(HostPhysical(0x1000), 0x1000, MemoryKind::usable));
    REQUIRE(map.ranges().size() == 1);
    CHECK(map.ranges()[0] == MemoryRange{HostPhysical(0), 0x3000, MemoryKind::usable});
    CHECK(map.usable_bytes() == 0x3000);
}

TEST_CASE("where ranges overlap the less usable wins, in either order") {
    for (const bool reverse : {false, true}) {
        MemoryMap map;
        const MemoryRange a{HostPhysical(0x1000), 0x8000, MemoryKind::usable};
        const MemoryRange b{HostPhysical(0x3000), 0x2000, MemoryKind::acpi_nvs};
        for (const MemoryRange& r : reverse ? std::vector{b, a} : std::vector{a, b}) {
            REQUIRE(map.add(r.start, r.length, r.kind));
        }
        REQUIRE(map.ranges().size() == 3);
        CHECK(map.ranges()[1] == b);
        CHECK(map.is_usable(HostPhysical(0x1000), 0x2000));
        CHECK_FALSE(map.is_usable(HostPhysical(0x1000), 0x2001));
        CHECK_FALSE(map.is_usable(HostPhysical(0xFFF), 2));
        CHECK_FALSE(map.is_usable(HostPhysical(0x1000), ~u64{0}));
        CHECK(map.is_usable(HostPhysical(0x5000), 0x4000));
    }
}

TEST_CASE("a range that wraps is refused, one that ends at the very top is not") {
    MemoryMap map;
    CHECK_FALSE(map.add(HostPhysical(0x1000), ~u64{0}, MemoryKind::usable));
    CHECK_FALSE(map.add(HostPhysical(~u64{0}), 1, MemoryKind::usable));
    CHECK(map.ranges().empty());
    CHECK(map.add(HostPhysical(~u64{0xFFF}), 0xFFF, MemoryKind::reserved));
}

TEST_CASE("more ranges than fit are an error") {
    MemoryMap map;
    for (u64 i = 0; i < MemoryMap::max_ranges; ++i) {
        REQUIRE(map.add(HostPhysical(i * 0x2000), 0x1000, MemoryKind::usable));
    }
    const auto more = map.add(HostPhysical(0x8000'0000), 0x1000, MemoryKind::usable);
    REQUIRE_FALSE(more);
    CHECK(more.error().text.view().starts_with("HV-E105: "));
    CHECK(map.add(HostPhysical(0), 0x1000, MemoryKind::usable));  // nothing new
}

TEST_CASE("random ranges agree with a map of pages") {
    std::mt19937 random(2);
    for (int round = 0; round < 300; ++round) {
        MemoryMap map;
        int pages[256];
        std::fill(std::begin(pages), std::end(pages), -1);
        for (int i = 0; i < 30; ++i) {
            const u64 first = random() % 256, count = 1 + random() % std::min<u64>(40, 256 - first);
            const int kind = static_cast<int>(random() % 5);
            REQUIRE(
                map.add(HostPhysical(first * page_size), count * page_size, static_cast<MemoryKind>(kind)));
            for (u64 p = first; p < first + count; ++p) pages[p] = std::max(pages[p], kind);
        }
        int seen[256];
        std::fill(std::begin(seen), std::end(seen), -1);
        HostPhysical end(0);
        for (const MemoryRange& range : map.ranges()) {
            REQUIRE(range.start >= end);
            REQUIRE(range.length > 0);
            end = range.end();
            for (u64 p = range.start.raw() / page_size; p < end.raw() / page_size; ++p) {
                seen[p] = static_cast<int>(range.kind);
            }
        }
        for (usize i = 1; i < map.ranges().size(); ++i) {
            const auto& a = map.ranges()[i - 1];
            const auto& b = map.ranges()[i];
            REQUIRE_FALSE((a.end() == b.start && a.kind == b.kind));
        }
        REQUIRE(std::equal(std::begin(pages), std::end(pages), std::begin(seen)));
    }
}
