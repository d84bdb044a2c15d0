// How every core of the host is configured.
#pragma once

#include "kernel/base/result.hpp"

namespace bulkhead {

// Sets CR0, CR4, EFER and the PAT on the running core: paging is already on. Write protection, NX, SMEP,
// SMAP, UMIP and global pages where the processor has them, machine checks reported, x87 and vector state
// usable for guests. Fails where NX is missing.
[[nodiscard]] Result<> configure_core();

// The protections in force, for the log: "NX SMEP SMAP UMIP".
void print_protections(Sink& sink);

}  // namespace bulkhead
