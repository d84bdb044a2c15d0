// What this processor's VT-x can do, from its capability MSRs, and the control words made from it.
// Intel SDM Vol. 3D, appendix A (June 2023 edition).
#pragma once

#include "kernel/base/result.hpp"

namespace bulkhead::vmx {

// The capability MSRs as read; those that a processor does not have are zero.
struct CapabilityMsrs {
    u64 basic = 0, pinbased = 0, procbased = 0, exit = 0, entry = 0, misc = 0;
    u64 cr0_fixed0 = 0, cr0_fixed1 = 0, cr4_fixed0 = 0, cr4_fixed1 = 0;
    u64 procbased2 = 0, ept_vpid = 0;
};

// Reads the MSRs through `rdmsr`, only those that the others say exist: where the processor has the "true"
// control MSRs they take the place of the old ones.
[[nodiscard]] CapabilityMsrs read_capability_msrs(u64 (*rdmsr)(u32 index));

// Which bits of a control word are forced.
struct ControlRange {
    u32 must_be_one = 0;  // allowed 0-settings: a 1 means that the control has to be 1
    u32 may_be_one = 0;   // allowed 1-settings: a 0 means that the control has to be 0
    [[nodiscard]] constexpr bool allows(u32 controls) const { return (controls & ~may_be_one) == 0; }
    friend constexpr bool operator==(const ControlRange&, const ControlRange&) = default;
};

struct Capabilities {
    u32 revision = 0;
    bool instruction_information = false;  // of INS and OUTS is reported on exits
    bool zero_length_injection = false;    // of software events is allowed
    u8 preemption_timer_shift = 0;         // the timer counts TSC ticks >> this
    u8 cr3_targets = 0;
    ControlRange pin, primary, secondary, exit, entry;
    u64 cr0_fixed0 = 0, cr0_fixed1 = 0, cr4_fixed0 = 0, cr4_fixed1 = 0;

    // Optional features.
    bool vpid = false, tpr_shadow = false, apic_access = false, apic_register = false,
         virtual_interrupts = false;
    bool virtual_x2apic = false, preemption_timer = false, pml = false, xsaves = false, invpcid = false;
    bool rdtscp = false, tsc_scaling = false, pause_loop = false;
    // Virtual interrupts are delivered though the guest's RFLAGS.IF is 0, when a host interrupt arrives.
    bool careless_virtual_interrupts = false;
    bool cet_state = false;  // entries and exits load the guest's and the host's
    bool ept_2m = false, ept_1g = false, ept_accessed_dirty = false, ept_execute_only = false;
    bool invept_single = false, invept_all = false, invvpid_single = false, invvpid_all = false;

    // Register reads, TPR, EOI and self-IPI need no exit, in the APIC page or in the x2APIC MSRs.
    [[nodiscard]] constexpr bool full_xapic() const {
        return tpr_shadow && apic_access && apic_register && virtual_interrupts;
    }
    [[nodiscard]] constexpr bool full_x2apic() const {
        return tpr_shadow && virtual_x2apic && apic_register && virtual_interrupts;
    }
    friend constexpr bool operator==(const Capabilities&, const Capabilities&) = default;
};

// Refuses a processor without what every VM needs, naming what is missing.
[[nodiscard]] Result<Capabilities> decide_capabilities(const CapabilityMsrs& msrs);

// What a VM may use of the optional features. What the processor lacks stays off whatever is asked for here.
struct FeatureChoice {
    bool vpid = true;
    bool apic_virtualization = true;  // off: ApicAssist::none, for comparison and for faulty processors
    bool preemption_timer = true;
    bool pause_loop_exiting = false;  // only of use where cores are shared
    bool rdtscp = true;               // these three: whether the guest's CPUID has the instruction
    bool invpcid = true;
    bool xsaves = false;
};

struct Controls {
    u32 pin = 0, primary = 0, secondary = 0, exit = 0, entry = 0;
};

// The control words of a VM in its reset state, APIC disabled.
[[nodiscard]] Controls make_controls(const Capabilities& capabilities, const FeatureChoice& choice);

}  // namespace bulkhead::vmx
