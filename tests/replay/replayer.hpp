// Replays a record of exits (vmm/record/recorder.hpp) through the VMM: the same dispatcher and devices over
// hardware that does what the record says. Time and the guest's memory come from the record too. What the VMM
// makes of each exit is compared with what it made then.
#pragma once

#include <deque>
#include <string>
#include <utility>
#include <vector>

#include "tests/fakes/fake_memory.hpp"
#include "vmm/record/recorder.hpp"
#include "vmm/virtual_machine.hpp"

namespace bulkhead::replay {

struct Options {
    u64 most_memory = 4 * gib;  // a VM with more is refused
    bool compare = true;        // false: differences are nobody's fault, the record is made up
};

struct Report {
    u64 frames = 0, exits = 0, turns = 0;
    // Values compared: of registers and events, and 16-byte pieces of memory.
    u64 compared = 0;
    // What is wrong with the record, or differs; empty: nothing.
    std::string problem;
};

// physical: for RAM and the VM itself; at least most_memory and memory_beside bytes.
constexpr u64 memory_beside = 64 * mib;
[[nodiscard]] Report replay(Bytes record, const FakeMemory& physical, const Options& options);

}  // namespace bulkhead::replay
