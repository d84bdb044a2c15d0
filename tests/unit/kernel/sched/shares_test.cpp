// What shares come out over seconds of simulated time.
#include "tests/unit/kernel/sched/simulated_machine.hpp"

using namespace bulkhead;
using namespace bulkhead::test;

namespace {

// In points: hundredths of one core over `span`.
[[nodiscard]] double points(u64 ran, u64 span) {
    return 100.0 * static_cast<double>(ran) / static_cast<double>(span);
}

}  // namespace

TEST_CASE("weights 100 and 300 on one core give 25 % and 75 % within 2 points over 10 s") {
    for (const u64 late : {u64{0}, 300 * microsecond, 2 * millisecond}) {
        SimulatedMachine machine(1, 1);
        machine.latest_timer = late;
        Runnable& light = machine.add_vcpu(machine.add_vm(), 0, 100);
        Runnable& heavy = machine.add_vcpu(machine.add_vm(), 0, 300);
        machine.run_until(10 * second);
        machine.finish();
        CHECK(points(light.run_time(machine.now), 10 * second) == Approx(25).margin(0.5));
        CHECK(points(heavy.run_time(machine.now), 10 * second) == Approx(75).margin(0.5));
        CHECK(machine.idle_ticks(0) == 0);
    }
}

TEST_CASE("weights changed at run time count from then on") {
    SimulatedMachine machine(2, 2);
    machine.latest_timer = 300 * microsecond;
    SimulatedVm &a = machine.add_vm(), &b = machine.add_vm(true);
    for (usize core = 0; core < 2; ++core) {
        machine.add_vcpu(a, core, 100);
        machine.add_vcpu(b, core, 300);
    }
    machine.run_until(10 * second);
    const u64 a_before = a.run_time(machine.now);
    CHECK(points(a_before, 20 * second) == Approx(25).margin(1));
    for (Runnable& vcpu : a.vcpus) machine.set_weight(vcpu, 900);
    machine.run_until(20 * second);
    CHECK(points(a.run_time(machine.now) - a_before, 20 * second) == Approx(75).margin(1));
    machine.finish();
}

TEST_CASE("a limit of 20 % holds within 1 point over 10 s, by one or four vCPUs, alone or among others") {
    for (const u64 period : {100 * millisecond, 10 * millisecond}) {
        for (const usize count : {usize{1}, usize{4}}) {
            for (const bool among_others : {false, true}) {
                for (const bool gang : {false, true}) {
                    for (const u64 late : {u64{0}, 50 * microsecond, 1 * millisecond}) {
                        SimulatedMachine machine(4, 3);
                        machine.latest_timer = late;
                        SimulatedVm& vm = machine.add_vm(gang);
                        REQUIRE(vm.bandwidth.set(period / 5, period));
                        for (usize core = 0; core < count; ++core) machine.add_vcpu(vm, core);
                        if (among_others) {
                            SimulatedVm& others = machine.add_vm();
                            for (usize core = 0; core < 4; ++core) machine.add_vcpu(others, core);
                        }
                        machine.run_until(10 * second);
                        machine.finish();
                        INFO("period " << period << " vCPUs " << count << " others " << among_others
                                       << " late " << late << " gang " << gang << " picks "
                                       << machine.picks());
                        CHECK(points(vm.run_time(machine.now), 10 * second) == Approx(20).margin(0.5));
                        // Evenly among the vCPUs.
                        for (const Runnable& vcpu : vm.vcpus) {
                            CHECK(points(vcpu.run_time(machine.now), 10 * second) *
                                      static_cast<double>(count) ==
                                  Approx(20).margin(3));
                        }
                        CHECK(machine.picks() < 4 * 10'000 * (period == 100 * millisecond ? 1 : 4));
                    }
                }
            }
        }
    }
}

TEST_CASE("a limit of more than one core, and one set and lifted at run time") {
    SimulatedMachine machine(4, 4);
    machine.latest_timer = 100 * microsecond;
    SimulatedVm& vm = machine.add_vm();
    for (usize core = 0; core < 4; ++core) machine.add_vcpu(vm, core);
    u64 before = 0;
    const auto ran_in_5_s = [&] {
        machine.pick_everywhere();
        machine.run_for(5 * second);
        const u64 ran = vm.run_time(machine.now) - before;
        before += ran;
        return points(ran, 5 * second);
    };
    CHECK(ran_in_5_s() == Approx(400));
    REQUIRE(vm.bandwidth.set(150 * millisecond, 100 * millisecond));
    CHECK(ran_in_5_s() == Approx(150).margin(1));
    REQUIRE(vm.bandwidth.set(10 * millisecond, 50 * millisecond));
    CHECK(ran_in_5_s() == Approx(20).margin(1));
    vm.bandwidth.set_unlimited();
    CHECK(ran_in_5_s() == Approx(400));
    REQUIRE(vm.bandwidth.set(390 * millisecond, 100 * millisecond));
    CHECK(ran_in_5_s() == Approx(390).margin(1));
    REQUIRE(vm.bandwidth.set(400 * millisecond, 100 * millisecond));
    CHECK(ran_in_5_s() == Approx(400));
    machine.finish();
}

TEST_CASE(
    "vCPUs that sleep at random leave their part of the limit to the others, and never exceed it together") {
    std::mt19937_64 random(8);
    for (int set = 0; set < 20; ++set) {
        SimulatedMachine machine(4, random());
        machine.latest_timer = 100 * microsecond;
        const u64 period = (set % 2 == 0 ? 100 : 10) * millisecond;
        SimulatedVm& vm = machine.add_vm();
        REQUIRE(vm.bandwidth.set(period / 2, period));
        for (usize core = 0; core < 4; ++core) machine.add_vcpu(vm, core);
        // One always wants to run: half of a core for the group is always asked for.
        while (machine.now < 5 * second) {
            machine.run_for(1 + random() % (5 * millisecond));
            Runnable& vcpu = vm.vcpus[1 + random() % 3];
            random() % 2 == 0 ? machine.wake(vcpu) : machine.block(vcpu);
            const u64 periods = machine.now / period + 1;
            REQUIRE(vm.run_time(machine.now) <=
                    periods * (period / 2) + 4 * (machine.latest_timer + granularity / 4 + 1));
        }
        machine.finish();
        CHECK(points(vm.run_time(machine.now), machine.now) <= 51);
        CHECK(points(vm.run_time(machine.now), machine.now) >= 45);
    }
}
