// Backend: what load() and save() switch, that VM entry and exit do not.
#include <cstring>

#include "arch/x86/regs/control.hpp"
#include "arch/x86/regs/msr.hpp"
#include "arch/x86/vmx/backend.hpp"
#include "arch/x86/vmx/control_bits.hpp"
#include "arch/x86/vmx/processor_access.hpp"

namespace bulkhead::vmx {
namespace {

constexpr MsrIndex resident_msrs[] = {msr::kernel_gs_base, msr::star,   msr::lstar,
                                      msr::cstar,          msr::sfmask, msr::tsc_aux};
constexpr usize tsc_aux_slot = 5;

// The legacy region of the XSAVE area, also FXSAVE's. Intel SDM Vol. 1, 10.5 and 13.4 (June 2023 edition).
constexpr usize legacy_size = 512, fcw_offset = 0, ftw_offset = 4, mxcsr_offset = 24, xstate_bv_offset = 512;

}  // namespace

u64 Backend::read_resident(usize index) const {
    const bool absent = index == tsc_aux_slot && (secondary_ & secondary::enable_rdtscp) == 0;
    return loaded_ && !absent ? bulkhead_vmx_rdmsr(resident_msrs[index].raw()) : resident_msrs_[index];
}

void Backend::write_resident(usize index, u64 value) {
    resident_msrs_[index] = value;
    const bool absent = index == tsc_aux_slot && (secondary_ & secondary::enable_rdtscp) == 0;
    if (loaded_ && !absent) bulkhead_vmx_wrmsr(resident_msrs[index].raw(), value);
}

u64 Backend::debug_register(unsigned index) const {
    if (index > 3 && index != 6) return 0;
    if (loaded_) return bulkhead_vmx_read_debug(index);
    return index == 6 ? dr6_ : debug_[index];
}

void Backend::set_debug_register(unsigned index, u64 value) {
    if (index > 3 && index != 6) return;
    (index == 6 ? dr6_ : debug_[index]) = value;
    if (loaded_) bulkhead_vmx_write_debug(index, value);
}

void Backend::set_xcr0(u64 value) {
    xcr0_ = value;
    if (loaded_ && parameters_.xcr0_components != 0) bulkhead_vmx_xsetbv(value);
}

// x87 as after RESET, not FNINIT: control word 40h, all registers zero but not empty.
void Backend::reset_extended_state() {
    u8* area = parameters_.extended_state;
    std::memset(area, 0, parameters_.extended_state_size);
    area[fcw_offset] = 0x40;
    area[ftw_offset] = 0xFF;
    const u32 mxcsr = 0x1F80;
    std::memcpy(area + mxcsr_offset, &mxcsr, sizeof mxcsr);
    if (parameters_.xcr0_components != 0) area[xstate_bv_offset] = static_cast<u8>(xcr0::x87 | xcr0::sse);
}

void Backend::load_extended_state() {
    if (parameters_.xcr0_components == 0) {
        bulkhead_vmx_fxrstor(parameters_.extended_state);
        return;
    }
    // All components, whatever the guest has enabled: what it disabled keeps its value, and nothing of
    // another guest stays behind.
    bulkhead_vmx_xsetbv(parameters_.xcr0_components);
    bulkhead_vmx_xrstor(parameters_.extended_state, parameters_.xcr0_components);
    if (xcr0_ != parameters_.xcr0_components) bulkhead_vmx_xsetbv(xcr0_);
}

void Backend::save_extended_state() {
    if (parameters_.xcr0_components == 0) {
        bulkhead_vmx_fxsave(parameters_.extended_state);
        return;
    }
    if (xcr0_ != parameters_.xcr0_components) bulkhead_vmx_xsetbv(parameters_.xcr0_components);
    bulkhead_vmx_xsave(parameters_.extended_state, parameters_.xcr0_components);
}

void Backend::load() {
    (void)bulkhead_vmptrld(parameters_.vmcs.physical.raw());
    if (host_state_stale_) {
        host_state_stale_ = false;
        (void)write_host_state(host_);
        // What this core cached when the vCPU was last here may have been flushed elsewhere since.
        flush_guest_translations();
        flush_translations();
    }
    loaded_ = true;
    if (parameters_.branch_barrier) bulkhead_vmx_wrmsr(msr::pred_cmd.raw(), 1);
    if (parameters_.flush_l1d) bulkhead_vmx_wrmsr(msr::flush_cmd.raw(), 1);
    for (usize i = 0; i < resident_msr_count; ++i) write_resident(i, resident_msrs_[i]);
    bulkhead_vmx_write_cr2(cr2_);
    for (unsigned i = 0; i < 4; ++i) bulkhead_vmx_write_debug(i, debug_[i]);
    bulkhead_vmx_write_debug(6, dr6_);
    load_extended_state();
}

void Backend::save() {
    save_extended_state();
    for (unsigned i = 0; i < 4; ++i) debug_[i] = bulkhead_vmx_read_debug(i);
    dr6_ = bulkhead_vmx_read_debug(6);
    cr2_ = bulkhead_vmx_read_cr2();
    for (usize i = 0; i < resident_msr_count; ++i) resident_msrs_[i] = read_resident(i);
    loaded_ = false;
    // The VMCS goes back to memory, so that any core may load it.
    (void)bulkhead_vmclear(parameters_.vmcs.physical.raw());
    launched_ = false;
}

}  // namespace bulkhead::vmx
