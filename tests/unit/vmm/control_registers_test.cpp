#include "vmm/control_registers.hpp"

#include <catch2/catch.hpp>
#include <cstring>
#include <vector>

#include "tests/unit/vmm/policy_bench.hpp"

using namespace bulkhead;

namespace {

constexpr u64 long_cr0 = cr0::pe | cr0::pg | cr0::et | cr0::ne | cr0::wp;
constexpr ControlState real_mode{.cr0 = cr0::et};
constexpr ControlState long_mode{
    .cr0 = long_cr0, .cr3 = 0x1000, .cr4 = cr4::pae, .efer = efer::lme | efer::lma, .cs_long = true};

CpuidPolicy policy_of(CpuidParameters parameters = {}) {
    CpuidPolicy policy;
    REQUIRE(policy.build(intel_machine(), parameters));
    return policy;
}

template <class T>
bool is_gp(const std::expected<T, Event>& result) {
    return !result && result.error() == make_general_protection();
}
template <class T>
bool is_ud(const std::expected<T, Event>& result) {
    return !result && result.error() == make_invalid_opcode();
}

}  // namespace

TEST_CASE("CR0: PG without PE, NW without CD and the high half are #GP; CD and NW together are legal") {
    const CpuidPolicy policy = policy_of();
    REQUIRE(is_gp(check_cr0(policy, real_mode, cr0::pg)));
    REQUIRE(is_gp(check_cr0(policy, real_mode, cr0::nw)));
    REQUIRE(is_gp(check_cr0(policy, real_mode, bit(32))));
    REQUIRE(is_gp(check_cr0(policy, real_mode, bit(63) | cr0::pe)));
    REQUIRE(check_cr0(policy, real_mode, 0x60000010)->cr0 == 0x60000010);
    REQUIRE(check_cr0(policy, real_mode, 0xE0000011)->cr0 == 0xE0000011);
    REQUIRE(check_cr0(policy, real_mode, 0)->cr0 == cr0::et);
    REQUIRE(check_cr0(policy, real_mode, 0x0FFAFFC0 | cr0::pe)->cr0 ==
            (cr0::pe | cr0::et));  // reserved: kept clear
    REQUIRE(is_gp(check_cr0(policy, {.cr0 = long_cr0, .cpl = 3}, long_cr0)));
}

TEST_CASE("CR0.PG moves LMA, and only where IA-32e mode may begin or end") {
    const CpuidPolicy policy = policy_of();
    ControlState state{.cr0 = cr0::pe | cr0::et, .cr4 = cr4::pae, .efer = efer::lme};
    auto change = check_cr0(policy, state, long_cr0);
    REQUIRE(change);
    REQUIRE(change->efer == (efer::lme | efer::lma));
    REQUIRE_FALSE(change->loads_pdptes);
    state.cr4 = 0;
    REQUIRE(is_gp(check_cr0(policy, state, long_cr0)));  // without PAE
    state.cr4 = cr4::pae;
    state.cs_long = true;
    REQUIRE(is_gp(check_cr0(policy, state, long_cr0)));
    // Out of it: from compatibility mode only, and without PCIDs.
    REQUIRE(is_gp(check_cr0(policy, long_mode, long_cr0 & ~cr0::pg)));
    ControlState compatible = long_mode;
    compatible.cs_long = false;
    change = check_cr0(policy, compatible, long_cr0 & ~cr0::pg);
    REQUIRE(change->efer == efer::lme);
    compatible.cr4 |= cr4::pcide;
    REQUIRE(is_gp(check_cr0(policy, compatible, long_cr0 & ~cr0::pg)));
    // PAE paging loads its four entries.
    state = {.cr0 = cr0::pe | cr0::et, .cr4 = cr4::pae};
    REQUIRE(check_cr0(policy, state, long_cr0)->loads_pdptes);
    state.cr0 = long_cr0;
    REQUIRE(check_cr0(policy, state, long_cr0 | cr0::cd)->loads_pdptes);
    REQUIRE_FALSE(check_cr0(policy, state, long_cr0 | cr0::ts)->loads_pdptes);
}

