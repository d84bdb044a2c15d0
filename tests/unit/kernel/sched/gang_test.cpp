#include "kernel/sched/gang.hpp"

#include "tests/unit/kernel/sched/simulated_machine.hpp"

using namespace bulkhead;
using namespace bulkhead::test;

TEST_CASE("a call lasts until its end, and there is one at a time") {
    Gang gang;
    CHECK_FALSE(gang.call_at(0));
    const auto call = gang.call(100, 200);
    REQUIRE(call);
    CHECK(call->generation == 1);
    CHECK_FALSE(gang.call(150, 250));
    REQUIRE(gang.call_at(199));
    CHECK(gang.call_at(199)->until == 200);
    CHECK(gang.call_at(99)->start == 100);  // by a clock that lags
    CHECK_FALSE(gang.call_at(200));
    CHECK(gang.call(200, 300)->generation == 2);
    CHECK(gang.calls() == 2);
    gang.enable(false);
    CHECK_FALSE(gang.call_at(250));
    CHECK_FALSE(gang.call(400, 500));
    gang.set_contended(3, true);
    CHECK(gang.contended() == 0);
    gang.enable(true);
    CHECK(gang.contended() == 8);
    gang.set_contended(64, true);
    gang.set_contended(3, false);
    CHECK(gang.contended() == 0);
}

TEST_CASE("the skew is that of the last follower, of calls that were followed") {
    Gang gang;
    auto call = gang.call(100, 200);
    gang.follow(*call, 107);
    gang.follow(*call, 104);
    CHECK(gang.skew().count == 0);
    const auto second = gang.call(200, 300);
    CHECK(gang.skew().count == 1);
    CHECK(gang.skew().last == 7);
    gang.follow(*call, 299);  // too late for the first
    const auto third = gang.call(300, 400);
    CHECK(gang.skew().count == 1);  // nobody followed the second
    CHECK(second->generation == 2);
    gang.follow(*third, 290);  // a clock that lags
    gang.follow(*third, 303);
    (void)gang.call(400, 500);
    CHECK(gang.skew().count == 2);
    CHECK(gang.skew().last == 3);
    CHECK(gang.skew().max == 7);
    CHECK(gang.skew().sum == 10);
}

TEST_CASE("the lowest contended core calls, the others follow at once and return to fair turns after") {
    Gang gang;
    RunQueue low(latency, granularity, 2), high(latency, granularity, 5);
    Runnable member_low(1, 100, nullptr, &gang), member_high(2, 100, nullptr, &gang), a(3), b(4);
    REQUIRE(low.add(member_low, 0));
    REQUIRE(low.add(a, 0));
    REQUIRE(high.add(member_high, 0));
    REQUIRE(high.add(b, 0));
    for (Runnable* r : {&member_high, &b}) high.wake(*r, 0);
    CHECK(high.pick(0).next == &member_high);  // nobody to wait for yet
    CHECK(gang.contended() == 1 << 5);
    for (Runnable* r : {&member_low, &a}) low.wake(*r, 0);
    const u64 half = latency / 2;
    auto choice = low.pick(0);
    CHECK(choice.next == &member_low);
    CHECK(choice.until == half);
    CHECK(choice.kick == 1 << 5);
    CHECK(high.pick(500).next == &member_high);
    CHECK(high.pick(500).until == half);
    // b is behind, but the call lasts; so does it for one that wakes.
    CHECK(high.pick(half - 1).next == &member_high);
    high.block(b, half - 1);
    CHECK(high.wake(b, half - 1) == false);
    CHECK(high.pick(half).next == &b);
    CHECK(low.pick(half).next == &a);
    choice = low.pick(latency);
    CHECK(choice.next == &member_low);
    CHECK(choice.kick == 1 << 5);
    const auto follower = high.pick(latency + 700);
    CHECK(follower.next == &member_high);
    CHECK(follower.until == choice.until);
    (void)low.pick(choice.until);
    (void)low.pick(choice.until + latency);
    CHECK(gang.skew().count == 2);
    CHECK(gang.skew().last == 700);
    CHECK(gang.skew().max == 700);
}

TEST_CASE("a member alone on its core runs without a timer and is called by nobody") {
    Gang gang;
    RunQueue first(latency, granularity, 0), second(latency, granularity, 1);
    Runnable alone(1, 100, nullptr, &gang), member(2, 100, nullptr, &gang), other(3);
    REQUIRE(first.add(alone, 0));
    REQUIRE(second.add(member, 0));
    REQUIRE(second.add(other, 0));
    first.wake(alone, 0);
    for (Runnable* r : {&member, &other}) second.wake(*r, 0);
    CHECK(first.pick(0).until == RunQueue::forever);
    const auto choice = second.pick(0);
    CHECK(choice.next == &member);
    CHECK(choice.kick == 0);
    CHECK(gang.calls() == 0);
}

