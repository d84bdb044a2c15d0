// The checks that VM entry makes, restated over the current VMCS: after a failed entry they name the fields
// that are wrong, which the hardware does not. Intel SDM Vol. 3C, 27.2 and 27.3 (June 2023 edition). Not
// restated: what this hypervisor never uses (SMM, posted interrupts, VM functions, shadow VMCSs, CET, PKS,
// RTIT, PERF_GLOBAL_CTRL, MSR areas' contents); where such a control is on, that alone is reported.
#pragma once

#include "arch/x86/vmx/capabilities.hpp"
#include "kernel/base/fixed_vector.hpp"

namespace bulkhead::vmx {

struct EntryCheckContext {
    const Capabilities& capabilities;
    u8 physical_bits = 36;  // MAXPHYADDR
    u8 linear_bits = 48;
    u8 virtual_tpr = 0;  // the TPR in the virtual-APIC page
};

struct EntryViolation {
    std::string_view field;
    std::string_view rule;
    u64 value = 0;
};

// All violations as far as there is room; one would do to fail the entry.
using EntryViolations = FixedVector<EntryViolation, 12>;

void check_entry_controls(const EntryCheckContext& context, EntryViolations& violations);
void check_entry_host_state(const EntryCheckContext& context, EntryViolations& violations);
void check_entry_guest_state(const EntryCheckContext& context, EntryViolations& violations);

// All three, printed a line a violation.
void print_entry_violations(const EntryCheckContext& context, Sink& sink);

}  // namespace bulkhead::vmx
