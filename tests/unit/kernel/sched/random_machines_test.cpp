// Thousands of random machines: what must hold for every one of them, at every step.
#include "tests/unit/kernel/sched/simulated_machine.hpp"

using namespace bulkhead;
using namespace bulkhead::test;

namespace {

struct Options {
    bool limits = false, gangs = false, sleep = false, moves = false, weights = false;
};

// 1 to 8 cores, 1 to 6 VMs of up to as many vCPUs.
void populate(SimulatedMachine& machine, usize cores, const Options& options) {
    auto& random = machine.random;
    const usize vms = 1 + random() % 6;
    for (usize i = 0; i < vms; ++i) {
        SimulatedVm& vm = machine.add_vm(options.gangs && random() % 2 == 0);
        const usize vcpus = 1 + random() % cores;
        const u32 weight = static_cast<u32>(25 + random() % 400);
        const usize first = random() % cores;
        for (usize core = 0; core < vcpus; ++core) machine.add_vcpu(vm, (first + core) % cores, weight);
        if (options.limits && random() % 2 == 0) {
            const u64 period = (random() % 2 == 0 ? 10 : 100) * millisecond;
            REQUIRE(vm.bandwidth.set(period * vcpus * (5 + random() % 90) / 100, period));
        }
    }
    machine.pick_everywhere();
}

// At most a quota a period, and a debt.
void check_limits(const SimulatedMachine& machine) {
    for (const SimulatedVm& vm : machine.vms) {
        if (vm.bandwidth.quota() == 0) continue;
        const u64 periods = machine.now / vm.bandwidth.period() + 1;
        const u64 debt = vm.vcpus.size() * (machine.latest_timer + machine.kick_delay + granularity / 4 + 1);
        REQUIRE(vm.run_time(machine.now) <= periods * vm.bandwidth.quota() + debt);
    }
}

}  // namespace

TEST_CASE("who always wants to run gets the share that the weights on its core say, with gangs and without") {
    double farthest = 0;
    for (u64 seed = 0; seed < 600; ++seed) {
        std::mt19937_64 random(seed);
        const usize cores = 1 + random() % 8;
        SimulatedMachine machine(cores, random());
        machine.latest_timer = random() % 2 == 0 ? 0 : 100 * microsecond;
        populate(machine, cores, {.gangs = seed % 2 == 0});
        const u64 span = 3 * second;
        machine.run_until(span);
        machine.finish();
        std::vector<u64> weights(cores, 0);
        for (const SimulatedVm& vm : machine.vms) {
            for (const Runnable& vcpu : vm.vcpus) weights[machine.core_of(vcpu)] += vcpu.weight();
        }
        for (const SimulatedVm& vm : machine.vms) {
            for (const Runnable& vcpu : vm.vcpus) {
                const double fair =
                    static_cast<double>(vcpu.weight()) / static_cast<double>(weights[machine.core_of(vcpu)]);
                const double ran =
                    static_cast<double>(vcpu.run_time(machine.now)) / static_cast<double>(span);
                farthest = std::max(farthest, std::abs(fair - ran) * 100);
                INFO("seed " << seed << " vCPU " << vcpu.id() << " gang " << vm.gang.is_enabled());
                if (std::abs(fair - ran) > 0.02) CHECK(ran == Approx(fair).margin(0.02));
            }
        }
    }
    INFO("farthest from its share: " << farthest << " points");
    CHECK(farthest < 2);
}

TEST_CASE("in random sets nobody starves, nothing idles in vain and no limit is exceeded, whatever happens") {
    double patience = 0;
    u64 longest = 0;
    for (u64 seed = 0; seed < 2000; ++seed) {
        std::mt19937_64 random(seed);
        const usize cores = 1 + random() % 8;
        const Options options{.limits = random() % 2 == 0,
                              .gangs = random() % 2 == 0,
                              .sleep = random() % 4 != 0,
                              .moves = random() % 2 == 0,
                              .weights = random() % 4 == 0};
        SimulatedMachine machine(cores, random());
        machine.latest_timer = random() % 3 * 100 * microsecond;
        machine.kick_delay = 1 + random() % (50 * microsecond);
        populate(machine, cores, options);
        for (int step = 0; step < 100; ++step) {
            machine.run_for(1 + random() % (10 * millisecond));
            SimulatedVm& vm = machine.vms[random() % machine.vms.size()];
            Runnable& vcpu = vm.vcpus[random() % vm.vcpus.size()];
            switch (random() % 8) {
                case 0:
                case 1:
                    if (options.sleep) machine.block(vcpu);
                    break;
                case 6:
                    if (options.moves) machine.move(vcpu, random() % cores);
                    break;
                case 7:
                    if (options.weights) machine.set_weight(vcpu, static_cast<u32>(25 + random() % 400));
                    break;
                default: machine.wake(vcpu);
            }
            check_limits(machine);
        }
        machine.finish();
        longest = std::max(longest, machine.longest_wait);
        patience = std::max(patience, machine.greatest_patience);
        INFO("seed " << seed);
        if (machine.greatest_patience > 1) CHECK(machine.greatest_patience <= 1);
    }
    INFO("longest wait " << longest << " ns; at most " << patience << " of what weights explain");
    CHECK(patience <= 1);
    CHECK(longest > 0);
}

TEST_CASE("the skew of a gang is that of the kicks, in random sets with one gang") {
    u64 counted = 0;
    for (u64 seed = 0; seed < 300; ++seed) {
        std::mt19937_64 random(seed);
        const usize cores = 2 + random() % 7;
        SimulatedMachine machine(cores, random());
        machine.latest_timer = random() % 2 * 100 * microsecond;
        machine.kick_delay = 1 + random() % (50 * microsecond);
        SimulatedVm& gang = machine.add_vm(true);
        for (usize core = 0; core < cores; ++core) machine.add_vcpu(gang, core);
        populate(machine, cores, {.limits = seed % 2 == 0});
        for (int step = 0; step < 100; ++step) {
            machine.run_for(1 + random() % (10 * millisecond));
            SimulatedVm& vm = machine.vms[random() % machine.vms.size()];
            Runnable& vcpu = vm.vcpus[random() % vm.vcpus.size()];
            random() % 3 == 0 ? machine.block(vcpu) : machine.wake(vcpu);
        }
        machine.finish();
        const auto skew = gang.gang.skew();
        counted += skew.count;
        INFO("seed " << seed << " of " << skew.count << " the worst " << skew.max);
        if (skew.max > machine.kick_delay) CHECK(skew.max <= machine.kick_delay);
    }
    CHECK(counted > 1000);
}
