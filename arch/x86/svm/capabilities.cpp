#include "arch/x86/svm/capabilities.hpp"

namespace bulkhead::svm {

Result<Capabilities> read_capabilities(const CapabilityLeaves& leaves) {
    if (leaves.max_extended < 0x8000000A || (leaves.extended1.ecx & cpuid::ext1_ecx::svm) == 0) {
        return fail(
            "HV-E220: the processor has no AMD-V (CPUID 80000001h ECX bit 2); use a processor that has it");
    }
    const u32 features = leaves.svm.edx;
    if ((features & cpuid::svm_edx::nested_paging) == 0) {
        return fail(
            "HV-E221: the processor's AMD-V has no nested paging (CPUID 8000000Ah EDX bit 0); use a newer "
            "processor");
    }
    Capabilities result;
    result.asid_count = leaves.svm.ebx;
    if (result.asid_count < 2) {
        return fail(
            "HV-E222: the processor's AMD-V offers {} ASIDs (CPUID 8000000Ah EBX); at least 2 are needed",
            result.asid_count);
    }
    if ((leaves.address_sizes.eax & 0xFF) != 0)
        result.physical_address_bits = leaves.address_sizes.eax & 0xFF;
    result.next_rip = (features & cpuid::svm_edx::nrip_save) != 0;
    result.decode_assists = (features & cpuid::svm_edx::decode_assists) != 0;
    result.flush_by_asid = (features & cpuid::svm_edx::flush_by_asid) != 0;
    result.clean_bits = (features & cpuid::svm_edx::vmcb_clean) != 0;
    result.virtual_gif = (features & cpuid::svm_edx::virtual_gif) != 0;
    result.pause_filter = (features & cpuid::svm_edx::pause_filter) != 0;
    result.page_1gb = (leaves.extended1.edx & cpuid::ext1_edx::page1gb) != 0;
    constexpr u32 tcg = 'T' | 'C' << 8 | 'G' << 16 | 'T' << 24;  // how "TCGTCGTCGTCG" begins
    result.repeats_injections = leaves.outer.ebx == tcg;
    return result;
}

Result<u64> decide_vm_cr(u64 vm_cr) {
    constexpr u64 lock = bit(3), svm_disable = bit(4);
    if ((vm_cr & svm_disable) == 0) return vm_cr;
    if ((vm_cr & lock) != 0) {
        return fail(
            "HV-E223: AMD-V is disabled by the firmware (VM_CR.SVMDIS is locked); enable SVM or "
            "virtualization in the "
            "firmware setup");
    }
    return vm_cr & ~svm_disable;
}

}  // namespace bulkhead::svm
