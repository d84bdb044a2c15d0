// What the operator may look at in a VM without the guest noticing: a vCPU's registers, memory by the guest's
// own page tables.
#pragma once

#include "vmm/console/management.hpp"
#include "vmm/vcpu.hpp"

namespace bulkhead {

// As of the last exit. On the core on which the vCPU's state is loaded, while it does not run there.
void read_registers(const Vcpu& vcpu, VcpuRegisters& out);

// Guest memory from `address` on, linear as `vcpu` translates it now, or physical. Returns how many bytes of
// `out` were filled: less than all where the next page is not mapped, not RAM, or beyond the last address.
// Fails, saying why, when not even the first byte can be read. No accessed flag is set, no device is read, no
// fault raised. Where `vcpu` is as above; the others may run meanwhile.
[[nodiscard]] Result<usize> read_guest_memory(const GuestMemory& memory, const Vcpu& vcpu,
                                              Management::AddressKind kind, u64 address, MutableBytes out);

}  // namespace bulkhead
