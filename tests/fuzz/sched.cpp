// Scheduler events: runnables and timers that come, go, wake, block and run, against plain models.
#include "kernel/sched/run_queue.hpp"
#include "kernel/sched/timer_queue.hpp"
#include "tests/fuzz/fuzz.hpp"

using namespace bulkhead;

namespace {

constexpr u64 latency = 10'000, granularity = 1'000;

// Two cores, runnables of two VMs and of none, with limits and a gang. Cores call pick() late, early and for
// nothing, and their clocks differ a little.
void run_queue(fuzz::Input& in) {
    constexpr unsigned cores = 2, count = 6;
    constexpr int nowhere = -1;
    Bandwidth bandwidths[2];
    Gang gang;
    RunQueue queues[cores] = {{latency, granularity, 0}, {latency, granularity, 1}};
    std::unique_ptr<Runnable> runnables[count];
    int place[count];
    for (unsigned i = 0; i < count; ++i) {
        const u8 shape = in.byte();
        place[i] = nowhere;
        runnables[i] = std::make_unique<Runnable>(i, (shape & 4) != 0 ? static_cast<u32>(in.number()) : 100,
                                                  (shape & 1) != 0 ? &bandwidths[shape >> 1 & 1] : nullptr,
                                                  (shape & 8) != 0 ? &gang : nullptr);
    }
    const u64 start = 1 + (in.flag() ? in.number() >> 4 : 0);
    u64 clock = start;
    u64 begun[cores] = {}, picked[cores] = {};
    while (!in.empty()) {
        const u8 operation = in.byte();
        const unsigned which = (operation >> 4) % count;
        const unsigned core = operation >> 3 & 1;
        Runnable& one = *runnables[which];
        const u64 now = clock + core * 7;
        RunQueue& queue = queues[core];
        const bool here = place[which] == static_cast<int>(core);
        if (begun[core] == 0) begun[core] = now;
        switch (operation % 8) {
            case 0:
                MUST(queue.add(one, now).has_value() == (place[which] == nowhere));
                if (place[which] == nowhere) place[which] = static_cast<int>(core);
                break;
            case 1:
                if (!here) break;
                queue.remove(one, now);
                place[which] = nowhere;
                MUST(queue.current() != &one && !one.is_queued());
                break;
            case 2:
                if (!here) break;
                (void)queue.wake(one, now);
                MUST(one.state() == Runnable::State::runnable);
                break;
            case 3:
                if (!here) break;
                queue.block(one, now);
                MUST(one.state() == Runnable::State::blocked);
                break;
            case 4:
                if (place[which] == nowhere || here)
                    (void)queue.set_weight(one, static_cast<u32>(in.number()), now);
                MUST(one.weight() >= 1 && one.weight() <= 10000);
                break;
            case 5: {
                Bandwidth& bandwidth = bandwidths[which & 1];
                const u64 quota = in.number(), period = in.number();
                if ((operation & 0x80) != 0) {
                    bandwidth.set_unlimited();
                } else if (bandwidth.set(quota, period)) {
                    MUST(period != 0 && period <= Bandwidth::longest_period);
                    MUST(quota != 0 && quota <= Bandwidth::greatest_quota);
                }
                gang.enable((operation & 0x10) != 0);
                break;
            }
            default: {
                const u64 by = in.number() >> (in.byte() % 64U) & low_mask(44);
                if (clock < bit(61)) clock += by;
            }
        }
        const u64 at = clock + core * 7;
        const RunQueue::Choice choice = queue.pick(at);
        MUST(choice.until > at);
        MUST((choice.kick & ~u64{3}) == 0 && !has_bit(choice.kick, core));
        MUST(queue.current() == choice.next || choice.next == nullptr);
        usize able = 0;
        for (unsigned i = 0; i < count; ++i) {
            if (place[i] != static_cast<int>(core)) continue;
            MUST(runnables[i]->is_queued());
            if (runnables[i]->state() == Runnable::State::runnable) ++able;
        }
        MUST(able == queue.runnable_count());
        if (choice.next != nullptr) {
            MUST(choice.next->state() == Runnable::State::runnable);
            MUST(place[choice.next->id()] == static_cast<int>(core));
        } else {
            // Who may not run now is looked at again.
            MUST(able == 0 || choice.until != RunQueue::forever);
        }
        // They count from the first call that needs the time.
        if (picked[core] == 0) picked[core] = at;
        const u64 counted = queue.busy_ticks(at) + queue.idle_ticks(at);
        MUST(counted <= at - begun[core] && counted >= at - picked[core]);
    }
    u64 ran = 0, busy = 0;
    for (const auto& one : runnables) ran += one->run_time(clock + 7);
    for (unsigned i = 0; i < cores; ++i) busy += queues[i].busy_ticks(clock + 7);
    MUST(ran == busy);
}

void timer_queue(fuzz::Input& in) {
    constexpr usize capacity = 6;
    TimerQueue<capacity> queue;
    Timer timers[8];
    u64 model[8];
    bool armed[8] = {};
    usize count = 0;
    while (!in.empty()) {
        const u8 operation = in.byte();
        const unsigned which = operation >> 5;
        switch (operation % 3) {
            case 0: {
                const u64 deadline = in.number();
                const bool done = queue.arm(timers[which], deadline);
                MUST(done == (armed[which] || count < capacity));
                if (!done) break;
                if (!armed[which]) ++count;
                armed[which] = true;
                model[which] = deadline;
                break;
            }
            case 1:
                queue.cancel(timers[which]);
                if (armed[which]) --count;
                armed[which] = false;
                break;
            default: {
                const u64 now = in.number();
                u64 earliest = Timer::never;
                for (unsigned i = 0; i < 8; ++i) {
                    if (armed[i] && model[i] < earliest) earliest = model[i];
                }
                MUST(queue.next_deadline() == earliest);
                Timer* timer = queue.expire(now);
                MUST((timer != nullptr) == (count != 0 && earliest <= now));
                if (timer == nullptr) break;
                const auto index = static_cast<usize>(timer - timers);
                MUST(armed[index] && model[index] == earliest && !timer->is_armed());
                armed[index] = false;
                --count;
            }
        }
        MUST(queue.size() == count);
        for (unsigned i = 0; i < 8; ++i) MUST(timers[i].is_armed() == armed[i]);
    }
}

}  // namespace

void fuzz_one(fuzz::Input& in) {
    if (in.flag()) {
        timer_queue(in);
    } else {
        run_queue(in);
    }
}
