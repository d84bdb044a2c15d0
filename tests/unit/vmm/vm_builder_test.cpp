#include "vmm/vm_builder.hpp"

#include <set>

#include "kernel/mem/isolation.hpp"
#include "vm_bench.hpp"

using namespace bulkhead;
using namespace bulkhead::platform;

namespace {

constexpr u64 arena_start = 2 * mib;

// A VM of any size in RAM of any runs, built without being powered on: nothing but tables is touched.
struct Site {
    explicit Site(VmBlueprint given, std::vector<UnitRun> given_runs, unsigned max_level = 3,
                  u64 arena_bytes = 0, AllocationFault* fault = nullptr)
        : runs(std::move(given_runs)), physical(top()), factory(machine), blueprint(given) {
        factory.max_level = max_level;
        blueprint.ram = runs;
        blueprint.window = physical.window();
        if (arena_bytes == 0) arena_bytes = arena_bytes_for(blueprint);
        arena_bytes = (arena_bytes + page_size - 1) / page_size * page_size;
        REQUIRE(arena.add({.base = physical.at(HostPhysical(arena_start)),
                           .physical = HostPhysical(arena_start),
                           .length = arena_bytes}));
        arena.set_fault(fault);
        result = build_virtual_machine(arena, blueprint, machine, factory, surroundings);
    }
    [[nodiscard]] u64 top() const {
        u64 end = 64 * mib;
        for (const UnitRun& run : runs) end = std::max(end, run.end().raw());
        return end;
    }
    [[nodiscard]] VirtualMachine& vm() { return **result; }
    [[nodiscard]] std::string error() const { return std::string(result.error().text.view()); }
    [[nodiscard]] std::optional<Mapping> lookup(u64 guest) {
        ArenaTableMemory tables(arena, physical.window());
        return NestedPageTable(ept_paging, tables, factory.parameters.at(0).nested_root)
            .lookup(GuestPhysical(guest));
    }
    // Where the nested table and the hypervisor's own view put a guest address; both must say the same.
    [[nodiscard]] std::optional<u64> host_of(u64 guest) {
        const auto mapping = lookup(guest);
        const u8* seen = vm().memory().at(GuestPhysical(guest), 1);
        CAPTURE(guest);
        REQUIRE(mapping.has_value() == (seen != nullptr));
        if (!mapping) return std::nullopt;
        const u64 host = mapping->physical.raw() + (guest - mapping->address);
        REQUIRE(seen == physical.at(HostPhysical(host)));
        return host;
    }

    std::vector<UnitRun> runs;
    FakeMachine machine;
    FakeMemory physical;
    FakeFactory factory;
    RecordingSurroundings surroundings;
    Arena arena;
    VmBlueprint blueprint;
    ::bulkhead::Result<VirtualMachine*> result = fail("not built");
};

UnitRun run_of(u64 start, u64 bytes) {
    return {HostPhysical(start), bytes / large_page_size};
}

}  // namespace

