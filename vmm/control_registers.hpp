// What a guest may load into control, extended control and debug registers, by the architecture and by its
// CPUID. Pure checks: the caller applies the result. Intel SDM Vol. 3A, 2.5 and Vol. 2, MOV to control
// registers, XSETBV (June 2023 edition); AMD APM Vol. 2, 3.1 (rev. 3.41).
#pragma once

#include <array>
#include <expected>

#include "vmm/cpu_state.hpp"
#include "vmm/cpuid_policy.hpp"
#include "vmm/guest_memory.hpp"

namespace bulkhead {

// The guest's values before the instruction.
struct ControlState {
    u64 cr0 = 0, cr3 = 0, cr4 = 0, efer = 0;
    bool cs_long = false;  // CS.L: the code is 64-bit code (in long mode)
    u8 cpl = 0;
};

// A new value, or the exception that the instruction raises instead.
using Verdict = std::expected<u64, Event>;

// What a write to CR0 does beyond the register itself.
struct Cr0Change {
    u64 cr0 = 0;
    u64 efer = 0;               // LMA follows PG where LME is set
    bool loads_pdptes = false;  // PAE paging: the four entries at CR3 are loaded, and must be valid
};

[[nodiscard]] std::expected<Cr0Change, Event> check_cr0(const CpuidPolicy& policy, const ControlState& state,
                                                        u64 value);
// LMSW can set PE, not clear it; it changes bits 3:0 only.
[[nodiscard]] constexpr u64 lmsw_value(u64 cr0, u16 source) {
    return (cr0 & ~(cr0::mp | cr0::em | cr0::ts)) | (source & (cr0::pe | cr0::mp | cr0::em | cr0::ts));
}
[[nodiscard]] constexpr u64 clts_value(u64 cr0) {
    return cr0 & ~cr0::ts;
}

// The value to load: bit 63, which asks for no flush under PCIDs, removed.
[[nodiscard]] Verdict check_cr3(const CpuidPolicy& policy, const ControlState& state, u64 value);
[[nodiscard]] Verdict check_cr4(const CpuidPolicy& policy, const ControlState& state, u64 value);
[[nodiscard]] Verdict check_cr8(u64 value);

// Whether a move to CR3, or to CR4 with `old` before it, loads the PDPTEs.
[[nodiscard]] bool uses_pae_paging(u64 cr0, u64 cr4, u64 efer);
[[nodiscard]] bool cr4_loads_pdptes(u64 cr0, u64 old, u64 value, u64 efer);
// The four entries at `cr3`, or #GP where one is present with reserved bits set. What is no RAM reads as
// ones.
[[nodiscard]] std::expected<std::array<u64, 4>, Event> read_pdptes(const CpuidPolicy& policy,
                                                                   const GuestMemory& memory, u64 cr3);

// XSETBV with `index` in ECX.
[[nodiscard]] Verdict check_xsetbv(const CpuidPolicy& policy, const ControlState& state, u32 index,
                                   u64 value);

// A MOV to or from a debug register: which one it accesses (DR4 and DR5 stand for DR6 and DR7), or the
// exception. `value` matters for a write. With DR7.GD set every access is #DB, and the caller sets DR6.BD and
// clears GD.
struct DebugAccess {
    unsigned number = 0;
    u64 value = 0;  // a write: what to store, fixed bits in place
};
[[nodiscard]] std::expected<DebugAccess, Event> check_debug_register(const ControlState& state, u64 dr7,
                                                                     unsigned number, bool write, u64 value);

// RDPMC, MONITOR, MWAIT: instructions whose feature is hidden.
[[nodiscard]] std::optional<Event> check_rdpmc(const ControlState& state);
[[nodiscard]] std::optional<Event> check_monitor(const CpuidPolicy& policy, const ControlState& state);

[[nodiscard]] constexpr bool is_canonical(u64 address, u8 linear_bits) {
    const unsigned shift = 64U - linear_bits;
    return static_cast<u64>(static_cast<i64>(address << shift) >> shift) == address;
}

}  // namespace bulkhead
