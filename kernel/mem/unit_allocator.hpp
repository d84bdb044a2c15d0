// Physical memory for VMs, in units of 2 MiB. Knows nothing of what is in it: scrubbing is the caller's job.
//
// The object holds two bitmaps for 1 TiB (128 KiB in all) and belongs into static storage. Not thread-safe.
#pragma once

#include <span>

#include "kernel/base/bits.hpp"
#include "kernel/base/fixed_vector.hpp"
#include "kernel/base/result.hpp"

namespace bulkhead {

struct UnitRun {
    HostPhysical start{};
    u64 units = 0;

    [[nodiscard]] constexpr u64 bytes() const { return units * large_page_size; }
    [[nodiscard]] constexpr HostPhysical end() const { return start + bytes(); }
    friend constexpr bool operator==(const UnitRun&, const UnitRun&) = default;
};

using UnitRuns = FixedVector<UnitRun, 16>;

struct UnitRequest {
    enum class Zone : u8 {
        any,         // above 4 GiB if possible, below otherwise
        below_4gib,  // only there
    };
    u64 units = 0;
    usize max_runs = 1;  // 1..16
    Zone zone = Zone::any;
};

class UnitAllocator {
  public:
    static constexpr u64 unit_size = large_page_size;
    static constexpr u64 max_units = 524288;  // 1 TiB

    // First all add_usable(), then all reserve(), then allocations. Only units that lie wholly within one
    // usable range are used; what lies above 1 TiB is left unused. Fails once reserve() or allocate() has
    // been called, and on a range that wraps.
    [[nodiscard]] Result<> add_usable(HostPhysical start, u64 length);
    // Takes every unit that the range touches out of use for good. Fails if one of them is allocated, and on
    // a range that wraps. An empty range reserves nothing.
    [[nodiscard]] Result<> reserve(HostPhysical start, u64 length);

    // All or nothing. One run if there is one: the shortest that is long enough; requests of 1 GiB and more
    // start on a 1 GiB boundary where possible. Otherwise the longest runs, up to max_runs of them.
    [[nodiscard]] Result<UnitRuns> allocate(const UnitRequest& request);

    // Fails, with nothing changed, unless every unit of the run is allocated.
    [[nodiscard]] Result<> free(const UnitRun& run);
    [[nodiscard]] Result<> free(std::span<const UnitRun> runs);  // stops at the first run that fails

    // Takes the unit at that address out of use for good, be it free or allocated: whoever has it keeps it
    // and cannot free it. False: it is in nobody's use already.
    [[nodiscard]] bool retire(HostPhysical unit);
    [[nodiscard]] bool is_retired(HostPhysical unit) const {
        const u64 number = unit.raw() / unit_size;
        return number < limit_ && !get(managed_, number) && get(free_, number);
    }
    [[nodiscard]] bool in_use(HostPhysical unit) const {
        return unit.raw() / unit_size < limit_ && get(managed_, unit.raw() / unit_size);
    }

    [[nodiscard]] u64 managed_units() const { return managed_count_; }
    [[nodiscard]] u64 free_units() const { return free_count_; }
    [[nodiscard]] u64 largest_free_run() const;

  private:
    static constexpr u64 words = max_units / 64;
    struct Span {
        u64 first = 0;
        u64 count = 0;
    };

    [[nodiscard]] static bool get(const u64* bitmap, u64 unit) {
        return (bitmap[unit / 64] >> (unit % 64) & 1) != 0;
    }
    static void set(u64* bitmap, u64 unit) { bitmap[unit / 64] |= u64{1} << (unit % 64); }
    static void reset(u64* bitmap, u64 unit) { bitmap[unit / 64] &= ~(u64{1} << (unit % 64)); }

    // A bit for each unit of that word that can be allocated.
    [[nodiscard]] u64 free_in(u64 word) const { return free_[word] & managed_[word]; }
    // The first maximal run of free units at or after `from`, cut at `limit`.
    [[nodiscard]] Span next_free_span(u64 from, u64 limit) const;
    [[nodiscard]] Span best_single(u64 units, u64 from, u64 limit) const;
    [[nodiscard]] Span longest(u64 from, u64 limit) const;
    void take(const Span& span);
    void give_back(const Span& span);
    [[nodiscard]] bool take_longest(const UnitRequest& request, UnitRuns& runs);

    // Of a unit that may be allocated `managed_` is set, and `free_` as long as it is not. Of one that was
    // retired `free_` alone is set, of all others neither.
    u64 managed_[words] = {};
    u64 free_[words] = {};
    u64 managed_count_ = 0;
    u64 free_count_ = 0;
    u64 limit_ = 0;  // one past the highest managed unit
    bool sealed_ = false;
};

}  // namespace bulkhead
