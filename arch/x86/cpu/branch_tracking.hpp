// Indirect branch tracking (CET IBT): on processors that have it, a call or jump through a pointer in the
// hypervisor that does not end at an ENDBR64 is a #CP, and so a panic. scripts/seal_image.py leaves ENDBR64
// only in functions whose address is taken. Intel SDM Vol. 1, 17.3 (June 2023 edition).
//
// Guests have no CET: their CPUID, CR4 and MSRs are without it, and VM entry loads a state with nothing on.
#pragma once

namespace bulkhead {

// On the running core, which may be called twice for it. Where the processor has none nothing happens.
void track_indirect_branches();

// Whether the running core does.
[[nodiscard]] bool indirect_branches_tracked();

}  // namespace bulkhead
