#include "vmm/control_registers.hpp"

#include <cstring>

namespace bulkhead {

namespace {

std::unexpected<Event> general_protection() {
    return std::unexpected(make_general_protection());
}
std::unexpected<Event> invalid_opcode() {
    return std::unexpected(make_invalid_opcode());
}

constexpr u64 cr3_no_flush = bit(63);

}  // namespace

bool uses_pae_paging(u64 cr0, u64 cr4, u64 efer) {
    return (cr0 & cr0::pg) != 0 && (cr4 & cr4::pae) != 0 && (efer & efer::lma) == 0;
}

std::expected<Cr0Change, Event> check_cr0(const CpuidPolicy& policy, const ControlState& state, u64 value) {
    if (state.cpl != 0 || (value >> 32) != 0) return general_protection();
    if ((value & cr0::pg) != 0 && (value & cr0::pe) == 0) return general_protection();
    if ((value & cr0::nw) != 0 && (value & cr0::cd) == 0) return general_protection();
    Cr0Change change{.cr0 = (value & cr0::defined) | cr0::et, .efer = state.efer};

    const bool was_paging = (state.cr0 & cr0::pg) != 0;
    const bool paging = (value & cr0::pg) != 0;
    if (paging && !was_paging && (state.efer & efer::lme) != 0) {
        // Activates IA-32e mode (Intel SDM Vol. 3A, 10.8.5).
        if ((state.cr4 & cr4::pae) == 0 || state.cs_long || !policy.long_mode()) return general_protection();
        change.efer |= efer::lma;
    }
    if (!paging && was_paging) {
        if ((state.cr4 & cr4::pcide) != 0) return general_protection();
        if ((state.efer & efer::lma) != 0 && state.cs_long) return general_protection();
        change.efer &= ~efer::lma;
    }
    const u64 changed = change.cr0 ^ state.cr0;
    change.loads_pdptes =
        uses_pae_paging(change.cr0, state.cr4, change.efer) && (changed & (cr0::cd | cr0::nw | cr0::pg)) != 0;
    return change;
}

Verdict check_cr3(const CpuidPolicy& policy, const ControlState& state, u64 value) {
    if (state.cpl != 0) return general_protection();
    if ((state.cr4 & cr4::pcide) != 0) value &= ~cr3_no_flush;
    // Outside long mode a MOV has 32 bits of operand; a wider value cannot come.
    if ((value & ~low_mask(policy.physical_bits())) != 0) return general_protection();
    return value;
}

Verdict check_cr4(const CpuidPolicy& policy, const ControlState& state, u64 value) {
    if (state.cpl != 0 || (value & ~policy.cr4_mask()) != 0) return general_protection();
    const u64 changed = value ^ state.cr4;
    const bool long_mode = (state.efer & efer::lma) != 0;
    if (long_mode && ((value & cr4::pae) == 0 || (changed & cr4::la57) != 0)) return general_protection();
    if ((value & changed & cr4::pcide) != 0 && (!long_mode || (state.cr3 & 0xFFF) != 0))
        return general_protection();
    return value;
}

Verdict check_cr8(u64 value) {
    if (value > 15) return general_protection();
    return value;
}

bool cr4_loads_pdptes(u64 cr0, u64 old, u64 value, u64 efer) {
    constexpr u64 relevant = cr4::pae | cr4::pge | cr4::pse | cr4::smep;
    return uses_pae_paging(cr0, value, efer) && ((old ^ value) & relevant) != 0;
}

std::expected<std::array<u64, 4>, Event> read_pdptes(const CpuidPolicy& policy, const GuestMemory& memory,
                                                     u64 cr3) {
    std::array<u64, 4> entries{};
    u8 bytes[sizeof(entries)];
    if (!memory.read(GuestPhysical(cr3 & 0xFFFFFFE0), bytes)) std::memset(bytes, 0xFF, sizeof(bytes));
    std::memcpy(entries.data(), bytes, sizeof(bytes));
    // Bits 2:1 and 8:5 and those above the physical address are reserved (Intel SDM Vol. 3A, table 4-8).
    const u64 reserved = ~low_mask(policy.physical_bits()) | 0x1E6;
    for (const u64 entry : entries)
        if (has_bit(entry, 0) && (entry & reserved) != 0) return general_protection();
    return entries;
}

Verdict check_xsetbv(const CpuidPolicy& policy, const ControlState& state, u32 index, u64 value) {
    if (policy.xcr0_mask() == 0 || (state.cr4 & cr4::osxsave) == 0) return invalid_opcode();
    if (state.cpl != 0 || index != 0) return general_protection();
    if ((value & ~policy.xcr0_mask()) != 0 || (value & xcr0::x87) == 0) return general_protection();
    if ((value & xcr0::avx) != 0 && (value & xcr0::sse) == 0) return general_protection();
    const u64 wide = value & xcr0::avx512;
    if (wide != 0 && (wide != xcr0::avx512 || (value & xcr0::avx) == 0)) return general_protection();
    return value;
}

std::expected<DebugAccess, Event> check_debug_register(const ControlState& state, u64 dr7, unsigned number,
                                                       bool write, u64 value) {
    if (number == 4 || number == 5) {
        if ((state.cr4 & cr4::de) != 0) return invalid_opcode();
        number += 2;
    }
    if (number > 7) return invalid_opcode();
    if (state.cpl != 0) return general_protection();
    if (has_bit(dr7, 13)) return std::unexpected(make_exception(exception::debug));
    DebugAccess access{.number = number, .value = value};
    if (!write) return access;
    if (number >= 6) {
        if ((value >> 32) != 0) return general_protection();
        // Bits without a meaning here (restricted transactional memory, bus locks) read as on processors
        // that lack those features.
        access.value = number == 6 ? (value & 0xE00F) | 0xFFFF0FF0 : (value & 0xFFFF23FF) | 0x400;
    }
    return access;
}

std::optional<Event> check_rdpmc(const ControlState&) {
    return make_general_protection();  // there is no counter, so no index is valid
}

std::optional<Event> check_monitor(const CpuidPolicy& policy, const ControlState& state) {
    if (!policy.monitor() || state.cpl != 0) return make_invalid_opcode();
    return std::nullopt;
}

}  // namespace bulkhead
