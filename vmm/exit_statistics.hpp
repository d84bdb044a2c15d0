// Every exit accounted for: how often each reason struck and what it cost. The core that runs the vCPU counts
// by an ExitAccount; any other may read meanwhile, by add(), total_count() and total_ticks(). Each figure is
// then whole, though not all of one instant.
#pragma once

#include "kernel/base/types.hpp"
#include "vmm/exit.hpp"

namespace bulkhead {

struct ExitStatistics {
    struct Entry {
        u64 count = 0;
        u64 ticks = 0;  // host TSC ticks from the exit to the next entry
    };
    Entry entries[static_cast<usize>(ExitReason::count)] = {};
    u64 guest_ticks = 0;  // host TSC ticks spent in the guest
    // Of the exits, those that the host caused.
    u64 host_caused[static_cast<usize>(HostCause::count)] = {};

    [[nodiscard]] Entry& of(ExitReason reason) { return entries[static_cast<usize>(reason)]; }
    [[nodiscard]] const Entry& of(ExitReason reason) const { return entries[static_cast<usize>(reason)]; }

    void add(const ExitStatistics& other) {
        for (usize i = 0; i < static_cast<usize>(ExitReason::count); ++i) {
            entries[i].count += load(other.entries[i].count);
            entries[i].ticks += load(other.entries[i].ticks);
        }
        guest_ticks += load(other.guest_ticks);
        for (usize i = 0; i < static_cast<usize>(HostCause::count); ++i)
            host_caused[i] += load(other.host_caused[i]);
    }
    [[nodiscard]] u64 total_host_caused() const {
        u64 sum = 0;
        for (const u64& count : host_caused) sum += load(count);
        return sum;
    }
    [[nodiscard]] u64 total_count() const {
        u64 sum = 0;
        for (const Entry& entry : entries) sum += load(entry.count);
        return sum;
    }
    [[nodiscard]] u64 total_ticks() const {
        u64 sum = load(guest_ticks);
        for (const Entry& entry : entries) sum += load(entry.ticks);
        return sum;
    }

    // There is one writer: no locked instruction is needed.
    static void increase(u64& value, u64 by) { __atomic_store_n(&value, load(value) + by, __ATOMIC_RELAXED); }

  private:
    [[nodiscard]] static u64 load(const u64& value) { return __atomic_load_n(&value, __ATOMIC_RELAXED); }
};

// The statistics with what is needed to go on counting. Its core's alone, but for the statistics.
class ExitAccount {
  public:
    ExitAccount() = default;
    ExitAccount(const ExitAccount&) = delete;
    ExitAccount& operator=(const ExitAccount&) = delete;

    ExitStatistics statistics{};

    // The host begins to work for this vCPU.
    void begin(u64 tsc) { since_ = tsc; }
    // The guest was entered and left. What went before belongs to the exit before.
    void turn(u64 entered, u64 left, ExitReason reason, u64 code) {
        ExitStatistics::increase(last_->ticks, entered - since_);
        ExitStatistics::increase(statistics.guest_ticks, left - entered);
        since_ = left;
        last_code_ = code;
        last_ = &statistics.of(reason);
        ExitStatistics::increase(last_->count, 1);
    }
    // The host's work for it ends.
    void end(u64 tsc) { ExitStatistics::increase(last_->ticks, tsc - since_); }
    // The last exit, and the vendor's code for it.
    [[nodiscard]] u64 last_code() const { return last_code_; }
    [[nodiscard]] ExitReason last() const { return static_cast<ExitReason>(last_ - statistics.entries); }

  private:
    u64 since_ = 0;
    u64 last_code_ = 0;
    ExitStatistics::Entry* last_ = &statistics.of(ExitReason::spurious);
};

}  // namespace bulkhead
