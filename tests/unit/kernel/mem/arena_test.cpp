#include "kernel/mem/arena.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <memory>
#include <new>

using namespace bulkhead;

namespace {

// Memory aligned to 2 MiB, of which the arena gets chunks.
struct Backing {
    Backing() : memory(static_cast<u8*>(::operator new(4 * mib, std::align_val_t(2 * mib)))) {
        std::fill_n(memory, 4 * mib, 0xA5);
    }
    ~Backing() { ::operator delete(memory, std::align_val_t(2 * mib)); }
    Arena::Chunk chunk(u64 offset, u64 length) const {
        return {.base = memory + offset, .physical = HostPhysical(16 * mib + offset), .length = length};
    }
    u8* memory;
};

struct Device {
    explicit Device(int n) : number(n) {}
    int number;
    u64 state[10] = {};
};

// Three objects and a table, as the creation of a VM would make them.
Result<> build(Arena& arena) {
    auto first = arena.create<Device>(1);
    if (!first) return std::unexpected(first.error());
    auto array = arena.create_array<u32>(1000);
    if (!array) return std::unexpected(array.error());
    auto pages = arena.allocate_pages(3);
    if (!pages) return std::unexpected(pages.error());
    auto second = arena.create<Device>(2);
    if (!second) return std::unexpected(second.error());
    return {};
}

}  // namespace

TEST_CASE("objects are made in place, zero-filled underneath, aligned, and known by their physical address") {
    Backing backing;
    Arena arena;
    REQUIRE(arena.add(backing.chunk(0, 64 * kib)));
    auto byte = arena.allocate(1, 1);
    auto device = arena.create<Device>(42);
    REQUIRE((byte && device));
    CHECK(**byte == 0);
    CHECK((*device)->number == 42);
    CHECK(reinterpret_cast<u64>(*device) % alignof(Device) == 0);
    CHECK(arena.physical_of(*device) == HostPhysical(16 * mib + 8));
    CHECK(arena.at(HostPhysical(16 * mib + 8), sizeof(Device)) == reinterpret_cast<u8*>(*device));
    CHECK_FALSE(arena.physical_of(&arena));
    CHECK(arena.at(HostPhysical(16 * mib + 64 * kib - 1), 2) == nullptr);
    auto pages = arena.allocate_pages(2, 8 * kib);
    REQUIRE(pages);
    CHECK(pages->physical == HostPhysical(16 * mib + 8 * kib));
    CHECK(std::all_of(pages->base, pages->base + 8 * kib, [](u8 b) { return b == 0; }));
    auto array = arena.create_array<u16>(5);
    REQUIRE(array);
    CHECK(array->size() == 5);
}

TEST_CASE("allocation goes on in the next chunk when one is full, and fails when all are") {
    Backing backing;
    Arena arena;
    REQUIRE(arena.add(backing.chunk(0, 8 * kib)));
    REQUIRE(arena.add(backing.chunk(mib, 8 * kib)));
    CHECK(arena.allocate(6 * kib, 8));
    CHECK(arena.physical_of(*arena.allocate(6 * kib, 8)) == HostPhysical(17 * mib));
    CHECK_FALSE(arena.allocate(6 * kib, 8));
    CHECK(arena.allocate(2 * kib, 8));  // a smaller request still fits
    CHECK_FALSE(arena.allocate(1, 1));
    CHECK(arena.free_bytes() == 0);
    arena.release();
    CHECK(arena.used_bytes() == 0);
    CHECK(arena.physical_of(*arena.allocate(6 * kib, 8)) == HostPhysical(16 * mib));
}

TEST_CASE("a cleared arena has no memory, until it gets other chunks") {
    Backing backing;
    Arena arena;
    for (int i = 0; i < 40; ++i) {
        REQUIRE(arena.add(backing.chunk(i % 2 == 0 ? 0 : mib, 8 * kib)));
        CHECK(arena.physical_of(*arena.allocate(8, 8)) == HostPhysical(i % 2 == 0 ? 16 * mib : 17 * mib));
        arena.clear();
        CHECK(arena.total_bytes() == 0);
        CHECK_FALSE(arena.allocate(1, 1));
    }
}

TEST_CASE("senseless requests and chunks are refused") {
    Backing backing;
    Arena arena;
    CHECK_FALSE(arena.allocate(1, 1));  // nothing there yet
    CHECK_FALSE(arena.add(backing.chunk(0, 0)));
    CHECK_FALSE(arena.add(backing.chunk(8, 4 * kib)));
    CHECK_FALSE(arena.add(backing.chunk(0, 4 * kib + 1)));
    REQUIRE(arena.add(backing.chunk(4 * kib, 64 * kib)));
    CHECK_FALSE(arena.allocate(~u64{0}, 8));
    CHECK_FALSE(arena.allocate(~u64{0} - 100, 4 * kib));
    CHECK_FALSE(arena.allocate(8, 3));
    CHECK_FALSE(arena.allocate(8, 0));
    CHECK_FALSE(arena.allocate(8, 4 * mib));
    CHECK_FALSE(arena.allocate_pages(~u64{0}));
    CHECK_FALSE(arena.allocate_pages(bit(52)));
    CHECK_FALSE(arena.create_array<u64>(~u64{0} / 4));
    CHECK(arena.used_bytes() == 0);
    for (int i = 1; i < 16; ++i) REQUIRE(arena.add(backing.chunk(mib, 4 * kib)));
    CHECK_FALSE(arena.add(backing.chunk(mib, 4 * kib)));
}

TEST_CASE("each allocation can be made to fail, and the arena is as new after its release") {
    Backing backing;
    Arena arena;
    REQUIRE(arena.add(backing.chunk(0, 64 * kib)));
    u64 failures = 0;
    for (u64 at = 0;; ++at) {
        AllocationFault fault{.fail_at = at};
        arena.set_fault(&fault);
        const bool built = build(arena).has_value();
        arena.set_fault(nullptr);
        arena.release();
        CHECK(arena.free_bytes() == 64 * kib);
        if (built) break;
        ++failures;
    }
    CHECK(failures == 4);
}
