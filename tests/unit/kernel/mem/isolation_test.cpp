#include "kernel/mem/isolation.hpp"

#include <random>

#include "fake_table_memory.hpp"

using namespace bulkhead;

namespace {

constexpr UnitRun memory_of_a[] = {{HostPhysical(64 * mib), 3}, {HostPhysical(5 * gib), 600}};
constexpr UnitRun memory_of_b[] = {{HostPhysical(70 * mib), 1}, {HostPhysical(2 * gib), 512}};
constexpr PhysicalRange module_range{HostPhysical(32 * mib), 12 * kib};

// A kernel and two VMs, as the manager makes them.
struct Machine {
    Machine()
        : memory(host_paging),
          kernel(host_paging, memory, HostPageTable::make_root(host_paging, memory).value()) {
        REQUIRE(kernel.pin_top_slot(top_slot(image_window)));
        REQUIRE(kernel.pin_top_slot(top_slot(device_window)));
        REQUIRE(kernel.map(image_virtual(HostPhysical(2 * mib)), HostPhysical(2 * mib), 4 * mib,
                           {.permissions = read_execute, .global = true}));
        a = Compartment::create(kernel, memory, memory_of_a, {{module_range}}, 3).value();
        b = Compartment::create(kernel, memory, memory_of_b, {{module_range}}, 2).value();
        for (const UnitRun& run : memory_of_a) REQUIRE(audit.own(0, {run.start, run.bytes()}));
        for (const UnitRun& run : memory_of_b) REQUIRE(audit.own(1, {run.start, run.bytes()}));
    }
    void inspect_all() {
        audit.inspect(kernel, Leak::kernel);
        audit.inspect(a->table(), 0);
        audit.inspect(b->table(), 1);
    }
    FakeTableMemory memory;
    HostPageTable kernel;
    std::optional<Compartment> a, b;
    IsolationAudit audit;
};

std::string text_of(const Leak& leak) {
    FixedString<200> text;
    print(text, "{}", leak);
    return std::string(text.view());
}

}  // namespace

TEST_CASE("compartments as they are made leak nothing") {
    Machine m;
    m.inspect_all();
    CHECK(m.audit.leaks() == 0);
    CHECK(m.audit.shown().empty());
    CHECK(m.audit.tables() == 3);
    // The kernel's two large pages are seen in each; A: 3 units, 1 GiB, 88 units, 3 module pages; B: 1,
    // 512, 3.
    CHECK(m.audit.mappings() == 3 * 2 + 3 + 1 + 88 + 3 + 1 + 512 + 3);
}

TEST_CASE("one page of another VM in a compartment is found, wherever and however it is mapped") {
    const auto with = [](const PhysicalRange& range, Permissions permissions) {
        Machine m;
        REQUIRE(m.b->add(range, permissions));
        m.inspect_all();
        CHECK(m.audit.leaks() == 1);
        REQUIRE(m.audit.shown().size() == 1);
        const Leak leak = m.audit.shown()[0];
        CHECK(leak.viewer == 1);
        CHECK(leak.owner == 0);
        CHECK_FALSE(leak.nested);
        CHECK(leak.mapping.physical == range.start);
        return text_of(leak);
    };
    CHECK(with({HostPhysical(64 * mib), 4 * kib}, read_only) ==
          "VM 1's host table maps memory of VM 0: 0xffff800004000000 leads to 0x4000000+0x1000");
    (void)with({HostPhysical(70 * mib - 4 * kib), 4 * kib}, read_write);
    (void)with({HostPhysical(5 * gib), 4 * kib}, read_write);
    (void)with({HostPhysical(5 * gib + 600 * 2 * mib - 4 * kib), 4 * kib}, read_only);
}

TEST_CASE("a large page that only touches another VM's memory is found") {
    Machine m;
    // A 1 GiB page over 64 MiB and all around it.
    REQUIRE(m.kernel.map(HostVirtual(arena_window), HostPhysical(0), gib, {.permissions = read_only}));
    m.inspect_all();
    // A's memory and B's both lie in it.
    CHECK(m.audit.leaks() == 2);
    CHECK(text_of(m.audit.shown()[0]) ==
          "the kernel's host table maps memory of VM 0: 0xffff800000000000 leads to 0x0+0x40000000");
    CHECK(m.audit.shown()[1].owner == 1);
}

TEST_CASE("what the kernel shares with all shows up in all of them") {
    Machine m;
    REQUIRE(m.kernel.map(device_virtual(HostPhysical(2 * gib)), HostPhysical(2 * gib), 4 * kib,
                         {.permissions = read_write}));
    m.inspect_all();
    CHECK(m.audit.leaks() == 2);  // B may see its own
    CHECK(m.audit.shown()[0].viewer == Leak::kernel);
    CHECK(m.audit.shown()[1].viewer == 0);
}

