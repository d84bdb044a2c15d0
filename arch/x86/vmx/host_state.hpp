// What VM exit loads: the host, as it is on one core in one compartment.
// Intel SDM Vol. 3C, 25.5 and 28.5 (June 2023 edition).
#pragma once

#include "kernel/base/result.hpp"

namespace bulkhead::vmx {

// RSP and SSP are not here: the world switch sets them on each entry. DS, ES, FS and GS get null selectors,
// SYSENTER MSRs zero: the host uses none of them. Exits set the limits of GDTR and IDTR to FFFFh, TR's to
// 67h.
struct HostState {
    u64 cr0 = 0, cr3 = 0, cr4 = 0;
    u16 cs = 0, ss = 0, tr = 0;
    u64 fs_base = 0, gs_base = 0, tr_base = 0, gdtr_base = 0, idtr_base = 0;
    u64 rip = 0;  // bulkhead_vmx_exit, or its guarded form
    u64 efer = 0, pat = 0;
    u64 s_cet = 0, interrupt_ssp_table = 0;  // where Capabilities::cet_state
};

// Into the current VMCS. `cet_state`: Capabilities::cet_state.
[[nodiscard]] Result<> write_host_state(const HostState& state, bool cet_state);

}  // namespace bulkhead::vmx
