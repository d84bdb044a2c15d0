#include "vmm/loader/e820.hpp"

#include <catch2/catch.hpp>

#include "tests/unit/vmm/loader/test_vm.hpp"

using namespace bulkhead;
using test::TestVm;

TEST_CASE("the memory map of a small VM is a PC's") {
    const TestVm vm(16 * mib);
    const auto map = GuestMemoryMap::build(vm.memory);
    REQUIRE(map);
    const std::vector<MemoryMapEntry> expected = {
        {0, 0x9FC00, MemoryKind::ram},
        {0x9FC00, 0x400, MemoryKind::reserved},
        {0xE0000, 0x20000, MemoryKind::reserved},
        {0x100000, 15 * mib - 64 * kib, MemoryKind::ram},
        {16 * mib - 64 * kib, 60 * kib, MemoryKind::acpi_reclaimable},
        {16 * mib - 4 * kib, 4 * kib, MemoryKind::acpi_nvs},
        {0xFEC00000, 0x1000, MemoryKind::reserved},
        {0xFEE00000, 0x1000, MemoryKind::reserved},
        {0xFFFC0000, 0x40000, MemoryKind::reserved},
    };
    CHECK(std::vector<MemoryMapEntry>(map->entries().begin(), map->entries().end()) == expected);
    CHECK(map->acpi_zone() == GuestPhysical(16 * mib - 64 * kib));
}

TEST_CASE("RAM past the hole continues at 4 GiB, in order and without overlap") {
    GuestMemory memory;
    u8 byte = 0;  // never touched: only addresses matter here
    for (const platform::RamPiece& piece : platform::ram_pieces(6 * gib)) {
        REQUIRE(memory.add({GuestPhysical(piece.start), piece.length, &byte, piece.guest_writable}));
    }
    const auto map = GuestMemoryMap::build(memory);
    REQUIRE(map);
    u64 last_end = 0;
    for (const MemoryMapEntry& entry : map->entries()) {
        CHECK(entry.start >= last_end);
        CHECK(entry.length > 0);
        last_end = entry.end();
    }
    CHECK(map->entries().back() == MemoryMapEntry{4 * gib, 3 * gib, MemoryKind::ram});
    CHECK(map->main_end() == platform::mmio_hole - 64 * kib);
    CHECK(map->is_ram(5 * gib, gib));
    CHECK_FALSE(map->is_ram(6 * gib, 2 * gib));
    CHECK_FALSE(map->is_ram(platform::mmio_hole, 1));
}

TEST_CASE("a RAM question that wraps is answered no") {
    const TestVm vm(16 * mib);
    const auto map = GuestMemoryMap::build(vm.memory);
    REQUIRE(map);
    CHECK(map->is_ram(0x100000, 0));
    CHECK_FALSE(map->is_ram(0x100000, ~u64{0}));
    CHECK_FALSE(map->is_ram(~u64{0}, 2));
    CHECK_FALSE(map->is_ram(0xA0000, 1));
    CHECK_FALSE(map->is_ram(0xE0000, 1));
    CHECK_FALSE(map->is_ram(0x9FBFF, 2));
    CHECK(map->is_ram(0x9FBFF, 1));
}

TEST_CASE("the highest place goes below the limit and clear of what is taken") {
    const TestVm vm(16 * mib);
    const auto map = GuestMemoryMap::build(vm.memory);
    REQUIRE(map);
    const u64 end = 16 * mib - 64 * kib;
    CHECK(map->place_high(1, ~u64{0}, 0, 0) == end - page_size);
    CHECK(map->place_high(mib, 8 * mib, 0, 0) == 7 * mib);
    CHECK(map->place_high(mib, ~u64{0}, 14 * mib, 16 * mib) == 13 * mib);
    CHECK(map->place_high(mib, ~u64{0}, 2 * mib, 16 * mib) == mib);
    CHECK_FALSE(map->place_high(mib + 1, ~u64{0}, 2 * mib, 16 * mib).has_value());
    CHECK_FALSE(map->place_high(16 * mib, ~u64{0}, 0, 0).has_value());
    CHECK_FALSE(map->place_high(~u64{0}, ~u64{0}, 0, 0).has_value());
    CHECK_FALSE(map->place_high(page_size, 0x1000, 0, 0).has_value());
}

TEST_CASE("memory that is not laid out by the platform's map is refused, with the reason") {
    u8 byte = 0;
    const auto build = [&](std::initializer_list<GuestMemory::Range> ranges) {
        GuestMemory memory;
        for (const auto& range : ranges) REQUIRE(memory.add(range));
        return GuestMemoryMap::build(memory);
    };
    const GuestMemory::Range base{GuestPhysical(0), 0xA0000, &byte, true};
    const auto no_base = build({{GuestPhysical(0x100000), mib, &byte, true}});
    REQUIRE_FALSE(no_base);
    CHECK(test::contains(no_base.error().text, "no RAM from 0"));
    const auto no_main = build({base});
    REQUIRE_FALSE(no_main);
    CHECK(test::contains(no_main.error().text, "no RAM at 1 MiB"));
    const auto tiny = build({base, {GuestPhysical(0x100000), 64 * kib, &byte, true}});
    REQUIRE_FALSE(tiny);
    CHECK(test::contains(tiny.error().text, "too little"));
    CHECK_FALSE(build({{GuestPhysical(0), 2 * mib, &byte, true}}));
    CHECK_FALSE(build({base, {GuestPhysical(0x100000), 4 * gib, &byte, true}}));
    CHECK_FALSE(build({base, {GuestPhysical(0x200000), mib, &byte, true}}));
    CHECK_FALSE(build({base, {GuestPhysical(0xF0000), mib, &byte, true}}));
}

TEST_CASE("a firmware ROM is not RAM to the memory map") {
    TestVm vm(16 * mib);
    u8 byte = 0;
    REQUIRE(vm.memory.add({GuestPhysical(0xFFFF0000), 0x10000, &byte, false}));
    const auto map = GuestMemoryMap::build(vm.memory);
    REQUIRE(map);
    CHECK_FALSE(map->is_ram(0xFFFF0000, 1));
}

TEST_CASE("RAM in several adjacent pieces, and memory behind the text screen, make the same map") {
    u8 byte = 0;
    GuestMemory memory;
    for (const auto& [start, end, writable] : {std::tuple{u64{0}, u64{0x50000}, true},
                                               {0x50000, 0xA0000, true},
                                               {0xB8000, 0xC0000, true},
                                               {0xC0000, 0x100000, false},
                                               {0x100000, 0x400000, true},
                                               {0x400000, 0xFF8000, true},
                                               {0xFF8000, 0x1000000, true}}) {
        REQUIRE(memory.add({GuestPhysical(start), end - start, &byte, writable}));
    }
    const auto split = GuestMemoryMap::build(memory);
    REQUIRE(split);
    const TestVm vm(16 * mib);
    const auto whole = GuestMemoryMap::build(vm.memory);
    REQUIRE(whole);
    CHECK(std::equal(split->entries().begin(), split->entries().end(), whole->entries().begin(),
                     whole->entries().end()));
}
