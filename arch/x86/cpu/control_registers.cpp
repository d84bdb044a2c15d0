#include "arch/x86/cpu/control_registers.hpp"

#include "arch/x86/cpu/intrinsics.hpp"
#include "arch/x86/cpu/machine_check.hpp"
#include "arch/x86/paging/format.hpp"
#include "arch/x86/regs/control.hpp"
#include "arch/x86/regs/msr.hpp"

namespace bulkhead {

Result<> configure_core() {
    const CpuidResult leaf1 = cpu::cpuid(1);
    const u32 max_leaf = cpu::cpuid(0).eax;
    const CpuidResult leaf7 = max_leaf >= 7 ? cpu::cpuid(7) : CpuidResult{};
    const CpuidResult ext1 = cpu::cpuid(0x8000'0001);
    if ((ext1.edx & cpuid::ext1_edx::nx) == 0)
        return fail("HV-E008: no execute-disable (NX); enable it in the firmware setup");

    cpu::write_msr(msr::efer, cpu::read_msr(msr::efer) | efer::nxe);

    // Before any table that makes use of it is loaded; entry 0, which is in use, stays write-back.
    if ((leaf1.edx & cpuid::leaf1_edx::pat) != 0) cpu::write_msr(msr::pat, host_pat);

    // Caches on, even where the firmware left an AP with CD set (Intel SDM Vol. 3A, 9.1.1, June 2023
    // edition).
    cpu::write_cr0(cr0::pe | cr0::mp | cr0::et | cr0::ne | cr0::wp | cr0::pg);

    u64 value = cr4::pae | cr4::osfxsr | cr4::osxmmexcpt;
    if ((leaf1.edx & cpuid::leaf1_edx::pge) != 0) value |= cr4::pge;
    if ((leaf1.edx & cpuid::leaf1_edx::mce) != 0) value |= cr4::mce;
    if ((leaf1.ecx & cpuid::leaf1_ecx::xsave) != 0) value |= cr4::osxsave;
    if ((leaf7.ebx & cpuid::leaf7_ebx::smep) != 0) value |= cr4::smep;
    if ((leaf7.ebx & cpuid::leaf7_ebx::smap) != 0) value |= cr4::smap;
    if ((leaf7.ecx & cpuid::leaf7_ecx::umip) != 0) value |= cr4::umip;
    cpu::write_cr4(value);
    enable_machine_checks();
    return {};
}

void print_protections(Sink& sink) {
    const u64 value = cpu::read_cr4();
    print(sink, "NX{}{}{}{}", (value & cr4::smep) != 0 ? " SMEP" : "",
          (value & cr4::smap) != 0 ? " SMAP" : "", (value & cr4::umip) != 0 ? " UMIP" : "",
          (value & cr4::pge) != 0 ? " global pages" : "");
}

}  // namespace bulkhead
