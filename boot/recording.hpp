// In the image that records exits (CMake: BULKHEAD_RECORD); see vmm/record/recorder.hpp. Its first VM is
// recorded if it has one processor; the machine must have one core.
#pragma once

#include "vmm/backend_factory.hpp"
#include "vmm/physical_machine.hpp"

namespace bulkhead {

struct RecordedHardware {
    const PhysicalMachine& machine;
    BackendFactory& factory;
};
// What VMs are to be given instead of `machine` and `factory`. Once.
#ifdef BULKHEAD_RECORD
[[nodiscard]] RecordedHardware start_recording(const PhysicalMachine& machine, BackendFactory& factory);
#else
[[nodiscard]] inline RecordedHardware start_recording(const PhysicalMachine& machine,
                                                      BackendFactory& factory) {
    return {.machine = machine, .factory = factory};
}
#endif

}  // namespace bulkhead
