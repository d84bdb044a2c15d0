// A VM's host address space: the kernel's image and devices, shared by all; this VM's own memory; and the
// modules it may read. While a core runs in it, no instruction can reach another VM's memory, because no
// translation leads there.
//
// Entering and leaving is loading root() into CR3, which is the caller's business.
#pragma once

#include <optional>
#include <span>

#include "kernel/mem/layout.hpp"
#include "kernel/mem/page_table.hpp"
#include "kernel/mem/unit_allocator.hpp"

namespace bulkhead {

struct PhysicalRange {
    HostPhysical start{};
    u64 length = 0;

    [[nodiscard]] constexpr bool overlaps(const PhysicalRange& other) const {
        return length != 0 && other.length != 0 && start.raw() < other.start.raw() + other.length &&
               other.start.raw() < start.raw() + length;
    }
    [[nodiscard]] constexpr bool covers(const PhysicalRange& other) const {
        return other.start >= start && range_within(other.start - start, other.length, length);
    }
    friend constexpr bool operator==(const PhysicalRange&, const PhysicalRange&) = default;
};

class Compartment {
  public:
    // Builds the address space: slots `image` and `device` windows as in `kernel`, `arena` at arena_window +
    // physical (read, write, no execute, not global), `modules` likewise but read-only. Module ranges are
    // page-aligned. On failure nothing is left behind. max_level: 3 where the processor has 1 GiB pages,
    // else 2.
    [[nodiscard]] static Result<Compartment> create(const HostPageTable& kernel, TableMemory& memory,
                                                    std::span<const UnitRun> arena,
                                                    std::span<const PhysicalRange> modules,
                                                    unsigned max_level);

    // What two VMs share (a channel) or a VM gets later. Page-aligned; at arena_window + physical.
    [[nodiscard]] Result<> add(const PhysicalRange& range, Permissions permissions);
    [[nodiscard]] Result<> remove(const PhysicalRange& range);

    // Frees the tables, not what they map. No core may be in it.
    void destroy() { table_.destroy(); }

    [[nodiscard]] HostPhysical root() const { return table_.root(); }
    [[nodiscard]] const HostPageTable& table() const { return table_; }

  private:
    explicit Compartment(const HostPageTable& table) : table_(table) {}
    HostPageTable table_;
};

// The first mapping in `table` that reaches into `range`; none: the address space has no way to it.
[[nodiscard]] std::optional<Mapping> find_mapping_of(const HostPageTable& table, const PhysicalRange& range);

// The first mapping that leads to something that `allowed` does not cover, or that is both writable and
// executable. Each range of `allowed` is looked at by itself: a page over two adjacent ones counts as
// outside.
[[nodiscard]] std::optional<Mapping> find_forbidden_mapping(const HostPageTable& table,
                                                            std::span<const PhysicalRange> allowed);

}  // namespace bulkhead
