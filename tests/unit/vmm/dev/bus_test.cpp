#include "vmm/dev/bus.hpp"

#include <catch2/catch.hpp>
#include <memory>
#include <string>
#include <vector>

using namespace bulkhead;

namespace {

// Answers each byte with its own offset plus a base, and records what it was asked.
class Recorder final : public Device {
  public:
    struct Access {
        u64 offset;
        unsigned size;
        u64 value;
        bool operator==(const Access&) const = default;
    };

    explicit Recorder(u8 base) : base_(base) {}
    std::string_view name() const override { return "recorder"; }
    u64 read(u64 offset, unsigned size) override {
        reads.push_back({offset, size, 0});
        u64 value = ~u64{0};  // rubbish above the size: the bus drops it
        for (unsigned i = 0; i < size; ++i) {
            value = (value & ~(u64{0xFF} << (8 * i))) | static_cast<u64>(u8(base_ + offset + i)) << (8 * i);
        }
        return value;
    }
    void write(u64 offset, unsigned size, u64 value) override { writes.push_back({offset, size, value}); }
    void reset() override {}

    std::vector<Access> reads, writes;

  private:
    u8 base_;
};

}  // namespace

TEST_CASE("an access inside one region reaches its device whole, at the device's own offset") {
    Bus bus(0x10000);
    Recorder device(0x40);
    REQUIRE(bus.attach(0x3F8, 8, device));
    REQUIRE(bus.attach(0x100, 4, device, 0x20));

    CHECK(bus.read(0x3F8, 1) == 0x40);
    CHECK(bus.read(0x3FC, 4) == 0x47464544);
    CHECK(bus.read(0x102, 2) == 0x6362);
    bus.write(0x3FF, 1, 0xABCD);
    REQUIRE(device.writes.size() == 1);
    CHECK(device.writes[0] == Recorder::Access{7, 1, 0xCD});
    CHECK(device.reads.size() == 3);
}

