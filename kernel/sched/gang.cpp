#include "kernel/sched/gang.hpp"

#include <algorithm>

namespace bulkhead {

Gang::Skew Gang::skew() const {
    return {.count = skew_count_.load(std::memory_order_relaxed),
            .last = skew_last_.load(std::memory_order_relaxed),
            .max = skew_max_.load(std::memory_order_relaxed),
            .sum = skew_sum_.load(std::memory_order_relaxed)};
}

void Gang::set_contended(u32 core, bool is_contended) {
    if (core >= max_cores) return;
    const u64 bit = u64{1} << core;
    // Mostly nothing changes, and the line stays shared.
    if (((contended_.load(std::memory_order_relaxed) & bit) != 0) == is_contended) return;
    if (is_contended) {
        contended_.fetch_or(bit, std::memory_order_relaxed);
    } else {
        contended_.fetch_and(~bit, std::memory_order_relaxed);
    }
}

std::optional<Gang::Call> Gang::call_at(u64 now) const {
    if (!is_enabled()) return {};
    const u64 sequence = sequence_.load(std::memory_order_acquire);
    // Acquired one after the other: when one is of a newer call, the last load sees the newer sequence.
    const u64 start = start_.load(std::memory_order_acquire), until = until_.load(std::memory_order_acquire);
    if (sequence % 2 != 0 || sequence_.load(std::memory_order_relaxed) != sequence) return {};
    if (now >= until) return {};
    return Call{.generation = sequence / 2, .start = start, .until = until};
}

std::optional<Gang::Call> Gang::call(u64 now, u64 until) {
    u64 sequence = sequence_.load(std::memory_order_acquire);
    if (!is_enabled() || sequence % 2 != 0 || now < until_.load(std::memory_order_acquire)) return {};
    if (!sequence_.compare_exchange_strong(sequence, sequence + 1, std::memory_order_acq_rel)) return {};

    const Call call{.generation = sequence / 2 + 1, .start = now, .until = until};
    const u64 latest = latest_.exchange(pack(call.generation, 0, 0), std::memory_order_relaxed);
    if ((latest >> late_bits & greatest_followers) != 0) {
        const u64 late = latest & greatest_late;
        skew_count_.store(skew_count_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
        skew_last_.store(late, std::memory_order_relaxed);
        skew_max_.store(std::max(skew_max_.load(std::memory_order_relaxed), late), std::memory_order_relaxed);
        skew_sum_.store(skew_sum_.load(std::memory_order_relaxed) + late, std::memory_order_relaxed);
    }
    start_.store(call.start, std::memory_order_release);
    until_.store(call.until, std::memory_order_release);
    sequence_.store(sequence + 2, std::memory_order_release);
    return call;
}

void Gang::follow(const Call& call, u64 start) {
    const u64 late = start > call.start ? std::min(start - call.start, greatest_late) : 0;
    u64 latest = latest_.load(std::memory_order_relaxed);
    for (;;) {
        const u64 followers = latest >> late_bits & greatest_followers;
        if (latest != pack(call.generation, followers, latest & greatest_late)) return;  // that call is over
        const u64 next = pack(call.generation, std::min(followers + 1, greatest_followers),
                              std::max(latest & greatest_late, late));
        if (latest_.compare_exchange_weak(latest, next, std::memory_order_relaxed)) return;
    }
}

}  // namespace bulkhead
