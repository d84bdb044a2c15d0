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

}  // namespace bulkhead
