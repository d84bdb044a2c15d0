// Where in conventional memory the loader puts what a kernel reads at its start. All of it is plain RAM in
// the memory map: a kernel copies what it wants to keep, as it does after any boot loader. Images are never
// loaded below 1 MiB, so nothing here can be overwritten by one.
#pragma once

#include "vmm/platform.hpp"

namespace bulkhead::layout {

constexpr GuestPhysical gdt{0x800};
constexpr GuestPhysical stack_top{0x7000};  // for kernels that push before they set their own stack
constexpr GuestPhysical boot_params{0x7000};
constexpr GuestPhysical page_tables{0x9000};  // PML4, PDPT, four page directories
constexpr u64 page_tables_size = 6 * page_size;
constexpr GuestPhysical info{0x10000};  // Multiboot information or PVH start info, with all its strings
constexpr u64 info_size = 0x10000;
constexpr GuestPhysical cmdline{0x20000};  // Linux's command line
constexpr u64 cmdline_size = 0x10000;

static_assert(page_tables.raw() + page_tables_size <= info.raw());
static_assert(cmdline.raw() + cmdline_size <= platform::ebda);

}  // namespace bulkhead::layout
