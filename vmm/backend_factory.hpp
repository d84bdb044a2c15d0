// Makes the vendor's part of a VM. The composition root chooses one of the two at boot; what they make lives
// in the VM's arena.
#pragma once

#include <string_view>

#include "arch/x86/paging/format.hpp"
#include "kernel/base/result.hpp"
#include "kernel/mem/arena.hpp"
#include "kernel/mem/page_table.hpp"
#include "vmm/guest_memory.hpp"
#include "vmm/vcpu_backend.hpp"

namespace bulkhead {

struct BackendParameters {
    HostPhysical nested_root{};  // of the VM's nested page table
    Arena::Pages apic_page{};    // the local APIC's register page, shared with hardware
    u16 vm_number = 0;           // below 64; different for each VM
    u16 vcpu_number = 0;         // below 16
    u64 xcr0_supported = 0;      // the components the guest may enable: what has to be switched
    u64 cr4_mask = 0;            // bits that the guest's CPUID lets it set
    bool rdtscp = false;         // its CPUID shows RDTSCP or RDPID
    bool invpcid = false;        // its CPUID shows INVPCID
    const GuestMemory* memory = nullptr;
    bool x2apic = true;
};

class BackendFactory {
  public:
    [[nodiscard]] virtual std::string_view name() const = 0;  // "VT-x", "AMD-V"
    [[nodiscard]] virtual const PagingFormat& nested_format() const = 0;
    [[nodiscard]] virtual unsigned nested_max_level() const = 0;  // 1: 4 KiB, 2: 2 MiB, 3: 1 GiB pages
    [[nodiscard]] virtual ApicAssist apic_assist() const = 0;

    // What the hardware wants mapped at the local APIC's address, if anything.
    [[nodiscard]] virtual Result<> map_apic_access(NestedPageTable& nested, Arena& arena) = 0;
    [[nodiscard]] virtual Result<VcpuBackend*> create(Arena& arena, const BackendParameters& parameters) = 0;

  protected:
    ~BackendFactory() = default;
};

}  // namespace bulkhead
