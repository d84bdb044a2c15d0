// Every exit accounted for: how often each reason struck and what it cost.
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

    [[nodiscard]] Entry& of(ExitReason reason) { return entries[static_cast<usize>(reason)]; }
    [[nodiscard]] const Entry& of(ExitReason reason) const { return entries[static_cast<usize>(reason)]; }
    void add(const ExitStatistics& other) {
        for (usize i = 0; i < static_cast<usize>(ExitReason::count); ++i) {
            entries[i].count += other.entries[i].count;
            entries[i].ticks += other.entries[i].ticks;
        }
        guest_ticks += other.guest_ticks;
    }
    [[nodiscard]] u64 total_count() const {
        u64 sum = 0;
        for (const Entry& entry : entries) sum += entry.count;
        return sum;
    }
    [[nodiscard]] u64 total_ticks() const {
        u64 sum = guest_ticks;
        for (const Entry& entry : entries) sum += entry.ticks;
        return sum;
    }
};

}  // namespace bulkhead
