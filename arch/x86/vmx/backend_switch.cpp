// Backend: what load() and save() switch, that VM entry and exit do not.
#include "arch/x86/regs/msr.hpp"
#include "arch/x86/vmx/backend.hpp"
#include "arch/x86/vmx/processor_access.hpp"

namespace bulkhead::vmx {
namespace {

constexpr MsrIndex resident_msrs[] = {msr::kernel_gs_base, msr::star, msr::lstar, msr::cstar, msr::sfmask};

}  // namespace

u64 Backend::read_resident(usize index) const {
    return loaded_ ? bulkhead_vmx_rdmsr(resident_msrs[index].raw()) : resident_msrs_[index];
}

void Backend::write_resident(usize index, u64 value) {
    resident_msrs_[index] = value;
    if (loaded_) bulkhead_vmx_wrmsr(resident_msrs[index].raw(), value);
}

// The VMCS is current here, with the host state of the core it comes from.
void Backend::move_to_core(u32 core) {
    core_ = core;
    HostState host;
    bulkhead_vmx_host_state(&host);
    host.cr3 = compartment_cr3_;
    (void)write_host_state(host, capabilities_.cet_state);  // every field took a value in prepare()
    // What this core cached when the vCPU was last here may have been flushed elsewhere since.
    flush_guest_translations();
    flush_pending_ = true;
}

void Backend::load() {
    (void)bulkhead_vmptrld(parameters_.vmcs.physical.raw());
    if (const u32 core = bulkhead_vmx_core(); core != core_) [[unlikely]]
        move_to_core(core);
    if (flush_pending_) {
        flush_pending_ = false;
        flush_nested_translations();
    }
    loaded_ = true;
    for (usize i = 0; i < resident_msr_count; ++i) write_resident(i, resident_msrs_[i]);
    bulkhead_vmx_write_cr2(cr2_);
    extended_.load();
}

void Backend::save() {
    extended_.save();
    cr2_ = bulkhead_vmx_read_cr2();
    for (usize i = 0; i < resident_msr_count; ++i) resident_msrs_[i] = read_resident(i);
    loaded_ = false;
    // The VMCS goes back to memory, so that any core may load it.
    (void)bulkhead_vmclear(parameters_.vmcs.physical.raw());
    launched_ = false;
}

}  // namespace bulkhead::vmx
