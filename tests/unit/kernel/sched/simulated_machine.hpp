// Several cores with a run queue each, as the host would drive them: timers that come late, interrupts that
// take their time, VMs whose vCPUs block and wake. Ticks are nanoseconds. What must hold at every step is
// checked there.
#pragma once

#include <algorithm>
#include <catch2/catch.hpp>
#include <deque>
#include <memory>
#include <random>
#include <vector>

#include "kernel/sched/run_queue.hpp"

namespace bulkhead::test {

constexpr u64 microsecond = 1'000, millisecond = 1'000 * microsecond, second = 1'000 * millisecond;
constexpr u64 latency = 20 * millisecond, granularity = 1 * millisecond;

struct SimulatedVm {
    explicit SimulatedVm(bool with_gang) : gang(with_gang) {}
    Bandwidth bandwidth;
    Gang gang;
    std::deque<Runnable> vcpus;
    u64 any_ran = 0, all_ran = 0;  // time in which at least one of the vCPUs ran, and all of them

    [[nodiscard]] u64 run_time(u64 now) const {
        u64 sum = 0;
        for (const Runnable& vcpu : vcpus) sum += vcpu.run_time(now);
        return sum;
    }
};

class SimulatedMachine {
  public:
    u64 kick_delay = 2 * microsecond;  // until an interrupted core picks
    u64 latest_timer = 0;              // by which timers are late at most
    u64 now = 0;
    u64 longest_wait = 0;          // of one that wanted to run and was allowed to
    double greatest_patience = 0;  // of such waits, as a part of what the weights on its core explain

    SimulatedMachine(usize cores, u64 seed) : random(seed) {
        for (usize i = 0; i < cores; ++i) cores_.push_back(std::make_unique<Core>(static_cast<u32>(i)));
    }

    SimulatedVm& add_vm(bool with_gang = false) { return vms.emplace_back(with_gang); }
    // A vCPU of `vm` on `core`, runnable.
    Runnable& add_vcpu(SimulatedVm& vm, usize core, u32 weight = 100) {
        const auto id = static_cast<u32>(places_.size());
        Runnable& vcpu = vm.vcpus.emplace_back(id, weight, &vm.bandwidth, &vm.gang);
        places_.push_back({.vcpu = &vcpu, .core = core});
        REQUIRE(cores_[core]->queue.add(vcpu, now));
        wake(vcpu);
        return vcpu;
    }

    void wake(Runnable& vcpu) {
        Place& place = places_[vcpu.id()];
        if (vcpu.state() == Runnable::State::runnable) return;
        Core& core = *cores_[place.core];
        place.waits_since = now;
        if (core.queue.wake(vcpu, now)) pick(core);
    }
    void block(Runnable& vcpu) {
        Core& core = *cores_[places_[vcpu.id()].core];
        core.queue.block(vcpu, now);
        if (core.queue.current() == &vcpu) pick(core);
    }
    void move(Runnable& vcpu, usize to) {
        Place& place = places_[vcpu.id()];
        const bool was_runnable = vcpu.state() == Runnable::State::runnable;
        Core& from = *cores_[place.core];
        const bool was_current = from.queue.current() == &vcpu;
        from.queue.remove(vcpu, now);
        if (was_current) pick(from);
        place.core = to;
        REQUIRE(cores_[to]->queue.add(vcpu, now));
        if (was_runnable) wake(vcpu);
    }
    void set_weight(Runnable& vcpu, u32 weight) {
        Core& core = *cores_[places_[vcpu.id()].core];
        if (core.queue.set_weight(vcpu, weight, now)) pick(core);
        places_[vcpu.id()].waits_since = now;
    }
    void pick_everywhere() {
        for (auto& core : cores_) pick(*core);
    }

    void run_until(u64 end) {
        for (;;) {
            Core* first = cores_[0].get();
            for (auto& core : cores_) {
                if (core->due < first->due) first = core.get();
            }
            if (first->due > end) break;
            pass(first->due);
            pick(*first);
        }
        pass(end);
    }
    void run_for(u64 span) { run_until(now + span); }

