#include "vmm/dev/pci_host.hpp"

#include <catch2/catch.hpp>

#include "tests/fakes/fake_power_control.hpp"
#include "vmm/dev/bus.hpp"
#include "vmm/dev/pci_bridges.hpp"
#include "vmm/dev/reset_control.hpp"

using namespace bulkhead;

namespace {

struct Pc {
    FakePowerControl power;
    ResetControl reset_control{power};
    PciHost host{reset_control};
    PciBridge host_bridge, isa_bridge, pm;
    Bus ports{0x10000};

    Pc() {
        host_bridge.become_host_bridge();
        isa_bridge.become_isa_bridge();
        pm.become_power_management(0x600, 9);
        REQUIRE(host.attach(0, 0, host_bridge));
        REQUIRE(host.attach(1, 0, isa_bridge));
        REQUIRE(host.attach(1, 3, pm));
        REQUIRE(ports.attach(0xCF8, 8, host));
        host.reset();
    }
    static u32 address(unsigned device, unsigned function, unsigned offset, unsigned bus = 0) {
        return 0x8000'0000u | bus << 16 | device << 11 | function << 8 | (offset & 0xFC);
    }
    u64 in(unsigned device, unsigned function, unsigned offset, unsigned size) {
        ports.write(0xCF8, 4, address(device, function, offset));
        return ports.read(0xCFC + (offset & 3), size);
    }
    void out(unsigned device, unsigned function, unsigned offset, unsigned size, u64 value) {
        ports.write(0xCF8, 4, address(device, function, offset));
        ports.write(0xCFC + (offset & 3), size, value);
    }
};

}  // namespace

