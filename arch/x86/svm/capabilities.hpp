// Which parts of AMD-V this processor has, and whether the hypervisor may use it at all.
// AMD APM Vol. 2, 15.4 (enabling SVM) and Vol. 3, CPUID Fn8000_000A (rev. 3.41).
#pragma once

#include "arch/x86/regs/cpuid.hpp"
#include "kernel/base/result.hpp"

namespace bulkhead::svm {

struct Capabilities {
    u32 asid_count = 0;  // ASIDs 0 (the host's) to asid_count - 1
    unsigned physical_address_bits = 36;
    bool next_rip = false;        // else the exiting instruction is decoded for its length
    bool decode_assists = false;  // else MOV CR and nested faults are decoded
    bool flush_by_asid = false;   // else a flush empties the whole TLB
    bool clean_bits = false;      // else every VMRUN reads the whole VMCB
    bool virtual_gif = false;
    bool pause_filter = false;
    bool page_1gb = false;
    // QEMU's emulation (7.2): an interrupt in EVENTINJ may be delivered a second time.
    bool repeats_injections = false;

    friend constexpr bool operator==(const Capabilities&, const Capabilities&) = default;
};

// The CPUID leaves that tell: 80000001h, 80000008h, 8000000Ah, and 40000000h, where an outer hypervisor or an
// emulator gives its name.
struct CapabilityLeaves {
    u32 max_extended = 0;
    CpuidResult extended1{};
    CpuidResult address_sizes{};
    CpuidResult svm{};
    CpuidResult outer{};
};

// Errors name what is missing and what to do: no SVM, no nested paging, too few ASIDs.
[[nodiscard]] Result<Capabilities> read_capabilities(const CapabilityLeaves& leaves);

// VM_CR (MSR C0010114h): the value it is to have. With SVMDIS locked the firmware forbids AMD-V; unlocked,
// SVMDIS is cleared.
[[nodiscard]] Result<u64> decide_vm_cr(u64 vm_cr);

}  // namespace bulkhead::svm
