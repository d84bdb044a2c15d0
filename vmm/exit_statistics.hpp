// Every exit accounted for: how often each reason struck and what it cost. The core that runs the vCPU counts
// by count_exit(), count_host() and count_guest(); any other may read meanwhile, by add(), total_count() and
// total_ticks(). Each figure is then whole, though not all of one instant.
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
    void count_exit(ExitReason reason) { increase(of(reason).count, 1); }
    void count_host(ExitReason reason, u64 ticks) { increase(of(reason).ticks, ticks); }
    void count_host_caused(HostCause cause) { increase(host_caused[static_cast<usize>(cause)], 1); }
    void count_guest(u64 ticks) { increase(guest_ticks, ticks); }

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

  private:
    [[nodiscard]] static u64 load(const u64& value) { return __atomic_load_n(&value, __ATOMIC_RELAXED); }
    // There is one writer: no locked instruction is needed.
    static void increase(u64& value, u64 by) { __atomic_store_n(&value, load(value) + by, __ATOMIC_RELAXED); }
};

}  // namespace bulkhead
