// The ACPI objects that vary from VM to VM, written straight in AML (ACPI 5.0, chapter 20): serial ports, the
// keyboard controller, virtio-mmio devices, processors.
#pragma once

#include "vmm/loader/byte_writer.hpp"
#include "vmm/loader/machine.hpp"

namespace bulkhead {

// Appends the term list that belongs behind an SSDT's header.
void put_ssdt_terms(ByteWriter& out, const MachineDescription& machine);

}  // namespace bulkhead
