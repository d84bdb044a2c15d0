// What a guest's RDMSR and WRMSR do. Deny by default: an index that no rule names is #GP, as on a processor
// that lacks the register; no access reaches the physical machine. Intel SDM Vol. 4 (June 2023 edition); AMD
// APM Vol. 2, appendix A (rev. 3.41), and the processor programming references for C001xxxxh.
//
// MTRRs, SYSCFG, HWCR and the like are the guest's own: kept, checked, without effect on the host. Microcode
// updates are swallowed. There are no machine-check banks, performance counters, last-branch records or
// speculation controls, and CPUID says so.
#pragma once

#include <array>
#include <expected>
#include <optional>

#include "arch/x86/regs/msr.hpp"
#include "vmm/cpu_state.hpp"
#include "vmm/cpuid_policy.hpp"
#include "vmm/dev/local_apic.hpp"

namespace bulkhead {

// What the guest's MSRs hold that neither the backend nor the local APIC does. One per vCPU.
struct MsrState {
    // Given when the VM is made.
    u32 microcode_revision = 0;  // the physical one, as its loader would ask
    u64 platform_id = 0;         // IA32_PLATFORM_ID, Intel
    u64 debugctl_mask = 0;       // bits of IA32_DEBUGCTL that the backend virtualises
    u64 host_tsc_offset = 0;     // what the VM's clock adds to the host's TSC

    // TSC minus the VM's clock. It is IA32_TSC_ADJUST as well: both begin as zero and change together.
    u64 tsc_adjust = 0;
    u64 mtrr_def_type = 0;
    std::array<u64, 16> mtrr_variable{};  // base, mask, base, ...
    std::array<u64, 11> mtrr_fixed{};     // 250h, 258h, 259h, 268h-26Fh
    u64 mcg_status = 0;
    u64 misc_enable = 0;
    u64 hwcr = 0;
    u64 de_cfg = 0;
    u64 nb_cfg = 0;

    // RESET. INIT changes none of these (Intel SDM Vol. 3A, table 9-1).
    void reset();
};

struct MsrContext {
    VcpuBackend& backend;
    LocalApic& apic;
    const CpuidPolicy& cpuid;
    const Clock& clock;
    MsrState& state;
};

using MsrResult = std::expected<u64, Event>;
using MsrWritten = std::expected<void, Event>;

// The same without saying which fault: nothing is #GP(0).
[[nodiscard]] std::optional<u64> msr_value(MsrIndex index, MsrContext& context);
[[nodiscard]] MsrResult read_msr(MsrIndex index, MsrContext& context);
[[nodiscard]] MsrWritten write_msr(MsrIndex index, u64 value, MsrContext& context);

// Registers whose every value and effect is the guest's own: a backend may leave them without intercepts if
// it holds them. The hardware then makes the checks (canonical addresses, TSC_AUX's high half).
inline constexpr std::array passthrough_msrs{
    msr::fs_base, msr::gs_base, msr::kernel_gs_base, msr::star,         msr::lstar,
    msr::cstar,   msr::sfmask,  msr::sysenter_cs,    msr::sysenter_esp, msr::sysenter_eip};
// As well, if CPUID shows RDTSCP or RDPID.
inline constexpr MsrIndex passthrough_with_rdtscp = msr::tsc_aux;

}  // namespace bulkhead
