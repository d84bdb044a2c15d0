// The proof that compartments hold: no page table leads to memory of a VM but that VM's own. All tables are
// walked, as they are, against the list of who owns what; and what must be out of reach is tried.
#pragma once

#include <optional>
#include <span>

#include "kernel/base/fixed_vector.hpp"
#include "kernel/mem/compartment.hpp"
#include "kernel/mem/page_table.hpp"

namespace bulkhead {

// A mapping that should not be.
struct Leak {
    static constexpr u16 kernel = 0xFFFF;  // as `viewer`: the kernel's own tables
    u16 viewer = kernel;                   // whose table it is in
    u16 owner = 0;                         // whose memory it shows
    bool nested = false;                   // in the table that the guest's accesses go through
    Mapping mapping{};
};
void format_value(Sink& sink, const Leak& leak);

// First own() for all memory of all VMs, then inspect() each table, then ask. 10 KiB: not for a stack.
class IsolationAudit {
  public:
    // 64 VMs with an arena and guest RAM in four pieces each.
    static constexpr usize max_ranges = 320;
    static constexpr usize max_shown = 8;

    // `owner`: not Leak::kernel. Fails when the range is empty or wraps, overlaps one that is owned already
    // (that alone would be a leak, if the owner is another), or is one too many.
    [[nodiscard]] Result<> own(u16 owner, const PhysicalRange& range);

    // Every leaf of the table, shared parts included. The tables themselves are readable when it is called: a
    // VM's are in its own memory, so the caller is in its address space.
    void inspect(const HostPageTable& table, u16 viewer);
    void inspect(const NestedPageTable& table, u16 viewer);

    [[nodiscard]] u64 tables() const { return tables_; }      // inspected
    [[nodiscard]] u64 mappings() const { return mappings_; }  // leaves in them
    [[nodiscard]] u64 leaks() const { return leak_count_; }
    [[nodiscard]] std::span<const Leak> shown() const { return leaks_; }  // the first of them

  private:
    struct Owned {
        PhysicalRange range{};
        u16 owner = 0;
    };

    // The first range that ends behind `physical`.
    [[nodiscard]] usize first_behind(HostPhysical physical) const;
    void look_at(const Mapping& mapping, u16 viewer, bool nested);

    FixedVector<Owned, max_ranges> owned_;  // in ascending order, none overlapping another
    FixedVector<Leak, max_shown> leaks_;
    u64 tables_ = 0;
    u64 mappings_ = 0;
    u64 leak_count_ = 0;
};

// Tries a byte of every 2 MiB of the range, and its last one. page_faults(HostPhysical) tells whether a load
// of it took a page fault. Returns the first that did not: there is none, in what is not to be reached.
template <class PageFaults>
[[nodiscard]] std::optional<HostPhysical> first_reachable(const PhysicalRange& range,
                                                          PageFaults&& page_faults) {
    for (u64 offset = 0; offset < range.length; offset += large_page_size) {
        if (!page_faults(range.start + offset)) return range.start + offset;
    }
    if (range.length != 0 && !page_faults(range.start + (range.length - 1)))
        return range.start + (range.length - 1);
    return std::nullopt;
}

}  // namespace bulkhead
