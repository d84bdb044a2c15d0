// From the VMCS's exit-information fields to the neutral Exit. Reads only the fields that the reason has.
// Intel SDM Vol. 3C, 28.2, and Vol. 3D, appendix C (June 2023 edition).
#pragma once

#include "arch/x86/vmx/vmcs_access.hpp"
#include "kernel/base/bits.hpp"
#include "vmm/exit.hpp"

namespace bulkhead::vmx {

namespace basic_exit_reason {
constexpr u16 exception_or_nmi = 0, external_interrupt = 1, triple_fault = 2, init_signal = 3,
              startup_ipi = 4, io_smi = 5, other_smi = 6, interrupt_window = 7, nmi_window = 8,
              task_switch = 9, cpuid = 10, getsec = 11, hlt = 12, invd = 13, invlpg = 14, rdpmc = 15,
              rdtsc = 16, rsm = 17, vmcall = 18, vmclear = 19, vmlaunch = 20, vmptrld = 21, vmptrst = 22,
              vmread = 23, vmresume = 24, vmwrite = 25, vmxoff = 26, vmxon = 27, control_register = 28,
              mov_dr = 29, io_instruction = 30, rdmsr = 31, wrmsr = 32, entry_failure_guest_state = 33,
              entry_failure_msr_loading = 34, mwait = 36, monitor_trap_flag = 37, monitor = 39, pause = 40,
              entry_failure_machine_check = 41, tpr_below_threshold = 43, apic_access = 44,
              virtualized_eoi = 45, access_to_gdtr_or_idtr = 46, access_to_ldtr_or_tr = 47,
              ept_violation = 48, ept_misconfiguration = 49, invept = 50, rdtscp = 51, preemption_timer = 52,
              invvpid = 53, wbinvd = 54, xsetbv = 55, apic_write = 56, rdrand = 57, invpcid = 58, vmfunc = 59,
              encls = 60, rdseed = 61, pml_full = 62, xsaves = 63, xrstors = 64, pconfig = 65, spp_event = 66,
              umwait = 67, tpause = 68, loadiwkey = 69, enclv = 70, enqcmd_pasid = 72, enqcmds_pasid = 73,
              bus_lock = 74, instruction_timeout = 75, seamcall = 76, tdcall = 77;
}

// Of an exit that an instruction caused.
[[nodiscard]] inline u8 instruction_length() {
    return static_cast<u8>(vmcs::read(vmcs::vm_exit_instruction_length) & 0xF);
}

// What the exit qualification says of IN, OUT, INS or OUTS.
[[nodiscard]] inline PortAccess port_access(u64 qualification) {
    return {.port = Port(static_cast<u16>(extract(qualification, 31, 16))),
            .size = static_cast<u8>(extract(qualification, 2, 0) + 1),
            .in = has_bit(qualification, 3),
            .string = has_bit(qualification, 4),
            .repeat = has_bit(qualification, 5)};
}

// What the VM-exit instruction information says of INS or OUTS, on processors that report it.
inline void describe_string(PortAccess& access) {
    const u32 information = vmcs::read(vmcs::vm_exit_instruction_information);
    const u64 size = extract(information, 9, 7);       // 0: 16 bits, 1: 32, 2: 64
    const u64 segment = extract(information, 17, 15);  // ES CS SS DS FS GS; undefined for INS
    access.string_details = size <= 2 && (access.in || segment <= 5);
    access.address_size = static_cast<u8>(2u << (size & 3));
    access.segment = access.in ? SegmentName::es : static_cast<SegmentName>(segment);
}

// `reason`: the exit-reason field. The rest comes from the current VMCS, and from the guest's registers as of
// the exit. `instruction_information`: the processor reports it for INS and OUTS (Capabilities). Where
// re-entry wants it, the guest's NMI blocking and pending debug exceptions are put right: IRET that unblocked
// NMIs and then faulted has blocked them again (SDM Vol. 3C, 28.2.3).
[[nodiscard]] Exit decode_exit(u64 reason, const GeneralRegisters& registers, bool instruction_information);

}  // namespace bulkhead::vmx
