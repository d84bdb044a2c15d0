// What must be true of boot information, whoever it came from.
#pragma once

#include "kernel/bootinfo/boot_info.hpp"
#include "tests/fuzz/fuzz.hpp"

namespace bulkhead::fuzz {

inline void check_memory_map(const MemoryMap& map) {
    const auto ranges = map.ranges();
    u64 usable = 0;
    for (usize i = 0; i < ranges.size(); ++i) {
        MUST(ranges[i].length != 0);
        MUST(ranges[i].start.raw() + ranges[i].length > ranges[i].start.raw());
        if (ranges[i].kind == MemoryKind::usable) usable += ranges[i].length;
        if (i == 0) continue;
        MUST(ranges[i - 1].end() <= ranges[i].start);
        MUST(ranges[i - 1].end() < ranges[i].start || ranges[i - 1].kind != ranges[i].kind);
    }
    MUST(map.usable_bytes() == usable);
}

inline bool is_inside(const BootInfo& info, std::string_view text) {
    const auto* start = reinterpret_cast<const char*>(&info);
    return text.empty() || (text.data() >= start && text.data() + text.size() <= start + sizeof info);
}

inline void check_boot_info(const BootInfo& info) {
    check_memory_map(info.memory);
    MUST(is_inside(info, info.command_line));
    MUST(is_inside(info, info.loader_name));
    u64 length = info.command_line.size() + info.loader_name.size();
    for (const BootModule& module : info.modules) {
        MUST(is_inside(info, module.name));
        MUST(is_inside(info, module.rest));
        MUST(module.name.find(' ') == module.name.npos);
        length += module.name.size() + module.rest.size();
    }
    MUST(length <= BootInfo::text_capacity);
    if (const auto checked = check(info, HostPhysical(1 * mib), HostPhysical(2 * mib)); !checked) {
        MUST(!checked.error().text.empty());
        return;
    }
    for (const BootModule& module : info.modules) {
        MUST(module.start <= module.end);
        if (module.size() == 0) continue;  // an empty file is nowhere
        MUST(info.memory.is_usable(module.start, module.size()));
        MUST(module.end <= HostPhysical(1 * mib) || module.start >= HostPhysical(2 * mib));
    }
}

}  // namespace bulkhead::fuzz
