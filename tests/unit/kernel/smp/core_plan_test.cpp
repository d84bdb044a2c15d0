#include "kernel/smp/core_plan.hpp"

#include <catch2/catch.hpp>
#include <memory>
#include <vector>

using namespace bulkhead;

namespace {

std::unique_ptr<CorePlan> planned(std::vector<AcpiProcessor> processors, u32 boot_id, bool x2apic = false,
                                  u32 max_cpus = 256) {
    auto plan = std::make_unique<CorePlan>();
    plan_cores(processors, boot_id, x2apic, max_cpus, *plan);
    return plan;
}

std::vector<AcpiProcessor> numbered(u32 count) {
    std::vector<AcpiProcessor> processors;
    for (u32 i = 0; i < count; ++i) processors.push_back({.apic_id = i, .uid = 100 + i});
    return processors;
}

}  // namespace

TEST_CASE("the core that booted is core 0 wherever the MADT has it, the others keep the MADT's order") {
    const auto plan =
        planned({{.apic_id = 4, .uid = 1}, {.apic_id = 2, .uid = 2}, {.apic_id = 9, .uid = 3}}, 2);
    REQUIRE(plan->cores.size() == 3);
    REQUIRE(plan->cores[0].apic_id == 2);
    REQUIRE(plan->cores[0].acpi_id == 2);
    REQUIRE(plan->cores[1].apic_id == 4);
    REQUIRE(plan->cores[2].apic_id == 9);
    REQUIRE(plan->cores[2].acpi_id == 3);
    for (const PlannedCore& core : plan->cores) REQUIRE(core.refusal.empty());
}

TEST_CASE("a machine whose tables name no processor, or not the one that booted, has that one") {
    REQUIRE(planned({}, 7)->cores.size() == 1);
    REQUIRE(planned({}, 7)->cores[0].apic_id == 7);
    const auto plan = planned({{.apic_id = 1, .uid = 1}}, 7);
    REQUIRE(plan->cores.size() == 2);
    REQUIRE(plan->cores[0].apic_id == 7);
    REQUIRE(plan->cores[1].apic_id == 1);
}

TEST_CASE("an APIC ID that is listed twice is one core") {
    const auto plan = planned({{.apic_id = 0, .uid = 0},
                               {.apic_id = 1, .uid = 1},
                               {.apic_id = 1, .uid = 2},
                               {.apic_id = 0, .uid = 3}},
                              0);
    REQUIRE(plan->cores.size() == 2);
    REQUIRE(plan->cores[1].acpi_id == 1);
}

TEST_CASE("maxcpus counts the core that booted; the others are listed with the reason") {
    const auto plan = planned(numbered(4), 0, false, 2);
    REQUIRE(plan->cores.size() == 4);
    REQUIRE(plan->cores[1].refusal.empty());
    REQUIRE(plan->cores[2].refusal == "host option maxcpus=2 leaves it out");
    REQUIRE(plan->cores[3].refusal == "host option maxcpus=2 leaves it out");
    REQUIRE(planned(numbered(4), 0, false, 1)->cores[1].refusal == "host option maxcpus=1 leaves it out");
}

TEST_CASE("sixty-four cores are used, processors beyond are counted") {
    const auto plan = planned(numbered(80), 79);
    REQUIRE(plan->cores.size() == 64);
    REQUIRE(plan->cores[0].apic_id == 79);
    REQUIRE(plan->cores[63].apic_id == 62);
    REQUIRE(plan->left_out == 16);
    REQUIRE(planned(numbered(64), 0)->left_out == 0);
}

TEST_CASE("an APIC ID that means all cores, or more than eight bits can say, needs x2APIC") {
    const std::vector<AcpiProcessor> processors = {{.apic_id = 0, .uid = 0},
                                                   {.apic_id = 254, .uid = 1},
                                                   {.apic_id = 255, .uid = 2},
                                                   {.apic_id = 300, .uid = 3}};
    const auto xapic = planned(processors, 0, false);
    REQUIRE(xapic->cores[1].refusal.empty());
    REQUIRE(xapic->cores[2].refusal.view().starts_with("HV-E045"));
    REQUIRE(xapic->cores[3].refusal.view().starts_with("HV-E045"));
    const auto x2apic = planned(processors, 0, true);
    for (const PlannedCore& core : x2apic->cores) REQUIRE(core.refusal.empty());
}

TEST_CASE("cores start on the highest page below 640 KiB that is RAM and no module's") {
    const auto page_in = [](std::vector<MemoryRange> ranges, std::vector<BootModule> modules = {}) {
        auto map = std::make_unique<MemoryMap>();
        for (const MemoryRange& range : ranges) REQUIRE(map->add(range.start, range.length, range.kind));
        return find_startup_page(*map, modules);
    };
    const MemoryRange low{.start = HostPhysical(0), .length = 0x9FC00, .kind = MemoryKind::usable};
    const MemoryRange high{.start = HostPhysical(mib), .length = mib, .kind = MemoryKind::usable};
    // The extended BIOS data area ends the usable part within page 9Fh.
    REQUIRE(page_in({low, high}) == HostPhysical(0x9E000));
    REQUIRE(page_in({{.start = HostPhysical(0), .length = mib, .kind = MemoryKind::usable}}) ==
            HostPhysical(0x9F000));
    const BootModule module{
        .start = HostPhysical(0x9D800), .end = HostPhysical(0x9E001), .name = {}, .rest = {}};
    REQUIRE(page_in({low}, {module}) == HostPhysical(0x9C000));

    // Never page 0, never above.
    REQUIRE(page_in({{.start = HostPhysical(0), .length = 0x1FFF, .kind = MemoryKind::usable}, high}) ==
            std::nullopt);
    REQUIRE(page_in({{.start = HostPhysical(0), .length = 0x2000, .kind = MemoryKind::usable}}) ==
            HostPhysical(0x1000));
    REQUIRE(page_in({high}) == std::nullopt);
    REQUIRE(
        page_in({low, {.start = HostPhysical(0x1000), .length = 0x9F000, .kind = MemoryKind::reserved}}) ==
        std::nullopt);
}
