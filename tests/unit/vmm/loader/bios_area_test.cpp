#include "vmm/loader/bios_area.hpp"

#include <catch2/catch.hpp>

#include "tests/unit/vmm/loader/test_vm.hpp"
#include "vmm/loader/bios_state.hpp"

using namespace bulkhead;
using test::TestVm;

namespace {
constexpr u32 one_cpu[] = {0};
}

TEST_CASE("the BIOS data area describes base memory, serial ports and the text mode") {
    TestVm vm(16 * mib);
    MachineDescription machine = test::make_machine(one_cpu);
    machine.com2 = true;
    REQUIRE(write_bios_area(vm.memory, machine));
    CHECK(vm.get<u16>(0x400) == 0x3F8);
    CHECK(vm.get<u16>(0x402) == 0x2F8);
    CHECK(vm.get<u16>(0x404) == 0);
    CHECK(vm.get<u16>(0x40E) == 0x9FC0);
    CHECK(vm.get<u16>(0x413) == 639);
    CHECK(((vm.get<u16>(0x410) >> 9) & 7) == 2);
    CHECK(vm.get<u8>(0x449) == 3);
    CHECK(vm.get<u16>(0x44A) == 80);
    CHECK(vm.get<u16>(0x463) == 0x3D4);
    CHECK(vm.get<u8>(0x484) == 24);
    CHECK(vm.get<u16>(0x485) == 16);
    CHECK(vm.get<u8>(0x9FC00) == 1);
    CHECK(vm.get<u8>(0x9FC01) == 0);
}

TEST_CASE("without a screen the BIOS data area has no video mode") {
    TestVm vm(16 * mib);
    MachineDescription machine = test::make_machine(one_cpu);
    machine.vga = false;
    machine.com1 = false;
    REQUIRE(write_bios_area(vm.memory, machine));
    CHECK(vm.get<u8>(0x449) == 0);
    CHECK(vm.get<u16>(0x463) == 0);
    CHECK(vm.get<u16>(0x400) == 0);
}

TEST_CASE("every real-mode vector leads to an IRET, and the reset entry to a reset") {
    TestVm vm(16 * mib);
    REQUIRE(write_bios_area(vm.memory, test::make_machine(one_cpu)));
    for (u64 vector = 0; vector < 256; ++vector) {
        const u64 offset = vm.get<u16>(4 * vector), segment = vm.get<u16>(4 * vector + 2);
        CHECK(vm.get<u8>(segment * 16 + offset) == 0xCF);
    }
    CHECK(vm.get<u8>(0xFFFF0) == 0xEA);
    const u64 target = vm.get<u16>(0xFFFF3) * u64{16} + vm.get<u16>(0xFFFF1);
    CHECK(vm.bytes(target, 6) == std::vector<u8>{0xB0, 0x06, 0xBA, 0xF9, 0x0C, 0xEE});
    CHECK(vm.get<u8>(0xFFFFE) == 0xFC);
}

TEST_CASE("MTRRs as a BIOS leaves them cover the hole and are switched on last") {
    for (const unsigned bits : {32U, 36U, 39U, 46U, 52U}) {
        const auto writes = bios_msr_writes(bits);
        CHECK(writes.back().index.raw() == 0x2FF);
        CHECK(writes.back().value == 0xC06);
        u64 base = 0, mask = 0;
        for (const MsrWrite& write : writes) {
            if (write.index.raw() == 0x200) base = write.value;
            if (write.index.raw() == 0x201) mask = write.value;
        }
        const auto uncacheable = [&](u64 address) {
            return (address & mask & ~0xFFFULL) == (base & mask & ~0xFFFULL);
        };
        CHECK((mask >> 11 & 1) == 1);
        CHECK(mask <= low_mask(bits));
        CHECK(uncacheable(0xC0000000));
        CHECK(uncacheable(0xFEE00000));
        CHECK_FALSE(uncacheable(0xBFFFF000));
        if (bits > 32) CHECK_FALSE(uncacheable(0x1C0000000));
    }
}

TEST_CASE("the PICs are programmed to vectors 08h and 70h") {
    std::vector<std::pair<u16, u8>> writes;
    for (const PortWrite& write : bios_port_writes()) writes.emplace_back(write.port.raw(), write.value);
    const std::vector<std::pair<u16, u8>> start = {{0x20, 0x11}, {0x21, 0x08}, {0x21, 0x04}, {0x21, 0x01},
                                                   {0xA0, 0x11}, {0xA1, 0x70}, {0xA1, 0x02}, {0xA1, 0x01}};
    REQUIRE(writes.size() > start.size());
    CHECK(std::equal(start.begin(), start.end(), writes.begin()));
    CHECK(bios_apic_writes().size() == 3);
}
