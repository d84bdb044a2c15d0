// What the VMM may ask of the physical machine. Tests give it a fake one.
#pragma once

#include "arch/x86/regs/cpuid.hpp"
#include "kernel/base/types.hpp"

namespace bulkhead {

class PhysicalMachine {
  public:
    [[nodiscard]] virtual CpuidResult cpuid(u32 leaf, u32 subleaf) const = 0;
    // The time-stamp counter of this core; synchronous on all cores, or the VMM does not run on them.
    [[nodiscard]] virtual u64 tsc() const = 0;
    [[nodiscard]] virtual u64 tsc_hz() const = 0;
    // Seconds since 1970-01-01 00:00 UTC by the physical clock, as of now.
    [[nodiscard]] virtual u64 wall_clock() const = 0;

  protected:
    ~PhysicalMachine() = default;
};

}  // namespace bulkhead
