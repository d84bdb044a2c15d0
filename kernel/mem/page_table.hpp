// The one page-table algorithm. Host tables, EPT and NPT differ only in the PagingFormat; the memory that
// tables are made of is injected.
//
// Rules it keeps:
//  - an entry is written by one 64-bit store, so hardware never sees half of one;
//  - a table is linked only when all its entries are written, and freed only after TableMemory::flush();
//  - an operation that fails leaves every translation, and the number of tables, as they were;
//  - what map() maps was unmapped before: replacing a mapping is unmap() (which flushes) and map().
//
// Not thread-safe: whoever owns the table serialises changes. Hardware and lookup() may read at any time.
#pragma once

#include <optional>

#include "arch/x86/paging/format.hpp"
#include "kernel/base/fixed_vector.hpp"
#include "kernel/base/result.hpp"

namespace bulkhead {

// Where the pages for tables come from.
class TableMemory {
  public:
    // A page of its own, 4 KiB aligned, of any content.
    [[nodiscard]] virtual Result<HostPhysical> allocate() = 0;
    virtual void free(HostPhysical table) = 0;
    // The 512 entries of a table: of one that allocate() gave, or of a shared one. Valid until the table is
    // freed.
    [[nodiscard]] virtual u64* access(HostPhysical table) = 0;
    // Called after entries that hardware may have cached have changed, before a table that was unlinked is
    // freed and before unmap() or protect() returns: make sure that no core uses an old translation of the
    // range.
    virtual void flush(u64 address, u64 length) = 0;

  protected:
    ~TableMemory() = default;
};

// One leaf.
struct Mapping {
    u64 address = 0;  // host-virtual or guest-physical
    HostPhysical physical{};
    u64 size = 0;
    PageAttributes attributes{};
    friend constexpr bool operator==(const Mapping&, const Mapping&) = default;
};

// The algorithm without the type of the address. Use HostPageTable or NestedPageTable below.
//
// Addresses are 48 bits wide: host-virtual ones canonical, guest-physical ones below 2^48. Ranges are
// multiples of 4 KiB, do not wrap, and do not cross from the lower into the upper canonical half.
class PageTableAlgorithm {
  public:
    // Attaches to the tables below `root`, a zero-filled or earlier built table of this format.
    constexpr PageTableAlgorithm(const PagingFormat& format, TableMemory& memory, HostPhysical root)
        : format_(&format), memory_(&memory), root_(root) {}

    // Allocates an empty root.
    [[nodiscard]] static Result<HostPhysical> make_root(const PagingFormat& format, TableMemory& memory);

    // Maps [address, address + length) to [physical, physical + length), with the largest pages that
    // alignment and max_level (1: 4 KiB, 2: 2 MiB, 3: 1 GiB) allow. Fails, with nothing changed, if some byte
    // is mapped already, on a malformed range, on attributes the format cannot express, or if memory for
    // tables runs out.
    [[nodiscard]] Result<> map(u64 address, HostPhysical physical, u64 length,
                               const PageAttributes& attributes, unsigned max_level = 3);

    // Unmaps whatever is mapped in the range; holes are fine. A large page that reaches beyond the range is
    // split, which takes up to four tables; if they are not to be had it fails with nothing changed. Tables
    // that become empty are freed.
    [[nodiscard]] Result<> unmap(u64 address, u64 length);

    // Gives whatever is mapped in the range other attributes, at the same physical addresses, entry by entry
    // atomically: at no time is there a hole. Splits and fails as unmap() does.
    [[nodiscard]] Result<> protect(u64 address, u64 length, const PageAttributes& attributes);

    // The leaf that translates `address`.
    [[nodiscard]] std::optional<Mapping> lookup(u64 address) const;

    // Calls visit(mapping) for every leaf in ascending order, shared parts included, until it returns false.
    // Returns false in that case.
    template <class Visit>
    bool visit(Visit&& visit) const {
        return visit_leaves(
            [](void* context, const Mapping& mapping) -> bool {
                return (*static_cast<std::remove_reference_t<Visit>*>(context))(mapping);
            },
            &visit);
    }

    // The root of another table that translates as this one does now. They share all tables but those on the
    // way to `address`: what is mapped or unmapped by an entry of these later is so in one of the two only.
    // The copies stay allocated; neither table may be destroyed, nor lose a table, while the other is in use.
    [[nodiscard]] Result<HostPhysical> branch(u64 address) const;

    // A number that changes when any leaf does (64-bit FNV-1a over their addresses, sizes and attributes).
    // Where the tables are, and accessed and dirty bits that say nothing of an attribute, do not matter.
    [[nodiscard]] u64 checksum() const;

