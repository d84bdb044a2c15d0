// What the hardware does that nobody asked for: interrupts without a handler, NMIs without a reason, memory
// errors. Each is counted where it happens, and told here, at most once a second.
#pragma once

#include "boot/host.hpp"

namespace bulkhead {

// For core 0's loop, at any rate, with interrupts disabled.
void watch_machine(Host& host);

}  // namespace bulkhead
