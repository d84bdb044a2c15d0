// From a VM's images to a processor that can start: which kind of image the kernel is, everything put into
// RAM, the machine's tables written.
//
// What an automatic choice goes by, in this order:
//   1. bzImage: AA55h at 1FEh and "HdrS" at 202h;
//   2. Multiboot 2: its header in the first 32768 bytes;
//   3. Multiboot 1: its header in the first 8192 bytes;
//   4. PVH: ELF with the note XEN_ELFNOTE_PHYS32_ENTRY.
// Multiboot goes before PVH because a kernel with both (Xen) means PVH for running on a hypervisor only. A
// firmware ROM has nothing to be recognised by: it is one if BootImages::protocol says so.
#pragma once

#include "vmm/guest_memory.hpp"
#include "vmm/loader/machine.hpp"
#include "vmm/loader/start_state.hpp"

namespace bulkhead {

// What the file is by the order above; an error that says what was looked for if it is none of these.
[[nodiscard]] Result<BootProtocol> recognise_image(Bytes kernel);

// Loads the images into `memory`, which is laid out by platform::ram_pieces(), and returns how the first
// processor starts; the others wait for SIPI. For a firmware ROM nothing is written: it makes its own tables,
// and StartState::firmware says where to map it. For everything else there are ACPI tables, MP table and BIOS
// areas, and the chips are expected as a BIOS leaves them (bios_state.hpp).
// May be called again on the same memory, to start over: all it depends on is written anew. RAM besides that
// stays as it is.
[[nodiscard]] Result<StartState> load_guest(GuestMemory& memory, const BootImages& images,
                                            const MachineDescription& machine);

}  // namespace bulkhead
