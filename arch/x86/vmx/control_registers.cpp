#include "arch/x86/vmx/control_registers.hpp"

#include "arch/x86/regs/control.hpp"

namespace bulkhead::vmx {

ControlRegisterOwnership cr0_ownership(const Capabilities& capabilities) {
    const u64 fixed_one = capabilities.cr0_fixed0 & ~(cr0::pe | cr0::pg);
    const u64 fixed_zero = ~capabilities.cr0_fixed1 & low_mask(32);
    return {.host_owned = cr0::cd | cr0::nw | cr0::ne | fixed_one | fixed_zero,
            .forced_one = cr0::ne | fixed_one};
}

ControlRegisterOwnership cr4_ownership(const Capabilities& capabilities, u64 guest_bits) {
    constexpr u64 never_the_guests = cr4::vmxe | cr4::smxe | cr4::mce;
    const u64 guest_owned =
        guest_bits & ~never_the_guests & capabilities.cr4_fixed1 & ~capabilities.cr4_fixed0;
    return {.host_owned = ~guest_owned, .forced_one = cr4::vmxe | cr4::mce | capabilities.cr4_fixed0};
}

}  // namespace bulkhead::vmx
