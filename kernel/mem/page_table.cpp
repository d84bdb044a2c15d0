#include "kernel/mem/page_table.hpp"

namespace bulkhead {
namespace {

// Ends the chain of unlinked tables. No table stands at physical address 0: real-mode vectors do.
constexpr HostPhysical no_table{0};

[[nodiscard]] constexpr unsigned index_at(u64 address, unsigned level) {
    return static_cast<unsigned>(address / bytes_at_level(level)) & (paging_entries - 1);
}

[[nodiscard]] constexpr u64 last_of_page(u64 address, unsigned level) {
    return address | (bytes_at_level(level) - 1);
}

[[nodiscard]] constexpr u64 smaller(u64 a, u64 b) {
    return a < b ? a : b;
}

[[nodiscard]] u64 read_entry(const u64* entry) {
    return __atomic_load_n(entry, __ATOMIC_ACQUIRE);
}

void write_entry(u64* entry, u64 value) {
    __atomic_store_n(entry, value, __ATOMIC_RELEASE);
}

}  // namespace

u64 PageTableAlgorithm::load(HostPhysical table, unsigned index) const {
    return read_entry(memory_->access(table) + index);
}

void PageTableAlgorithm::store(HostPhysical table, unsigned index, u64 entry) const {
    write_entry(memory_->access(table) + index, entry);
}

void PageTableAlgorithm::clear_table(HostPhysical table) const {
    u64* entries = memory_->access(table);
    for (unsigned i = 0; i < paging_entries; ++i) write_entry(entries + i, format_->absent);
}

Result<HostPhysical> PageTableAlgorithm::make_root(const PagingFormat& format, TableMemory& memory) {
    auto root = memory.allocate();
    if (!root) return root;
    const PageTableAlgorithm table(format, memory, *root);
    table.clear_table(*root);
    return root;
}

Result<> PageTableAlgorithm::check_range(u64 address, u64 length) const {
    if (length == 0 || ((address | length) & (page_size - 1)) != 0) {
        return fail("range {:#x}+{:#x} is not made of whole pages", address, length);
    }
    const u64 last = address + (length - 1);
    const bool wraps = last < address;
    const u64 high = address >> 47;
    const bool in_one_half = high == last >> 47 && (high == 0 || high == low_mask(17));
    if (wraps || (format_->canonical ? !in_one_half : last >= bit(48))) {
        return fail("range {:#x}+{:#x} is outside the {} address space", address, length, format_->name);
    }
    for (unsigned slot = index_at(address, 4); slot <= index_at(last, 4); ++slot) {
        if (format_->is_shared(load(root_, slot))) {
            return fail("range {:#x}+{:#x} belongs to a shared part of the address space", address, length);
        }
    }
    return {};
}

Result<> PageTableAlgorithm::check_unmapped(u64 address, u64 last) const {
    for (;;) {
        unsigned level = paging_levels;
        HostPhysical table = root_;
        for (;;) {
            const u64 entry = load(table, index_at(address, level));
            if (!format_->is_present(entry)) break;
            if (format_->is_leaf(entry, level)) return fail("address {:#x} is mapped already", address);
            table = format_->table_address(entry);
            --level;
        }
        const u64 end_of_hole = last_of_page(address, level);
        if (end_of_hole >= last) return {};
        address = end_of_hole + 1;
    }
}

Result<PageTableAlgorithm::Spares> PageTableAlgorithm::allocate(usize count) const {
    Spares spares;
    for (usize i = 0; i < count; ++i) {
        auto table = memory_->allocate();
        if (!table) {
            for (const HostPhysical spare : spares) memory_->free(spare);
            return std::unexpected(table.error());
        }
        (void)spares.push_back(*table);
    }
    return spares;
}

Result<u64> PageTableAlgorithm::map_page(u64 address, HostPhysical physical, const PageAttributes& attributes,
                                         unsigned level) {
    unsigned at = paging_levels;
    HostPhysical table = root_;
    for (; at > 1; --at) {
        const u64 entry = load(table, index_at(address, at));
        if (!format_->is_present(entry)) break;
        table = format_->table_address(entry);  // no leaf: check_unmapped() has looked
    }
    // A table that stands in a large page's place, though empty, stays.
    if (at < level) level = at;

    // The missing tables are made from the lowest up, and linked last.
    auto tables = allocate(at - level);
    if (!tables) return std::unexpected(tables.error());
    u64 entry = format_->leaf(physical, attributes, level);
    for (unsigned i = level; i < at; ++i) {
        const HostPhysical fresh = tables->back();
        tables->pop_back();
        clear_table(fresh);
        store(fresh, index_at(address, i), entry);
        entry = format_->table(fresh);
    }
    store(table, index_at(address, at), entry);
    return bytes_at_level(level);
}

Result<HostPhysical> PageTableAlgorithm::branch(u64 address) const {
    HostPhysical path[paging_levels];
    unsigned count = 0;
    HostPhysical table = root_;
    for (unsigned level = paging_levels;; --level) {
        path[count++] = table;
        const u64 entry = load(table, index_at(address, level));
        if (level == 1 || !format_->is_present(entry) || format_->is_leaf(entry, level)) break;
        table = format_->table_address(entry);
    }
    const auto copies = allocate(count);
    if (!copies) return std::unexpected(copies.error());
    for (unsigned i = 0; i < count; ++i) {
        for (unsigned index = 0; index < paging_entries; ++index)
            store((*copies)[i], index, load(path[i], index));
        if (i + 1 < count)
            store((*copies)[i], index_at(address, paging_levels - i), format_->table((*copies)[i + 1]));
    }
    return (*copies)[0];
}

Result<> PageTableAlgorithm::map(u64 address, HostPhysical physical, u64 length,
                                 const PageAttributes& attributes, unsigned max_level) {
    if (auto checked = check_range(address, length); !checked) return checked;
    if (!physical.is_aligned(page_size) ||
        !range_within(physical.raw(), length, PagingFormat::physical_limit)) {
        return fail("physical range {}+{:#x} cannot be mapped", physical, length);
    }
    if (max_level < 1 || max_level > 3) return fail("no pages of level {}", max_level);
    if (!format_->supports(attributes)) {
        return fail("{} tables cannot express the attributes for {:#x}", format_->name, address);
    }
    if (auto checked = check_unmapped(address, address + (length - 1)); !checked) return checked;

    for (u64 done = 0; done < length;) {
        unsigned level = max_level;
        while (level > 1 &&
               ((((address + done) | (physical.raw() + done)) & (bytes_at_level(level) - 1)) != 0 ||
                length - done < bytes_at_level(level))) {
            --level;
        }
        auto size = map_page(address + done, physical + done, attributes, level);
        if (!size) {
            if (done > 0) remove(address, done);
            return std::unexpected(size.error());
        }
        done += *size;
    }
    return {};
}

unsigned PageTableAlgorithm::level_cut_at(u64 boundary) const {
    if ((boundary & (bytes_at_level(3) - 1)) == 0) return 1;
    HostPhysical table = root_;
    for (unsigned level = paging_levels; level > 1; --level) {
        const u64 entry = load(table, index_at(boundary, level));
        if (!format_->is_present(entry)) return 1;
        if (format_->is_leaf(entry, level)) return (boundary & (bytes_at_level(level) - 1)) != 0 ? level : 1;
        table = format_->table_address(entry);
    }
    return 1;
}

// Replaces the leaves that `boundary` cuts by tables that say the same. Hardware may hold the large and the
// small translation at once for a moment; they agree.
void PageTableAlgorithm::split_at(u64 boundary, Spares& spares) {
    if ((boundary & (bytes_at_level(3) - 1)) == 0) return;
    HostPhysical table = root_;
    for (unsigned level = paging_levels; level > 1; --level) {
        const unsigned index = index_at(boundary, level);
        u64 entry = load(table, index);
        if (!format_->is_present(entry)) return;
        if (format_->is_leaf(entry, level)) {
            if ((boundary & (bytes_at_level(level) - 1)) == 0) return;
            const HostPhysical parts = spares.back();
            spares.pop_back();
            const PageAttributes attributes = format_->attributes(entry, level);
            const HostPhysical physical = format_->leaf_address(entry, level);
            for (unsigned i = 0; i < paging_entries; ++i) {
                store(parts, i,
                      format_->leaf(physical + i * bytes_at_level(level - 1), attributes, level - 1));
            }
            entry = format_->table(parts);
            store(table, index, entry);
        }
        table = format_->table_address(entry);
    }
}

// All tables are there before the first split, so it happens wholly or not at all.
Result<> PageTableAlgorithm::split_edges(u64 address, u64 length) {
    const u64 ends[2] = {address, address + length};
    bool split[2][2];  // [end][0: a 1 GiB page, 1: a 2 MiB page]
    for (int i = 0; i < 2; ++i) {
        const unsigned level = level_cut_at(ends[i]);
        split[i][0] = level == 3;
        split[i][1] = level >= 2 && (ends[i] & (bytes_at_level(2) - 1)) != 0;
    }
    // Both ends may cut the same page.
    split[1][0] = split[1][0] && !(split[0][0] && ends[0] / bytes_at_level(3) == ends[1] / bytes_at_level(3));
    split[1][1] = split[1][1] && !(split[0][1] && ends[0] / bytes_at_level(2) == ends[1] / bytes_at_level(2));
    auto spares = allocate(usize{split[0][0]} + usize{split[0][1]} + usize{split[1][0]} + usize{split[1][1]});
    if (!spares) return std::unexpected(spares.error());
    split_at(ends[0], *spares);
    split_at(ends[1], *spares);
    return {};
}

void PageTableAlgorithm::clear(HostPhysical table, unsigned level, u64 address, u64 last,
                               HostPhysical& unlinked, bool& changed) {
    u64* entries = memory_->access(table);
    for (;;) {
        const unsigned index = index_at(address, level);
        const u64 end = last_of_page(address, level);
        const u64 entry = read_entry(entries + index);
        if (format_->is_present(entry)) {
            if (format_->is_leaf(entry, level)) {
                write_entry(entries + index, format_->absent);
                changed = true;
            } else {
                const HostPhysical child = format_->table_address(entry);
                clear(child, level - 1, address, smaller(last, end), unlinked, changed);
                if (is_empty(child) && !(level == paging_levels && format_->is_pinned(entry))) {
                    write_entry(entries + index, format_->absent);
                    changed = true;
                    // Hardware may still walk the table until the flush: the link is an address without any
                    // of the low bits, hence an absent entry in every format.
                    store(child, 0, unlinked.raw());
                    unlinked = child;
                }
            }
        }
        if (end >= last) return;
        address = end + 1;
    }
}

void PageTableAlgorithm::remove(u64 address, u64 length) {
    HostPhysical unlinked = no_table;
    bool changed = false;
    clear(root_, paging_levels, address, address + (length - 1), unlinked, changed);
    if (changed) memory_->flush(address, length);
    while (unlinked != no_table) {
        const HostPhysical next(load(unlinked, 0));
        memory_->free(unlinked);
        unlinked = next;
    }
}

Result<> PageTableAlgorithm::unmap(u64 address, u64 length) {
    if (auto checked = check_range(address, length); !checked) return checked;
    if (auto split = split_edges(address, length); !split) return split;
    remove(address, length);
    return {};
}

void PageTableAlgorithm::change(HostPhysical table, unsigned level, u64 address, u64 last,
                                const PageAttributes& attributes, bool& changed) {
    u64* entries = memory_->access(table);
    for (;;) {
        const unsigned index = index_at(address, level);
        const u64 end = last_of_page(address, level);
        const u64 entry = read_entry(entries + index);
        if (format_->is_present(entry)) {
            if (format_->is_leaf(entry, level)) {
                const u64 wanted = format_->leaf(format_->leaf_address(entry, level), attributes, level);
                if (wanted != entry) {
                    write_entry(entries + index, wanted);
                    changed = true;
                }
            } else {
                change(format_->table_address(entry), level - 1, address, smaller(last, end), attributes,
                       changed);
            }
        }
        if (end >= last) return;
        address = end + 1;
    }
}

Result<> PageTableAlgorithm::protect(u64 address, u64 length, const PageAttributes& attributes) {
    if (auto checked = check_range(address, length); !checked) return checked;
    if (!format_->supports(attributes)) {
        return fail("{} tables cannot express the attributes for {:#x}", format_->name, address);
    }
    if (auto split = split_edges(address, length); !split) return split;
    bool changed = false;
    change(root_, paging_levels, address, address + (length - 1), attributes, changed);
    if (changed) memory_->flush(address, length);
    return {};
}

std::optional<Mapping> PageTableAlgorithm::lookup(u64 address) const {
    const u64 high = address >> 47;
    if (format_->canonical ? (high != 0 && high != low_mask(17)) : address >= bit(48)) return std::nullopt;
    HostPhysical table = root_;
    for (unsigned level = paging_levels; level > 0; --level) {
        const u64 entry = load(table, index_at(address, level));
        if (!format_->is_present(entry)) return std::nullopt;
        if (format_->is_leaf(entry, level)) {
            return Mapping{.address = address & ~(bytes_at_level(level) - 1),
                           .physical = format_->leaf_address(entry, level),
                           .size = bytes_at_level(level),
                           .attributes = format_->attributes(entry, level)};
        }
        table = format_->table_address(entry);
    }
    return std::nullopt;
}

bool PageTableAlgorithm::visit_table(HostPhysical table, unsigned level, u64 base, VisitFunction function,
                                     void* context) const {
    const u64* entries = memory_->access(table);
    for (unsigned i = 0; i < paging_entries; ++i) {
        const u64 entry = read_entry(entries + i);
        if (!format_->is_present(entry)) continue;
        u64 address = base + i * bytes_at_level(level);
        if (level == paging_levels && format_->canonical && i >= paging_entries / 2) address |= ~low_mask(48);
        if (!format_->is_leaf(entry, level)) {
            if (!visit_table(format_->table_address(entry), level - 1, address, function, context))
                return false;
        } else if (!function(context, {.address = address,
                                       .physical = format_->leaf_address(entry, level),
                                       .size = bytes_at_level(level),
                                       .attributes = format_->attributes(entry, level)})) {
            return false;
        }
    }
    return true;
}

bool PageTableAlgorithm::visit_leaves(VisitFunction function, void* context) const {
    return visit_table(root_, paging_levels, 0, function, context);
}

u64 PageTableAlgorithm::checksum() const {
    u64 sum = 0xCBF29CE484222325;
    const auto add = [&sum](u64 value) {
        for (unsigned i = 0; i < 64; i += 8) sum = (sum ^ ((value >> i) & 0xFF)) * 0x100000001B3;
    };
    visit([&add](const Mapping& mapping) {
        const PageAttributes& a = mapping.attributes;
        add(mapping.address);
        add(mapping.physical.raw());
        add(mapping.size | u64{a.permissions.read} | u64{a.permissions.write} << 1 |
            u64{a.permissions.execute} << 2 | u64{a.global} << 3 | u64{a.ignore_pat} << 4 |
            static_cast<u64>(a.type) << 5 | u64{a.shadow_stack} << 8);
        return true;
    });
    return sum;
}

u64 PageTableAlgorithm::count_tables(HostPhysical table, unsigned level) const {
    const u64* entries = memory_->access(table);
    u64 count = 1;
    for (unsigned i = 0; level > 1 && i < paging_entries; ++i) {
        const u64 entry = read_entry(entries + i);
        if (!format_->is_present(entry) || format_->is_leaf(entry, level)) continue;
        if (level == paging_levels && format_->is_shared(entry)) continue;
        count += count_tables(format_->table_address(entry), level - 1);
    }
    return count;
}

u64 PageTableAlgorithm::table_count() const {
    return count_tables(root_, paging_levels);
}

Result<> PageTableAlgorithm::pin_top_slot(unsigned slot) {
    if (slot >= paging_entries || format_->pinned == 0)
        return fail("no slot {} to pin in {} tables", slot, format_->name);
    u64 entry = load(root_, slot);
    if (format_->is_shared(entry)) return fail("slot {} is another table's", slot);
    if (!format_->is_present(entry)) {
        auto table = memory_->allocate();
        if (!table) return std::unexpected(table.error());
        clear_table(*table);
        entry = format_->table(*table);
    }
    store(root_, slot, entry | format_->pinned);
    return {};
}

Result<> PageTableAlgorithm::share_top_slot(unsigned slot, const PageTableAlgorithm& other) {
    if (slot >= paging_entries || format_ != other.format_ || format_->shared == 0) {
        return fail("slot {} cannot be shared", slot);
    }
    const u64 entry = other.load(other.root_, slot);
    if (!format_->is_present(entry) || !format_->is_pinned(entry)) return fail("slot {} is not pinned", slot);
    if (format_->is_present(load(root_, slot))) return fail("slot {} is in use", slot);
    store(root_, slot, (entry & ~format_->pinned) | format_->shared);
    return {};
}

void PageTableAlgorithm::free_tables(HostPhysical table, unsigned level) {
    const u64* entries = memory_->access(table);
    for (unsigned i = 0; level > 1 && i < paging_entries; ++i) {
        const u64 entry = read_entry(entries + i);
        if (!format_->is_present(entry) || format_->is_leaf(entry, level)) continue;
        if (level == paging_levels && format_->is_shared(entry)) continue;
        free_tables(format_->table_address(entry), level - 1);
    }
    memory_->free(table);
}

void PageTableAlgorithm::destroy() {
    free_tables(root_, paging_levels);
}

bool PageTableAlgorithm::is_empty(HostPhysical table) const {
    const u64* entries = memory_->access(table);
    for (unsigned i = 0; i < paging_entries; ++i) {
        if (format_->is_present(read_entry(entries + i))) return false;
    }
    return true;
}

}  // namespace bulkhead
