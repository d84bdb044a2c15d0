// The MTRRs, which must say the same on every core. Intel SDM Vol. 3A, 12.11 (June 2023 edition); AMD APM
// Vol. 2, 7.7 (rev. 3.41).
#pragma once

#include "kernel/base/types.hpp"

namespace bulkhead {

// On the first core, before the others start: what the firmware has set.
void record_memory_types();

// On another core: what was recorded, where the firmware left it otherwise. True if anything had to change.
bool adopt_memory_types();

}  // namespace bulkhead
