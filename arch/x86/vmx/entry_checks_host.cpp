#include <initializer_list>

#include "arch/x86/regs/control.hpp"
#include "arch/x86/vmx/control_bits.hpp"
#include "arch/x86/vmx/entry_check_rules.hpp"

namespace bulkhead::vmx {

void check_entry_host_state(const EntryCheckContext& context, EntryViolations& violations) {
    using namespace vmcs;
    EntryRules rules(context, violations);
    const Capabilities& c = context.capabilities;
    const u32 exit_controls = read(vm_exit_controls);

    // 27.2.2: control registers and MSRs.
    rules.require_fixed(host_cr0, c.cr0_fixed0, c.cr0_fixed1);
    rules.require_fixed(host_cr4, c.cr4_fixed0, c.cr4_fixed1);
    rules.require(rules.is_physical(read(host_cr3)), host_cr3, "must be within the physical-address width");
    rules.require_canonical(host_sysenter_esp);
    rules.require_canonical(host_sysenter_eip);
    if ((exit_controls & vm_exit::load_pat) != 0) rules.require_pat(host_pat);
    if ((exit_controls & vm_exit::load_efer) != 0) {
        constexpr u64 defined = efer::sce | efer::lme | efer::lma | efer::nxe;
        const u64 value = read(host_efer);
        rules.require((value & ~defined) == 0, host_efer, "reserved bits must be 0");
        rules.require((value & (efer::lma | efer::lme)) == (efer::lma | efer::lme), host_efer,
                      "LMA and LME must equal the control \"host address-space size\"");
    }

    // 27.2.3: segments and descriptor tables.
    for (const auto& selector : {host_es_selector, host_cs_selector, host_ss_selector, host_ds_selector,
                                 host_fs_selector, host_gs_selector, host_tr_selector}) {
        rules.require((read(selector) & 7) == 0, selector, "RPL and TI must be 0");
    }
    rules.require(read(host_cs_selector) != 0, host_cs_selector, "must not be 0");
    rules.require(read(host_tr_selector) != 0, host_tr_selector, "must not be 0");
    for (const auto& base : {host_fs_base, host_gs_base, host_gdtr_base, host_idtr_base, host_tr_base}) {
        rules.require_canonical(base);
    }

    // 27.2.4: address-space size. This processor is in IA-32e mode.
    rules.require((exit_controls & vm_exit::host_address_space_size) != 0, vm_exit_controls,
                  "host address-space size must be 1 on a 64-bit host");
    rules.require((read(host_cr4) & cr4::pae) != 0, host_cr4, "PAE must be 1 on a 64-bit host");
    rules.require_canonical(host_rip);
}

}  // namespace bulkhead::vmx
