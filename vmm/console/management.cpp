#include "vmm/console/management.hpp"

namespace bulkhead {

std::string_view name_of(VmState state) {
    constexpr std::string_view names[] = {"off",       "running", "blocked", "paused",
                                          "shut down", "crashed", "dying",   "refused"};
    return names[static_cast<usize>(state)];
}

std::string_view flags_of(VmState state) {
    constexpr std::string_view flags[] = {"------", "r-----", "-b----", "--p---",
                                          "---s--", "----c-", "-----d", "------"};
    return flags[static_cast<usize>(state)];
}

std::string_view name_of(VcpuSummary::State state) {
    using enum VcpuSummary::State;
    switch (state) {
        case running: return "running";
        case ready: return "ready";
        case blocked: return "blocked";
        case waiting_for_sipi: return "waiting for SIPI";
        case paused: return "paused";
        case halted_for_good: return "halted";
        case off: return "off";
    }
    return "?";
}

u64 Management::nanoseconds_at(u64 tsc) const {
    constexpr u64 billion = 1'000'000'000;
    const u64 hz = host().tsc_hz;
    if (hz == 0 || hz > ~u64{0} / billion) return 0;
    return tsc / hz * billion + tsc % hz * billion / hz;
}

}  // namespace bulkhead
