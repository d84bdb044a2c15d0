// What the start-up code was told to break (kernel/bootinfo/fault_injection.hpp), for those who break it. In
// a release build injected() is false at compile time, and nothing of it is in the image.
#pragma once

#include "kernel/bootinfo/fault_injection.hpp"

namespace bulkhead {

#ifdef BULKHEAD_FAULT_INJECTION
inline constinit FaultSet injected_faults;
[[nodiscard]] inline bool injected(Fault fault) {
    return injected_faults.has(fault);
}
#else
[[nodiscard]] constexpr bool injected(Fault) {
    return false;
}
#endif

}  // namespace bulkhead