    // The number of tables, root included, shared ones not.
    [[nodiscard]] u64 table_count() const;

    // Gives the top-level slot (0..511) a table that stays until destroy(), so that others may share it and
    // see what is mapped below it later. Host tables only.
    [[nodiscard]] Result<> pin_top_slot(unsigned slot);

    // Lets `slot` of this table show what that of `other`, which is pinned there, shows. It is not this
    // table's to change: map(), unmap() and protect() refuse it and destroy() leaves it alone.
    [[nodiscard]] Result<> share_top_slot(unsigned slot, const PageTableAlgorithm& other);

    // Frees all tables it owns, root included. No core may use them any more; the object is not to be used
    // again.
    void destroy();

    [[nodiscard]] HostPhysical root() const { return root_; }
    [[nodiscard]] const PagingFormat& format() const { return *format_; }
    [[nodiscard]] TableMemory& memory() const { return *memory_; }

  private:
    using VisitFunction = bool (*)(void*, const Mapping&);
    using Spares = FixedVector<HostPhysical, 4>;

    [[nodiscard]] u64 load(HostPhysical table, unsigned index) const;
    void store(HostPhysical table, unsigned index, u64 entry) const;
    void clear_table(HostPhysical table) const;

    [[nodiscard]] Result<> check_range(u64 address, u64 length) const;
    [[nodiscard]] Result<> check_unmapped(u64 address, u64 last) const;
    [[nodiscard]] Result<Spares> allocate(usize count) const;
    // Maps one page of at most `level` and returns its size.
    [[nodiscard]] Result<u64> map_page(u64 address, HostPhysical physical, const PageAttributes& attributes,
                                       unsigned level);
    // The level of the leaf that `boundary` cuts in two; 1: none.
    [[nodiscard]] unsigned level_cut_at(u64 boundary) const;
    void split_at(u64 boundary, Spares& spares);
    [[nodiscard]] Result<> split_edges(u64 address, u64 length);
    // Clears what lies wholly in [address, last] and flushes; tables that become empty are freed.
    void remove(u64 address, u64 length);
    void clear(HostPhysical table, unsigned level, u64 address, u64 last, HostPhysical& unlinked,
               bool& changed);
    void change(HostPhysical table, unsigned level, u64 address, u64 last, const PageAttributes& attributes,
                bool& changed);
    bool visit_leaves(VisitFunction function, void* context) const;
    bool visit_table(HostPhysical table, unsigned level, u64 base, VisitFunction function,
                     void* context) const;
    [[nodiscard]] u64 count_tables(HostPhysical table, unsigned level) const;
    void free_tables(HostPhysical table, unsigned level);
    [[nodiscard]] bool is_empty(HostPhysical table) const;

    const PagingFormat* format_;
    TableMemory* memory_;
    HostPhysical root_;
};

// A page table whose addresses are of one kind.
template <class VirtualAddress>
class PageTable : private PageTableAlgorithm {
  public:
    using PageTableAlgorithm::checksum;
    using PageTableAlgorithm::destroy;
    using PageTableAlgorithm::format;
    using PageTableAlgorithm::make_root;
    using PageTableAlgorithm::memory;
    using PageTableAlgorithm::PageTableAlgorithm;
    using PageTableAlgorithm::pin_top_slot;
    using PageTableAlgorithm::root;
    using PageTableAlgorithm::table_count;
    using PageTableAlgorithm::visit;

    [[nodiscard]] Result<> map(VirtualAddress address, HostPhysical physical, u64 length,
                               const PageAttributes& attributes, unsigned max_level = 3) {
        return PageTableAlgorithm::map(address.raw(), physical, length, attributes, max_level);
    }
    [[nodiscard]] Result<> unmap(VirtualAddress address, u64 length) {
        return PageTableAlgorithm::unmap(address.raw(), length);
    }
    [[nodiscard]] Result<> protect(VirtualAddress address, u64 length, const PageAttributes& attributes) {
        return PageTableAlgorithm::protect(address.raw(), length, attributes);
    }
    [[nodiscard]] std::optional<Mapping> lookup(VirtualAddress address) const {
        return PageTableAlgorithm::lookup(address.raw());
    }
    [[nodiscard]] Result<HostPhysical> branch(VirtualAddress address) const {
        return PageTableAlgorithm::branch(address.raw());
    }
    [[nodiscard]] Result<> share_top_slot(unsigned slot, const PageTable& other) {
        return PageTableAlgorithm::share_top_slot(slot, other);
    }
};

using HostPageTable = PageTable<HostVirtual>;
using NestedPageTable = PageTable<GuestPhysical>;

}  // namespace bulkhead