TEST_CASE("LMSW sets PE but cannot clear it; CLTS clears TS") {
    REQUIRE(lmsw_value(cr0::et, 0xFFFF) == (cr0::et | 0xF));
    REQUIRE(lmsw_value(long_cr0 | cr0::ts, 0) == long_cr0);
    REQUIRE(clts_value(long_cr0 | cr0::ts) == long_cr0);
}

TEST_CASE("CR3 above MAXPHYADDR is #GP; bit 63 is legal under PCIDs and not stored") {
    const CpuidPolicy policy = policy_of({.physical_bits = 40});
    REQUIRE(check_cr3(policy, long_mode, 0xFFFFFFFFFF) == 0xFFFFFFFFFF);
    REQUIRE(is_gp(check_cr3(policy, long_mode, bit(40))));
    REQUIRE(is_gp(check_cr3(policy, long_mode, bit(63) | 0x1000)));
    ControlState state = long_mode;
    state.cr4 |= cr4::pcide;
    REQUIRE(check_cr3(policy, state, bit(63) | 0x1005) == 0x1005);
    REQUIRE(is_gp(check_cr3(policy, state, bit(62))));
    state.cpl = 3;
    REQUIRE(is_gp(check_cr3(policy, state, 0)));
}

TEST_CASE("CR4: reserved and hidden bits, PAE, LA57 and PCIDE are guarded") {
    const CpuidPolicy policy = policy_of({.la57 = true});
    for (const u64 hidden :
         {cr4::vmxe, cr4::smxe, cr4::kl, cr4::cet, cr4::pks, bit(15), bit(25), bit(32), bit(63)})
        REQUIRE(is_gp(check_cr4(policy, real_mode, hidden)));
    REQUIRE(is_gp(check_cr4(policy_of(), real_mode, cr4::la57)));
    REQUIRE(is_gp(check_cr4(policy, long_mode, 0)));
    REQUIRE(is_gp(check_cr4(policy, long_mode, cr4::pae | cr4::la57)));
    REQUIRE(check_cr4(policy, real_mode, cr4::la57) == cr4::la57);
    REQUIRE(check_cr4(policy, long_mode, cr4::pae | cr4::pcide) == (cr4::pae | cr4::pcide));
    ControlState state = long_mode;
    state.cr3 = 0x1001;
    REQUIRE(is_gp(check_cr4(policy, state, cr4::pae | cr4::pcide)));
    state.cr4 |= cr4::pcide;
    REQUIRE(check_cr4(policy, state, state.cr4 | cr4::pge).has_value());  // it was set: CR3 does not matter
    REQUIRE(is_gp(check_cr4(policy, {.cr0 = cr0::pe}, cr4::pcide)));
    REQUIRE(cr4_loads_pdptes(long_cr0, 0, cr4::pae, 0));
    REQUIRE(cr4_loads_pdptes(long_cr0, cr4::pae, cr4::pae | cr4::pge, 0));
    REQUIRE_FALSE(cr4_loads_pdptes(long_cr0, cr4::pae, cr4::pae | cr4::tsd, 0));
    REQUIRE_FALSE(cr4_loads_pdptes(long_cr0, cr4::pae, cr4::pae | cr4::pge, efer::lma));
}

TEST_CASE("CR8 above 15 is #GP") {
    REQUIRE(check_cr8(15) == 15);
    REQUIRE(is_gp(check_cr8(16)));
    REQUIRE(is_gp(check_cr8(~u64{0})));
}

TEST_CASE("PDPTEs with reserved bits are #GP, wherever CR3 points") {
    const CpuidPolicy policy = policy_of({.physical_bits = 40});
    std::vector<u8> ram(page_size);
    GuestMemory memory;
    REQUIRE(memory.add({.start = GuestPhysical(0), .length = page_size, .host = ram.data()}));
    const u64 good[4] = {0x1001, 0, 0xFFFFFFFFFFFFFFFE, 0xFFFFFFF019};  // not present: anything goes
    std::memcpy(&ram[0x20], good, sizeof(good));
    const auto entries = read_pdptes(policy, memory, 0x2F);
    REQUIRE(entries);
    REQUIRE((*entries)[3] == 0xFFFFFFF019);
    for (const u64 bad : {bit(1), bit(2), bit(5), bit(8), bit(40), bit(63)}) {
        const u64 entry = bad | 1;
        std::memcpy(&ram[0x28], &entry, sizeof(entry));
        REQUIRE(is_gp(read_pdptes(policy, memory, 0x20)));
    }
    REQUIRE(is_gp(read_pdptes(policy, memory, 0xFFFFF000)));  // no RAM there
}