TEST_CASE_METHOD(Pc, "the address register keeps its defined bits and answers doublewords only") {
    ports.write(0xCF8, 4, 0xFFFF'FFFF);
    CHECK(ports.read(0xCF8, 4) == 0x80FF'FFFC);
    ports.write(0xCF8, 4, 0x8000'0000);
    CHECK(ports.read(0xCF8, 4) == 0x8000'0000);  // Linux's check for mechanism 1
    ports.write(0xCF8, 1, 0x12);
    ports.write(0xCF8, 2, 0x0034);
    CHECK(ports.read(0xCF8, 4) == 0x8000'0000);
    CHECK(ports.read(0xCF8, 1) == 0xFF);
    CHECK(ports.read(0xCFA, 2) == 0xFFFF);
}

TEST_CASE_METHOD(Pc, "a byte at CF9h reaches the reset register, not the address") {
    ports.write(0xCFB, 1, 0x01);  // Linux's probe for mechanism 1 writes this
    CHECK(power.resets == 0);
    ports.write(0xCF9, 1, 0x02);
    CHECK(ports.read(0xCF9, 1) == 0x02);
    ports.write(0xCF9, 1, 0x06);
    CHECK(power.resets == 1);
    CHECK(ports.read(0xCF8, 4) == 0);
}

TEST_CASE_METHOD(Pc, "the PC's bridges are found with their identities") {
    CHECK(in(0, 0, 0, 4) == 0x1237'8086);
    CHECK(in(0, 0, 0x0A, 2) == 0x0600);
    CHECK(in(1, 0, 0, 4) == 0x7000'8086);
    CHECK(in(1, 0, 0x0A, 2) == 0x0601);
    CHECK(in(1, 0, 0x0E, 1) == 0x80);
    CHECK(in(1, 3, 0, 2) == 0x8086);
    CHECK(in(1, 3, 2, 2) == 0x7113);
    CHECK(in(1, 3, 0x40, 4) == 0x601);
    CHECK(in(1, 3, 0x3C, 1) == 9);
}

TEST_CASE_METHOD(Pc, "what is not there reads as ones and swallows writes") {
    CHECK(in(2, 0, 0, 4) == 0xFFFF'FFFF);
    CHECK(in(1, 1, 0, 2) == 0xFFFF);
    CHECK(in(31, 7, 0xFF, 1) == 0xFF);
    out(2, 0, 4, 4, 0);
    ports.write(0xCF8, 4, address(0, 0, 0, 1));
    CHECK(ports.read(0xCFC, 4) == 0xFFFF'FFFF);
    ports.write(0xCF8, 4, 0x0000'0000);  // not enabled
    CHECK(ports.read(0xCFC, 4) == 0xFFFF'FFFF);
    ports.write(0xCFC, 4, 0);
}

TEST_CASE_METHOD(Pc, "every byte, word and doubleword of the window reads alike") {
    const u64 whole = in(0, 0, 8, 4);
    for (unsigned i = 0; i < 4; ++i) CHECK(in(0, 0, 8 + i, 1) == (whole >> (8 * i) & 0xFF));
    for (unsigned i = 0; i < 3; ++i) CHECK(in(0, 0, 8 + i, 2) == (whole >> (8 * i) & 0xFFFF));
    ports.write(0xCF8, 4, address(0, 0, 0));
    CHECK(ports.read(0xCFE, 4) == (0xFFFF'0000 | in(0, 0, 2, 2)));  // past the window's end
    // Across CFBh and CFCh: the reset register's neighbour, then vendor's low bytes.
    CHECK(ports.read(0xCFA, 4) == 0x8086'FFFF);
    CHECK(host.read(0, 8) == 0x1237'8086'FFFF'00FF);  // no register is that wide: bytes
}

TEST_CASE_METHOD(Pc, "read-only bits stay, writable ones change, status bits clear by writing one") {
    out(0, 0, 0, 4, 0);
    CHECK(in(0, 0, 0, 4) == 0x1237'8086);
    out(0, 0, 4, 2, 0xFFFF);
    CHECK(in(0, 0, 4, 2) == 0x0146);
    out(0, 0, 4, 2, 0);
    CHECK(in(0, 0, 4, 2) == 0x0006);
    out(0, 0, 0x10, 4, 0xFFFF'FFFF);  // no BARs
    CHECK(in(0, 0, 0x10, 4) == 0);
    out(0, 0, 0x59, 1, 0x30);
    CHECK(in(0, 0, 0x59, 1) == 0x30);
    out(1, 0, 0x60, 4, 0x0B0A0B0A);
    CHECK(in(1, 0, 0x60, 4) == 0x0B0A0B0A);
    out(1, 3, 0x40, 4, 0xB001);  // the ACPI block does not move
    CHECK(in(1, 3, 0x40, 4) == 0x601);
    host.reset();
    CHECK(in(0, 0, 0x59, 1) == 0x00);
    CHECK(in(1, 0, 0x60, 1) == 0x80);

    PciConfigSpace space;
    space.define(6, 2, 0x0010);
    space.define_write_1_to_clear(6, 2, 0xF900);
    space.set(6, 2, 0xF910);
    space.write(6, 2, 0x0000);
    CHECK(space.read(6, 2) == 0xF910);
    space.write(7, 1, 0x81);
    CHECK(space.read(6, 2) == 0x7810);
    space.reset();
    CHECK(space.read(6, 2) == 0x0010);
}

TEST_CASE_METHOD(Pc, "places that are taken or do not exist are refused") {
    PciBridge other;
    CHECK_FALSE(host.attach(1, 0, other));
    CHECK_FALSE(host.attach(32, 0, other));
    CHECK_FALSE(host.attach(0, 8, other));
    unsigned attached = 0;
    for (unsigned device = 2; device < 32; ++device) {
        for (unsigned function = 0; function < 8; ++function)
            attached += host.attach(device, function, other).has_value();
    }
    CHECK(attached == PciHost::max_functions - 3);
}

TEST_CASE_METHOD(Pc, "any sequence of accesses leaves identities alone") {
    u32 seed = 17;
    const auto random = [&seed] { return (seed = seed * 1664525 + 1013904223) >> 8; };
    for (int i = 0; i < 50'000; ++i) {
        const u32 r = random();
        if ((r & 7) == 0) ports.write(0xCF8, 4, 0x8000'0000u | (random() & 0xFFFF));
        if ((r & 1) != 0)
            ports.write(0xCF4 + ((r >> 4) & 15), 1u << ((r >> 10) & 3),
                        static_cast<u64>(random()) << 16 | random());
        else
            (void)ports.read(0xCF4 + ((r >> 4) & 15), 1u << ((r >> 10) & 3));
    }
    CHECK(in(0, 0, 0, 4) == 0x1237'8086);
    CHECK(in(1, 0, 0, 4) == 0x7000'8086);
}
