#include "kernel/sched/bandwidth.hpp"

#include <algorithm>

namespace bulkhead {

Result<> Bandwidth::set(u64 quota, u64 period) {
    if (quota == 0 || quota > greatest_quota) return fail("a quota of {} ticks is out of range", quota);
    if (period == 0 || period > longest_period) return fail("a period of {} ticks is out of range", period);
    // A core that reads a mixture of old and new limits decides by it once: off by one part.
    period_.store(period, std::memory_order_relaxed);
    quota_.store(quota, std::memory_order_release);  // whoever sees a quota sees a period
    word_.store(0, std::memory_order_relaxed);
    return {};
}

void Bandwidth::set_unlimited() {
    quota_.store(0, std::memory_order_release);
}

Bandwidth::State Bandwidth::unpack(u64 word) {
    return {.used = word & greatest_used,
            .parts = static_cast<u32>(word >> used_bits) & greatest_parts,
            .period = static_cast<u32>(word >> (used_bits + parts_bits))};
}

u64 Bandwidth::pack(const State& state) {
    return std::min(state.used, greatest_used) |
           static_cast<u64>(std::min(state.parts, greatest_parts)) << used_bits |
           static_cast<u64>(state.period) << (used_bits + parts_bits);
}

Bandwidth::Limit Bandwidth::limit() const {
    Limit limit{.quota = quota(), .period = period(), .members = members_.load(std::memory_order_relaxed)};
    if (limit.members == 0) limit.members = 1;
    // What the members could not exceed is no limit. (A period is below 2^38, and members are below 2^26.)
    if (limit.period == 0 || limit.quota >= limit.members * limit.period) limit.quota = 0;
    return limit;
}

void Bandwidth::Limit::advance(State& state, u64 now, u64 late) const {
    const u32 number = number_at(now);
    const u32 passed = (number - state.period) & period_mask;
    // A core whose clock is behind, or that lost time since it read it, does not begin a past period again.
    if (passed == 0 || passed > period_mask - latest_by) {
        state.used += late;
        return;
    }
    // Each period pays one quota of what was used. Below 2^18 * 2^39.
    const u64 paid = passed * quota;
    state.used += late;
    state.used = state.used > paid ? state.used - paid : 0;
    state.parts = 0;
    state.period = number;
}

u64 Bandwidth::throttled_until(u64 now) const {
    const Limit limit = this->limit();
    if (limit.quota == 0) return 0;
    State state = unpack(word_.load(std::memory_order_relaxed));
    limit.advance(state, now, 0);
    // A rest this small is not worth a switch; it is lost.
    const u64 rest = limit.quota / 256;
    return state.used + rest < limit.quota ? 0 : now - now % limit.period + limit.period;
}

Bandwidth::Part Bandwidth::take(u64 now, u64 wanted, u64 granularity) {
    const Limit limit = this->limit();
    if (limit.quota == 0) return {.ticks = wanted};
    // Less than this is not worth the switch: taken all the same, and paid later.
    const u64 least = std::clamp<u64>(limit.quota / limit.members / 4, 1, granularity / 4 + 1);
    const u64 to_end = limit.period - now % limit.period;
    u64 word = word_.load(std::memory_order_relaxed);
    for (;;) {
        State state = unpack(word);
        limit.advance(state, now, 0);
        const u64 left = state.used < limit.quota ? limit.quota - state.used : 0;
        // An even part for each of those that had none yet.
        const u64 even = left / (state.parts < limit.members ? limit.members - state.parts : 1);
        const u64 ticks = std::min({wanted, std::max(even, least), to_end});
        state.used += ticks;
        ++state.parts;
        if (word_.compare_exchange_weak(word, pack(state), std::memory_order_relaxed))
            return {.ticks = ticks, .period = state.period, .is_limited = true};
    }
}

void Bandwidth::give_back(const Part& part) {
    if (!part.is_limited || part.ticks == 0) return;
    u64 word = word_.load(std::memory_order_relaxed);
    for (;;) {
        State state = unpack(word);
        if (state.period != part.period) return;
        state.used -= std::min(state.used, part.ticks);
        if (state.parts != 0) --state.parts;
        if (word_.compare_exchange_weak(word, pack(state), std::memory_order_relaxed)) return;
    }
}

void Bandwidth::charge(u64 now, u64 ticks) {
    const Limit limit = this->limit();
    if (limit.quota == 0) return;
    const u64 in_this_period = std::min(ticks, now % limit.period);
    u64 word = word_.load(std::memory_order_relaxed);
    for (;;) {
        State state = unpack(word);
        limit.advance(state, now, std::min(ticks - in_this_period, greatest_used));
        state.used += in_this_period;
        if (word_.compare_exchange_weak(word, pack(state), std::memory_order_relaxed)) return;
    }
}

}  // namespace bulkhead
