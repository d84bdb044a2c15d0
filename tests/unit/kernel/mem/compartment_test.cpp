#include "kernel/mem/compartment.hpp"

#include "fake_table_memory.hpp"

using namespace bulkhead;

namespace {

constexpr PhysicalRange image{HostPhysical(2 * mib), 4 * mib};
constexpr PhysicalRange local_apic{HostPhysical(0xFEE0'0000), 4 * kib};

// A kernel with code, data and a device, as boot makes it.
struct Kernel {
    Kernel()
        : memory(host_paging),
          table(host_paging, memory, HostPageTable::make_root(host_paging, memory).value()) {
        REQUIRE(table.pin_top_slot(top_slot(image_window)));
        REQUIRE(table.pin_top_slot(top_slot(device_window)));
        REQUIRE(table.map(image_virtual(image.start), image.start, 2 * mib,
                          {.permissions = read_execute, .global = true}));
        REQUIRE(table.map(image_virtual(image.start + 2 * mib), image.start + 2 * mib, 2 * mib,
                          {.permissions = read_write, .global = true}));
        REQUIRE(table.map(device_virtual(local_apic.start), local_apic.start, local_apic.length,
                          {.permissions = read_write, .type = MemoryType::uncacheable, .global = true}));
    }
    FakeTableMemory memory;
    HostPageTable table;
};

constexpr UnitRun arena_a[] = {{HostPhysical(gib), 512}, {HostPhysical(64 * mib), 3}};
constexpr UnitRun arena_b[] = {{HostPhysical(2 * gib), 600}};
constexpr PhysicalRange module_range{HostPhysical(32 * mib), 12 * kib};

}  // namespace

TEST_CASE("the windows do not overlap, and addresses convert both ways") {
    CHECK(arena_window + arena_window_size == device_window);
    CHECK(image_physical(image_virtual(HostPhysical(0x20'1234))) == HostPhysical(0x20'1234));
    CHECK(arena_physical(arena_virtual(HostPhysical(5 * gib))) == HostPhysical(5 * gib));
    CHECK(in_image_window(image_virtual(HostPhysical(0))));
    CHECK_FALSE(in_image_window(arena_virtual(HostPhysical(0))));
    CHECK(in_arena_window(arena_virtual(HostPhysical(1024 * gib))));
    CHECK_FALSE(in_arena_window(device_virtual(HostPhysical(0))));
}

TEST_CASE("a compartment maps the kernel, its own memory and its modules, and nothing else") {
    Kernel kernel;
    const usize before = kernel.memory.live();
    auto a = Compartment::create(kernel.table, kernel.memory, arena_a, {{module_range}}, 3);
    auto b = Compartment::create(kernel.table, kernel.memory, arena_b, {}, 2);
    REQUIRE((a && b));

    const auto ram = a->table().lookup(arena_virtual(HostPhysical(gib + 5)));
    REQUIRE(ram);
    CHECK(*ram == Mapping{arena_window + gib, HostPhysical(gib), gib, {.permissions = read_write}});
    const auto module = a->table().lookup(arena_virtual(module_range.start));
    REQUIRE(module);
    CHECK(module->attributes == PageAttributes{.permissions = read_only});
    CHECK(a->table().lookup(image_virtual(HostPhysical(3 * mib)))->attributes.permissions == read_execute);
    CHECK(a->table().lookup(device_virtual(local_apic.start))->attributes.type == MemoryType::uncacheable);

    // A's space leads nowhere into B's memory, and the other way round.
    for (const UnitRun& run : arena_b) CHECK_FALSE(find_mapping_of(a->table(), {run.start, run.bytes()}));
    for (const UnitRun& run : arena_a) CHECK_FALSE(find_mapping_of(b->table(), {run.start, run.bytes()}));
    CHECK_FALSE(find_mapping_of(b->table(), module_range));
    CHECK(find_mapping_of(a->table(), {HostPhysical(gib + 100), 1}));

    const PhysicalRange allowed_a[] = {
        image, local_apic, {HostPhysical(gib), gib}, {HostPhysical(64 * mib), 6 * mib}, module_range};
    CHECK_FALSE(find_forbidden_mapping(a->table(), allowed_a));
    CHECK(find_forbidden_mapping(a->table(), std::span(allowed_a).first(4))->physical == module_range.start);
    CHECK(find_forbidden_mapping(b->table(), allowed_a)->physical == HostPhysical(2 * gib));

    // What the kernel maps later, all see; a compartment itself cannot change it.
    REQUIRE(kernel.table.map(device_virtual(HostPhysical(0xFEC0'0000)), HostPhysical(0xFEC0'0000), 4 * kib,
                             {.permissions = read_write, .type = MemoryType::uncacheable}));
    CHECK(a->table().lookup(device_virtual(HostPhysical(0xFEC0'0000))));
    CHECK(b->table().lookup(device_virtual(HostPhysical(0xFEC0'0000))));

    a->destroy();
    b->destroy();
    CHECK(kernel.memory.live() == before + 1);  // the I/O APIC took a table
    CHECK(kernel.table.lookup(image_virtual(image.start)));
}

TEST_CASE("a channel is mapped into both compartments and taken out again") {
    Kernel kernel;
    auto a = Compartment::create(kernel.table, kernel.memory, arena_a, {}, 3);
    auto b = Compartment::create(kernel.table, kernel.memory, arena_b, {}, 3);
    REQUIRE((a && b));
    const PhysicalRange channel{HostPhysical(8 * gib), 64 * kib};
    REQUIRE(a->add(channel, read_write));
    REQUIRE(b->add(channel, read_write_execute));  // never executable, whatever is asked
    CHECK(b->table().lookup(arena_virtual(channel.start))->attributes.permissions == read_write);
    CHECK_FALSE(a->add(channel, read_write));
    REQUIRE(a->remove(channel));
    CHECK_FALSE(find_mapping_of(a->table(), channel));
    CHECK(find_mapping_of(b->table(), channel));
}

TEST_CASE(
    "ranges that overlap, or lie beyond the window or the kernel's, are refused, and nothing is left "
    "behind") {
    Kernel kernel;
    const usize before = kernel.memory.live();
    constexpr UnitRun twice[] = {{HostPhysical(gib), 4}, {HostPhysical(gib + 2 * mib), 1}};
    CHECK_FALSE(Compartment::create(kernel.table, kernel.memory, twice, {}, 3));
    constexpr UnitRun beyond[] = {{HostPhysical(arena_window_size), 1}};
    CHECK_FALSE(Compartment::create(kernel.table, kernel.memory, beyond, {}, 3));
    constexpr UnitRun reaching[] = {{HostPhysical(arena_window_size - 2 * mib), 2}};
    CHECK_FALSE(Compartment::create(kernel.table, kernel.memory, reaching, {}, 3));
    CHECK_FALSE(
        Compartment::create(kernel.table, kernel.memory, arena_a, {{{HostPhysical(gib), 4 * kib}}}, 3));
    CHECK_FALSE(Compartment::create(kernel.table, kernel.memory, arena_a, {{{HostPhysical(5), 4 * kib}}}, 3));
    CHECK_FALSE(Compartment::create(kernel.table, kernel.memory, arena_a, {{{HostPhysical(0), 5}}}, 3));
    CHECK(kernel.memory.live() == before);
}

TEST_CASE("creation fails cleanly at every allocation") {
    Kernel kernel;
    const usize before = kernel.memory.live();
    u64 failures = 0;
    for (u64 at = 0;; ++at) {
        kernel.memory.begin();
        kernel.memory.fail_at = at;
        auto a = Compartment::create(kernel.table, kernel.memory, arena_a, {{module_range}}, 2);
        kernel.memory.fail_at = ~u64{0};
        if (a) {
            a->destroy();
            break;
        }
        ++failures;
        CHECK(kernel.memory.live() == before);
    }
    CHECK(failures >= 4);
    CHECK(kernel.memory.live() == before);
}
