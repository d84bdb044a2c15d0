// The two 8259s of a PC, which the host does not use. Intel 8259A data sheet (December 1988).
#pragma once

#include "kernel/base/types.hpp"

namespace bulkhead::drivers {

// Moves their 16 vectors to `first`, out of the exceptions' range, and masks every line.
void mask_legacy_pics(Vector first);

}  // namespace bulkhead::drivers
