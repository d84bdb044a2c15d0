#include "arch/x86/cpu/branch_tracking.hpp"

#include "arch/x86/cpu/intrinsics.hpp"
#include "arch/x86/regs/control.hpp"
#include "arch/x86/regs/msr.hpp"

namespace bulkhead {

void track_indirect_branches() {
    if (cpu::cpuid(0).eax < 7 || (cpu::cpuid(7).edx & cpuid::leaf7_edx::cet_ibt) == 0) return;
    // NO_TRACK_EN: switch statements jump by tables in memory that nobody can write, after a bounds check.
    constexpr u64 endbr_enable = bit(2), no_track_enable = bit(4);
    cpu::write_msr(msr::s_cet, endbr_enable | no_track_enable);
    cpu::write_cr4(cpu::read_cr4() | cr4::cet);
}

bool indirect_branches_tracked() {
    return (cpu::read_cr4() & cr4::cet) != 0;
}

}  // namespace bulkhead
