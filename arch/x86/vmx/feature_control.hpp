// May this processor enter VMX operation? CPUID and IA32_FEATURE_CONTROL decide.
// Intel SDM Vol. 3C, 24.6-24.7 (June 2023 edition).
#pragma once

#include "arch/x86/regs/cpuid.hpp"
#include "kernel/base/result.hpp"

namespace bulkhead::vmx {

namespace feature_control {
constexpr u64 locked = bit(0), vmx_inside_smx = bit(1), vmx_outside_smx = bit(2);
}

struct FeatureControlDecision {
    bool write = false;  // the MSR is unlocked: write `value`, which sets the lock as well
    u64 value = 0;
};

// leaf1: CPUID leaf 1. The MSR exists only where that has the VMX bit.
[[nodiscard]] Result<> check_vmx_supported(const CpuidResult& leaf1);
[[nodiscard]] Result<FeatureControlDecision> decide_feature_control(u64 feature_control_msr);

}  // namespace bulkhead::vmx
