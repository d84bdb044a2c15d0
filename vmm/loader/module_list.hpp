// The files that go with a Multiboot or PVH kernel, and their place in RAM.
#pragma once

#include "vmm/loader/boot_data.hpp"
#include "vmm/loader/elf.hpp"

namespace bulkhead {

struct PlacedModule {
    u64 start = 0;
    u64 size = 0;
    std::string_view cmdline;
};

// More modules than any real system is started with; a bound for tables on the stack's account.
constexpr usize max_modules = 16;
using ModuleList = FixedVector<PlacedModule, max_modules>;

// The initrd, if any, under the command line "initrd", then the modules. A module without a command line goes
// by its name.
[[nodiscard]] usize count_modules(const BootImages& images);

// Copies them one behind the other, each at a page boundary, to the RAM that follows the kernel.
[[nodiscard]] Result<> place_modules(const LoadContext& context, const LoadedRange& kernel,
                                     ModuleList& modules);

}  // namespace bulkhead
