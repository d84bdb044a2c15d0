// Who owns which bit of CR0 and CR4. A bit that the guest owns is in the hardware register and changes
// without an exit; of a bit that the host owns the guest sees the read shadow, and changing it exits. Intel
// SDM Vol. 3C, 25.6.6 and 24.8 (June 2023 edition).
#pragma once

#include "arch/x86/vmx/capabilities.hpp"

namespace bulkhead::vmx {

// One register's split.
struct ControlRegisterOwnership {
    u64 host_owned = 0;  // the guest/host mask
    u64 forced_one = 0;  // of the host-owned bits, those that are 1 in hardware whatever the guest wrote

    // What the guest sees.
    [[nodiscard]] constexpr u64 guest_view(u64 hardware, u64 shadow) const {
        return (hardware & ~host_owned) | (shadow & host_owned);
    }
    // What the hardware register holds when the guest's view is `view`.
    [[nodiscard]] constexpr u64 hardware_value(u64 view) const { return (view & ~host_owned) | forced_one; }
};

// CR0: the host owns CD and NW (a guest may not switch off the caches of what it shares), NE and whatever
// else VMX operation fixes. PE and PG are the guest's: with unrestricted guest the processor itself tracks
// the mode, and firmware and boot loaders toggle PE by the million.
[[nodiscard]] ControlRegisterOwnership cr0_ownership(const Capabilities& capabilities);

// CR4: the host owns VMXE, MCE (a machine check in a guest that switched it off would shut the processor
// down), and all bits outside `guest_bits`, which are those that the guest's CPUID announces.
[[nodiscard]] ControlRegisterOwnership cr4_ownership(const Capabilities& capabilities, u64 guest_bits);

}  // namespace bulkhead::vmx