TEST_CASE("a gang of 4 runs together, with its shares and a skew of one kick, and not so without the gang") {
    for (const bool is_gang : {true, false}) {
        for (const u64 late : {u64{0}, 200 * microsecond}) {
            SimulatedMachine machine(4, 9);
            machine.latest_timer = late;
            machine.kick_delay = 30 * microsecond;
            SimulatedVm &vm = machine.add_vm(is_gang), &others = machine.add_vm();
            for (usize core = 0; core < 4; ++core) {
                machine.add_vcpu(vm, core);
                machine.run_for(3 * millisecond);
                machine.add_vcpu(others, core);
            }
            machine.run_until(10 * second);
            machine.finish();
            const double together = static_cast<double>(vm.all_ran) / static_cast<double>(vm.any_ran);
            const auto skew = vm.gang.skew();
            INFO("gang " << is_gang << " late " << late << " together " << together << " calls "
                         << vm.gang.calls() << " counted " << skew.count << " skew max " << skew.max
                         << " mean " << skew.sum / (skew.count + 1));
            CHECK(static_cast<double>(vm.run_time(machine.now)) * 100 / (40.0 * second) ==
                  Approx(50).margin(1));
            if (is_gang) {
                CHECK(together > 0.95);
                CHECK(skew.count > 400);
                CHECK(skew.max <= machine.kick_delay);
            } else {
                CHECK(together < 0.7);
                CHECK(skew.count == 0);
            }
        }
    }
}

TEST_CASE("cores of unequal load: every core keeps its shares, and the gang is together while it can") {
    for (const bool leader_is_busier : {true, false}) {
        SimulatedMachine machine(2, 10);
        machine.latest_timer = 200 * microsecond;
        SimulatedVm& vm = machine.add_vm(true);
        for (usize core = 0; core < 2; ++core) {
            machine.add_vcpu(vm, core);
            const int others = (core == 0) == leader_is_busier ? 3 : 1;
            for (int i = 0; i < others; ++i) machine.add_vcpu(machine.add_vm(), core);
        }
        machine.run_until(10 * second);
        machine.finish();
        const auto percent = [&](usize i) {
            return static_cast<double>(vm.vcpus[i].run_time(machine.now)) * 100 / (10.0 * second);
        };
        INFO("leader is busier " << leader_is_busier << " shares " << percent(0) << ' ' << percent(1)
                                 << " together " << vm.all_ran << " of " << vm.any_ran);
        CHECK(percent(0) == Approx(leader_is_busier ? 25 : 50).margin(2));
        CHECK(percent(1) == Approx(leader_is_busier ? 50 : 25).margin(2));
        CHECK(vm.all_ran > 20 * machine.now / 100);
    }
}

TEST_CASE("a member that sleeps, the lowest too, holds up nobody, and returns into a call that lasts") {
    SimulatedMachine machine(3, 11);
    SimulatedVm &vm = machine.add_vm(true), &others = machine.add_vm();
    for (usize core = 0; core < 3; ++core) {
        machine.add_vcpu(vm, core);
        machine.add_vcpu(others, core);
    }
    machine.run_until(1 * second);
    machine.block(vm.vcpus[0]);
    const u64 ran[] = {vm.vcpus[1].run_time(machine.now), vm.vcpus[2].run_time(machine.now)};
    const u64 calls = vm.gang.calls();
    machine.run_for(1 * second);
    CHECK(vm.vcpus[1].run_time(machine.now) - ran[0] > 480 * millisecond);
    CHECK(vm.vcpus[2].run_time(machine.now) - ran[1] > 480 * millisecond);
    CHECK(vm.gang.calls() - calls >= 40);
    CHECK(vm.gang.skew().max <= machine.kick_delay);
    // Woken in the middle of the others' call it runs at once.
    while (!machine.is_running(vm.vcpus[1])) machine.run_for(1 * millisecond);
    REQUIRE(machine.is_running(vm.vcpus[2]));
    machine.wake(vm.vcpus[0]);
    CHECK(machine.is_running(vm.vcpus[0]));
    machine.run_for(1 * second);
    CHECK(vm.gang.skew().max <= machine.kick_delay);
    machine.finish();
}

TEST_CASE("two gangs on the same cores take turns, each together, and one switched off goes its own ways") {
    SimulatedMachine machine(4, 12);
    machine.latest_timer = 100 * microsecond;
    SimulatedVm &a = machine.add_vm(true), &b = machine.add_vm(true);
    for (usize core = 0; core < 4; ++core) {
        machine.add_vcpu(a, core, 100);
        machine.add_vcpu(b, core, 200);
    }
    machine.run_until(10 * second);
    INFO("a together " << a.all_ran << " of " << a.any_ran << " b " << b.all_ran << " of " << b.any_ran);
    CHECK(a.all_ran * 100 > a.any_ran * 90);
    CHECK(b.all_ran * 100 > b.any_ran * 90);
    CHECK(static_cast<double>(a.run_time(machine.now)) / (40.0 * second) == Approx(1 / 3.0).margin(0.01));
    a.gang.enable(false);
    const u64 calls = a.gang.calls();
    machine.run_for(1 * second);
    CHECK(a.gang.calls() == calls);
    CHECK(b.gang.calls() > 0);
    machine.finish();
}
