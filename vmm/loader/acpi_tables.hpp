// The guest's ACPI tables (ACPI 5.0): RSDP (revision 2), XSDT and RSDT, FADT (revision 5), MADT, DSDT, SSDT,
// FACS. A PC with fixed hardware, not a hardware-reduced one: PM1a event and control, PM timer, reset
// register, SMI command port, PICs behind the I/O APIC. Absent: HPET, MCFG, PM1b, PM2, GPE blocks, C-states
// by FADT, sleep states other than S5.
//
// The MADT overrides ISA interrupt 0 (to GSI 2) and the SCI (level-triggered, active-high: the polarity the
// other ISA lines have, so that the I/O APIC's model needs no inverter for it). APIC IDs of 255 and above,
// and processors numbered 255 and above, are x2APIC entries.
#pragma once

#include "kernel/base/result.hpp"
#include "vmm/guest_memory.hpp"
#include "vmm/loader/machine.hpp"

namespace bulkhead {

// Puts the RSDP at platform::rsdp and the rest into `zone`, platform::acpi_zone_size bytes of which the last
// page, ACPI NVS to the memory map, takes the FACS.
[[nodiscard]] Result<> write_acpi_tables(GuestMemory& memory, GuestPhysical zone,
                                         const MachineDescription& machine);

}  // namespace bulkhead
