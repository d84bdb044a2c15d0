#include "arch/x86/vmx/feature_control.hpp"

namespace bulkhead::vmx {

Result<> check_vmx_supported(const CpuidResult& leaf1) {
    if ((leaf1.ecx & cpuid::leaf1_ecx::vmx) != 0) return {};
    return fail(
        "HV-E200: the processor lacks VT-x (CPUID leaf 1, ECX bit 5); "
        "needs an Intel CPU with VT-x, or a host that exposes it to this machine");
}

Result<FeatureControlDecision> decide_feature_control(u64 value) {
    using namespace feature_control;
    if ((value & locked) == 0) {
        // Firmware left the choice to us. The other bits are its own and stay.
        return FeatureControlDecision{.write = true, .value = value | locked | vmx_outside_smx};
    }
    if ((value & vmx_outside_smx) != 0) return FeatureControlDecision{};
    return fail(
        "HV-E201: VT-x is switched off and locked by the firmware (IA32_FEATURE_CONTROL {:#x}); enable VT-x "
        "in the firmware setup",
        value);
}

}  // namespace bulkhead::vmx