    // Shuts the books: every one that waits still has waited until now.
    void finish() {
        u64 busy = 0, ran = 0;
        for (auto& core : cores_) {
            for (Place& place : places_) {
                if (cores_[place.core] == core && !is_running(*place.vcpu)) note_wait(place);
            }
            REQUIRE(core->queue.busy_ticks(now) + core->queue.idle_ticks(now) == now - core->started);
            busy += core->queue.busy_ticks(now);
        }
        for (SimulatedVm& vm : vms) ran += vm.run_time(now);
        REQUIRE(ran == busy);
    }
    [[nodiscard]] u64 idle_ticks(usize core) const { return cores_[core]->queue.idle_ticks(now); }
    [[nodiscard]] u64 picks() const { return picks_; }
    [[nodiscard]] usize core_of(const Runnable& vcpu) const { return places_[vcpu.id()].core; }
    [[nodiscard]] bool is_running(const Runnable& vcpu) const {
        return cores_[places_[vcpu.id()].core]->running == &vcpu;
    }

    std::mt19937_64 random;
    std::deque<SimulatedVm> vms;

  private:
    struct Core {
        explicit Core(u32 number) : queue(latency, granularity, number), index(number) {}
        RunQueue queue;
        u32 index;
        u64 due = 0;  // when it picks next
        u64 started = ~u64{0};
        Runnable* running = nullptr;
    };
    struct Place {
        Runnable* vcpu;
        usize core;
        u64 waits_since = 0;  // while it wants to run, may, and does not
    };

    void pass(u64 to) {
        for (SimulatedVm& vm : vms) {
            const auto count = std::count_if(vm.vcpus.begin(), vm.vcpus.end(),
                                             [&](const Runnable& vcpu) { return is_running(vcpu); });
            if (count != 0) vm.any_ran += to - now;
            if (static_cast<usize>(count) == vm.vcpus.size()) vm.all_ran += to - now;
        }
        now = to;
    }

    // Others on the core may be behind by the lead of this one, and gangs may be ahead of all by a few calls.
    void note_wait(Place& place) {
        const Runnable& vcpu = *place.vcpu;
        if (vcpu.state() != Runnable::State::runnable) return;
        u64 weights = 0, count = 0;
        for (const Place& other : places_) {
            if (other.core != place.core) continue;
            weights += other.vcpu->weight();
            ++count;
        }
        const u64 wait = now - place.waits_since;
        longest_wait = std::max(longest_wait, wait);
        const u64 bound = 5 * latency * weights / vcpu.weight() + 4 * latency * count;
        greatest_patience =
            std::max(greatest_patience, static_cast<double>(wait) / static_cast<double>(bound));
    }

    void pick(Core& core) {
        ++picks_;
        core.started = std::min(core.started, now);
        Runnable* before = core.running;
        const RunQueue::Choice choice = core.queue.pick(now);
        REQUIRE(choice.until > now);
        REQUIRE(choice.next == (choice.next != nullptr ? core.queue.current() : nullptr));
        core.running = choice.next;
        usize able = 0;
        for (Place& place : places_) {
            if (cores_[place.core].get() != &core) continue;
            Runnable& vcpu = *place.vcpu;
            const bool wants = vcpu.state() == Runnable::State::runnable;
            const bool is_next = &vcpu == choice.next;
            if (is_next) REQUIRE(wants);
            const bool may = wants && (is_next || vcpu.bandwidth()->throttled_until(now) == 0);
            able += may ? 1 : 0;
            if (is_next && before != &vcpu) note_wait(place);
            // Its wait begins when it leaves the core, and anew when there is quota again.
            if (is_next || before == &vcpu || !may) place.waits_since = now;
        }
        // Work conservation: a core is idle only when nobody may run, and one that is alone has no slice.
        if (choice.next == nullptr) REQUIRE(able == 0);
        if (able > 1) REQUIRE(choice.until - now <= std::max(latency, granularity));
        const u64 late = latest_timer != 0 ? random() % latest_timer : 0;
        core.due = choice.until == RunQueue::forever ? RunQueue::forever : choice.until + late;
        REQUIRE((choice.kick & u64{1} << core.index) == 0);
        for (auto& other : cores_) {
            if ((choice.kick >> other->index & 1) != 0)
                other->due = std::min(other->due, now + 1 + random() % kick_delay);
        }
    }

    std::vector<std::unique_ptr<Core>> cores_;
    std::vector<Place> places_;  // by id
    u64 picks_ = 0;
};

}  // namespace bulkhead::test
