// ELF kernels with a PVH entry point, as Linux's vmlinux and others have: the x86/HVM direct boot ABI of Xen
// (docs/misc/pvh.pandoc and xen/include/public/arch-x86/hvm/start_info.h, Xen 4.17). The entry point is in
// the note XEN_ELFNOTE_PHYS32_ENTRY; EBX points to start info, version 1, with memory map, command line, the
// modules and the ACPI root pointer.
#pragma once

#include "vmm/loader/boot_data.hpp"
#include "vmm/loader/elf.hpp"

namespace bulkhead {

// The entry point by the note; nothing if there is none or it is not 4 or 8 bytes.
[[nodiscard]] std::optional<u64> find_pvh_entry(const ElfImage& image);

// Modules: the initrd, if there is one, then context.images.modules.
[[nodiscard]] Result<> load_pvh(const LoadContext& context, StartState& state);

}  // namespace bulkhead
