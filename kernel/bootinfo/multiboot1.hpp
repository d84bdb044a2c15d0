// The information a Multiboot 1 loader leaves in memory. Multiboot Specification 0.6.96, 3.3 "Boot
// information format".
#pragma once

#include "kernel/bootinfo/boot_info.hpp"
#include "kernel/bootinfo/physical_reader.hpp"

namespace bulkhead::multiboot1 {

constexpr u32 loader_magic = 0x2BADB002;  // in EAX

// `address` is EBX. Overwrites `info`. Unknown fields are ignored; drives, the APM table, VBE data and a.out
// symbols are not looked at.
[[nodiscard]] Result<> parse(PhysicalReader& reader, HostPhysical address, BootInfo& info);

}  // namespace bulkhead::multiboot1
