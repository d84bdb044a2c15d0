// GDT, TSS and IDT. Intel SDM Vol. 3A, chapters 3, 6 and 7 (June 2023 edition).
#pragma once

#include "arch/x86/cpu/per_cpu.hpp"
#include "kernel/base/types.hpp"

namespace bulkhead {

constexpr u16 code_selector = 0x08;
constexpr u16 data_selector = 0x10;

// Where the world switch finds what the processor wants as host state.
[[nodiscard]] u16 tss_selector(u32 cpu);
[[nodiscard]] HostVirtual tss_address(u32 cpu);
[[nodiscard]] HostVirtual gdt_address();
[[nodiscard]] HostVirtual idt_address();
[[nodiscard]] HostVirtual core_data_address(u32 cpu);

// The public data of any core; `cpu` < max_cpus.
[[nodiscard]] CoreData& core_data(u32 cpu);

// Loads GDT, TSS, IDT and GS base on the running core, which becomes core `cpu`. Traps work from here on.
void load_descriptor_tables(u32 cpu);

}  // namespace bulkhead
