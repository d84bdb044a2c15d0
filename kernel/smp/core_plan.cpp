#include "kernel/smp/core_plan.hpp"

namespace bulkhead {
namespace {

// In xAPIC mode FFh means all cores. Intel SDM Vol. 3A, 11.6.2.1 (June 2023 edition).
constexpr u32 xapic_broadcast = 0xFF;
constexpr u32 x2apic_broadcast = 0xFFFF'FFFF;

}  // namespace

void plan_cores(std::span<const AcpiProcessor> processors, u32 boot_apic_id, bool x2apic, u32 max_cpus,
                CorePlan& plan) {
    plan.cores.clear();
    plan.left_out = 0;
    (void)plan.cores.push_back({.apic_id = boot_apic_id, .acpi_id = 0, .refusal = {}});
    for (const AcpiProcessor& processor : processors) {
        if (processor.apic_id == boot_apic_id) {
            plan.cores[0].acpi_id = processor.uid;
            continue;
        }
        bool twice = false;
        for (const PlannedCore& core : plan.cores) twice = twice || core.apic_id == processor.apic_id;
        if (twice) continue;
        PlannedCore core{.apic_id = processor.apic_id, .acpi_id = processor.uid, .refusal = {}};
        if (plan.cores.size() >= max_cpus) {
            print(core.refusal, "host option maxcpus={} leaves it out", max_cpus);
        } else if (processor.apic_id >= (x2apic ? x2apic_broadcast : xapic_broadcast)) {
            print(core.refusal, "HV-E045: no interrupt reaches an APIC ID this high without x2APIC");
        }
        if (!plan.cores.push_back(core)) ++plan.left_out;
    }
}

std::optional<HostPhysical> find_startup_page(const MemoryMap& memory, std::span<const BootModule> modules) {
    constexpr HostPhysical end(640 * kib);
    for (HostPhysical page = end - page_size; page.raw() != 0; page = page - page_size) {
        if (!memory.is_usable(page, page_size)) continue;
        bool taken = false;
        for (const BootModule& module : modules) {
            taken = taken || (module.start < page + page_size && page < module.end);
        }
        if (!taken) return page;
    }
    return std::nullopt;
}

}  // namespace bulkhead
