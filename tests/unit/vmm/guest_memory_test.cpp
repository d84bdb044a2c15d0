#include "vmm/guest_memory.hpp"

#include <catch2/catch.hpp>
#include <vector>

using namespace bulkhead;

namespace {

struct Fixture {
    std::vector<u8> low = std::vector<u8>(2 * page_size, 0x11);
    std::vector<u8> rom = std::vector<u8>(page_size, 0x22);
    std::vector<u8> high = std::vector<u8>(page_size, 0x33);
    GuestMemory memory;

    Fixture() {
        // Out of order on purpose; low and rom touch.
        REQUIRE(memory.add({GuestPhysical(0x100000), page_size, high.data(), true}));
        REQUIRE(memory.add({GuestPhysical(0x0), 2 * page_size, low.data(), true}));
        REQUIRE(memory.add({GuestPhysical(0x2000), page_size, rom.data(), false}));
    }
};

}  // namespace

TEST_CASE_METHOD(Fixture, "an address is found only if all its bytes lie in one range") {
    CHECK(memory.at(GuestPhysical(0), 1) == low.data());
    CHECK(memory.at(GuestPhysical(0x1FFF), 1) == low.data() + 0x1FFF);
    CHECK(memory.at(GuestPhysical(0), 0x2000) == low.data());
    CHECK(memory.at(GuestPhysical(0), 0x2001) == nullptr);
    CHECK(memory.at(GuestPhysical(0x1FFF), 2) == nullptr);
    CHECK(memory.at(GuestPhysical(0x3000), 1) == nullptr);
    CHECK(memory.at(GuestPhysical(0x100FFF), 1) == high.data() + 0xFFF);
    CHECK(memory.at(GuestPhysical(0x101000), 0) == nullptr);
    CHECK(memory.at(GuestPhysical(0x100000), ~u64{0}) == nullptr);
    CHECK(memory.at(GuestPhysical(~u64{0}), 2) == nullptr);
    CHECK(memory.total_bytes() == 4 * page_size);
}

TEST_CASE_METHOD(Fixture, "ranges are kept in order") {
    const auto ranges = memory.ranges();
    REQUIRE(ranges.size() == 3);
    CHECK(ranges[0].start == GuestPhysical(0));
    CHECK(ranges[1].start == GuestPhysical(0x2000));
    CHECK_FALSE(ranges[1].writable);
    CHECK(ranges[2].start == GuestPhysical(0x100000));
}

TEST_CASE_METHOD(Fixture, "copies cross adjacent ranges") {
    std::vector<u8> data(page_size + 1, 0x5A);
    CHECK(memory.write(GuestPhysical(0x1FFF), data));
    CHECK(low[0x1FFE] == 0x11);
    CHECK(low[0x1FFF] == 0x5A);
    CHECK(rom[0] == 0x5A);
    CHECK_FALSE(memory.write(GuestPhysical(0x2000), data));

    std::vector<u8> back(page_size + 1);
    CHECK(memory.read(GuestPhysical(0x1FFF), back));
    CHECK(back == std::vector<u8>(page_size + 1, 0x5A));
    CHECK(memory.fill(GuestPhysical(0x1FFE), 4, 0x77));
    CHECK(low[0x1FFE] == 0x77);
    CHECK(rom[1] == 0x77);
    CHECK(rom[2] == 0x5A);
}

TEST_CASE_METHOD(Fixture, "copies that leave memory fail, those of nothing succeed") {
    std::vector<u8> data(16);
    CHECK_FALSE(memory.read(GuestPhysical(0x2FF8), data));
    CHECK_FALSE(memory.read(GuestPhysical(0x50000), data));
    CHECK_FALSE(memory.read(GuestPhysical(~u64{0} - 3), data));
    CHECK_FALSE(memory.fill(GuestPhysical(0x100000), ~u64{0}, 0));
    CHECK(memory.read(GuestPhysical(0x50000), {}));
    CHECK(memory.write(GuestPhysical(~u64{0}), {}));
}

TEST_CASE_METHOD(Fixture, "ranges that are empty, ragged, wrapping or overlapping are refused") {
    u8* host = high.data();
    CHECK_FALSE(memory.add({GuestPhysical(0x10000), 0, host, true}));
    CHECK_FALSE(memory.add({GuestPhysical(0x10000), page_size, nullptr, true}));
    CHECK_FALSE(memory.add({GuestPhysical(0x10001), page_size, host, true}));
    CHECK_FALSE(memory.add({GuestPhysical(0x10000), page_size + 1, host, true}));
    CHECK_FALSE(memory.add({GuestPhysical(~u64{0} - 0xFFF), page_size, host, true}));
    CHECK_FALSE(memory.add({GuestPhysical(~u64{0} - 0xFFF), 2 * page_size, host, true}));
    CHECK_FALSE(memory.add({GuestPhysical(0x1000), page_size, host, true}));
    CHECK_FALSE(memory.add({GuestPhysical(0xFF000), 4 * page_size, host, true}));
    CHECK(memory.ranges().size() == 3);
    for (u64 i = 0; i < 5; ++i)
        CHECK(memory.add({GuestPhysical(0x20000 + i * page_size), page_size, host, true}));
    CHECK_FALSE(memory.add({GuestPhysical(0x40000), page_size, host, true}));
}