TEST_CASE("XSETBV takes only whole and supported sets (XSA-54)") {
    const CpuidPolicy policy = policy_of();
    ControlState state = long_mode;
    REQUIRE(is_ud(check_xsetbv(policy, state, 0, 1)));
    state.cr4 |= cr4::osxsave;
    for (const u64 value : {u64{1}, u64{3}, u64{7}, u64{0xE7}})
        REQUIRE(check_xsetbv(policy, state, 0, value) == value);
    for (const u64 value : {u64{0}, u64{2}, u64{5}, u64{0x27}, u64{0x67}, u64{0xE3}, u64{0x1F}, u64{0xF},
                            bit(62) | 1, bit(63) | 1, bit(8) | 1, bit(9) | 1, ~u64{0}})
        REQUIRE(is_gp(check_xsetbv(policy, state, 0, value)));
    REQUIRE(is_gp(check_xsetbv(policy, state, 1, 1)));
    REQUIRE(is_gp(check_xsetbv(policy, state, ~0U, 1)));
    state.cpl = 3;
    REQUIRE(is_gp(check_xsetbv(policy, state, 0, 1)));
}

TEST_CASE("debug registers: high halves, DR4 and DR5, general detect (XSA-12)") {
    REQUIRE(is_gp(check_debug_register(long_mode, 0x400, 7, true, bit(32))));
    REQUIRE(is_gp(check_debug_register(long_mode, 0x400, 6, true, bit(63))));
    REQUIRE(check_debug_register(long_mode, 0x400, 6, true, 0)->value == 0xFFFF0FF0);
    REQUIRE(check_debug_register(long_mode, 0x400, 6, true, 0xFFFFFFFF)->value == 0xFFFFEFFF);
    REQUIRE(check_debug_register(long_mode, 0x400, 7, true, 0xFFFFFFFF)->value == 0xFFFF27FF);
    REQUIRE(check_debug_register(long_mode, 0x400, 0, true, 0x123456789ABCDEF0)->value == 0x123456789ABCDEF0);
    REQUIRE(check_debug_register(long_mode, 0x400, 4, false, 0)->number == 6);
    REQUIRE(check_debug_register(long_mode, 0x400, 5, true, bit(5))->number == 7);
    REQUIRE(is_gp(check_debug_register(long_mode, 0x400, 5, true, bit(40))));
    ControlState state = long_mode;
    state.cr4 |= cr4::de;
    REQUIRE(is_ud(check_debug_register(state, 0x400, 4, false, 0)));
    REQUIRE(is_ud(check_debug_register(state, 0x400, 5, true, 0)));
    REQUIRE(is_ud(check_debug_register(state, 0x400, 8, false, 0)));
    const auto detected = check_debug_register(long_mode, 0x2400, 0, false, 0);
    REQUIRE_FALSE(detected);
    REQUIRE(detected.error() == make_exception(exception::debug));
    state.cpl = 3;
    REQUIRE(is_gp(check_debug_register(state, 0x2400, 0, false, 0)));
}

TEST_CASE("hidden instructions: RDPMC is #GP, MONITOR and MWAIT are #UD") {
    REQUIRE(check_rdpmc(long_mode) == make_general_protection());
    REQUIRE(check_monitor(policy_of(), long_mode) == make_invalid_opcode());
    REQUIRE_FALSE(check_monitor(policy_of({.monitor = true}), long_mode));
    REQUIRE(check_monitor(policy_of({.monitor = true}), {.cpl = 3}) == make_invalid_opcode());
}

TEST_CASE("canonical addresses at 48 and 57 bits") {
    REQUIRE(is_canonical(0x00007FFFFFFFFFFF, 48));
    REQUIRE(is_canonical(0xFFFF800000000000, 48));
    REQUIRE_FALSE(is_canonical(0x0000800000000000, 48));
    REQUIRE_FALSE(is_canonical(0xFFFF7FFFFFFFFFFF, 48));
    REQUIRE(is_canonical(0x0000800000000000, 57));
    REQUIRE_FALSE(is_canonical(bit(56), 57));
}