TEST_CASE("a nested table that leads to another VM's memory is found") {
    Machine m;
    FakeTableMemory tables(npt_paging);
    NestedPageTable nested(npt_paging, tables, NestedPageTable::make_root(npt_paging, tables).value());
    REQUIRE(
        nested.map(GuestPhysical(0), HostPhysical(5 * gib), 4 * mib, {.permissions = read_write_execute}));
    m.audit.inspect(nested, 0);
    CHECK(m.audit.leaks() == 0);
    REQUIRE(nested.map(GuestPhysical(4 * mib), HostPhysical(2 * gib + 4 * kib), 4 * kib,
                       {.permissions = read_only}));
    m.audit.inspect(nested, 0);
    CHECK(m.audit.leaks() == 1);
    CHECK(text_of(m.audit.shown()[0]) ==
          "VM 0's nested table maps memory of VM 1: 0x400000 leads to 0x80001000+0x1000");
}

TEST_CASE("of many leaks all are counted and the first are shown") {
    Machine m;
    REQUIRE(m.a->add({HostPhysical(2 * gib), 100 * 4 * kib}, read_only));
    m.inspect_all();
    CHECK(m.audit.leaks() == 100);
    CHECK(m.audit.shown().size() == IsolationAudit::max_shown);
}

TEST_CASE("memory that two VMs own, or nobody can, is refused") {
    IsolationAudit audit;
    REQUIRE(audit.own(3, {HostPhysical(8 * mib), 4 * mib}));
    const auto twice = audit.own(4, {HostPhysical(10 * mib), 2 * mib});
    REQUIRE_FALSE(twice);
    CHECK(twice.error().text == "memory 0xa00000+0x200000 is given to VM 3 and to VM 4; report this");
    CHECK_FALSE(audit.own(4, {HostPhysical(6 * mib), 4 * mib}));
    CHECK_FALSE(audit.own(4, {HostPhysical(0), 64 * mib}));
    CHECK(audit.own(4, {HostPhysical(6 * mib), 2 * mib}));
    CHECK(audit.own(4, {HostPhysical(12 * mib), 2 * mib}));
    CHECK_FALSE(audit.own(4, {HostPhysical(0), 0}));
    CHECK_FALSE(audit.own(4, {HostPhysical(~u64{0} - 5), 2 * mib}));
    CHECK_FALSE(audit.own(Leak::kernel, {HostPhysical(0), 2 * mib}));
    IsolationAudit full;
    for (usize i = 0; i < IsolationAudit::max_ranges; ++i)
        REQUIRE(full.own(static_cast<u16>(i % 64), {HostPhysical(i * 2 * mib), 2 * mib}));
    CHECK_FALSE(full.own(0, {HostPhysical(64 * gib), 2 * mib}));
}

TEST_CASE("random mappings leak exactly as looking at every range says") {
    std::mt19937 random(7);
    const auto up_to = [&](u64 n) { return std::uniform_int_distribution<u64>(0, n)(random); };
    for (unsigned round = 0; round < 50; ++round) {
        FakeTableMemory memory(host_paging);
        HostPageTable table(host_paging, memory, HostPageTable::make_root(host_paging, memory).value());
        IsolationAudit audit;
        std::vector<std::pair<u16, PhysicalRange>> owned;
        for (unsigned i = 0; i < 40; ++i) {
            const PhysicalRange range{HostPhysical(up_to(2000) * 2 * mib), (1 + up_to(20)) * 2 * mib};
            const auto owner = static_cast<u16>(up_to(5));
            bool free = true;
            for (const auto& [who, other] : owned) free = free && !other.overlaps(range);
            CHECK(audit.own(owner, range).has_value() == free);
            if (free) owned.emplace_back(owner, range);
        }
        u64 expected = 0;
        for (unsigned i = 0; i < 60; ++i) {
            const u64 size = std::array<u64, 3>{4 * kib, 2 * mib, gib}[up_to(2)];
            const HostPhysical start(up_to(5 * gib / size) * size);
            const HostVirtual address(arena_window + i * gib);
            REQUIRE(table.map(address, start, size, {.permissions = read_only}));
            for (const auto& [who, range] : owned) expected += who != 2 && range.overlaps({start, size});
        }
        audit.inspect(table, 2);
        CHECK(audit.mappings() == 60);
        CHECK(audit.leaks() == expected);
    }
}

TEST_CASE("what is out of reach is tried in every unit and at its end") {
    std::vector<u64> tried;
    const auto all = [&](HostPhysical physical) {
        tried.push_back(physical.raw());
        return true;
    };
    CHECK_FALSE(first_reachable({HostPhysical(4 * mib), 6 * mib}, all));
    CHECK(tried == std::vector<u64>{4 * mib, 6 * mib, 8 * mib, 10 * mib - 1});
    CHECK_FALSE(first_reachable({HostPhysical(4 * mib), 0}, [](HostPhysical) { return false; }));
    const auto not_at_the_end = [](HostPhysical physical) { return physical.raw() != 10 * mib - 1; };
    CHECK(first_reachable({HostPhysical(4 * mib), 6 * mib}, not_at_the_end) == HostPhysical(10 * mib - 1));
    const auto not_in_the_middle = [](HostPhysical physical) { return physical.raw() != 8 * mib; };
    CHECK(first_reachable({HostPhysical(4 * mib), 6 * mib}, not_in_the_middle) == HostPhysical(8 * mib));
}
