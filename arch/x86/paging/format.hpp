// The bits of page-table entries: the host's own tables, Intel's extended page tables (EPT) and AMD's nested
// page tables (NPT). Bits only; the one algorithm that walks them is kernel/mem/page_table.hpp.
//
// All three have four levels of 512 entries. Level 1 maps 4 KiB, level 2 maps 2 MiB, level 3 maps 1 GiB,
// level 4 is the root. Intel SDM Vol. 3A, 4.5 (4-level paging), 4.9 (PAT) and Vol. 3C, 29.3 (EPT) (June 2023
// edition); AMD APM Vol. 2, 5.3 and 15.25 (rev. 3.41).
#pragma once

#include <string_view>

#include "kernel/base/bits.hpp"
#include "kernel/base/types.hpp"

namespace bulkhead {

constexpr unsigned paging_levels = 4;
constexpr unsigned paging_entries = 512;

// The number of bytes that one entry of `level` (1..4) covers.
[[nodiscard]] constexpr u64 bytes_at_level(unsigned level) {
    return page_size << (9 * (level - 1));
}

struct Permissions {
    bool read = false;
    bool write = false;
    bool execute = false;
    friend constexpr bool operator==(const Permissions&, const Permissions&) = default;
};

constexpr Permissions read_only{.read = true}, read_write{.read = true, .write = true},
    read_execute{.read = true, .execute = true}, read_write_execute{true, true, true};

// Numbered as in the PAT, the MTRRs and EPT entries. Intel SDM Vol. 3A, table 12-2 (June 2023 edition).
enum class MemoryType : u8 {
    uncacheable = 0,
    write_combining = 1,
    write_through = 4,
    write_protected = 5,
    write_back = 6
};

struct PageAttributes {
    Permissions permissions{};
    MemoryType type = MemoryType::write_back;
    bool global = false;        // host tables only: survives a write to CR3
    bool ignore_pat = false;    // EPT only: the guest's PAT has no say in the memory type
    bool shadow_stack = false;  // host tables only: what may be read is also the shadow stack's to write
    friend constexpr bool operator==(const PageAttributes&, const PageAttributes&) = default;
};

// The PAT the host runs with, on every core: entries 0-3 as after reset (WB, WT, UC-, UC), so that tables of
// the boot loader keep their meaning; then WC, WP, UC-, UC. Host entries select from it, and so do NPT
// entries (AMD APM Vol. 2, 15.25.8, rev. 3.41).
constexpr u64 host_pat = 0x0007'0501'0007'0406;

// One kind of page table, as bits. An entry is present when it has any bit of `present`. Everything is
// constant; the three instances stand below.
struct PagingFormat {
    std::string_view name;
    u64 present;       // any of these: the entry is present
    u64 read;          // set in a leaf that may be read
    u64 write;         // set in a leaf that may be written
    u64 execute;       // set in a leaf that may be executed, or
    u64 no_execute;    // set in a leaf that may not; one of the two is zero
    u64 global;        // zero: the format has no such thing
    u64 ignore_pat;    // likewise
    u64 shadow_stack;  // likewise; set in a leaf that may be written, too: the dirty bit
    u64 leaf_always;   // set in every leaf: accessed and, but in host tables, dirty, so that the
                       // processor need not; see the instances
    u64 table_always;  // set in every entry that points to a table: all permissions, for the leaf to narrow
    u64 absent;        // the entry that maps nothing
    u64 shared;  // a bit that the processor ignores, at the top level: the table below is someone else's
    u64 pinned;  // likewise: others share the table below, it must stay; both zero: sharing is not to be had
    bool type_in_entry;  // memory type in bits 5:3 (EPT); otherwise an index into host_pat
    bool canonical;      // addresses are sign-extended from bit 47; otherwise they are below 2^48

    static constexpr u64 address_mask = low_mask(52) & ~(page_size - 1);
    static constexpr u64 large = bit(7);
    static constexpr u64 physical_limit = bit(52);

    // False for what the format cannot say: nothing at all, writing without reading (an EPT
    // misconfiguration), execution without reading except in EPT, global outside host tables, ignore_pat
    // outside EPT.
    [[nodiscard]] constexpr bool supports(const PageAttributes& attributes) const {
        const Permissions& p = attributes.permissions;
        if (p.write && !p.read) return false;
        if (!p.read && !(p.execute && execute != 0)) return false;
        if (attributes.global && global == 0) return false;
        if (attributes.shadow_stack && (shadow_stack == 0 || p.write || p.execute)) return false;
        return !attributes.ignore_pat || ignore_pat != 0;
    }

    // An entry of `level` (1..3) that maps `physical`, aligned to bytes_at_level(level).
    [[nodiscard]] constexpr u64 leaf(HostPhysical physical, const PageAttributes& attributes,
                                     unsigned level) const {
        const Permissions& p = attributes.permissions;
        u64 entry = (physical.raw() & address_mask) | leaf_always;
        if (p.read) entry |= read;
        if (p.write) entry |= write;
        if (p.write || attributes.shadow_stack) entry |= shadow_stack;
        entry |= p.execute ? execute : no_execute;
        if (attributes.global) entry |= global;
        if (attributes.ignore_pat) entry |= ignore_pat;
        if (level > 1) entry |= large;
        return entry | type_bits(attributes.type, level);
    }

