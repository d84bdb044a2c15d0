// The machine's real-time clock. Motorola MC146818A data sheet.
#pragma once

#include <optional>

#include "kernel/base/types.hpp"

namespace bulkhead::drivers {

// Seconds since 1970-01-01 00:00 by the clock, taken as UTC; nothing where it does not answer with a date.
// Waits at most a few milliseconds for an update to pass.
[[nodiscard]] std::optional<u64> read_rtc();

}  // namespace bulkhead::drivers
