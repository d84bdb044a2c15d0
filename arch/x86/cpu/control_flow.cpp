#include "arch/x86/cpu/control_flow.hpp"

#include "arch/x86/cpu/intrinsics.hpp"
#include "arch/x86/cpu/stacks.hpp"
#include "arch/x86/regs/control.hpp"

namespace bulkhead {

extern "C" {
u8 bulkhead_shadow_stacks = 0;
}

namespace {

// IA32_S_CET.
constexpr u64 endbr_enable = bit(2), no_track_enable = bit(4);

// IA32_INTERRUPT_SSP_TABLE_ADDR: by number of the IST entry; 0 is not used.
struct alignas(64) SspTable {
    u64 entries[8];
};
PerCpu<SspTable> ssp_tables;

// Supervisor shadow stacks that can be relied on: without CET_SSS an exit of ours to a hypervisor below us
// could leave a token busy amid the delivery of an event (Intel SDM Vol. 1, 17.2.3, June 2023 edition). On
// the bare processor nothing comes between: none of these pages is ever absent.
[[nodiscard]] bool offers_shadow_stacks(const CpuidResult& leaf7) {
    if ((leaf7.ecx & cpuid::leaf7_ecx::cet_ss) == 0) return false;
    if ((cpu::cpuid(1).ecx & cpuid::leaf1_ecx::hypervisor) == 0) return true;
    return leaf7.eax >= 1 && (cpu::cpuid(7, 1).edx & cpuid::leaf7_1_edx::cet_sss) != 0;
}

// At the top of a shadow stack that nobody uses: its own address.
void place_token(u64 address) {
    *reinterpret_cast<volatile u64*>(address) = address;
}

}  // namespace

void prepare_shadow_stacks() {
    for (CpuStacks& stacks : cpu_stacks) {
        place_token(stacks.shadow_top());
        for (unsigned ist = 1; ist <= ist_count; ++ist) place_token(stacks.shadow_top_of_ist(ist));
    }
}

bool protect_control_flow() {
    const CpuidResult leaf7 = cpu::cpuid(0).eax >= 7 ? cpu::cpuid(7) : CpuidResult{};
    const bool tracks = (leaf7.edx & cpuid::leaf7_edx::cet_ibt) != 0;
    const bool shadows = offers_shadow_stacks(leaf7);
    const u32 index = cpu_index();
    if (index == 0) bulkhead_shadow_stacks = shadows ? 1 : 0;
    if (has_shadow_stacks() && !shadows) return false;
    if (!tracks && !shadows) return true;
    // NO_TRACK_EN: switch statements jump by tables in memory that nobody can write, after a bounds check.
    cpu::write_msr(msr::s_cet, tracks ? endbr_enable | no_track_enable : 0);
    if (has_shadow_stacks()) {
        CpuStacks& stacks = cpu_stacks[index];
        SspTable& table = *ssp_tables;
        for (unsigned ist = 1; ist <= ist_count; ++ist) table.entries[ist] = stacks.shadow_top_of_ist(ist);
        cpu::write_msr(msr::interrupt_ssp_table, reinterpret_cast<u64>(&table));
        cpu::write_msr(msr::pl0_ssp, stacks.shadow_top());
    }
    cpu::write_cr4(cpu::read_cr4() | cr4::cet);
    return true;
}

bool indirect_branches_tracked() {
    return (cpu::read_cr4() & cr4::cet) != 0 && (cpu::read_msr(msr::s_cet) & endbr_enable) != 0;
}

ControlFlowState control_flow_state() {
    if ((cpu::read_cr4() & cr4::cet) == 0) return {};
    return {.s_cet = cpu::read_msr(msr::s_cet),
            .interrupt_ssp_table = has_shadow_stacks() ? cpu::read_msr(msr::interrupt_ssp_table) : 0};
}

}  // namespace bulkhead
