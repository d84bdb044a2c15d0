// The two makers of virtual processors; main.cpp asks the processor which one serves.
#pragma once

#include "kernel/base/result.hpp"
#include "vmm/backend_factory.hpp"

namespace bulkhead {

// Turns on the virtualisation extension of the running core, VT-x or AMD-V, whichever the processor has, and
// returns what makes virtual processors of it. The error names what is missing. `arm_timer`: makes the host's
// timer interrupt the core when its TSC reaches the value; ~0: not at all.
[[nodiscard]] Result<BackendFactory*> start_virtualization(void (*arm_timer)(u64 deadline));

}  // namespace bulkhead
