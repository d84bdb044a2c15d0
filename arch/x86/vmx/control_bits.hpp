// The VM-execution, VM-exit and VM-entry control bits by name, and other bit fields of the VMCS.
// Intel SDM Vol. 3C, 25.4, 25.6-25.9 (June 2023 edition).
#pragma once

#include "kernel/base/bits.hpp"

namespace bulkhead::vmx {

namespace pin_based {
constexpr u32 external_interrupt_exiting = bit<u32>(0), nmi_exiting = bit<u32>(3), virtual_nmis = bit<u32>(5),
              preemption_timer = bit<u32>(6), process_posted_interrupts = bit<u32>(7);
}

namespace primary {
constexpr u32 interrupt_window_exiting = bit<u32>(2), use_tsc_offsetting = bit<u32>(3),
              hlt_exiting = bit<u32>(7), invlpg_exiting = bit<u32>(9), mwait_exiting = bit<u32>(10),
              rdpmc_exiting = bit<u32>(11), rdtsc_exiting = bit<u32>(12), cr3_load_exiting = bit<u32>(15),
              cr3_store_exiting = bit<u32>(16), activate_tertiary_controls = bit<u32>(17),
              cr8_load_exiting = bit<u32>(19), cr8_store_exiting = bit<u32>(20),
              use_tpr_shadow = bit<u32>(21), nmi_window_exiting = bit<u32>(22), mov_dr_exiting = bit<u32>(23),
              unconditional_io_exiting = bit<u32>(24), use_io_bitmaps = bit<u32>(25),
              monitor_trap_flag = bit<u32>(27), use_msr_bitmaps = bit<u32>(28),
              monitor_exiting = bit<u32>(29), pause_exiting = bit<u32>(30),
              activate_secondary_controls = bit<u32>(31);
}

namespace secondary {
constexpr u32 virtualize_apic_accesses = bit<u32>(0), enable_ept = bit<u32>(1),
              descriptor_table_exiting = bit<u32>(2), enable_rdtscp = bit<u32>(3),
              virtualize_x2apic_mode = bit<u32>(4), enable_vpid = bit<u32>(5), wbinvd_exiting = bit<u32>(6),
              unrestricted_guest = bit<u32>(7), apic_register_virtualization = bit<u32>(8),
              virtual_interrupt_delivery = bit<u32>(9), pause_loop_exiting = bit<u32>(10),
              rdrand_exiting = bit<u32>(11), enable_invpcid = bit<u32>(12),
              enable_vm_functions = bit<u32>(13), vmcs_shadowing = bit<u32>(14),
              enable_encls_exiting = bit<u32>(15), rdseed_exiting = bit<u32>(16), enable_pml = bit<u32>(17),
              ept_violation_ve = bit<u32>(18), enable_xsaves = bit<u32>(20), use_tsc_scaling = bit<u32>(25);
}

namespace vm_exit {
constexpr u32 save_debug_controls = bit<u32>(2), host_address_space_size = bit<u32>(9),
              load_perf_global_ctrl = bit<u32>(12), acknowledge_interrupt = bit<u32>(15),
              save_pat = bit<u32>(18), load_pat = bit<u32>(19), save_efer = bit<u32>(20),
              load_efer = bit<u32>(21), save_preemption_timer = bit<u32>(22), load_cet_state = bit<u32>(28);
}

namespace vm_entry {
constexpr u32 load_debug_controls = bit<u32>(2), ia32e_mode_guest = bit<u32>(9), entry_to_smm = bit<u32>(10),
              deactivate_dual_monitor = bit<u32>(11), load_perf_global_ctrl = bit<u32>(13),
              load_pat = bit<u32>(14), load_efer = bit<u32>(15), load_cet_state = bit<u32>(20);
}

// Guest interruptibility state (SDM Vol. 3C, table 25-3).
namespace interruptibility {
constexpr u32 blocking_by_sti = bit<u32>(0), blocking_by_mov_ss = bit<u32>(1), blocking_by_smi = bit<u32>(2),
              blocking_by_nmi = bit<u32>(3), enclave = bit<u32>(4);
constexpr u32 shadows = blocking_by_sti | blocking_by_mov_ss;
}  // namespace interruptibility

namespace activity {
constexpr u32 active = 0, hlt = 1, shutdown = 2, wait_for_sipi = 3;
}

// Pending debug exceptions, and the exit qualification of #DB.
namespace debug_exception {
constexpr u64 enabled_breakpoint = bit(12), single_step = bit(14);
}

// VM-entry and VM-exit interruption information and IDT-vectoring information share their layout.
namespace interruption {
constexpr u32 deliver_error_code = bit<u32>(11), nmi_unblocking = bit<u32>(12), valid = bit<u32>(31);
constexpr u32 type_external = 0, type_nmi = 2, type_hardware_exception = 3, type_software_interrupt = 4,
              type_privileged_software_exception = 5, type_software_exception = 6, type_other = 7;
[[nodiscard]] constexpr u32 type_of(u32 information) {
    return static_cast<u32>(extract(information, 10, 8));
}
[[nodiscard]] constexpr u8 vector_of(u32 information) {
    return static_cast<u8>(information);
}
}  // namespace interruption

// Access rights of a segment in the VMCS.
namespace access_rights {
constexpr u32 unusable = bit<u32>(16);
constexpr u32 descriptor_bits = 0xF0FF;  // type, S, DPL, P; AVL, L, D/B, G
}  // namespace access_rights

// True for the exceptions that push an error code (SDM Vol. 3A, table 6-1).
[[nodiscard]] constexpr bool pushes_error_code(u8 vector) {
    constexpr u32 vectors = bit<u32>(8) | bit<u32>(10) | bit<u32>(11) | bit<u32>(12) | bit<u32>(13) |
                            bit<u32>(14) | bit<u32>(17) | bit<u32>(21);
    return vector < 32 && has_bit(vectors, vector);
}

}  // namespace bulkhead::vmx
