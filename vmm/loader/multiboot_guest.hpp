// The boot loader's side of Multiboot 1 (specification 0.6.96) and Multiboot 2 (specification 2.0): kernels
// in ELF (32 or 64 bits) or with address fields are loaded, modules put behind them at page boundaries, and
// the information structure written to conventional memory. Information supplied: memory sizes, memory map,
// command line, loader name, modules; Multiboot 1: text framebuffer if the header asks for a video mode;
// Multiboot 2: text framebuffer, both ACPI root pointers, load base. Not supplied: boot device, symbols,
// drives, configuration table, APM, VBE, EFI, network. Machine state: 32-bit protected mode, flat segments,
// no paging, A20 open, EAX the magic number, EBX the information.
#pragma once

#include "vmm/loader/boot_data.hpp"

namespace bulkhead {

[[nodiscard]] Result<> load_multiboot1(const LoadContext& context, StartState& state);
[[nodiscard]] Result<> load_multiboot2(const LoadContext& context, StartState& state);

}  // namespace bulkhead
