#include <catch2/catch.hpp>

#include "tests/unit/vmm/dev/apic_bench.hpp"

using namespace bulkhead;

namespace {

constexpr u32 periodic = 1U << 17, tsc_deadline = 2U << 17;
constexpr u32 divide_by_1 = 0xB;

// Calls expire() at each deadline up to `target` and returns how often the interrupt came.
unsigned run_until(ApicBench& bench, Ticks target) {
    unsigned interrupts = 0;
    while (bench.apic.deadline() <= target) {
        if (bench.apic.deadline() > bench.clock.ticks) bench.clock.ticks = bench.apic.deadline();
        bench.apic.expire();
        if (!bench.apic.highest_pending()) continue;
        bench.apic.acknowledge();
        bench.write(apic::eoi, 0);
        ++interrupts;
    }
    bench.clock.ticks = target;
    return interrupts;
}

}  // namespace

TEST_CASE("every divider counts as the manual's figure 11-10 says, to the tick") {
    ApicBench bench;
    bench.enable();
    const std::pair<u32, u32> dividers[] = {{0, 2},  {1, 4},  {2, 8},     {3, 16},
                                            {8, 32}, {9, 64}, {0xA, 128}, {0xB, 1}};
    for (const auto& [code, divisor] : dividers) {
        bench.write(apic::lvt_timer, 0x40);
        bench.write(apic::timer_divide, code);
        bench.write(apic::timer_initial, 1000);
        REQUIRE(bench.read(apic::timer_current) == 1000);
        REQUIRE(bench.apic.deadline() == bench.clock.ticks + 1000 * divisor);
        bench.clock.advance(divisor - 1);
        REQUIRE(bench.read(apic::timer_current) == 1000);
        bench.clock.advance(1);
        REQUIRE(bench.read(apic::timer_current) == 999);
        bench.clock.advance(998 * divisor);
        REQUIRE(bench.read(apic::timer_current) == 1);
        bench.clock.advance(divisor - 1);
        bench.apic.expire();
        REQUIRE(bench.pending() == 0);
        bench.clock.advance(1);
        REQUIRE(bench.read(apic::timer_current) == 0);
        bench.apic.expire();
        REQUIRE(bench.pending() == 0x40);
        bench.apic.acknowledge();
        bench.write(apic::eoi, 0);
        REQUIRE(bench.apic.deadline() == never);
    }
}

