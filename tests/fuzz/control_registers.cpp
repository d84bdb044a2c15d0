// MOV to control and debug registers and XSETBV from any state: what is let through is a state that a
// processor can be in.
#include "vmm/control_registers.hpp"

#include "tests/fuzz/policies.hpp"

using namespace bulkhead;

namespace {

// Intel SDM Vol. 3C, 27.3.1.1 (June 2023 edition): the rules of VM entry for these registers.
void check_state(const CpuidPolicy& policy, const ControlState& state) {
    const bool paging = (state.cr0 & cr0::pg) != 0, long_mode = (state.efer & efer::lma) != 0;
    MUST((state.cr0 & ~cr0::defined) == 0);
    MUST(!paging || (state.cr0 & cr0::pe) != 0);
    MUST((state.cr0 & cr0::nw) == 0 || (state.cr0 & cr0::cd) != 0);
    MUST((state.cr4 & ~policy.cr4_mask()) == 0);
    MUST(!long_mode || (paging && (state.cr4 & cr4::pae) != 0 && (state.efer & efer::lme) != 0));
    MUST(long_mode == (paging && (state.efer & efer::lme) != 0));
    MUST(long_mode || (state.cr4 & cr4::pcide) == 0);
    MUST((state.cr3 & ~low_mask(policy.physical_bits())) == 0);
}

}  // namespace

void fuzz_one(fuzz::Input& in) {
    static CpuidPolicy policy;
    const fuzz::Machine machine(in);
    if (!policy.build(machine, fuzz::make_parameters(in))) return;
    ControlState state{.cr0 = cr0::et};
    u64 xcr0 = 1, dr7 = 0x400;
    while (!in.empty()) {
        const u8 operation = in.byte();
        const bool code64 = (state.efer & efer::lma) != 0 && state.cs_long;
        u64 value = in.number();
        if ((operation & 0x10) != 0) value = bit(value & 63);
        if (!code64) value = static_cast<u32>(value);
        switch (operation % 8) {
            case 0:
                if ((operation & 0x20) != 0) value ^= state.cr0;
                if (const auto change = check_cr0(policy, state, value)) {
                    MUST(state.cpl == 0);
                    if (change->loads_pdptes) MUST(uses_pae_paging(change->cr0, state.cr4, change->efer));
                    state.cr0 = change->cr0;
                    state.efer = change->efer;
                }
                break;
            case 1:
                if (const auto checked = check_cr3(policy, state, value)) state.cr3 = *checked;
                break;
            case 2:
                if ((operation & 0x20) != 0) value ^= state.cr4;
                if (const auto checked = check_cr4(policy, state, value)) state.cr4 = *checked;
                break;
            case 3:
                if (const auto checked = check_cr8(value)) MUST(*checked <= 15);
                break;
            case 4:
                if (const auto checked = check_xsetbv(policy, state, operation >> 6, value)) {
                    MUST(state.cpl == 0 && (state.cr4 & cr4::osxsave) != 0);
                    xcr0 = *checked;
                    MUST((xcr0 & 1) != 0 && (xcr0 & ~policy.xcr0_mask()) == 0);
                    MUST((xcr0 & xcr0::avx) == 0 || (xcr0 & xcr0::sse) != 0);
                }
                break;
            case 5: {
                const unsigned number = operation >> 4;
                const bool write = (value & 1) != 0;
                const auto access = check_debug_register(state, dr7, number, write, value);
                if (!access) break;
                MUST(access->number < 8 && access->number != 4 && access->number != 5 && state.cpl == 0);
                if (write && access->number == 7) {
                    dr7 = access->value;
                    MUST((dr7 >> 32) == 0 && (dr7 & 0xD800) == 0 && has_bit(dr7, 10));
                    if (has_bit(dr7, 13)) dr7 &= ~bit(13);
                }
                if (write && access->number == 6) MUST((access->value & 0xFFFF0FF0) == 0xFFFF0FF0);
                break;
            }
            case 6:
                // EFER as WRMSR lets it be changed, and far jumps.
                if ((state.cr0 & cr0::pg) == 0) state.efer ^= value & policy.efer_mask() & efer::lme;
                if ((operation & 0x20) != 0) state.cs_long = (state.efer & efer::lma) != 0 && !state.cs_long;
                if ((operation & 0x40) != 0) state.cpl = (operation & 0x80) != 0 ? 3 : 0;
                break;
            default: {
                const u64 smsw = lmsw_value(state.cr0, static_cast<u16>(value));
                MUST((state.cr0 & ~smsw & cr0::pe) == 0);
                if (const auto change = check_cr0(policy, state, smsw)) {
                    state.cr0 = change->cr0;
                    state.efer = change->efer;
                }
            }
        }
        check_state(policy, state);
        if ((state.efer & efer::lma) == 0) state.cs_long = false;
    }
}
