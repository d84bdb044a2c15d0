// What the boot protocols' loaders share: their input, and the pieces of boot data that are not a protocol's
// own.
#pragma once

#include "vmm/loader/e820.hpp"
#include "vmm/loader/machine.hpp"
#include "vmm/loader/start_state.hpp"

namespace bulkhead {

struct LoadContext {
    GuestMemory& memory;
    const GuestMemoryMap& map;
    const BootImages& images;
    const MachineDescription& machine;
};

// Writes the descriptor table for `mode` at layout::gdt.
[[nodiscard]] Result<> write_boot_gdt(GuestMemory& memory, StartState::Mode mode);

// Writes page tables at layout::page_tables that map the first 4 GiB to themselves in 2 MiB pages.
[[nodiscard]] Result<> write_identity_tables(GuestMemory& memory);

}  // namespace bulkhead
