// What one core runs: weighted fair shares, with the limits of groups (Bandwidth) and gangs (Gang). Each
// Runnable has a virtual time that advances by run time divided by weight; whoever is furthest behind runs
// next.
//
// Use. One core owns the queue and is the only one to call it, with interrupts as it likes; others post their
// wishes (wake, block, add, weight) to it and interrupt it. The core's loop:
//
//     for (;;) {
//         carry out what was posted: wake(), block(), add(), remove(), set_weight()
//         choice = queue.pick(now);
//         interrupt the cores in choice.kick, so that they call pick();
//         arm the core's timer for choice.until, or none if it is `forever`;
//         run choice.next until the timer, a kick, a posted wish, or until it blocks; nothing to run: halt
//     }
//
// pick() may be called at any time, also more often than needed. It must be called when `until` has come,
// when this core was kicked for a gang, when wake() or set_weight() returned true, after block() or remove()
// of the current one, and after its group's Bandwidth or Gang was changed; late calls cost others their time,
// and are charged. To move a Runnable: remove() on the one core, then add() and wake() on the other; it keeps
// its claim.
//
// Time is in ticks of a clock that all cores share, up to a small difference, and that never goes back; every
// call is given it. No call loops over more than the queue's length, takes a lock, or waits.
//
// Memory: queue, Runnables, Bandwidth and Gang of all VMs are the host's, mapped on every core, and no part
// of a VM's compartment.
#pragma once

#include "kernel/base/fixed_vector.hpp"
#include "kernel/base/result.hpp"
#include "kernel/sched/runnable.hpp"

namespace bulkhead {

class RunQueue {
  public:
    static constexpr usize max_runnables = 64;
    static constexpr u64 forever = ~u64{0};

    struct Choice {
        Runnable* next = nullptr;  // null: nothing to run
        // When pick() wants to be called again at the latest; after `now`. `forever`: no timer is needed; the
        // only one that can run runs until something happens.
        u64 until = forever;
        // Bit N: core N is to be interrupted now, to call pick(), because a gang is called.
        u64 kick = 0;
    };

    // `latency`: the span in which everyone gets a turn (20 ms, say); `granularity`: the least slice, below
    // `latency` (1 ms). Ticks, below 2^48. `core`: the index of the core, for gangs.
    constexpr RunQueue(u64 latency, u64 granularity, u32 core = 0)
        : latency_(latency), granularity_(granularity == 0 ? 1 : granularity), core_(core) {}
    RunQueue(const RunQueue&) = delete;
    RunQueue& operator=(const RunQueue&) = delete;

    // Blocked at first, and as far ahead of others or behind them as it was in its last queue, within some
    // slices. Fails when the queue is full or the Runnable is in a queue.
    [[nodiscard]] Result<> add(Runnable& runnable, u64 now);
    void remove(Runnable& runnable, u64 now);

    // To what is so already: no effect. wake() returns true if pick() should be called now: because the woken
    // one is entitled to run, or because there was no timer for its turn.
    bool wake(Runnable& runnable, u64 now);
    void block(Runnable& runnable, u64 now);

    // From now on; a weight out of range becomes the nearest one in it. Of a Runnable in this queue, or in
    // none. True if pick() should be called, because the present slice is by the old weight.
    bool set_weight(Runnable& runnable, u32 weight, u64 now);

    // Charges the one that ran until now and chooses the next.
    [[nodiscard]] Choice pick(u64 now);

    // The one chosen last, unless it was removed.
    [[nodiscard]] Runnable* current() const { return current_; }
    [[nodiscard]] usize size() const { return queue_.size(); }
    [[nodiscard]] usize runnable_count() const { return runnable_count_; }
    // On any core: ticks until `now` in which something ran, or nothing. They count from the first call.
    [[nodiscard]] u64 busy_ticks(u64 now) const { return busy_.total(now); }
    [[nodiscard]] u64 idle_ticks(u64 now) const { return idle_.total(now); }

  private:
    // Virtual time of a Runnable of default weight passes as fast as real time.
    [[nodiscard]] static u64 to_virtual(u64 ticks, const Runnable& runnable) {
        return ticks * Runnable::default_weight / runnable.weight();
    }
    // What pick() finds out about all before it chooses.
    struct Contention {
        u64 contenders = 0;  // that want to run and may
        u64 weights = 0;     // theirs
        u64 refill = forever;
    };

    [[nodiscard]] u64 charge(u64 now);
    [[nodiscard]] Contention survey(u64 now);
    void run(Runnable* runnable, u64 now);
    void return_part(Runnable& runnable);
    void catch_up(Runnable& runnable) const;
    [[nodiscard]] u64 slice_of(const Runnable& runnable, u64 weights) const;
    [[nodiscard]] u64 own_bit() const { return core_ < Gang::max_cores ? u64{1} << core_ : 0; }
    [[nodiscard]] u64 turn_of(const Runnable& runnable) const;
    [[nodiscard]] std::optional<Gang::Call> call_for(Runnable& runnable, u64 now) const;

    u64 latency_;
    u64 granularity_;
    u32 core_;
    FixedVector<Runnable*, max_runnables> queue_;
    usize runnable_count_ = 0;
    Runnable* current_ = nullptr;
    bool running_ = false;    // the current one: from its choice until it blocks, leaves or yields to another
    bool contended_ = false;  // it has a slice
    bool started_ = false;
    u64 until_ = forever;   // of the last choice
    u64 called_until_ = 0;  // the end of the gang's call by which the current one runs
    u64 clock_ = 0;         // of the last call; never goes back
    u64 floor_ = 0;         // the least virtual time of those that can run; never goes back
    Stopwatch busy_, idle_;
};

}  // namespace bulkhead
