// Model-specific registers by index. Intel SDM Vol. 4 (June 2023 edition); AMD APM Vol. 2, appendix A
// (rev. 3.41).
#pragma once

#include "kernel/base/types.hpp"

namespace bulkhead::msr {

constexpr MsrIndex p5_mc_addr{0x0}, p5_mc_type{0x1}, tsc{0x10}, platform_id{0x17}, apic_base{0x1B},
    feature_control{0x3A}, tsc_adjust{0x3B}, spec_ctrl{0x48}, pred_cmd{0x49}, bios_update_trigger{0x79},
    bios_sign_id{0x8B}, mtrr_cap{0xFE}, arch_capabilities{0x10A}, flush_cmd{0x10B}, sysenter_cs{0x174},
    sysenter_esp{0x175}, sysenter_eip{0x176}, mcg_cap{0x179}, mcg_status{0x17A}, mcg_ctl{0x17B},
    misc_enable{0x1A0}, debugctl{0x1D9}, mtrr_physbase0{0x200}, mtrr_physmask7{0x20F}, mtrr_fix64k{0x250},
    mtrr_fix16k_80000{0x258}, mtrr_fix16k_a0000{0x259}, mtrr_fix4k_c0000{0x268}, mtrr_fix4k_f8000{0x26F},
    pat{0x277}, mtrr_def_type{0x2FF}, mc0_ctl{0x400}, s_cet{0x6A2}, pl0_ssp{0x6A4},
    interrupt_ssp_table{0x6A8}, tsc_deadline{0x6E0}, x2apic_first{0x800}, x2apic_last{0x8FF}, xss{0xDA0};

// VMX capability reporting.
constexpr MsrIndex vmx_basic{0x480}, vmx_pinbased_ctls{0x481}, vmx_procbased_ctls{0x482},
    vmx_exit_ctls{0x483}, vmx_entry_ctls{0x484}, vmx_misc{0x485}, vmx_cr0_fixed0{0x486},
    vmx_cr0_fixed1{0x487}, vmx_cr4_fixed0{0x488}, vmx_cr4_fixed1{0x489}, vmx_vmcs_enum{0x48A},
    vmx_procbased_ctls2{0x48B}, vmx_ept_vpid_cap{0x48C}, vmx_true_pinbased_ctls{0x48D},
    vmx_true_procbased_ctls{0x48E}, vmx_true_exit_ctls{0x48F}, vmx_true_entry_ctls{0x490}, vmx_vmfunc{0x491},
    vmx_procbased_ctls3{0x492};

constexpr MsrIndex efer{0xC0000080}, star{0xC0000081}, lstar{0xC0000082}, cstar{0xC0000083},
    sfmask{0xC0000084}, fs_base{0xC0000100}, gs_base{0xC0000101}, kernel_gs_base{0xC0000102},
    tsc_aux{0xC0000103};

// AMD's own.
constexpr MsrIndex syscfg{0xC0010010}, hwcr{0xC0010015}, vm_cr{0xC0010114}, vm_hsave_pa{0xC0010117};

}  // namespace bulkhead::msr
