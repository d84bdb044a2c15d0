// The faults of inject= that strike while the hypervisor runs. Debug builds only.
#pragma once

#include "boot/host.hpp"
#include "vmm/console/management.hpp"
#include "vmm/manager.hpp"

namespace bulkhead {

// Announces the next fault, or makes the one that was announced strike, until none is left. To be called when
// the console has nothing to do, so that all that was to be said has been said.
void inject_next_fault(Host& host, const Management& vms);
// For as long as one of the faults has it, VMs are made with allocations failing.
void fail_allocations(VmManager& manager);
// For the loops of the other cores: hangs here for as long as one of the faults has it.
void hang_if_told(unsigned core);

}  // namespace bulkhead
