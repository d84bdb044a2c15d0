// What a BIOS leaves behind in low memory: the interrupt vectors, the BIOS data area at 40:0, the extended
// one, and the few bytes of ROM that old software looks at or jumps to. There is no BIOS behind it: every
// vector points to an IRET, and the reset entry at F000:FFF0 resets the machine. BIOS data area as in the IBM
// PC/AT Technical Reference (1984), with the VGA's additions.
#pragma once

#include "kernel/base/result.hpp"
#include "vmm/guest_memory.hpp"
#include "vmm/loader/machine.hpp"

namespace bulkhead {

// The VM's state is text mode 3: 80 columns, 25 lines of 16 scan lines, which the BIOS data area says and
// the boot protocols repeat to the kernel.
[[nodiscard]] Result<> write_bios_area(GuestMemory& memory, const MachineDescription& machine);

}  // namespace bulkhead