TEST_CASE("a small VM's RAM lies as in a PC: base memory, BIOS area, extended memory") {
    Site site({.vcpus = 1, .memory = 16 * mib}, {run_of(gib, 16 * mib)});
    REQUIRE(site.result);
    for (const u64 guest : {u64{0}, base_memory_end - 1, vga_text, bios_area - 1, bios_area,
                            bios_area_end - 1, high_memory, 2 * mib, 16 * mib - 1}) {
        CHECK(site.host_of(guest) == gib + guest);
    }
    for (const u64 guest : {vga_window, vga_text - 1, 16 * mib, u64{0x1234'5678}, mmio_hole, io_apic,
                            local_apic, mmio_hole_end - 1, mmio_hole_end, u64{1} << 40}) {
        CHECK_FALSE(site.host_of(guest));
    }
    CHECK(site.lookup(0)->attributes.permissions == read_write_execute);
    CHECK(site.lookup(bios_area)->attributes.permissions == read_execute);
    CHECK(site.lookup(bios_area_end - 1)->attributes.permissions == read_execute);
    CHECK(site.lookup(high_memory)->attributes.permissions == read_write_execute);
    CHECK(site.vm().memory().total_bytes() == 16 * mib - (vga_text - vga_window));
}

TEST_CASE("RAM beyond 3 GiB continues at 4 GiB, without a byte twice or lost") {
    Site site({.vcpus = 1, .memory = 5 * gib}, {run_of(8 * gib, 5 * gib)});
    REQUIRE(site.result);
    CHECK(site.host_of(mmio_hole - 1) == 8 * gib + 3 * gib - 1);
    CHECK_FALSE(site.host_of(mmio_hole));
    CHECK_FALSE(site.host_of(mmio_hole_end - 1));
    CHECK(site.host_of(mmio_hole_end) == 8 * gib + 3 * gib);
    CHECK(site.host_of(mmio_hole_end + 2 * gib - 1) == 8 * gib + 5 * gib - 1);
    CHECK_FALSE(site.host_of(mmio_hole_end + 2 * gib));
    // In gigabyte pages where they fit.
    CHECK(site.lookup(gib)->size == gib);
    CHECK(site.lookup(mmio_hole_end)->size == gib);
    CHECK(site.lookup(2 * mib)->size == 2 * mib);
}

TEST_CASE("exactly 3 GiB has no upper part, and one unit more has") {
    Site exact({.memory = 3 * gib}, {run_of(4 * gib, 3 * gib)});
    REQUIRE(exact.result);
    CHECK(exact.host_of(mmio_hole - 1) == 7 * gib - 1);
    CHECK_FALSE(exact.host_of(mmio_hole_end));
    Site more({.memory = 3 * gib + 2 * mib}, {run_of(4 * gib, 3 * gib + 2 * mib)});
    REQUIRE(more.result);
    CHECK(more.host_of(mmio_hole_end + 2 * mib - 1) == 7 * gib + 2 * mib - 1);
    CHECK_FALSE(more.host_of(mmio_hole_end + 2 * mib));
}

TEST_CASE("RAM of several runs follows on without a gap, wherever the cuts are") {
    const std::vector<std::vector<u64>> layouts = {
        {2 * mib, 6 * mib},                       // the first run ends below the first large page's end
        {4 * mib, 2 * mib, 2 * mib},              //
        {2 * mib, 2 * mib, 2 * mib, 2 * mib},     //
        {3 * gib, gib},                           // a cut at the hole
        {3 * gib - 2 * mib, 4 * mib, 512 * mib},  // across the hole
        {gib, gib, gib + 512 * mib, 512 * mib},   //
    };
    for (const auto& layout : layouts) {
        std::vector<UnitRun> runs;
        u64 at = 64 * mib, total = 0;
        for (const u64 length : layout) {
            runs.push_back(run_of(at, length));
            at += length + 10 * mib;
            total += length;
        }
        Site site({.memory = total}, runs);
        REQUIRE(site.result);
        // The expected host address of each offset of RAM.
        const auto expected = [&](u64 offset) {
            for (const UnitRun& run : runs) {
                if (offset < run.bytes()) return run.start.raw() + offset;
                offset -= run.bytes();
            }
            return ~u64{0};
        };
        u64 sum = 0;
        for (const UnitRun& run : runs) {
            for (const u64 offset : {sum, sum + run.bytes() - 1}) {
                const u64 low_end = std::min(total, mmio_hole);
                const u64 guest = offset < low_end ? offset : mmio_hole_end + (offset - low_end);
                if (guest >= vga_window && guest < vga_text) continue;
                CHECK(site.host_of(guest) == expected(offset));
            }
            sum += run.bytes();
        }
    }
}

TEST_CASE("a processor without large nested pages gets small ones") {
    Site site({.memory = 8 * mib}, {run_of(gib, 8 * mib)}, 1, 8 * mib);
    REQUIRE(site.result);
    CHECK(site.lookup(4 * mib)->size == page_size);
    Site middle({.memory = 2 * gib}, {run_of(gib, 2 * gib)}, 2);
    REQUIRE(middle.result);
    CHECK(middle.lookup(gib)->size == 2 * mib);
}

TEST_CASE("the estimate of the arena is enough for every size of VM") {
    for (const unsigned vcpus : {1U, 2U, 16U}) {
        for (const u64 memory : {4 * mib, 256 * mib, 3 * gib, 5 * gib, 40 * gib}) {
            for (const unsigned level : {2U, 3U}) {
                Site site({.vcpus = vcpus, .memory = memory}, {run_of(gib + 2 * mib, memory)}, level);
                CAPTURE(vcpus, memory, level);
                CHECK(site.result.has_value());
                CHECK(site.arena.free_bytes() > 0);
            }
        }
    }
}

TEST_CASE("every processor gets the same table, its own APIC page, and what its CPUID shows") {
    Site site({.number = 7, .vcpus = 4, .memory = 8 * mib}, {run_of(gib, 8 * mib)});
    REQUIRE(site.result);
    REQUIRE(site.factory.parameters.size() == 4);
    std::set<u64> pages;
    for (u16 i = 0; i < 4; ++i) {
        const BackendParameters& p = site.factory.parameters[i];
        CHECK(p.vm_number == 7);
        CHECK(p.vcpu_number == i);
        CHECK(p.nested_root == site.factory.parameters[0].nested_root);
        CHECK(p.memory == &site.vm().memory());
        CHECK(p.apic_page.physical.is_aligned(page_size));
        CHECK(p.apic_page.base == site.physical.at(p.apic_page.physical));
        CHECK(p.xcr0_supported == (xcr0::x87 | xcr0::sse | xcr0::avx | xcr0::avx512));
        CHECK((p.cr4_mask & cr4::vmxe) == 0);
        CHECK(p.rdtscp);
        CHECK(p.x2apic);
        pages.insert(p.apic_page.physical.raw());
    }
    CHECK(pages.size() == 4);
}

TEST_CASE("impossible blueprints are refused with what is possible") {
    Site none({.vcpus = 0, .memory = 8 * mib}, {run_of(gib, 8 * mib)});
    CHECK(none.error().find("0 vCPUs are out of range; a VM has 1 to 16") == 0);
    Site many({.vcpus = 17, .memory = 8 * mib}, {run_of(gib, 8 * mib)}, 3, 4 * mib);
    CHECK(many.error().find("17 vCPUs") == 0);
    Site tiny({.memory = min_guest_memory - mib}, {run_of(gib, 2 * mib)});
    CHECK(tiny.error().find("too few") != std::string::npos);
    Site shorter({.memory = 8 * mib}, {run_of(gib, 6 * mib)});
    CHECK(shorter.error().find("shorter than its map") != std::string::npos);
}

TEST_CASE("an allocation that fails at any point is an error, and the next attempt succeeds") {
    const VmBlueprint blueprint{.vcpus = 2, .memory = 8 * mib};
    u64 point = 0;
    for (;; ++point) {
        REQUIRE(point < 1000);
        AllocationFault fault{.fail_at = point};
        Site site(blueprint, {run_of(gib, 8 * mib)}, 3, 0, &fault);
        if (fault.seen <= point) {
            CHECK(site.result.has_value());
            break;
        }
        CAPTURE(point);
        CHECK_FALSE(site.result.has_value());
        CHECK_FALSE(site.error().empty());
        // What was made is forgotten at once, and the same memory serves again.
        site.arena.set_fault(nullptr);
        site.arena.release();
        CHECK(
            build_virtual_machine(site.arena, site.blueprint, site.machine, site.factory, site.surroundings));
    }
    CHECK(point > 20);
}

TEST_CASE("a backend that cannot be made, or an arena that is too small, is an error") {
    const VmBlueprint blueprint{.vcpus = 2, .memory = 8 * mib};
    for (const u64 at : {0, 1}) {
        Site site(blueprint, {run_of(gib, 8 * mib)});
        site.arena.release();
        site.factory.creations = 0;
        site.factory.fail_at = at;
        const auto again =
            build_virtual_machine(site.arena, site.blueprint, site.machine, site.factory, site.surroundings);
        REQUIRE_FALSE(again);
        CHECK(std::string(again.error().text.view()) == "the fake makes no more");
    }
    for (u64 pages = 1; pages < 24; pages += 2) {
        Site site(blueprint, {run_of(gib, 8 * mib)}, 3, pages * page_size);
        CHECK_FALSE(site.result.has_value());
    }
}

TEST_CASE("a VM's nested table leads to its own memory only, as far as one looks") {
    Site site({.vcpus = 2, .memory = 5 * gib},
              {run_of(4 * gib, 2 * gib), run_of(64 * mib, 512 * mib), run_of(7 * gib, 2560 * mib)});
    REQUIRE(site.result);
    REQUIRE(site.vm().nested_table());
    IsolationAudit audit;
    for (const UnitRun& run : site.runs) REQUIRE(audit.own(0, {run.start, run.bytes()}));
    REQUIRE(audit.own(0, {HostPhysical(arena_start), 4 * mib}));
    REQUIRE(audit.own(1, {HostPhysical(6 * gib), gib}));
    audit.inspect(*site.vm().nested_table(), 0);
    CHECK(audit.leaks() == 0);
    CHECK(audit.mappings() > 5);
    // Seen by anybody else, every one of the mappings is a leak.
    IsolationAudit stranger;
    for (const UnitRun& run : site.runs) REQUIRE(stranger.own(0, {run.start, run.bytes()}));
    REQUIRE(stranger.own(0, {HostPhysical(arena_start), 4 * mib}));
    stranger.inspect(*site.vm().nested_table(), 1);
    CHECK(stranger.leaks() >= stranger.mappings());
}