    // An entry of level 2..4 that points to `table`.
    [[nodiscard]] constexpr u64 table(HostPhysical table) const {
        return (table.raw() & address_mask) | table_always;
    }

    [[nodiscard]] constexpr bool is_present(u64 entry) const { return (entry & present) != 0; }

    // For a present entry.
    [[nodiscard]] constexpr bool is_leaf(u64 entry, unsigned level) const {
        return level == 1 || (level < paging_levels && (entry & large) != 0);
    }
    [[nodiscard]] constexpr bool is_shared(u64 entry) const { return (entry & shared) != 0; }
    [[nodiscard]] constexpr bool is_pinned(u64 entry) const { return (entry & pinned) != 0; }

    [[nodiscard]] constexpr HostPhysical table_address(u64 entry) const {
        return HostPhysical(entry & address_mask);
    }
    [[nodiscard]] constexpr HostPhysical leaf_address(u64 entry, unsigned level) const {
        return HostPhysical(entry & address_mask).align_down(bytes_at_level(level));
    }

    [[nodiscard]] constexpr PageAttributes attributes(u64 entry, unsigned level) const {
        PageAttributes result;
        result.permissions.read = (entry & read) != 0;
        result.permissions.write = (entry & write) != 0;
        result.permissions.execute = execute != 0 ? (entry & execute) != 0 : (entry & no_execute) == 0;
        result.global = (entry & global) != 0;
        result.ignore_pat = (entry & ignore_pat) != 0;
        result.shadow_stack = (entry & shadow_stack) != 0 && !result.permissions.write;
        result.type = type_of(entry, level);
        return result;
    }

  private:
    static constexpr unsigned pwt = 3, pcd = 4, pat_small = 7, pat_large = 12;

    [[nodiscard]] constexpr u64 type_bits(MemoryType type, unsigned level) const {
        if (type_in_entry) return static_cast<u64>(type) << 3;
        unsigned index = 0;
        while (index < 7 && extract(host_pat, 8 * index + 7, 8 * index) != static_cast<u64>(type)) ++index;
        return (u64{index & 1} << pwt) | (u64{(index >> 1) & 1} << pcd) |
               (u64{index >> 2} << (level > 1 ? pat_large : pat_small));
    }

    [[nodiscard]] constexpr MemoryType type_of(u64 entry, unsigned level) const {
        if (type_in_entry) return static_cast<MemoryType>(extract(entry, 5, 3));
        const u64 index = extract(entry, pcd, pwt) | u64{has_bit(entry, level > 1 ? pat_large : pat_small)}
                                                         << 2;
        return static_cast<MemoryType>((host_pat >> (8 * index)) & 7);
    }
};

// The host's own tables: supervisor only, NX on. Accessed (5) is set in advance, and so is dirty (6) in pages
// that may be written. In those that may not it would make them the shadow stack's (Intel SDM Vol. 3A, 4.6.1,
// June 2023 edition). Bits 9 and 10 are software's.
inline constexpr PagingFormat host_paging{
    .name = "host",
    .present = bit(0),
    .read = bit(0),
    .write = bit(1),
    .execute = 0,
    .no_execute = bit(63),
    .global = bit(8),
    .ignore_pat = 0,
    .shadow_stack = bit(6),
    .leaf_always = bit(0) | bit(5),
    .table_always = bit(0) | bit(1) | bit(5),
    .absent = 0,
    .shared = bit(9),
    .pinned = bit(10),
    .type_in_entry = false,
    .canonical = true,
};

// EPT. Accessed (8) and dirty (9) are set in advance; they are ignored where EPTP does not enable them. Bit
// 63 (suppress #VE) is set in leaves and in absent entries, so that no violation could turn into a #VE in the
// guest.
inline constexpr PagingFormat ept_paging{
    .name = "EPT",
    .present = bit(0) | bit(1) | bit(2),
    .read = bit(0),
    .write = bit(1),
    .execute = bit(2),
    .no_execute = 0,
    .global = 0,
    .ignore_pat = bit(6),
    .shadow_stack = 0,
    .leaf_always = bit(8) | bit(9) | bit(63),
    .table_always = bit(0) | bit(1) | bit(2) | bit(8),
    .absent = bit(63),
    .shared = 0,
    .pinned = 0,
    .type_in_entry = true,
    .canonical = false,
};

// NPT: the format of host tables, but every access of the guest counts as a user access (AMD APM Vol.
// 2, 15.25.5, rev. 3.41), so bit 2 (U) is set throughout. No global pages: the tag of a nested translation is
// the ASID.
inline constexpr PagingFormat npt_paging{
    .name = "NPT",
    .present = bit(0),
    .read = bit(0),
    .write = bit(1),
    .execute = 0,
    .no_execute = bit(63),
    .global = 0,
    .ignore_pat = 0,
    .shadow_stack = 0,
    .leaf_always = bit(0) | bit(2) | bit(5) | bit(6),
    .table_always = bit(0) | bit(1) | bit(2) | bit(5),
    .absent = 0,
    .shared = 0,
    .pinned = 0,
    .type_in_entry = false,
    .canonical = false,
};

}  // namespace bulkhead
