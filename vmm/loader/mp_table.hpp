// The MultiProcessor floating pointer and configuration table (Intel MultiProcessor Specification 1.4, May
// 1997, chapter 4), for systems that do not read ACPI.
// Described: processors with APIC IDs below 255, PCI bus 0 and the ISA bus, one I/O APIC, the ISA and PCI
// interrupts of platform.hpp, ExtINT on LINT0 (virtual wire mode by the local APIC), NMI on LINT1. The I/O
// APIC's pin 0, where the PICs' output arrives too, is not listed: nobody sets it to ExtINT before the system
// starts, which systems take for granted of pins listed so. No extended entries.
#pragma once

#include "kernel/base/result.hpp"
#include "vmm/guest_memory.hpp"
#include "vmm/loader/machine.hpp"

namespace bulkhead {

// Writes both at platform::mp_table.
[[nodiscard]] Result<> write_mp_table(GuestMemory& memory, const MachineDescription& machine);

}  // namespace bulkhead
