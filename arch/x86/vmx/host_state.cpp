#include "arch/x86/vmx/host_state.hpp"

#include "arch/x86/vmx/vmcs_access.hpp"

namespace bulkhead::vmx {

Result<> write_host_state(const HostState& state, bool cet_state) {
    using namespace vmcs;
    Result<> result;
    const auto set = [&](const auto& field, auto value) {
        if (result) result = write_checked(field, value);
    };
    set(host_cr0, state.cr0);
    set(host_cr3, state.cr3);
    set(host_cr4, state.cr4);
    set(host_cs_selector, state.cs);
    set(host_ss_selector, state.ss);
    set(host_ds_selector, u16{0});
    set(host_es_selector, u16{0});
    set(host_fs_selector, u16{0});
    set(host_gs_selector, u16{0});
    set(host_tr_selector, state.tr);
    set(host_fs_base, state.fs_base);
    set(host_gs_base, state.gs_base);
    set(host_tr_base, state.tr_base);
    set(host_gdtr_base, state.gdtr_base);
    set(host_idtr_base, state.idtr_base);
    set(host_sysenter_cs, u32{0});
    set(host_sysenter_esp, u64{0});
    set(host_sysenter_eip, u64{0});
    set(host_efer, state.efer);
    set(host_pat, state.pat);
    set(host_rip, state.rip);
    if (cet_state) {
        set(host_s_cet, state.s_cet);
        set(host_ssp, u64{0});
        set(host_interrupt_ssp_table, state.interrupt_ssp_table);
    }
    return result;
}

}  // namespace bulkhead::vmx