TEST_CASE("a timer of another frequency than the TSC stays exact") {
    ApicBench bench({.timer_hz = 1'000'000'007});
    bench.enable();
    bench.write(apic::lvt_timer, 0x40);
    bench.write(apic::timer_divide, divide_by_1);
    bench.write(apic::timer_initial, 0xFFFFFFFF);
    for (Ticks ticks = 0; ticks < 4'000'000'000; ticks += 123'456'789) {
        bench.clock.ticks = ticks;
        const u64 elapsed = static_cast<u64>(static_cast<u128>(ticks) * 1'000'000'007 / 2'000'000'000);
        REQUIRE(bench.read(apic::timer_current) == 0xFFFFFFFF - elapsed);
    }
    REQUIRE(bench.apic.deadline() == bench.clock.from_count(0xFFFFFFFF, 1'000'000'007));
}

TEST_CASE("a periodic timer keeps its grid however late it is served, and collapses what was missed") {
    ApicBench bench;
    bench.enable();
    bench.write(apic::timer_divide, divide_by_1);
    bench.write(apic::lvt_timer, periodic | 0x50);
    bench.write(apic::timer_initial, 1'000'000);
    REQUIRE(run_until(bench, 10'000'000) == 10);
    REQUIRE(bench.read(apic::timer_current) == 1'000'000);
    bench.clock.advance(400'000);
    REQUIRE(bench.read(apic::timer_current) == 600'000);
    bench.clock.advance(5'000'000);
    bench.apic.expire();
    REQUIRE(bench.pending() == 0x50);
    bench.apic.acknowledge();
    bench.write(apic::eoi, 0);
    REQUIRE(bench.pending() == 0);
    REQUIRE(bench.apic.deadline() == 16'000'000);
    REQUIRE(bench.read(apic::timer_current) == 600'000);
    bench.clock.advance(u64{1} << 62);  // work stays bounded
    bench.apic.expire();
    REQUIRE(bench.apic.deadline() > bench.clock.ticks);
    bench.write(apic::timer_initial, 0);
    REQUIRE(bench.apic.deadline() == never);
    REQUIRE(bench.read(apic::timer_current) == 0);
}

TEST_CASE("a period too short to serve interrupts at the minimum's rate only, on the same grid") {
    ApicBench bench({.minimum_period = 40'000});
    bench.enable();
    bench.write(apic::timer_divide, divide_by_1);
    bench.write(apic::lvt_timer, periodic | 0x50);
    for (const u32 period : {1U, 2U, 999U, 39'999U}) {
        const Ticks start = bench.clock.ticks;
        bench.write(apic::timer_initial, period);
        const unsigned interrupts = run_until(bench, start + 4'000'000);
        REQUIRE(interrupts <= 101);
        REQUIRE(interrupts >= 49);
        REQUIRE((bench.apic.deadline() - start) % period == 0);
    }
    // All bits of initial count and divider at their extremes.
    bench.write(apic::timer_divide, 0xA);
    bench.write(apic::timer_initial, 0xFFFFFFFF);
    REQUIRE(bench.apic.deadline() == bench.clock.ticks + u64{0xFFFFFFFF} * 128);
}

TEST_CASE("a masked timer counts without interrupting, and unmasking it later raises nothing belated") {
    ApicBench bench;
    bench.enable();
    bench.write(apic::timer_divide, divide_by_1);
    bench.write(apic::lvt_timer, apic::masked | 0x50);
    bench.write(apic::timer_initial, 1000);
    REQUIRE(bench.apic.deadline() == never);
    bench.clock.advance(400);
    REQUIRE(bench.read(apic::timer_current) == 600);
    bench.clock.advance(5000);
    REQUIRE(bench.read(apic::timer_current) == 0);
    bench.write(apic::lvt_timer, 0x50);
    REQUIRE(bench.pending() == 0);
    REQUIRE(bench.apic.deadline() == never);
    // Unmasked in time, it fires.
    bench.write(apic::lvt_timer, apic::masked | 0x50);
    bench.write(apic::timer_initial, 1000);
    bench.clock.advance(500);
    bench.write(apic::lvt_timer, 0x50);
    REQUIRE(bench.apic.deadline() == bench.clock.ticks + 500);
}

TEST_CASE("changing the divider goes on from the current count; so does one-shot to periodic") {
    ApicBench bench;
    bench.enable();
    bench.write(apic::timer_divide, divide_by_1);
    bench.write(apic::lvt_timer, 0x50);
    bench.write(apic::timer_initial, 1000);
    bench.clock.advance(250);
    bench.write(apic::timer_divide, 0);  // by 2
    REQUIRE(bench.read(apic::timer_current) == 750);
    REQUIRE(bench.apic.deadline() == bench.clock.ticks + 1500);
    bench.write(apic::lvt_timer, periodic | 0x50);
    REQUIRE(bench.apic.deadline() == bench.clock.ticks + 1500);
    bench.clock.advance(1500);
    bench.apic.expire();
    REQUIRE(bench.pending() == 0x50);
    REQUIRE(bench.read(apic::timer_current) == 1000);
}

TEST_CASE("TSC-deadline mode: armed by the MSR, fires once, and reads as zero after") {
    ApicBench bench;
    bench.enable();
    bench.clock.ticks = 5'000;
    REQUIRE(bench.apic.tsc_deadline() == 0);
    bench.apic.set_tsc_deadline(6'000);  // not in that mode: ignored
    REQUIRE(bench.apic.tsc_deadline() == 0);
    bench.write(apic::lvt_timer, tsc_deadline | 0x60);
    bench.apic.set_tsc_deadline(6'000);
    REQUIRE(bench.apic.tsc_deadline() == 6'000);
    REQUIRE(bench.apic.deadline() == 6'000);
    bench.write(apic::timer_initial, 55);  // ignored in this mode
    REQUIRE(bench.read(apic::timer_initial) == 0);
    REQUIRE(bench.read(apic::timer_current) == 0);
    REQUIRE(run_until(bench, 10'000) == 1);
    REQUIRE(bench.apic.tsc_deadline() == 0);
    REQUIRE(bench.apic.deadline() == never);
    // A deadline in the past fires at once, and once.
    bench.apic.set_tsc_deadline(1);
    REQUIRE(bench.pending() == 0x60);
    bench.apic.acknowledge();
    bench.write(apic::eoi, 0);
    REQUIRE(run_until(bench, 1'000'000) == 0);
    // Zero disarms.
    bench.apic.set_tsc_deadline(2'000'000);
    bench.apic.set_tsc_deadline(0);
    REQUIRE(bench.apic.deadline() == never);
    // Leaving the mode disarms.
    bench.apic.set_tsc_deadline(2'000'000);
    bench.write(apic::lvt_timer, 0x60);
    REQUIRE(bench.apic.deadline() == never);
    bench.write(apic::lvt_timer, tsc_deadline | 0x60);
    REQUIRE(bench.apic.tsc_deadline() == 0);
    // The extremes.
    bench.apic.set_tsc_deadline(~u64{0});
    REQUIRE(bench.apic.deadline() != never);
    REQUIRE(bench.apic.deadline() > u64{1} << 62);
}

TEST_CASE("the deadline is in the vCPU's own TSC and follows its offset") {
    ApicBench bench;
    bench.enable();
    bench.clock.ticks = 1'000;
    bench.write(apic::lvt_timer, tsc_deadline | 0x60);
    bench.apic.set_tsc_offset(1'000'000);
    bench.apic.set_tsc_deadline(1'002'000);
    REQUIRE(bench.apic.deadline() == 2'000);
    bench.apic.set_tsc_offset(1'000'500);
    REQUIRE(bench.apic.deadline() == 1'500);
    bench.apic.set_tsc_offset(u64{0} - 500);  // the TSC reads 500
    REQUIRE(bench.apic.deadline() == 1'002'500);
    bench.apic.set_tsc_offset(5'000'000);
    REQUIRE(bench.pending() == 0x60);
    bench.apic.set_tsc_offset(~u64{0} - 1'000);  // the TSC is about to wrap
    bench.apic.set_tsc_deadline(~u64{0});
    REQUIRE(bench.pending() == 0x60);
}

TEST_CASE("a timer without TSC-deadline mode does not offer its bit") {
    ApicBench bench({.tsc_deadline = false});
    bench.enable();
    bench.write(apic::lvt_timer, tsc_deadline | 0x60);
    REQUIRE(bench.read(apic::lvt_timer) == 0x60);
    bench.enter_x2apic();
    REQUIRE_FALSE(bench.apic.write_msr(x2apic_msr(apic::lvt_timer), tsc_deadline));
}
