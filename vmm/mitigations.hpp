// What the processor's speculation can give away, and what is done about it: a pure function of what CPUID
// and IA32_ARCH_CAPABILITIES say. arch/x86/cpu/speculation.hpp reads the one and does the other.
//
// The attacker is a guest. It may try to steer the hypervisor's own speculation (on exit), to find in the
// core's buffers what the hypervisor left there (on entry), or what another guest left there (when the core
// changes guests). Bulkhead has no user mode and nothing to hide from itself.
//
// Intel SDM Vol. 2A, CPUID, and Vol. 4, table 2-2 (June 2023 edition); AMD APM Vol. 3, appendix E
// (rev. 3.35).
#pragma once

#include <string_view>

#include "arch/x86/regs/cpuid.hpp"
#include "kernel/base/fixed_vector.hpp"
#include "kernel/base/types.hpp"

namespace bulkhead {

struct SpeculationFacts {
    enum class Vendor : u8 { intel, amd, other };

    Vendor vendor = Vendor::other;
    u32 family = 0, model = 0;        // with their extensions
    u32 leaf7_edx = 0;                // CPUID 7.0
    u32 leaf7_2_edx = 0;              // CPUID 7.2
    u32 ext8_ebx = 0;                 // CPUID 80000008h
    u32 ext21_eax = 0;                // CPUID 80000021h
    u32 ext21_ecx = 0;                // likewise
    u64 architecture = 0;             // IA32_ARCH_CAPABILITIES; 0 where it is absent
    bool threads_share_core = false;  // SMT is on
};

// By the registers of CPUID leaves 0, 1, ...; what is above the processor's highest leaf is to be zero.
struct SpeculationLeaves {
    CpuidResult leaf0{}, leaf1{}, leaf7{}, leaf7_2{}, topology{};  // topology: 0Bh, subleaf 0
    CpuidResult extended8{}, extended_1e{}, extended_21{};
    u64 architecture = 0;
};
[[nodiscard]] SpeculationFacts read_speculation_facts(const SpeculationLeaves& leaves);

// What is done again and again, each with a counter for each core. The order is known to the assembly
// (arch/x86/cpu/speculation.inc).
enum class Barrier : u8 {
    verw_on_entry,           // overwrites buffers that loads and stores pass through
    spec_ctrl_on_entry,      // gives the guest the branch predictor as hardware would have it
    spec_ctrl_on_exit,       // IBRS: the guest's branches no longer steer the host's
    ibpb_on_exit,            // forgets all that the guest taught the branch predictor
    return_stack_on_exit,    // fills the return stack buffer with harmless addresses
    branch_history_on_exit,  // overwrites the branch history
    ibpb_on_switch,          // when a core changes guests: forgets what the last one taught the predictor
    l1d_flush_on_switch,     // when a core has seen another VM's memory
    count
};
constexpr usize barrier_count = static_cast<usize>(Barrier::count);
[[nodiscard]] std::string_view name_of(Barrier barrier);

struct Mitigations {
    u32 barriers = 0;               // a bit for each Barrier
    bool writes_spec_ctrl = false;  // IA32_SPEC_CTRL exists and is written at the start of each core
    bool automatic_ibrs = false;    // EFER.AIBRSE is set
    u64 host_spec_ctrl = 0;         // IA32_SPEC_CTRL in the host ...
    u64 guest_spec_ctrl = 0;        // ... and in guests, who cannot see it

    [[nodiscard]] constexpr bool uses(Barrier barrier) const {
        return has_bit(barriers, static_cast<unsigned>(barrier));
    }
    // Something is to be done at each entry or exit: the world switch has to be the guarded one.
    [[nodiscard]] constexpr bool at_world_switch() const {
        return (barriers & low_mask(static_cast<unsigned>(Barrier::ibpb_on_switch))) != 0;
    }
    friend constexpr bool operator==(const Mitigations&, const Mitigations&) = default;
};
[[nodiscard]] Mitigations decide_mitigations(const SpeculationFacts& facts);

// For the operator: each known hazard, how things stand, and why.
struct HazardReport {
    enum class State : u8 {
        not_affected,  // the processor says so, or the hypervisor's structure leaves nothing to attack
        mitigated,
        open,  // nothing, or not enough, is done about it
    };
    std::string_view hazard;
    State state = State::open;
    std::string_view measure;
};
[[nodiscard]] std::string_view name_of(HazardReport::State state);
using HazardReports = FixedVector<HazardReport, 17>;
[[nodiscard]] HazardReports report_hazards(const SpeculationFacts& facts);

}  // namespace bulkhead
