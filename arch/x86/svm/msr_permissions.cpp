#include <cstring>

#include "arch/x86/regs/msr.hpp"
#include "arch/x86/svm/backend.hpp"

namespace bulkhead::svm {
namespace {

// Two bits an MSR, read and write, for three ranges of 2000h. AMD APM Vol. 2, 15.11 (rev. 3.41).
void clear_intercept(u8* map, MsrIndex index, bool write) {
    const u32 number = index.raw();
    u32 offset = 0;
    if (number >= 0xC0000000) {
        offset = 0x800;
    } else if (number >= 0x2000) {
        return;
    }
    const u32 low = number & 0x1FFF;
    const u32 bit_number = low * 2 + (write ? 1 : 0);
    map[offset + bit_number / 8] &= static_cast<u8>(~bit<u8>(bit_number % 8));
}

}  // namespace

void fill_msr_permissions(u8* map) {
    std::memset(map, 0xFF, 0x2000);
    // What VMRUN and VMLOAD switch. EFER is not among them: its SVME bit has to stay.
    constexpr MsrIndex owned[] = {msr::fs_base,      msr::gs_base,     msr::kernel_gs_base, msr::star,
                                  msr::lstar,        msr::cstar,       msr::sfmask,         msr::sysenter_cs,
                                  msr::sysenter_esp, msr::sysenter_eip};
    for (const MsrIndex index : owned) {
        clear_intercept(map, index, false);
        clear_intercept(map, index, true);
    }
    // Not PAT: there are emulated processors that do not load the guest's.
    clear_intercept(map, msr::tsc, false);
}

}  // namespace bulkhead::svm
