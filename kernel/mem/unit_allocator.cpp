#include "kernel/mem/unit_allocator.hpp"

#include <bit>

namespace bulkhead {
namespace {

constexpr u64 units_per_gib = gib / UnitAllocator::unit_size;
constexpr u64 units_below_4gib = 4 * gib / UnitAllocator::unit_size;

}  // namespace

Result<> UnitAllocator::add_usable(HostPhysical start, u64 length) {
    if (sealed_) return fail("usable memory {}+{:#x} comes too late", start, length);
    if (length > ~start.raw()) return fail("memory range {}+{:#x} wraps", start, length);
    const u64 first = start.raw() / unit_size + (start.is_aligned(unit_size) ? 0 : 1);
    u64 end = (start.raw() + length) / unit_size;
    if (end > max_units) end = max_units;
    for (u64 unit = first; unit < end; ++unit) {
        if (get(managed_, unit)) continue;
        set(managed_, unit);
        set(free_, unit);
        ++managed_count_;
        ++free_count_;
    }
    if (first < end && end > limit_) limit_ = end;
    return {};
}

Result<> UnitAllocator::reserve(HostPhysical start, u64 length) {
    sealed_ = true;
    if (length == 0) return {};
    if (length > ~start.raw()) return fail("reserved range {}+{:#x} wraps", start, length);
    const u64 first = start.raw() / unit_size;
    u64 end = (start.raw() + (length - 1)) / unit_size + 1;
    if (end > limit_) end = limit_;
    for (u64 unit = first; unit < end; ++unit) {
        if (get(managed_, unit) && !get(free_, unit)) {
            return fail("range {}+{:#x} cannot be reserved: part of it is allocated", start, length);
        }
    }
    for (u64 unit = first; unit < end; ++unit) {
        if (!get(managed_, unit)) continue;
        reset(managed_, unit);
        reset(free_, unit);
        --managed_count_;
        --free_count_;
    }
    return {};
}

UnitAllocator::Span UnitAllocator::next_free_span(u64 from, u64 limit) const {
    // Whole words of used units are skipped at once.
    u64 first = from;
    while (first < limit) {
        const u64 word = free_in(first / 64) >> (first % 64);
        if (word != 0) {
            first += static_cast<u64>(std::countr_zero(word));
            break;
        }
        first = (first / 64 + 1) * 64;
    }
    if (first >= limit) return {.first = limit, .count = 0};
    u64 end = first;
    while (end < limit) {
        const u64 used = ~(free_in(end / 64) >> (end % 64));
        const u64 here =
            static_cast<u64>(std::countr_zero(used));  // at most 64 - end % 64: zeroes are shifted in
        end += here;
        if (end % 64 != 0 || here == 0) break;
    }
    if (end > limit) end = limit;
    return {.first = first, .count = end - first};
}

UnitAllocator::Span UnitAllocator::best_single(u64 units, u64 from, u64 limit) const {
    // Of the spans that are long enough the shortest; but for 1 GiB and more, one with a 1 GiB boundary in
    // the right place goes before one without.
    const bool large = units >= units_per_gib;
    Span best, best_aligned;
    for (Span span = next_free_span(from, limit); span.count != 0;
         span = next_free_span(span.first + span.count, limit)) {
        if (span.count < units) continue;
        if (best.count == 0 || span.count < best.count) best = span;
        if (!large) continue;
        const u64 aligned = (span.first + units_per_gib - 1) / units_per_gib * units_per_gib;
        const u64 gap = aligned - span.first;
        if (gap < span.count && span.count - gap >= units &&
            (best_aligned.count == 0 || span.count - gap < best_aligned.count)) {
            best_aligned = {.first = aligned, .count = span.count - gap};
        }
    }
    return best_aligned.count != 0 ? best_aligned : best;
}

UnitAllocator::Span UnitAllocator::longest(u64 from, u64 limit) const {
    Span best;
    for (Span span = next_free_span(from, limit); span.count != 0;
         span = next_free_span(span.first + span.count, limit)) {
        if (span.count > best.count) best = span;
    }
    return best;
}

void UnitAllocator::take(const Span& span) {
    for (u64 unit = span.first; unit < span.first + span.count; ++unit) reset(free_, unit);
    free_count_ -= span.count;
}

void UnitAllocator::give_back(const Span& span) {
    for (u64 unit = span.first; unit < span.first + span.count; ++unit) set(free_, unit);
    free_count_ += span.count;
}

bool UnitAllocator::take_longest(const UnitRequest& request, UnitRuns& runs) {
    const u64 low_limit = limit_ < units_below_4gib ? limit_ : units_below_4gib;
    u64 wanted = request.units;
    const usize most = request.max_runs < UnitRuns::capacity() ? request.max_runs : UnitRuns::capacity();
    while (wanted > 0 && runs.size() < most) {
        Span span;
        if (request.zone == UnitRequest::Zone::any && limit_ > low_limit) span = longest(low_limit, limit_);
        if (span.count == 0) span = longest(0, low_limit);
        if (span.count == 0) break;
        if (span.count > wanted) span.count = wanted;
        take(span);
        wanted -= span.count;
        (void)runs.push_back({.start = HostPhysical(span.first * unit_size), .units = span.count});
    }
    if (wanted == 0) return true;
    for (const UnitRun& run : runs) give_back({.first = run.start.raw() / unit_size, .count = run.units});
    runs.clear();
    return false;
}

Result<UnitRuns> UnitAllocator::allocate(const UnitRequest& request) {
    sealed_ = true;
    if (request.units == 0 || request.max_runs == 0) return fail("a request for no memory");
    if (request.units > free_count_) {
        return fail("{} MiB of memory wanted, {} MiB free", request.units * 2, free_count_ * 2);
    }
    const u64 low_limit = limit_ < units_below_4gib ? limit_ : units_below_4gib;
    UnitRuns runs;
    Span span;
    if (request.zone == UnitRequest::Zone::any && limit_ > low_limit) {
        span = best_single(request.units, low_limit, limit_);
    }
    if (span.count == 0) span = best_single(request.units, 0, low_limit);
    if (span.count != 0) {
        span.count = request.units;
        take(span);
        (void)runs.push_back({.start = HostPhysical(span.first * unit_size), .units = span.count});
        return runs;
    }
    if (take_longest(request, runs)) return runs;
    return fail("{} MiB of memory wanted; {} MiB are free, but in too many pieces or not below 4 GiB",
                request.units * 2, free_count_ * 2);
}

Result<> UnitAllocator::free(const UnitRun& run) {
    const u64 first = run.start.raw() / unit_size;
    if (!run.start.is_aligned(unit_size) || run.units == 0 || !range_within(first, run.units, limit_)) {
        return fail("run {}+{} units was never allocated", run.start, run.units);
    }
    for (u64 unit = first; unit < first + run.units; ++unit) {
        if (!get(managed_, unit) || get(free_, unit)) {
            return fail("unit {} is freed but is not allocated", HostPhysical(unit * unit_size));
        }
    }
    give_back({.first = first, .count = run.units});
    return {};
}

Result<> UnitAllocator::free(std::span<const UnitRun> runs) {
    for (const UnitRun& run : runs) {
        if (auto freed = free(run); !freed) return freed;
    }
    return {};
}

bool UnitAllocator::retire(HostPhysical unit) {
    if (!in_use(unit)) return false;
    sealed_ = true;  // lest add_usable() takes it for new
    const u64 number = unit.raw() / unit_size;
    if (get(free_, number)) --free_count_;
    set(free_, number);
    reset(managed_, number);
    --managed_count_;
    return true;
}

u64 UnitAllocator::largest_free_run() const {
    return longest(0, limit_).count;
}

}  // namespace bulkhead
