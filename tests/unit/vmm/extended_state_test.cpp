#include "vmm/extended_state.hpp"

#include <catch2/catch.hpp>
#include <cstring>

#include "tests/fakes/fake_extended_registers.hpp"

using namespace bulkhead;

namespace {

using Operations = std::vector<std::string>;

struct Area {
    alignas(4096) u8 bytes[ExtendedState::area_size] = {};
};

}  // namespace

TEST_CASE("after RESET the x87 and SSE control words are the manual's, the rest is initial") {
    auto& registers = new_fake_extended_registers();
    Area area;
    std::memset(area.bytes, 0xEE, sizeof area.bytes);
    ExtendedState state(area.bytes, 7, true);
    state.reset();
    CHECK(area.bytes[0] == 0x40);
    CHECK(area.bytes[1] == 0);
    CHECK(area.bytes[4] == 0xFF);
    CHECK(area.bytes[24] == 0x80);
    CHECK(area.bytes[25] == 0x1F);
    // Only x87 comes from the area: XRSTOR initialises what XSTATE_BV does not name.
    CHECK(area.bytes[512] == 1);
    for (usize i = 513; i < sizeof area.bytes; ++i) REQUIRE(area.bytes[i] == 0);
    CHECK(state.xcr0() == 1);
    CHECK(state.tsc_aux() == 0);
    CHECK(state.debug_register(6) == 0xFFFF0FF0);
    CHECK(registers.operations.empty());
}

TEST_CASE("every component is saved and restored, whatever XCR0 the guest has set") {
    auto& registers = new_fake_extended_registers();
    Area area;
    ExtendedState state(area.bytes, 7, true);
    state.reset();
    state.load();
    CHECK(registers.operations == Operations{"xcr0 7", "xrstor 7 under 7", "xcr0 1"});
    state.set_xcr0(3);
    CHECK(registers.xcr0 == 3);
    registers.operations.clear();
    registers.file.assign(1088, 0x5A);
    state.save();
    CHECK(registers.operations == Operations{"xcr0 7", "xsave 7 under 7"});
    CHECK(state.xcr0() == 3);
    registers.file.assign(1088, 0);
    registers.operations.clear();
    state.load();
    CHECK(registers.file == std::vector<u8>(1088, 0x5A));
    CHECK(registers.xcr0 == 3);
}

TEST_CASE("an XSETBV that did not exit is found in the processor") {
    auto& registers = new_fake_extended_registers();
    Area area;
    ExtendedState state(area.bytes, 7, true);
    state.reset();
    state.load();
    registers.xcr0 = 7;
    CHECK(state.xcr0() == 7);
    state.save();
    CHECK(state.xcr0() == 7);
    registers.xcr0 = 1;
    state.load();
    CHECK(registers.xcr0 == 7);
}

TEST_CASE("without XSAVE, FXSAVE serves and XCR0 is never touched") {
    auto& registers = new_fake_extended_registers();
    Area area;
    ExtendedState state(area.bytes, 0, false);
    state.reset();
    CHECK(area.bytes[512] == 0);
    state.load();
    state.set_xcr0(1);
    state.set_tsc_aux(5);
    state.save();
    CHECK(registers.operations == Operations{"fxrstor", "fxsave"});
    CHECK(registers.tsc_aux_writes == 0);
    CHECK(state.tsc_aux() == 5);
}

TEST_CASE("debug registers and TSC_AUX move with the vCPU and are written through while loaded") {
    auto& registers = new_fake_extended_registers();
    Area first_area, second_area;
    ExtendedState first(first_area.bytes, 7, true), second(second_area.bytes, 7, true);
    first.reset();
    second.reset();
    for (unsigned i = 0; i < 4; ++i) first.set_debug_register(i, 0x1000 + i);
    first.set_debug_register(6, 0xFFFF0FF1);
    first.set_tsc_aux(11);
    CHECK(registers.debug.empty());
    first.load();
    for (u32 i = 0; i < 4; ++i) CHECK(registers.debug[i] == 0x1000 + i);
    CHECK(registers.debug[6] == 0xFFFF0FF1);
    CHECK(registers.tsc_aux == 11);
    registers.debug[2] = 0x2222;  // the guest's own MOV
    CHECK(first.debug_register(2) == 0x2222);
    first.save();
    second.load();
    CHECK(registers.debug[2] == 0);
    CHECK(registers.tsc_aux == 0);
    second.set_debug_register(0, 0x77);
    second.set_tsc_aux(22);
    CHECK(registers.debug[0] == 0x77);
    CHECK(registers.tsc_aux == 22);
    CHECK(first.debug_register(2) == 0x2222);
    second.save();
    first.load();
    CHECK(registers.debug[2] == 0x2222);
    CHECK(registers.debug[0] == 0x1000);
    CHECK(registers.tsc_aux == 11);
}

TEST_CASE("loading twice and saving twice do nothing the second time") {
    auto& registers = new_fake_extended_registers();
    Area area;
    ExtendedState state(area.bytes, 7, true);
    state.reset();
    state.load();
    const auto once = registers.operations.size();
    state.load();
    CHECK(registers.operations.size() == once);
    state.save();
    const auto saved = registers.operations.size();
    state.save();
    CHECK(registers.operations.size() == saved);
}

TEST_CASE("a reset while loaded reaches the processor's registers at once") {
    auto& registers = new_fake_extended_registers();
    Area area;
    ExtendedState state(area.bytes, 7, true);
    state.reset();
    state.load();
    state.set_xcr0(7);
    state.set_tsc_aux(9);
    state.set_debug_register(1, 5);
    registers.file.assign(1088, 0xEE);
    state.reset();
    CHECK(state.loaded());
    CHECK(registers.xcr0 == 1);
    CHECK(registers.tsc_aux == 0);
    CHECK(registers.debug[1] == 0);
    CHECK(registers.file[200] == 0);
}
