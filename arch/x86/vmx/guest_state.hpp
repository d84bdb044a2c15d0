// The guest-state area: segments, the state after RESET, page-directory-pointer entries.
// Intel SDM Vol. 3C, 25.4 (June 2023 edition).
#pragma once

#include "arch/x86/vmx/control_registers.hpp"
#include "vmm/cpu_state.hpp"
#include "vmm/guest_memory.hpp"

namespace bulkhead::vmx {

// All of these work on the current VMCS.

[[nodiscard]] Segment read_segment(SegmentName which);
void write_segment(SegmentName which, const Segment& value);

// The registers after RESET as far as the VMCS holds them: Intel SDM Vol. 3A, table 9-1 (June 2023 edition).
// The VM-entry controls become those of a guest outside IA-32e mode.
void write_reset_state(const ControlRegisterOwnership& cr0, const ControlRegisterOwnership& cr4);

// The access rights as the VMCS has them, and back.
[[nodiscard]] constexpr u32 to_access_rights(const Segment& segment) {
    return (segment.access & 0xF0FFu) | (segment.unusable ? bit<u32>(16) : 0);
}
[[nodiscard]] constexpr u16 access_of_rights(u32 access_rights) {
    return static_cast<u16>(access_rights & 0xF0FF);
}

// After the VMM has set CR0, CR3, CR4 or EFER: in PAE paging the processor takes the PDPTEs from the VMCS,
// not from memory (SDM Vol. 3C, 27.3.2.4). Entries that cannot be read or have reserved bits set become
// not-present: the guest has been given #GP for them already, or had no memory there.
void reload_pdptes(u64 cr0, u64 cr3, u64 cr4, u64 efer, const GuestMemory& memory);

}  // namespace bulkhead::vmx
