// `top`: what cores and VMs are doing, drawn in place.
#pragma once

#include "vmm/console/commands.hpp"

namespace bulkhead {

// The handler.
void run_top(CommandContext& context);

}  // namespace bulkhead
