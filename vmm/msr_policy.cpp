#include "vmm/msr_policy.hpp"

#include <optional>

#include "vmm/control_registers.hpp"

namespace bulkhead {

namespace {

// How a rule treats its registers.
enum class Kind : u8 {
    constant,    // reads as the rule's value; a write is #GP
    ignored,     // reads as the rule's value; a write is dropped
    write_only,  // a read is #GP, a write is dropped
    full,        // held by the backend, 64 bits
    half,        // held by the backend; the upper 32 bits are dropped
    canonical,   // held by the backend; a non-canonical address is #GP
    special,     // has its own case below
};

enum Vendors : u8 { intel = 1, amd = 2, any = 7 };

struct Rule {
    u32 first;
    u32 last;
    Kind kind;
    Vendors vendors = any;
    Register held = Register::count;
    u64 value = 0;
};

constexpr u32 platform_info = 0xCE, perf_status = 0x198, perf_control = 0x199, mtrr_cap = 0xFE,
              de_cfg = 0xC0011029, nb_cfg = 0xC001001F, patch_loader = 0xC0010020;

constexpr u64 mtrr_cap_value = 8 | bit(8) | bit(10);  // eight variable ranges, the fixed ones, WC
// FEATURE_CONTROL: locked, neither VMX nor SMX.
constexpr u64 feature_control_locked = bit(0);
constexpr u64 misc_fast_strings = bit(0), misc_no_bts = bit(11), misc_no_pebs = bit(12);
constexpr u64 hwcr_tsc_counts_at_p0 = bit(24);
constexpr u64 hwcr_writable = bit(3) | bit(6) | bit(8) | bit(18) | bit(30);
constexpr u64 de_cfg_lfence = bit(1), de_cfg_writable = bit(1) | bit(9);

// Sorted by `first`, without overlap.
constexpr Rule rules[] = {
    {0x0, 0x1, Kind::ignored},  // P5_MC_ADDR, P5_MC_TYPE: no error was ever logged
    {0x10, 0x10, Kind::special},
    {0x17, 0x17, Kind::special, intel},
    {0x1B, 0x1B, Kind::special},
    {0x3A, 0x3A, Kind::constant, intel, Register::count, feature_control_locked},
    {0x3B, 0x3B, Kind::special},
    {0x79, 0x79, Kind::write_only, intel},
    {0x8B, 0x8B, Kind::special},
    {platform_info, platform_info, Kind::special, intel},
    {mtrr_cap, mtrr_cap, Kind::constant, any, Register::count, mtrr_cap_value},
    {0x174, 0x174, Kind::half, any, Register::sysenter_cs},
    {0x175, 0x175, Kind::canonical, any, Register::sysenter_esp},
    {0x176, 0x176, Kind::canonical, any, Register::sysenter_eip},
    {0x179, 0x179, Kind::constant},  // MCG_CAP: no banks
    {0x17A, 0x17A, Kind::special},
    {perf_status, perf_status, Kind::special, intel},
    {perf_control, perf_control, Kind::ignored, intel},
    {0x1A0, 0x1A0, Kind::special, intel},
    {0x1D9, 0x1D9, Kind::special},
    {0x200, 0x20F, Kind::special},
    {0x250, 0x250, Kind::special},
    {0x258, 0x259, Kind::special},
    {0x268, 0x26F, Kind::special},
    {0x277, 0x277, Kind::special},
    {0x2FF, 0x2FF, Kind::special},
    {0xDA0, 0xDA0, Kind::special},
    {0xC0000080, 0xC0000080, Kind::special},
    {0xC0000081, 0xC0000081, Kind::full, any, Register::star},
    {0xC0000082, 0xC0000082, Kind::canonical, any, Register::lstar},
    {0xC0000083, 0xC0000083, Kind::canonical, any, Register::cstar},
    {0xC0000084, 0xC0000084, Kind::half, any, Register::sfmask},
    {0xC0000100, 0xC0000100, Kind::canonical, any, Register::fs_base},
    {0xC0000101, 0xC0000101, Kind::canonical, any, Register::gs_base},
    {0xC0000102, 0xC0000102, Kind::canonical, any, Register::kernel_gs_base},
    {0xC0000103, 0xC0000103, Kind::special},
    // The four counters of old. Every AMD processor has them and Linux probes them; ours do not count, which
    // it finds out.
    {0xC0010000, 0xC0010007, Kind::ignored, amd},
    {0xC0010010, 0xC0010010, Kind::ignored, amd},  // SYSCFG: no memory above 4 GiB that needs TOM2
    {0xC0010015, 0xC0010015, Kind::special, amd},
    {nb_cfg, nb_cfg, Kind::special, amd},
    {patch_loader, patch_loader, Kind::write_only, amd},
    {0xC0010055, 0xC0010055, Kind::ignored, amd},  // interrupt pending message: C1E off
    {0xC0010058, 0xC0010058, Kind::ignored, amd},  // no configuration space in memory
    {0xC0011022, 0xC0011022, Kind::ignored, amd},  // DC_CFG
    {de_cfg, de_cfg, Kind::special, amd},
    {0xC001102A, 0xC001102A, Kind::ignored, amd},  // BU_CFG2
};

constexpr bool is_sorted_without_overlap() {
    for (usize i = 0; i + 1 < std::size(rules); ++i)
        if (rules[i].last >= rules[i + 1].first) return false;
    return true;
}
static_assert(is_sorted_without_overlap());

// Most registers' rules are found at once: which rule to try, by some of the index's bits.
constexpr usize guess_of(u32 index) {
    return (index ^ index >> 9 ^ index >> 24) % 256;
}
struct Guesses {
    u8 rule[256] = {};
    consteval Guesses() {
        for (usize i = 0; i < std::size(rules); ++i)
            for (u32 index = rules[i].first; index <= rules[i].last; ++index)
                rule[guess_of(index)] = static_cast<u8>(i);
    }
};
constexpr Guesses guesses;

// The rule that names `index`, or null.
const Rule* find(u32 index, CpuVendor vendor) {
    const u8 who = vendor == CpuVendor::intel ? intel : vendor == CpuVendor::amd ? amd : 4;
    const Rule& guess = rules[guesses.rule[guess_of(index)]];
    if (index - guess.first <= guess.last - guess.first) [[likely]]
        return (guess.vendors & who) != 0 ? &guess : nullptr;
    usize low = 0, high = std::size(rules);
    while (low < high) {
        const usize middle = (low + high) / 2;
        if (rules[middle].last < index) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    if (low == std::size(rules) || rules[low].first > index) return nullptr;
    return (rules[low].vendors & who) != 0 ? &rules[low] : nullptr;
}

std::unexpected<Event> refuse() {
    return std::unexpected(make_general_protection());
}

// Memory types: UC, WC, WT, WP, WB; PAT also UC-.
constexpr bool is_mtrr_type(u64 type) {
    return type == 0 || type == 1 || (type >= 4 && type <= 6);
}

template <class Check>
constexpr bool each_byte(u64 value, Check check) {
    for (unsigned i = 0; i < 8; ++i)
        if (!check((value >> (8 * i)) & 0xFF)) return false;
    return true;
}

constexpr bool is_pat(u64 value) {
    return each_byte(value, [](u64 type) { return is_mtrr_type(type) || type == 7; });
}

// Position in MsrState::mtrr_fixed.
constexpr usize fixed_slot(u32 index) {
    if (index == 0x250) return 0;
    if (index <= 0x259) return 1 + (index - 0x258);
    return 3 + (index - 0x268);
}

// Intel SDM Vol. 3A, 12.11.2.
bool write_mtrr(u32 index, u64 value, const CpuidPolicy& cpuid, MsrState& state) {
    if (index == 0x2FF) {
        if ((value & ~u64{0xCFF}) != 0 || !is_mtrr_type(value & 0xFF)) return false;
        state.mtrr_def_type = value;
        return true;
    }
    if (index >= 0x250) {
        if (!each_byte(value, is_mtrr_type)) return false;
        state.mtrr_fixed[fixed_slot(index)] = value;
        return true;
    }
    const u64 address = low_mask(cpuid.physical_bits()) & ~u64{0xFFF};
    const bool is_mask = (index & 1) != 0;
    if ((value & ~(address | (is_mask ? bit(11) : 0xFF))) != 0) return false;
    if (!is_mask && !is_mtrr_type(value & 0xFF)) return false;
    state.mtrr_variable[index & 15] = value;
    return true;
}

// A TSC that runs at a multiple of 100 MHz, as PLATFORM_INFO and PERF_STATUS see it.
u64 bus_ratio(const MsrContext& context) {
    return (context.clock.hz() + 50'000'000) / 100'000'000 & 0xFF;
}

void move_tsc(u64 delta, MsrContext& context) {
    MsrState& state = context.state;
    state.tsc_adjust += delta;
    context.backend.set_tsc_offset(state.host_tsc_offset + state.tsc_adjust);
    context.apic.set_tsc_offset(state.tsc_adjust);
}

// Intel SDM Vol. 3A, 2.2.1; AMD APM Vol. 2, 3.1.7. LMA follows CR0.PG and LME; what is written there is
// ignored.
bool write_efer(u64 value, MsrContext& context) {
    if ((value & ~context.cpuid.efer_mask()) != 0) return false;
    const u64 old = context.backend.read(Register::efer);
    if (((value ^ old) & efer::lme) != 0 && (context.backend.read(Register::cr0) & cr0::pg) != 0)
        return false;
    context.backend.write(Register::efer, (value & ~efer::lma) | (old & efer::lma));
    return true;
}

std::optional<u64> read_special(u32 index, MsrContext& context) {
    const MsrState& state = context.state;
    switch (index) {
        case 0x10: return context.clock.now() + state.tsc_adjust;
        case 0x17: return state.platform_id;
        case 0x1B: return context.apic.base();
        case 0x3B:
            if (!context.cpuid.tsc_adjust()) return std::nullopt;
            return state.tsc_adjust;
        case 0x8B:
            return context.cpuid.vendor() == CpuVendor::amd ? u64{state.microcode_revision}
                                                            : u64{state.microcode_revision} << 32;
        case platform_info: {
            const u64 ratio = bus_ratio(context);
            return ratio << 8 | ratio << 40;  // maximum without turbo, and most efficient
        }
        case 0x17A: return state.mcg_status;
        case perf_status: return bus_ratio(context) << 8;
        case 0x1A0: return state.misc_enable;
        case 0x1D9: return context.backend.read(Register::debugctl) & state.debugctl_mask;
        case 0x277: return context.backend.read(Register::pat);
        case 0x2FF: return state.mtrr_def_type;
        case 0xDA0:
            if (!context.cpuid.xsaves()) return std::nullopt;
            return 0;
        case 0xC0000080: return context.backend.read(Register::efer);
        case 0xC0000103:
            if (!context.cpuid.rdtscp() && !context.cpuid.rdpid()) return std::nullopt;
            return context.backend.read(Register::tsc_aux);
        case 0xC0010015: return state.hwcr;
        case nb_cfg: return state.nb_cfg;
        case de_cfg: return state.de_cfg;
        default: break;
    }
    if (index <= 0x20F) return state.mtrr_variable[index & 15];
    return state.mtrr_fixed[fixed_slot(index)];
}

bool write_special(u32 index, u64 value, MsrContext& context) {
    MsrState& state = context.state;
    switch (index) {
        case 0x10: move_tsc(value - (context.clock.now() + state.tsc_adjust), context); return true;
        case 0x3B:
            if (!context.cpuid.tsc_adjust()) return false;
            move_tsc(value - state.tsc_adjust, context);
            return true;
        case 0x1B: return context.apic.write_base(value);
        case 0x8B: return true;  // written as zero before CPUID loads it; it is always loaded
        case 0x17A:
            if ((value & ~u64{7}) != 0) return false;
            state.mcg_status = value;
            return true;
        case 0x1A0:
            // Everything but fast strings is fixed; firmware and kernels try some of the rest.
            state.misc_enable = (state.misc_enable & ~misc_fast_strings) | (value & misc_fast_strings);
            return true;
        case 0x1D9:
            if ((value & ~state.debugctl_mask) != 0) return false;
            if (state.debugctl_mask != 0) context.backend.write(Register::debugctl, value);
            return true;
        case 0x277:
            if (!is_pat(value)) return false;
            context.backend.write(Register::pat, value);
            return true;
        case 0xDA0: return context.cpuid.xsaves() && value == 0;
        case 0xC0000080: return write_efer(value, context);
        case 0xC0000103:
            if (!context.cpuid.rdtscp() && !context.cpuid.rdpid()) return false;
            if ((value >> 32) != 0) return false;
            context.backend.write(Register::tsc_aux, value);
            return true;
        case 0xC0010015: state.hwcr = (state.hwcr & ~hwcr_writable) | (value & hwcr_writable); return true;
        case nb_cfg: state.nb_cfg = value & bit(46); return true;
        case de_cfg: state.de_cfg = (value & de_cfg_writable) | de_cfg_lfence; return true;
        case 0x17:
        case platform_info:
        case perf_status: return false;
        default: return write_mtrr(index, value, context.cpuid, state);
    }
}

}  // namespace

void MsrState::reset() {
    tsc_adjust = 0;
    mtrr_def_type = 0;
    mtrr_variable.fill(0);
    mtrr_fixed.fill(0);
    mcg_status = 0;
    misc_enable = misc_fast_strings | misc_no_bts | misc_no_pebs;
    hwcr = hwcr_tsc_counts_at_p0;
    de_cfg = de_cfg_lfence;
    nb_cfg = 0;
}

MsrResult read_msr(MsrIndex index, MsrContext& context) {
    const std::optional<u64> value = msr_value(index, context);
    if (!value) return refuse();
    return *value;
}

std::optional<u64> msr_value(MsrIndex index, MsrContext& context) {
    std::optional<u64> value;
    if (index >= msr::x2apic_first && index <= msr::x2apic_last) {
        value = context.apic.read_msr(index);
    } else if (index == msr::tsc_deadline) {
        if (context.cpuid.tsc_deadline()) value = context.apic.tsc_deadline();
    } else if (const Rule* rule = find(index.raw(), context.cpuid.vendor())) {
        switch (rule->kind) {
            case Kind::constant:
            case Kind::ignored: value = rule->value; break;
            case Kind::write_only: break;
            case Kind::full:
            case Kind::half:
            case Kind::canonical: value = context.backend.read(rule->held); break;
            case Kind::special: value = read_special(index.raw(), context); break;
        }
    }
    return value;
}

MsrWritten write_msr(MsrIndex index, u64 value, MsrContext& context) {
    bool accepted = false;
    if (index >= msr::x2apic_first && index <= msr::x2apic_last) {
        accepted = context.apic.write_msr(index, value);
    } else if (index == msr::tsc_deadline) {
        accepted = context.cpuid.tsc_deadline();
        if (accepted) context.apic.set_tsc_deadline(value);
    } else if (const Rule* rule = find(index.raw(), context.cpuid.vendor())) {
        accepted = true;
        switch (rule->kind) {
            case Kind::constant: accepted = false; break;
            case Kind::ignored:
            case Kind::write_only: break;
            case Kind::full: context.backend.write(rule->held, value); break;
            case Kind::half: context.backend.write(rule->held, value & 0xFFFFFFFF); break;
            case Kind::canonical:
                accepted = is_canonical(value, context.cpuid.linear_bits());
                if (accepted) context.backend.write(rule->held, value);
                break;
            case Kind::special: accepted = write_special(index.raw(), value, context); break;
        }
    }
    if (!accepted) return refuse();
    return {};
}

}  // namespace bulkhead
