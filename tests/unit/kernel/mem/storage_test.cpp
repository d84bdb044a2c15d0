// Objects that the kernel keeps in static storage need no constructor at run time: nothing runs before main.
#include <catch2/catch.hpp>

#include "kernel/mem/arena.hpp"
#include "kernel/mem/unit_allocator.hpp"

using namespace bulkhead;

namespace {

constinit UnitAllocator units;
constinit Arena arena;

}  // namespace

TEST_CASE("static allocators start empty") {
    CHECK(units.free_units() == 0);
    CHECK_FALSE(units.allocate({.units = 1}));
    CHECK(arena.total_bytes() == 0);
}
