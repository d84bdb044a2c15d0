#include "vmm/loader/start_state.hpp"

#include <catch2/catch.hpp>

#include "arch/x86/regs/control.hpp"

using namespace bulkhead;

TEST_CASE("the reset start is what the manual's table says") {
    const StartState state = make_reset_start();
    CHECK(state.rip == 0xFFF0);
    CHECK(state.rflags == 2);
    CHECK(state.cr0 == 0x60000010);
    CHECK(state.cr4 == 0);
    CHECK(state.efer == 0);
    const Segment& cs = state.segment(SegmentName::cs);
    CHECK(cs.selector == 0xF000);
    CHECK(cs.base == 0xFFFF0000);
    CHECK(cs.limit == 0xFFFF);
    CHECK(cs.base + state.rip == 0xFFFFFFF0);
    CHECK(state.idtr == DescriptorTable{.base = 0, .limit = 0xFFFF});
    CHECK_FALSE(state.firmware.has_value());
}

TEST_CASE("a real-mode start has its segment's base at sixteen times the selector") {
    const StartState state = make_real_start(0x9000, 0x20);
    CHECK(state.mode == StartState::Mode::real);
    CHECK(state.segment(SegmentName::cs).base == 0x90000);
    CHECK(state.rip == 0x20);
    CHECK((state.cr0 & cr0::pe) == 0);
}

TEST_CASE("a protected start is flat, unpaged, and agrees with its descriptor table") {
    const StartState state = make_protected_start(0x100000, GuestPhysical(0x800));
    CHECK(state.cr0 == (cr0::pe | cr0::et));
    CHECK(state.efer == 0);
    CHECK(state.rip == 0x100000);
    CHECK(state.gdtr == DescriptorTable{.base = 0x800, .limit = 47});
    const BootGdt gdt = make_boot_gdt(state.mode);
    for (const auto name : {SegmentName::cs, SegmentName::ds, SegmentName::es, SegmentName::ss,
                            SegmentName::fs, SegmentName::gs, SegmentName::tr}) {
        const Segment& segment = state.segment(name);
        REQUIRE(segment.selector / 8U < gdt.size());
        const u64 descriptor = gdt[segment.selector / 8];
        CHECK(extract(descriptor, 47, 40) == extract(segment.access, 7, 0));
        CHECK(extract(descriptor, 55, 52) == extract(segment.access, 15, 12));
        const u64 raw_limit = extract(descriptor, 15, 0) | extract(descriptor, 51, 48) << 16;
        CHECK((segment.granularity() ? raw_limit << 12 | 0xFFF : raw_limit) == segment.limit);
        CHECK(segment.base == 0);
    }
    CHECK(state.segment(SegmentName::cs).default_big());
    CHECK_FALSE(state.segment(SegmentName::cs).long_mode());
    CHECK(state.segment(SegmentName::tr).limit == 0x67);
}

TEST_CASE("a long-mode start has paging on and a 64-bit code segment") {
    const StartState state = make_long_start(0x1000200, GuestPhysical(0x9000), GuestPhysical(0x800));
    CHECK((state.cr0 & (cr0::pe | cr0::pg)) == (cr0::pe | cr0::pg));
    CHECK(state.cr3 == 0x9000);
    CHECK(state.cr4 == cr4::pae);
    CHECK(state.efer == (efer::lme | efer::lma));
    CHECK(state.segment(SegmentName::cs).long_mode());
    CHECK_FALSE(state.segment(SegmentName::cs).default_big());
    CHECK(state.segment(SegmentName::cs).selector == 0x10);
    CHECK(state.segment(SegmentName::ds).selector == 0x18);
    CHECK(make_boot_gdt(state.mode)[2] == 0x00AF9B000000FFFF);
}