TEST_CASE("what no device claims reads as ones and swallows writes") {
    Bus bus(0x10000);
    Recorder device(0);
    REQUIRE(bus.attach(0x60, 1, device));
    CHECK(bus.read(0x61, 1) == 0xFF);
    CHECK(bus.read(0x61, 2) == 0xFFFF);
    CHECK(bus.read(0x5000, 4) == 0xFFFF'FFFF);
    CHECK(bus.read(0x5000, 8) == ~u64{0});
    bus.write(0x61, 4, 0);
    CHECK(device.reads.empty());
    CHECK(device.writes.empty());
    CHECK(Bus(0x10000).read(0, 1) == 0xFF);
}

TEST_CASE("an access across two devices or the end of one is split into bytes") {
    Bus bus(0x10000);
    Recorder first(0x10), second(0x80);
    REQUIRE(bus.attach(0x42, 2, second));
    REQUIRE(bus.attach(0x40, 2, first));

    CHECK(bus.read(0x40, 4) == 0x81801110);
    CHECK(first.reads == std::vector<Recorder::Access>{{0, 1, 0}, {1, 1, 0}});
    CHECK(bus.read(0x43, 4) == 0xFFFFFF81);
    CHECK(bus.read(0x3F, 2) == 0x10FF);

    bus.write(0x3F, 8, 0x8877'6655'4433'2211);
    CHECK(first.writes == std::vector<Recorder::Access>{{0, 1, 0x22}, {1, 1, 0x33}});
    CHECK(second.writes == std::vector<Recorder::Access>{{0, 1, 0x44}, {1, 1, 0x55}});
}

TEST_CASE("accesses at and past the end of the bus touch only what exists") {
    Bus bus(0x10000);
    Recorder device(0x30);
    REQUIRE(bus.attach(0xFFFE, 2, device));
    REQUIRE(bus.attach(0, 1, device));
    CHECK(bus.read(0xFFFF, 4) == 0xFFFFFF31);  // no wrap to port 0
    CHECK(bus.read(0x10000, 4) == 0xFFFFFFFF);
    CHECK(bus.read(~u64{0}, 8) == ~u64{0});
    bus.write(~u64{0}, 8, 0);
    bus.write(0xFFFF, 4, 0x12345678);
    CHECK(device.writes == std::vector<Recorder::Access>{{1, 1, 0x78}});
}

TEST_CASE("a bus whose addresses span all of 64 bits does not wrap") {
    Bus bus(~u64{0});
    Recorder device(0);
    REQUIRE(bus.attach(~u64{0} - 4, 4, device));
    REQUIRE(bus.attach(0, 4, device));
    CHECK(bus.read(~u64{0} - 1, 4) == 0xFFFFFF03);
    CHECK(device.reads.size() == 1);
    CHECK_FALSE(bus.attach(~u64{0} - 1, 4, device));
    CHECK_FALSE(bus.attach(8, ~u64{0}, device));
}

TEST_CASE("regions that are empty, out of range or overlapping are refused with the reason") {
    Bus bus(0x10000);
    Recorder device(0);
    REQUIRE(bus.attach(0x100, 0x10, device));
    CHECK_FALSE(bus.attach(0x200, 0, device));
    CHECK_FALSE(bus.attach(0xFFFF, 2, device));
    CHECK_FALSE(bus.attach(0x10000, 1, device));
    for (const u64 base : {0xF8, 0x100, 0x108, 0x10F}) CHECK_FALSE(bus.attach(base, 0x10, device));
    CHECK_FALSE(bus.attach(0x90, 0x100, device));
    CHECK(bus.attach(0xF0, 0x10, device));
    CHECK(bus.attach(0x110, 0x10, device));
    const auto refused = bus.attach(0x10F, 1, device);
    REQUIRE_FALSE(refused);
    CHECK(std::string(refused.error().text.view()).find("overlaps recorder at 0x100") != std::string::npos);
}

TEST_CASE("a full table refuses one more, and every address still finds its region") {
    Bus bus(0x10000);
    Recorder device(0);
    unsigned attached = 0;
    // Backwards, so that each goes to the front.
    for (u64 base = 0x800; base > 0; base -= 8) {
        if (!bus.attach(base, 4, device)) break;
        ++attached;
    }
    CHECK(attached >= 40);
    for (unsigned i = 0; i < attached; ++i) {
        const u64 base = 0x800 - 8 * i;
        REQUIRE(bus.find(base) != nullptr);
        CHECK(bus.find(base)->base == base);
        CHECK(bus.find(base + 3) == bus.find(base));
        CHECK(bus.find(base + 4) == nullptr);
        CHECK(bus.find(base - 1) == nullptr);
    }
}

TEST_CASE("every address finds the region that holds it, whatever the layout") {
    u32 seed = 77;
    const auto random = [&seed](u64 n) { return ((seed = seed * 1664525 + 1013904223) >> 8) % n; };
    for (const u64 limit : {u64{0x10000}, u64{0x10'0000}}) {
        for (int round = 0; round < 20; ++round) {
            Bus bus(limit);
            Recorder device(0);
            std::vector<std::pair<u64, u64>> regions;
            for (int i = 0; i < 60; ++i) {
                const u64 base = random(limit);
                const u64 length = 1 + random(i % 5 == 0 ? limit / 8 : 40);
                if (bus.attach(base, length, device)) regions.emplace_back(base, length);
            }
            for (int i = 0; i < 5000; ++i) {
                const auto& near = regions[random(regions.size())];
                const u64 address = i % 2 == 0 ? random(limit) : near.first + random(near.second + 4) - 2;
                const Bus::Region* found = bus.find(address);
                bool expected = false;
                for (const auto& [base, length] : regions) expected = expected || address - base < length;
                REQUIRE((found != nullptr) == expected);
                if (found != nullptr) REQUIRE(address - found->base < found->length);
            }
        }
    }
}
