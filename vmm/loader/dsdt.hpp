// The DSDT of every VM, compiled from dsdt.asl.
#pragma once

#include "kernel/base/bytes.hpp"

namespace bulkhead {

[[nodiscard]] Bytes dsdt_aml();

}  // namespace bulkhead
