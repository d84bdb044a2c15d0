// Gang scheduling: the vCPUs of one VM, each in another core's run queue, run at the same time, so that none
// spins for a lock whose holder does not run.
//
// How it works. A core on which a member and something else want to run is contended; the queue notes it
// here. The lowest contended core leads: when its queue picks its member by the rules of fairness, it calls
// the gang: from now until the end of the slice everyone is to run. Choice::kick names the other contended
// cores, which the host interrupts so that they call pick(); while the call lasts their queues prefer their
// members irrespective of virtual time. Members on uncontended cores run anyway.
//
// The price is charged as usual, so shares hold on average: a member that is ahead of the others on its core
// by more than twice the latency declines a call. Outside of calls the members of cores that do not lead run
// when nothing else wants their core, or when they are behind by more than the latency; then their queue
// calls. So nobody depends on the leader, and a member that is blocked holds up nobody.
//
// All is atomic: no lock, and nobody waits. While a core writes a call, for a few instructions, others see
// none, and are kicked after. Memory: to be placed where every core that runs a member can reach it.
#pragma once

#include <atomic>
#include <optional>

#include "kernel/base/types.hpp"

namespace bulkhead {

class Gang {
  public:
    static constexpr u32 max_cores = 64;  // a queue with a higher number takes no part

    // From the call until the last member of those that were ready for it ran; of calls that at least two
    // members followed, the caller among them. Ticks. Counted when the next call begins.
    struct Skew {
        u64 count = 0;
        u64 last = 0;
        u64 max = 0;
        u64 sum = 0;
    };

    explicit constexpr Gang(bool is_enabled = true) : enabled_(is_enabled) {}
    Gang(const Gang&) = delete;
    Gang& operator=(const Gang&) = delete;

    // On any core, at any time. Disabled, it is as if the members had no gang.
    void enable(bool is_enabled) { enabled_.store(is_enabled, std::memory_order_relaxed); }
    [[nodiscard]] bool is_enabled() const { return enabled_.load(std::memory_order_relaxed); }
    // On any core. The four are read one by one: they may be of two calls.
    [[nodiscard]] Skew skew() const;
    [[nodiscard]] u64 calls() const { return sequence_.load(std::memory_order_relaxed) / 2; }

    // --- For RunQueue.

    struct Call {
        u64 generation = 0;
        u64 start = 0;
        u64 until = 0;
    };

    // Cores on which a member has to compete: bit N is core N.
    [[nodiscard]] u64 contended() const {
        return is_enabled() ? contended_.load(std::memory_order_relaxed) : 0;
    }
    void set_contended(u32 core, bool is_contended);

    // The call that lasts, if there is one.
    [[nodiscard]] std::optional<Call> call_at(u64 now) const;
    // Calls, unless a call lasts or another core is calling.
    [[nodiscard]] std::optional<Call> call(u64 now, u64 until);
    // Another member than the caller follows `call`. Once for each member and call.
    void follow(const Call& call, u64 start);

  private:
    // In latest_: how late the last member was, how many followed, and the low bits of the call's generation.
    static constexpr unsigned late_bits = 40, follower_bits = 8;
    static constexpr u64 greatest_late = (u64{1} << late_bits) - 1,
                         greatest_followers = (1U << follower_bits) - 1;
    [[nodiscard]] static u64 pack(u64 generation, u64 followers, u64 late) {
        return generation << (late_bits + follower_bits) | followers << late_bits | late;
    }

    std::atomic<bool> enabled_;
    std::atomic<u64> contended_{0};
    std::atomic<u64> sequence_{0};  // twice the generation; odd while a call is written
    std::atomic<u64> start_{0}, until_{0};
    std::atomic<u64> latest_{0};
    // Written only by the core that made sequence_ odd.
    std::atomic<u64> skew_count_{0}, skew_last_{0}, skew_max_{0}, skew_sum_{0};
};

}  // namespace bulkhead
