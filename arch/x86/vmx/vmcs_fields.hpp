// The fields of the VMCS as typed handles: encoding, value type and access are one thing, so that a value of
// the wrong kind, a field in place of a value, or a write to a read-only field does not compile. Intel SDM
// Vol. 3D, appendix B (June 2023 edition).
#pragma once

#include <string_view>
#include <type_traits>

#include "kernel/base/bits.hpp"
#include "kernel/base/types.hpp"

namespace bulkhead::vmcs {

enum class Access : u8 { read_only, read_write };

// What a value of type T is to VMREAD and VMWRITE. Addresses travel as their 64-bit number.
template <class T>
[[nodiscard]] constexpr u64 to_raw(T value) {
    if constexpr (std::is_integral_v<T>) {
        return value;
    } else {
        return value.raw();
    }
}

template <class T, Access access>
struct Field {
    using Value = T;
    static constexpr bool writable = access == Access::read_write;

    u32 encoding;
    std::string_view name;

    consteval Field(u32 field_encoding, std::string_view field_name)
        : encoding(field_encoding), name(field_name) {
        // Bits 14:13 are the width (16, 64, 32 bits, natural), bits 11:10 the type (control, read-only data,
        // guest, host), bit 0 selects a high half, which no handle names.
        constexpr usize widths[] = {2, 8, 4, 8};
        if (widths[extract(encoding, 14, 13)] != sizeof(T)) not_a_valid_field();
        if ((extract(encoding, 11, 10) == 1) == writable) not_a_valid_field();
        if (has_bit(encoding, 0)) not_a_valid_field();
    }

