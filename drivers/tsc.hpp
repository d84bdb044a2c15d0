// How fast the time-stamp counter runs.
#pragma once

#include <string_view>

#include "kernel/base/result.hpp"
#include "kernel/bootinfo/acpi.hpp"

namespace bulkhead::drivers {

struct TscCalibration {
    u64 hz = 0;
    std::string_view source;  // "CPUID 15h", "PM timer", "PIT"
    bool invariant = false;   // CPUID promises a constant rate in all power states
};

// Measures against the ACPI PM timer, else the PIT: the median of several measurements of a few milliseconds,
// which must agree. Where CPUID 15h names a frequency that the measurement confirms, that one is taken: it is
// exact.
[[nodiscard]] Result<TscCalibration> calibrate_tsc(const AcpiAddress& pm_timer);

}  // namespace bulkhead::drivers
