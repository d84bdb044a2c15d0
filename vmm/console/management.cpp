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

}  // namespace bulkhead
