// CPUID: whatever the physical processor says, nothing is shown that is not virtualised.
#include "tests/fuzz/policies.hpp"

using namespace bulkhead;

void fuzz_one(fuzz::Input& in) {
    static CpuidPolicy policy;
    const fuzz::Machine machine(in);
    const CpuidParameters parameters = fuzz::make_parameters(in);
    if (const auto built = policy.build(machine, parameters); !built) {
        MUST(!built.error().text.empty());
        return;
    }
    MUST(policy.physical_bits() >= 32 && policy.physical_bits() <= 52);
    MUST(policy.linear_bits() == 48 || policy.linear_bits() == 57);
    MUST((policy.cr4_mask() & (cr4::vmxe | cr4::smxe | cr4::cet | cr4::pke | cr4::pks | cr4::kl)) == 0);
    MUST((policy.efer_mask() & efer::svme) == 0);
    MUST((policy.xcr0_mask() & ~parameters.xcr0) == 0);
    MUST(policy.xcr0_mask() == 0 || (policy.xcr0_mask() & xcr0::x87) != 0);

    const CpuidState state{.cr4 = in.number() & policy.cr4_mask(),
                           .xcr0 = (in.number() & policy.xcr0_mask()) | 1,
                           .apic_enabled = in.flag()};
    const CpuidResult one = policy.lookup(1, 0, state);
    constexpr u32 hidden = 1U << 2 | 1U << 5 | 1U << 6 | 1U << 7 | 1U << 8 | 1U << 11 | 1U << 15;
    MUST((one.ecx & hidden) == 0);  // DTES64, VMX, SMX, EIST, TM2, SDBG, PDCM
    MUST(has_bit(one.ecx, 27) == ((state.cr4 & cr4::osxsave) != 0));
    MUST(has_bit(one.edx, 9) == state.apic_enabled || !has_bit(one.edx, 9));
    if (policy.lookup(0, 0, state).eax >= 1) MUST((one.ebx >> 24) == parameters.vcpu);
    const CpuidResult seven = policy.lookup(7, 0, state);
    MUST(!has_bit(seven.ebx, 2) && !has_bit(seven.ebx, 14) && !has_bit(seven.ebx, 25));  // SGX, MPX, PT
    MUST(!has_bit(seven.ecx, 3) && !has_bit(seven.ecx, 4));                              // PKU, OSPKE
    MUST(!has_bit(seven.edx, 26) && !has_bit(seven.edx, 31));  // SPEC_CTRL, SSBD: no such MSRs
    const CpuidResult extended = policy.lookup(0x80000001, 0, state);
    MUST(!has_bit(extended.ecx, 2));  // SVM
    const CpuidResult frequency = policy.lookup(0x15, 0, state);
    if (frequency.eax != 0) MUST(frequency.ebx != 0);

    while (!in.empty()) {
        const u32 leaf = static_cast<u32>(in.number()) ^ (in.flag() ? 0x80000000 : 0);
        const u32 subleaf = static_cast<u32>(in.number());
        const CpuidResult first = policy.lookup(leaf, subleaf, state);
        const CpuidResult second = policy.lookup(leaf, subleaf, state);
        MUST(first.eax == second.eax && first.ebx == second.ebx && first.ecx == second.ecx &&
             first.edx == second.edx);
        if (leaf == 0x8000000A || leaf == 0x12 || leaf == 0x14 || leaf == 0x1B) {
            MUST((first.eax | first.ebx | first.ecx | first.edx) == 0 ||
                 leaf > policy.lookup(0, 0, state).eax);
        }
    }
}
