// The memory map against a model that looks at every page of a small machine.
#include "kernel/bootinfo/memory_map.hpp"

#include "tests/fuzz/boot_info.hpp"

using namespace bulkhead;

void fuzz_one(fuzz::Input& in) {
    constexpr unsigned cells = 256;
    static MemoryMap map;
    map.clear();
    int model[cells];
    for (int& kind : model) kind = -1;
    while (!in.empty()) {
        const auto kind = static_cast<MemoryKind>(in.below(5));
        u64 start = in.byte(), length = in.byte() % 32;
        if (in.rarely(8)) {
            // Far away, where a range may also wrap.
            start = in.number() | bit(40);
            length = in.number();
            if (length == 0) continue;
            const bool added = map.add(HostPhysical(start), length, kind).has_value();
            MUST(added == (start + length - 1 >= start && start + length != 0) ||
                 map.ranges().size() + 2 >= MemoryMap::max_ranges);
            fuzz::check_memory_map(map);
            continue;
        }
        if (start + length > cells) length = cells - start;
        if (!map.add(HostPhysical(start), length, kind)) {
            MUST(map.ranges().size() + 2 >= MemoryMap::max_ranges);
            return;
        }
        for (u64 i = start; i < start + length; ++i) model[i] = std::max(model[i], static_cast<int>(kind));
    }
    fuzz::check_memory_map(map);
    for (u64 i = 0; i < cells; ++i) {
        int found = -1;
        for (const MemoryRange& range : map.ranges()) {
            if (range.start.raw() <= i && i < range.end().raw()) found = static_cast<int>(range.kind);
        }
        MUST(found == model[i]);
        MUST(map.is_usable(HostPhysical(i), 1) == (model[i] == 0));
    }
}
