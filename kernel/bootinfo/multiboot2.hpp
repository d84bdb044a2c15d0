// The information a Multiboot 2 loader leaves in memory. Multiboot2 Specification 2.0, 3.6 "Boot information
// format".
#pragma once

#include "kernel/bootinfo/boot_info.hpp"
#include "kernel/bootinfo/physical_reader.hpp"

namespace bulkhead::multiboot2 {

constexpr u32 loader_magic = 0x36D76289;  // in EAX

// `address` is EBX. Overwrites `info`. Tags it does not know are ignored.
[[nodiscard]] Result<> parse(PhysicalReader& reader, HostPhysical address, BootInfo& info);

}  // namespace bulkhead::multiboot2
