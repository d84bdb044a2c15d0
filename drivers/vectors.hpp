// The interrupt vectors the host uses on its own cores. Higher numbers are served first: the upper four bits
// are the priority class.
#pragma once

#include "kernel/base/types.hpp"

namespace bulkhead::host_vector {

// The two 8259s are masked, yet a spurious IRQ 7 or 15 of theirs must land somewhere harmless.
constexpr Vector legacy_pic{0x20};  // ... 0x2F
constexpr Vector console_uart{0x40};
constexpr Vector reschedule{0xE0};  // sent by another core: look at your queue
constexpr Vector timer{0xEF};
constexpr Vector apic_error{0xFE};
constexpr Vector spurious{0xFF};

}  // namespace bulkhead::host_vector
