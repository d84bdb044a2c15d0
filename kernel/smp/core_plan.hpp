// Which processors of the machine become cores, under which numbers, and where they start: decided before any
// of them is woken.
#pragma once

#include <optional>
#include <span>

#include "kernel/base/fixed_string.hpp"
#include "kernel/base/fixed_vector.hpp"
#include "kernel/bootinfo/acpi.hpp"
#include "kernel/bootinfo/boot_info.hpp"

namespace bulkhead {

struct PlannedCore {
    u32 apic_id = 0;
    u32 acpi_id = 0;           // its UID in the MADT
    FixedString<120> refusal;  // why it is not to be started; empty: it is
};

// About 10 KiB: belongs into static storage.
struct CorePlan {
    static constexpr usize max_cores = 64;

    // [0] is the core that booted, whatever its place in the MADT; the others follow in the MADT's order,
    // which spreads them over the packages as the firmware means it (ACPI 6.5, 5.2.12.1).
    FixedVector<PlannedCore, max_cores> cores;
    u32 left_out = 0;  // processors beyond max_cores
};

// `processors`: enabled ones. `max_cpus`: how many cores may run, the one that booted included.
void plan_cores(std::span<const AcpiProcessor> processors, u32 boot_apic_id, bool x2apic, u32 max_cpus,
                CorePlan& plan);

// A page of RAM below 640 KiB for the code at which cores start in real mode: the highest that no module
// occupies. Not page 0, where the interrupt vectors of real mode are.
[[nodiscard]] std::optional<HostPhysical> find_startup_page(const MemoryMap& memory,
                                                            std::span<const BootModule> modules);

}  // namespace bulkhead
