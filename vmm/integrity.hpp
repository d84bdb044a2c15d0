// What a healthy hypervisor never changes, as numbers: an operator or a test compares them before and after.
#pragma once

#include "kernel/base/types.hpp"

namespace bulkhead {

struct Integrity {
    u64 text_checksum = 0;   // of the hypervisor's text and constants: 64-bit FNV-1a
    u64 table_checksum = 0;  // of what the kernel's page tables map, where, with which rights
    u64 free_pages = 0;      // of the kernel's own pool
    u64 free_units = 0;      // of 2 MiB, for VMs
};

}  // namespace bulkhead
