#include "kernel/mem/compartment.hpp"

namespace bulkhead {
namespace {

Result<> map_range(HostPageTable& table, const PhysicalRange& range, Permissions permissions,
                   unsigned max_level) {
    if (!range_within(range.start.raw(), range.length, arena_window_size)) {
        return fail("physical range {}+{:#x} is beyond the arena window", range.start, range.length);
    }
    // Not executable, whatever it holds: a guest runs through its nested table, not through this one.
    permissions.execute = false;
    return table.map(arena_virtual(range.start), range.start, range.length, {.permissions = permissions},
                     max_level);
}

Result<> fill(HostPageTable& table, const HostPageTable& kernel, std::span<const UnitRun> arena,
              std::span<const PhysicalRange> modules, unsigned max_level) {
    for (const u64 window : {image_window, device_window}) {
        if (auto shared = table.share_top_slot(top_slot(window), kernel); !shared) return shared;
    }
    for (const UnitRun& run : arena) {
        const PhysicalRange range{.start = run.start, .length = run.bytes()};
        if (auto mapped = map_range(table, range, read_write, max_level); !mapped) return mapped;
    }
    for (const PhysicalRange& range : modules) {
        if (auto mapped = map_range(table, range, read_only, max_level); !mapped) return mapped;
    }
    return {};
}

}  // namespace

Result<Compartment> Compartment::create(const HostPageTable& kernel, TableMemory& memory,
                                        std::span<const UnitRun> arena,
                                        std::span<const PhysicalRange> modules, unsigned max_level) {
    auto root = HostPageTable::make_root(kernel.format(), memory);
    if (!root) return std::unexpected(root.error());
    HostPageTable table(kernel.format(), memory, *root);
    if (auto filled = fill(table, kernel, arena, modules, max_level); !filled) {
        table.destroy();
        return std::unexpected(filled.error());
    }
    return Compartment(table);
}

Result<> Compartment::add(const PhysicalRange& range, Permissions permissions) {
    return map_range(table_, range, permissions, 2);
}

Result<> Compartment::remove(const PhysicalRange& range) {
    if (!range_within(range.start.raw(), range.length, arena_window_size)) {
        return fail("physical range {}+{:#x} is beyond the arena window", range.start, range.length);
    }
    return table_.unmap(arena_virtual(range.start), range.length);
}

std::optional<Mapping> find_mapping_of(const HostPageTable& table, const PhysicalRange& range) {
    std::optional<Mapping> found;
    table.visit([&](const Mapping& mapping) {
        if (range.overlaps({.start = mapping.physical, .length = mapping.size})) found = mapping;
        return !found;
    });
    return found;
}

std::optional<Mapping> find_forbidden_mapping(const HostPageTable& table,
                                              std::span<const PhysicalRange> allowed) {
    std::optional<Mapping> found;
    table.visit([&](const Mapping& mapping) {
        bool fine = !(mapping.attributes.permissions.write && mapping.attributes.permissions.execute);
        bool covered = false;
        for (const PhysicalRange& range : allowed) {
            covered = covered || range.covers({.start = mapping.physical, .length = mapping.size});
        }
        fine = fine && covered;
        if (!fine) found = mapping;
        return fine;
    });
    return found;
}

}  // namespace bulkhead
