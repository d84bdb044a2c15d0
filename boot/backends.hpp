// The two makers of virtual processors; main.cpp asks the processor which one serves.
#pragma once

#include <optional>

#include "kernel/base/result.hpp"
#include "vmm/backend_factory.hpp"

namespace bulkhead {

// Turns on the virtualisation extension of the running core, VT-x or AMD-V, whichever the processor has, and
// returns what makes virtual processors of it. The error names what is missing. `virtual_interrupts`: whether
// the processor may deliver guests' interrupts; none: if it is known to do it right. `arm_timer`: makes the
// host's timer interrupt the core when its TSC reaches the value; ~0: not at all. `timer_count`: how often it
// has.
[[nodiscard]] Result<BackendFactory*> start_virtualization(std::optional<bool> virtual_interrupts,
                                                           void (*arm_timer)(u64 deadline),
                                                           u64 (*timer_count)());

// The same on another core: core 0 takes the memory for it first, then the core itself turns the extension
// on. An error says why the core cannot be used.
[[nodiscard]] Result<> prepare_virtualization_of(u32 core);
[[nodiscard]] Result<> start_virtualization_on_this_core();

}  // namespace bulkhead