  private:
    static void not_a_valid_field();  // never defined: reaching it makes the constant evaluation fail
};

template <class T>
using ReadWrite = Field<T, Access::read_write>;
template <class T>
using ReadOnly = Field<T, Access::read_only>;

// 16-bit control fields.
constexpr ReadWrite<u16> virtual_processor_identifier{0x0000, "VPID"};
constexpr ReadWrite<u16> posted_interrupt_notification_vector{0x0002, "posted-interrupt notification vector"};
constexpr ReadWrite<u16> eptp_index{0x0004, "EPTP index"};

// 16-bit guest-state fields.
constexpr ReadWrite<u16> guest_es_selector{0x0800, "guest ES selector"};
constexpr ReadWrite<u16> guest_cs_selector{0x0802, "guest CS selector"};
constexpr ReadWrite<u16> guest_ss_selector{0x0804, "guest SS selector"};
constexpr ReadWrite<u16> guest_ds_selector{0x0806, "guest DS selector"};
constexpr ReadWrite<u16> guest_fs_selector{0x0808, "guest FS selector"};
constexpr ReadWrite<u16> guest_gs_selector{0x080A, "guest GS selector"};
constexpr ReadWrite<u16> guest_ldtr_selector{0x080C, "guest LDTR selector"};
constexpr ReadWrite<u16> guest_tr_selector{0x080E, "guest TR selector"};
constexpr ReadWrite<u16> guest_interrupt_status{0x0810, "guest interrupt status"};
constexpr ReadWrite<u16> pml_index{0x0812, "PML index"};

// 16-bit host-state fields.
constexpr ReadWrite<u16> host_es_selector{0x0C00, "host ES selector"};
constexpr ReadWrite<u16> host_cs_selector{0x0C02, "host CS selector"};
constexpr ReadWrite<u16> host_ss_selector{0x0C04, "host SS selector"};
constexpr ReadWrite<u16> host_ds_selector{0x0C06, "host DS selector"};
constexpr ReadWrite<u16> host_fs_selector{0x0C08, "host FS selector"};
constexpr ReadWrite<u16> host_gs_selector{0x0C0A, "host GS selector"};
constexpr ReadWrite<u16> host_tr_selector{0x0C0C, "host TR selector"};

// 64-bit control fields.
constexpr ReadWrite<HostPhysical> io_bitmap_a{0x2000, "address of I/O bitmap A"};
constexpr ReadWrite<HostPhysical> io_bitmap_b{0x2002, "address of I/O bitmap B"};
constexpr ReadWrite<HostPhysical> msr_bitmaps{0x2004, "address of MSR bitmaps"};
constexpr ReadWrite<HostPhysical> vm_exit_msr_store_address{0x2006, "VM-exit MSR-store address"};
constexpr ReadWrite<HostPhysical> vm_exit_msr_load_address{0x2008, "VM-exit MSR-load address"};
constexpr ReadWrite<HostPhysical> vm_entry_msr_load_address{0x200A, "VM-entry MSR-load address"};
constexpr ReadWrite<HostPhysical> executive_vmcs_pointer{0x200C, "executive-VMCS pointer"};
constexpr ReadWrite<HostPhysical> pml_address{0x200E, "PML address"};
constexpr ReadWrite<u64> tsc_offset{0x2010, "TSC offset"};
constexpr ReadWrite<HostPhysical> virtual_apic_address{0x2012, "virtual-APIC address"};
constexpr ReadWrite<HostPhysical> apic_access_address{0x2014, "APIC-access address"};
constexpr ReadWrite<HostPhysical> posted_interrupt_descriptor{0x2016, "posted-interrupt descriptor address"};
constexpr ReadWrite<u64> vm_function_controls{0x2018, "VM-function controls"};
constexpr ReadWrite<u64> ept_pointer{0x201A, "EPT pointer"};
constexpr ReadWrite<u64> eoi_exit_bitmap_0{0x201C, "EOI-exit bitmap 0"};
constexpr ReadWrite<u64> eoi_exit_bitmap_1{0x201E, "EOI-exit bitmap 1"};
constexpr ReadWrite<u64> eoi_exit_bitmap_2{0x2020, "EOI-exit bitmap 2"};
constexpr ReadWrite<u64> eoi_exit_bitmap_3{0x2022, "EOI-exit bitmap 3"};
constexpr ReadWrite<u64> xss_exiting_bitmap{0x202C, "XSS-exiting bitmap"};
constexpr ReadWrite<u64> encls_exiting_bitmap{0x202E, "ENCLS-exiting bitmap"};
constexpr ReadWrite<u64> tsc_multiplier{0x2032, "TSC multiplier"};

// 64-bit read-only data field.
constexpr ReadOnly<GuestPhysical> guest_physical_address{0x2400, "guest-physical address"};

// 64-bit guest-state fields.
constexpr ReadWrite<u64> vmcs_link_pointer{0x2800, "VMCS link pointer"};
constexpr ReadWrite<u64> guest_debugctl{0x2802, "guest IA32_DEBUGCTL"};
constexpr ReadWrite<u64> guest_pat{0x2804, "guest IA32_PAT"};
constexpr ReadWrite<u64> guest_efer{0x2806, "guest IA32_EFER"};
constexpr ReadWrite<u64> guest_pdpte0{0x280A, "guest PDPTE0"};
constexpr ReadWrite<u64> guest_pdpte1{0x280C, "guest PDPTE1"};
constexpr ReadWrite<u64> guest_pdpte2{0x280E, "guest PDPTE2"};
constexpr ReadWrite<u64> guest_pdpte3{0x2810, "guest PDPTE3"};

// 64-bit host-state fields.
constexpr ReadWrite<u64> host_pat{0x2C00, "host IA32_PAT"};
constexpr ReadWrite<u64> host_efer{0x2C02, "host IA32_EFER"};

// 32-bit control fields.
constexpr ReadWrite<u32> pin_based_controls{0x4000, "pin-based VM-execution controls"};
constexpr ReadWrite<u32> primary_controls{0x4002, "primary processor-based VM-execution controls"};
constexpr ReadWrite<u32> exception_bitmap{0x4004, "exception bitmap"};
constexpr ReadWrite<u32> page_fault_error_code_mask{0x4006, "page-fault error-code mask"};
constexpr ReadWrite<u32> page_fault_error_code_match{0x4008, "page-fault error-code match"};
constexpr ReadWrite<u32> cr3_target_count{0x400A, "CR3-target count"};
constexpr ReadWrite<u32> vm_exit_controls{0x400C, "VM-exit controls"};
constexpr ReadWrite<u32> vm_exit_msr_store_count{0x400E, "VM-exit MSR-store count"};
constexpr ReadWrite<u32> vm_exit_msr_load_count{0x4010, "VM-exit MSR-load count"};
constexpr ReadWrite<u32> vm_entry_controls{0x4012, "VM-entry controls"};
constexpr ReadWrite<u32> vm_entry_msr_load_count{0x4014, "VM-entry MSR-load count"};
constexpr ReadWrite<u32> vm_entry_interruption_information{0x4016, "VM-entry interruption-information field"};
constexpr ReadWrite<u32> vm_entry_exception_error_code{0x4018, "VM-entry exception error code"};
constexpr ReadWrite<u32> vm_entry_instruction_length{0x401A, "VM-entry instruction length"};
constexpr ReadWrite<u32> tpr_threshold{0x401C, "TPR threshold"};
constexpr ReadWrite<u32> secondary_controls{0x401E, "secondary processor-based VM-execution controls"};
constexpr ReadWrite<u32> ple_gap{0x4020, "PLE_Gap"};
constexpr ReadWrite<u32> ple_window{0x4022, "PLE_Window"};

// 32-bit read-only data fields.
constexpr ReadOnly<u32> vm_instruction_error{0x4400, "VM-instruction error"};
constexpr ReadOnly<u32> exit_reason{0x4402, "exit reason"};
constexpr ReadOnly<u32> vm_exit_interruption_information{0x4404, "VM-exit interruption information"};
constexpr ReadOnly<u32> vm_exit_interruption_error_code{0x4406, "VM-exit interruption error code"};
constexpr ReadOnly<u32> idt_vectoring_information{0x4408, "IDT-vectoring information field"};
constexpr ReadOnly<u32> idt_vectoring_error_code{0x440A, "IDT-vectoring error code"};
constexpr ReadOnly<u32> vm_exit_instruction_length{0x440C, "VM-exit instruction length"};
constexpr ReadOnly<u32> vm_exit_instruction_information{0x440E, "VM-exit instruction information"};

// 32-bit guest-state fields.
constexpr ReadWrite<u32> guest_es_limit{0x4800, "guest ES limit"};
constexpr ReadWrite<u32> guest_cs_limit{0x4802, "guest CS limit"};
constexpr ReadWrite<u32> guest_ss_limit{0x4804, "guest SS limit"};
constexpr ReadWrite<u32> guest_ds_limit{0x4806, "guest DS limit"};
constexpr ReadWrite<u32> guest_fs_limit{0x4808, "guest FS limit"};
constexpr ReadWrite<u32> guest_gs_limit{0x480A, "guest GS limit"};
constexpr ReadWrite<u32> guest_ldtr_limit{0x480C, "guest LDTR limit"};
constexpr ReadWrite<u32> guest_tr_limit{0x480E, "guest TR limit"};
constexpr ReadWrite<u32> guest_gdtr_limit{0x4810, "guest GDTR limit"};
constexpr ReadWrite<u32> guest_idtr_limit{0x4812, "guest IDTR limit"};
constexpr ReadWrite<u32> guest_es_access_rights{0x4814, "guest ES access rights"};
constexpr ReadWrite<u32> guest_cs_access_rights{0x4816, "guest CS access rights"};
constexpr ReadWrite<u32> guest_ss_access_rights{0x4818, "guest SS access rights"};
constexpr ReadWrite<u32> guest_ds_access_rights{0x481A, "guest DS access rights"};
constexpr ReadWrite<u32> guest_fs_access_rights{0x481C, "guest FS access rights"};
constexpr ReadWrite<u32> guest_gs_access_rights{0x481E, "guest GS access rights"};
constexpr ReadWrite<u32> guest_ldtr_access_rights{0x4820, "guest LDTR access rights"};
constexpr ReadWrite<u32> guest_tr_access_rights{0x4822, "guest TR access rights"};
constexpr ReadWrite<u32> guest_interruptibility{0x4824, "guest interruptibility state"};
constexpr ReadWrite<u32> guest_activity{0x4826, "guest activity state"};
constexpr ReadWrite<u32> guest_smbase{0x4828, "guest SMBASE"};
constexpr ReadWrite<u32> guest_sysenter_cs{0x482A, "guest IA32_SYSENTER_CS"};
constexpr ReadWrite<u32> preemption_timer_value{0x482E, "VMX-preemption timer value"};

// 32-bit host-state field.
constexpr ReadWrite<u32> host_sysenter_cs{0x4C00, "host IA32_SYSENTER_CS"};

// Natural-width control fields.
constexpr ReadWrite<u64> cr0_guest_host_mask{0x6000, "CR0 guest/host mask"};
constexpr ReadWrite<u64> cr4_guest_host_mask{0x6002, "CR4 guest/host mask"};
constexpr ReadWrite<u64> cr0_read_shadow{0x6004, "CR0 read shadow"};
constexpr ReadWrite<u64> cr4_read_shadow{0x6006, "CR4 read shadow"};

// Natural-width read-only data fields.
constexpr ReadOnly<u64> exit_qualification{0x6400, "exit qualification"};
constexpr ReadOnly<GuestVirtual> guest_linear_address{0x640A, "guest-linear address"};

// Natural-width guest-state fields.
constexpr ReadWrite<u64> guest_cr0{0x6800, "guest CR0"};
constexpr ReadWrite<u64> guest_cr3{0x6802, "guest CR3"};
constexpr ReadWrite<u64> guest_cr4{0x6804, "guest CR4"};
constexpr ReadWrite<u64> guest_es_base{0x6806, "guest ES base"};
constexpr ReadWrite<u64> guest_cs_base{0x6808, "guest CS base"};
constexpr ReadWrite<u64> guest_ss_base{0x680A, "guest SS base"};
constexpr ReadWrite<u64> guest_ds_base{0x680C, "guest DS base"};
constexpr ReadWrite<u64> guest_fs_base{0x680E, "guest FS base"};
constexpr ReadWrite<u64> guest_gs_base{0x6810, "guest GS base"};
constexpr ReadWrite<u64> guest_ldtr_base{0x6812, "guest LDTR base"};
constexpr ReadWrite<u64> guest_tr_base{0x6814, "guest TR base"};
constexpr ReadWrite<u64> guest_gdtr_base{0x6816, "guest GDTR base"};
constexpr ReadWrite<u64> guest_idtr_base{0x6818, "guest IDTR base"};
constexpr ReadWrite<u64> guest_dr7{0x681A, "guest DR7"};
constexpr ReadWrite<u64> guest_rsp{0x681C, "guest RSP"};
constexpr ReadWrite<u64> guest_rip{0x681E, "guest RIP"};
constexpr ReadWrite<u64> guest_rflags{0x6820, "guest RFLAGS"};
constexpr ReadWrite<u64> guest_pending_debug_exceptions{0x6822, "guest pending debug exceptions"};
constexpr ReadWrite<u64> guest_sysenter_esp{0x6824, "guest IA32_SYSENTER_ESP"};
constexpr ReadWrite<u64> guest_sysenter_eip{0x6826, "guest IA32_SYSENTER_EIP"};

// Natural-width host-state fields.
constexpr ReadWrite<u64> host_cr0{0x6C00, "host CR0"};
constexpr ReadWrite<u64> host_cr3{0x6C02, "host CR3"};
constexpr ReadWrite<u64> host_cr4{0x6C04, "host CR4"};
constexpr ReadWrite<u64> host_fs_base{0x6C06, "host FS base"};
constexpr ReadWrite<u64> host_gs_base{0x6C08, "host GS base"};
constexpr ReadWrite<u64> host_tr_base{0x6C0A, "host TR base"};
constexpr ReadWrite<u64> host_gdtr_base{0x6C0C, "host GDTR base"};
constexpr ReadWrite<u64> host_idtr_base{0x6C0E, "host IDTR base"};
constexpr ReadWrite<u64> host_sysenter_esp{0x6C10, "host IA32_SYSENTER_ESP"};
constexpr ReadWrite<u64> host_sysenter_eip{0x6C12, "host IA32_SYSENTER_EIP"};
constexpr ReadWrite<u64> host_rsp{0x6C14, "host RSP"};
constexpr ReadWrite<u64> host_rip{0x6C16, "host RIP"};
// These six where the processor has CET.
constexpr ReadWrite<u64> guest_s_cet{0x6828, "guest IA32_S_CET"};
constexpr ReadWrite<u64> guest_ssp{0x682A, "guest SSP"};
constexpr ReadWrite<u64> guest_interrupt_ssp_table{0x682C, "guest IA32_INTERRUPT_SSP_TABLE_ADDR"};
constexpr ReadWrite<u64> host_s_cet{0x6C18, "host IA32_S_CET"};
constexpr ReadWrite<u64> host_ssp{0x6C1A, "host SSP"};
constexpr ReadWrite<u64> host_interrupt_ssp_table{0x6C1C, "host IA32_INTERRUPT_SSP_TABLE_ADDR"};

}  // namespace bulkhead::vmcs
