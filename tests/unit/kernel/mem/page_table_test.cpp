#include "kernel/mem/page_table.hpp"

#include <random>

#include "fake_table_memory.hpp"

using namespace bulkhead;

namespace {

const PagingFormat* const formats[] = {&host_paging, &ept_paging, &npt_paging};

// A page table of any format over the fake memory.
struct Fixture {
    explicit Fixture(const PagingFormat& format)
        : memory(format), table(format, memory, PageTableAlgorithm::make_root(format, memory).value()) {
        memory.roots.push_back(table.root());
        memory.begin();
    }
    FakeTableMemory memory;
    PageTableAlgorithm table;
};

// What a page table means: intervals, coalesced.
class Model {
  public:
    struct Interval {
        u64 end;
        u64 physical;
        PageAttributes attributes;
        bool operator==(const Interval&) const = default;
    };
    bool overlaps(u64 start, u64 end) const {
        auto next = map_.lower_bound(start);
        if (next != map_.end() && next->first < end) return true;
        return next != map_.begin() && std::prev(next)->second.end > start;
    }
    void add(u64 start, u64 end, u64 physical, const PageAttributes& attributes) {
        map_[start] = {end, physical, attributes};
    }
    void cut(u64 at) {
        auto next = map_.upper_bound(at);
        if (next == map_.begin()) return;
        auto& [start, interval] = *std::prev(next);
        if (start >= at || interval.end <= at) return;
        map_[at] = {interval.end, interval.physical + (at - start), interval.attributes};
        interval.end = at;
    }
    void remove(u64 start, u64 end) {
        cut(start);
        cut(end);
        map_.erase(map_.lower_bound(start), map_.lower_bound(end));
    }
    void protect(u64 start, u64 end, const PageAttributes& attributes) {
        cut(start);
        cut(end);
        for (auto it = map_.lower_bound(start); it != map_.lower_bound(end); ++it)
            it->second.attributes = attributes;
    }
    std::map<u64, Interval> coalesced() const {
        std::map<u64, Interval> result;
        for (const auto& [start, interval] : map_) append(result, start, interval);
        return result;
    }
    static void append(std::map<u64, Interval>& to, u64 start, const Interval& interval) {
        if (!to.empty()) {
            auto& [last_start, last] = *to.rbegin();
            if (last.end == start && last.attributes == interval.attributes &&
                last.physical + (last.end - last_start) == interval.physical) {
                last.end = interval.end;
                return;
            }
        }
        to[start] = interval;
    }

  private:
    std::map<u64, Interval> map_;
};

std::map<u64, Model::Interval> meaning(const PageTableAlgorithm& table) {
    std::map<u64, Model::Interval> result;
    u64 previous_end = 0;
    table.visit([&](const Mapping& m) {
        if (m.address < previous_end) FAIL("leaves overlap or do not ascend");
        previous_end = m.address + m.size;
        Model::append(result, m.address, {m.address + m.size, m.physical.raw(), m.attributes});
        return true;
    });
    return result;
}

std::map<u64, u64> page_sizes(const PageTableAlgorithm& table) {
    std::map<u64, u64> count;
    table.visit([&](const Mapping& m) { return ++count[m.size], true; });
    return count;
}

constexpr PageAttributes ram{.permissions = read_write};

}  // namespace

TEST_CASE("the largest pages that alignment, length and the limit allow are used") {
    for (const PagingFormat* format : formats) {
        INFO(format->name);
        Fixture f(*format);
        // 4 KiB before a 2 MiB boundary, then up to a 1 GiB boundary, one 1 GiB page, and a tail.
        const u64 start = gib - 2 * mib - 4 * kib;
        REQUIRE(f.table.map(start, HostPhysical(7 * gib + start), 4 * kib + 2 * mib + gib + 4 * mib + 8 * kib,
                            ram));
        CHECK(page_sizes(f.table) == std::map<u64, u64>{{4 * kib, 3}, {2 * mib, 3}, {gib, 1}});
        CHECK(meaning(f.table).size() == 1);

        REQUIRE(f.table.map(16 * gib, HostPhysical(16 * gib), gib, ram, 2));
        CHECK(page_sizes(f.table)[2 * mib] == 3 + 512);
        // Misaligned to each other by 4 KiB: small pages only.
        REQUIRE(f.table.map(32 * gib, HostPhysical(32 * gib + 4 * kib), 4 * mib, ram));
        CHECK(page_sizes(f.table)[4 * kib] == 3 + 1024);
        CHECK(f.memory.flushes.empty());  // nothing was present before
        CHECK(f.table.table_count() == f.memory.live());
    }
}

TEST_CASE("a lookup gives the leaf: address, size and attributes") {
    Fixture f(ept_paging);
    REQUIRE(f.table.map(2 * mib, HostPhysical(6 * mib), 2 * mib, ram));
    const auto mapping = f.table.lookup(3 * mib + 5);
    REQUIRE(mapping);
    CHECK(*mapping == Mapping{2 * mib, HostPhysical(6 * mib), 2 * mib, ram});
    CHECK_FALSE(f.table.lookup(2 * mib - 1));
    CHECK_FALSE(f.table.lookup(4 * mib));
    CHECK_FALSE(f.table.lookup(~u64{0}));
    CHECK_FALSE(f.table.lookup(bit(48) + 2 * mib));
}

TEST_CASE("host addresses are canonical, and both halves and the very top can be mapped") {
    Fixture f(host_paging);
    const u64 top = 0xFFFF'FFFF'FFE0'0000;
    REQUIRE(f.table.map(top, HostPhysical(2 * mib), 2 * mib, ram));
    CHECK(f.table.lookup(~u64{0})->physical == HostPhysical(2 * mib));
    REQUIRE(f.table.map(0x7FFF'FFE0'0000, HostPhysical(0), 2 * mib, ram));
    CHECK_FALSE(f.table.map(0x8000'0000'0000, HostPhysical(0), 4 * kib, ram));
    CHECK_FALSE(f.table.map(0x7FFF'FFFF'F000, HostPhysical(0), 8 * kib, ram));                // into the hole
    CHECK_FALSE(f.table.map(0xFFFF'FFFF'FFFF'F000, HostPhysical(0), 8 * kib, ram));           // wraps
    CHECK_FALSE(f.table.map(0x7000'0000'0000, HostPhysical(0), 0xFFFF'0000'0000'0000, ram));  // wraps
    CHECK_FALSE(f.table.lookup(0x0001'0000'0000'0000));
    REQUIRE(f.table.unmap(0xFFFF'FFFF'FFFF'F000, 4 * kib));
    CHECK_FALSE(f.table.lookup(~u64{0}));
    CHECK(f.table.lookup(0xFFFF'FFFF'FFFF'EFFF));
    f.memory.roots.clear();  // no core uses it any more
    f.table.destroy();
    CHECK(f.memory.live() == 0);
}

TEST_CASE("malformed ranges and attributes change nothing") {
    for (const PagingFormat* format : formats) {
        Fixture f(*format);
        REQUIRE(f.table.map(0, HostPhysical(0), 4 * mib, ram));
        const u64 before = f.table.checksum();
        CHECK_FALSE(f.table.map(8 * mib, HostPhysical(0), 0, ram));
        CHECK_FALSE(f.table.map(8 * mib + 1, HostPhysical(0), 4 * kib, ram));
        CHECK_FALSE(f.table.map(8 * mib, HostPhysical(1), 4 * kib, ram));
        CHECK_FALSE(f.table.map(8 * mib, HostPhysical(0), 4 * kib + 1, ram));
        CHECK_FALSE(f.table.map(8 * mib, HostPhysical(bit(52)), 4 * kib, ram));
        CHECK_FALSE(f.table.map(8 * mib, HostPhysical(bit(52) - 4 * kib), 8 * kib, ram));
        CHECK_FALSE(f.table.map(8 * mib, HostPhysical(~u64{0xFFF}), 8 * kib, ram));
        CHECK_FALSE(f.table.map(8 * mib, HostPhysical(0), 4 * kib, {}));
        CHECK_FALSE(f.table.map(8 * mib, HostPhysical(0), 4 * kib, ram, 0));
        CHECK_FALSE(f.table.map(8 * mib, HostPhysical(0), 4 * kib, ram, 4));
        CHECK_FALSE(f.table.map(0, HostPhysical(0), 0xFFFF'FFFF'FFFF'F000, ram));
        CHECK_FALSE(f.table.unmap(0, 0));
        CHECK_FALSE(f.table.unmap(1, 4 * kib));
        CHECK_FALSE(f.table.protect(0, 4 * kib, {}));
        CHECK(f.table.checksum() == before);
        CHECK(f.memory.flushes.empty());
    }
}

TEST_CASE("mapping over a mapping is refused, wherever they meet") {
    for (const PagingFormat* format : formats) {
        Fixture f(*format);
        REQUIRE(f.table.map(4 * mib, HostPhysical(0), 2 * mib, ram));
        REQUIRE(f.table.map(gib, HostPhysical(0), gib, ram));
        const u64 before = f.table.checksum();
        const usize tables = f.memory.live();
        CHECK_FALSE(f.table.map(4 * mib, HostPhysical(0), 4 * kib, ram));
        CHECK_FALSE(f.table.map(6 * mib - 4 * kib, HostPhysical(0), 8 * kib, ram));
        CHECK_FALSE(f.table.map(0, HostPhysical(0), 4 * mib + 4 * kib, ram));
        CHECK_FALSE(f.table.map(0, HostPhysical(0), 4 * gib, ram));
        CHECK_FALSE(f.table.map(2 * gib - 4 * kib, HostPhysical(0), 8 * kib, ram));
        CHECK(f.table.checksum() == before);
        CHECK(f.memory.live() == tables);
        CHECK(f.table.map(0, HostPhysical(0), 4 * mib, ram));
        CHECK(f.table.map(6 * mib, HostPhysical(0), 4 * kib, ram));
    }
}

TEST_CASE("a large page is split where only part of it changes, and keeps its meaning elsewhere") {
    for (const PagingFormat* format : formats) {
        INFO(format->name);
        Fixture f(*format);
        const PageAttributes before{.permissions = read_write_execute, .type = MemoryType::write_combining};
        REQUIRE(f.table.map(4 * gib, HostPhysical(8 * gib), gib, before));
        f.memory.begin();
        // One 4 KiB page in the middle of 1 GiB becomes read-only.
        const u64 hole = 4 * gib + 300 * mib + 12 * kib;
        REQUIRE(f.table.protect(hole, 4 * kib, {.permissions = read_only}));
        CHECK(f.memory.allocations() == 2);
        CHECK(f.memory.flushes == std::vector<std::pair<u64, u64>>{{hole, 4 * kib}});
        CHECK(page_sizes(f.table) == std::map<u64, u64>{{4 * kib, 512}, {2 * mib, 511}});
        CHECK(f.table.lookup(hole)->attributes == PageAttributes{.permissions = read_only});
        CHECK(f.table.lookup(hole)->physical == HostPhysical(8 * gib + 300 * mib + 12 * kib));
        for (const u64 other : {hole - 1, hole + 4 * kib, 4 * gib, 5 * gib - 1}) {
            CHECK(f.table.lookup(other)->attributes == before);
            CHECK(f.table.lookup(other)->physical.raw() - f.table.lookup(other)->address == 4 * gib);
        }
        f.memory.begin();
        REQUIRE(f.table.unmap(hole - 2 * mib, 4 * mib));
        CHECK(f.memory.flushes.size() == 1);
        CHECK_FALSE(f.table.lookup(hole));
        CHECK(meaning(f.table).size() == 2);
        f.memory.begin();
        REQUIRE(f.table.unmap(0, 64 * gib));
        CHECK(f.memory.live() == 1);
    }
}

TEST_CASE("splitting takes no more tables than the two ends of the range need") {
    struct Case {
        u64 offset, length, tables;
    };
    for (const Case& c :
         {Case{0, gib, 0}, Case{0, 2 * mib, 1}, Case{2 * mib, 2 * mib, 1}, Case{4 * kib, 4 * kib, 2},
          Case{2 * mib - 4 * kib, 8 * kib, 3}, Case{4 * kib, gib - 4 * kib, 2},
          Case{gib - 4 * kib, 8 * kib, 4}, Case{gib - 2 * mib, 4 * mib, 2}}) {
        Fixture f(npt_paging);
        REQUIRE(f.table.map(0, HostPhysical(0), 2 * gib, ram));
        f.memory.begin();
        REQUIRE(f.table.protect(c.offset, c.length, {.permissions = read_only}));
        CHECK(f.memory.allocations() == c.tables);
        CHECK(f.table.table_count() == f.memory.live());
    }
}

TEST_CASE("protecting what is as it should be flushes nothing; unmapping nothing likewise") {
    Fixture f(host_paging);
    REQUIRE(f.table.map(0, HostPhysical(0), 4 * mib, ram));
    f.memory.begin();
    REQUIRE(f.table.protect(0, 4 * mib, ram));
    REQUIRE(f.table.protect(8 * mib, 4 * mib, ram));
    REQUIRE(f.table.unmap(8 * mib, 4 * gib));
    CHECK(f.memory.flushes.empty());
}

TEST_CASE("when an allocation fails nothing has changed, whichever it is") {
    for (const PagingFormat* format : formats) {
        INFO(format->name);
        struct Operation {
            const char* name;
            Result<> (*run)(PageTableAlgorithm&);
        };
        const Operation operations[] = {
            {"map small",
             [](PageTableAlgorithm& t) { return t.map(6 * mib, HostPhysical(0), 4 * kib, ram); }},
            {"map far",
             [](PageTableAlgorithm& t) { return t.map(600 * gib, HostPhysical(0), 4 * kib, ram); }},
            {"map mixed",
             [](PageTableAlgorithm& t) {
                 return t.map(511 * gib - 4 * kib, HostPhysical(gib - 4 * kib), 2 * gib + 8 * mib, ram);
             }},
            {"map small pages",
             [](PageTableAlgorithm& t) {
                 return t.map(512 * gib - 4 * mib, HostPhysical(0), 8 * mib, ram, 1);
             }},
            {"unmap middle", [](PageTableAlgorithm& t) { return t.unmap(gib + 4 * kib, 4 * kib); }},
            {"unmap two pages", [](PageTableAlgorithm& t) { return t.unmap(2 * gib - 4 * kib, 8 * kib); }},
            {"protect",
             [](PageTableAlgorithm& t) {
                 return t.protect(2 * gib - 4 * kib, 2 * mib, {.permissions = read_only});
             }},
        };
        for (const Operation& operation : operations) {
            INFO(operation.name);
            bool finished = false;
            for (u64 fail_at = 0; !finished; ++fail_at) {
                REQUIRE(fail_at < 100);
                Fixture f(*format);
                REQUIRE(f.table.map(gib, HostPhysical(4 * gib), 2 * gib, ram));
                REQUIRE(f.table.map(0, HostPhysical(0), 4 * mib, ram));
                const u64 checksum = f.table.checksum();
                const usize tables = f.memory.live();
                f.memory.begin();
                f.memory.fail_at = fail_at;
                const auto result = operation.run(f.table);
                f.memory.fail_at = ~u64{0};
                CHECK(f.table.table_count() == f.memory.live());
                finished = result.has_value();
                if (!finished) {
                    CHECK(result.error().text == "out of tables");
                    CHECK(f.table.checksum() == checksum);
                    CHECK(f.memory.live() == tables);
                } else {
                    CHECK(fail_at == f.memory.allocations());
                }
            }
        }
    }
}

TEST_CASE("random operations agree with a model at every step, in all formats") {
    for (const PagingFormat* format : formats) {
        INFO(format->name);
        std::mt19937_64 random(format->present + 12345);
        Fixture f(*format);
        Model model;
        const auto pick = [&](u64 n) { return random() % n; };
        const u64 bases[] = {0, gib - 4 * mib, 3 * gib, 512 * gib - 2 * mib, bit(46)};
        const PageAttributes choices[] = {
            ram,
            {.permissions = read_only},
            {.permissions = read_write_execute, .type = MemoryType::write_through},
            {.permissions = read_execute, .type = MemoryType::uncacheable},
        };
        unsigned failures = 0, maps = 0;
        for (int step = 0; step < 1500; ++step) {
            const u64 unit = pick(3) == 0 ? 2 * mib : pick(12) == 0 ? gib : 4 * kib;
            const u64 start = (bases[pick(5)] + pick(8) * unit) & ~(unit - 1);
            const u64 length = (1 + pick(unit == 4 * kib ? 1100 : unit == gib ? 2 : 6)) * unit;
            const u64 end = start + length;
            const PageAttributes& attributes = choices[pick(4)];
            const unsigned smallest = unit == 4 * kib ? 1 : 2;  // small pages by the gigabyte only take time
            f.memory.begin();
            f.memory.fail_at = pick(8) == 0 ? pick(4) : ~u64{0};
            const usize tables = f.memory.live();
            bool unchanged = false;
            switch (pick(5)) {
                case 0:
                case 1: {
                    const u64 physical = pick(2) != 0 ? start + pick(4) * gib : pick(1000) * unit;
                    const auto result = f.table.map(start, HostPhysical(physical), length, attributes,
                                                    smallest + static_cast<unsigned>(pick(4 - smallest)));
                    if (model.overlaps(start, end)) REQUIRE_FALSE(result);
                    if (result) {
                        model.add(start, end, physical, attributes);
                        ++maps;
                    } else {
                        if (!model.overlaps(start, end)) REQUIRE(result.error().text == "out of tables");
                        unchanged = true;
                    }
                    break;
                }
                case 2:
                case 3:
                    if (f.table.unmap(start, length)) {
                        model.remove(start, end);
                    } else {
                        unchanged = true;
                    }
                    break;
                default:
                    if (f.table.protect(start, length, attributes)) {
                        model.protect(start, end, attributes);
                    } else {
                        unchanged = true;
                    }
            }
            failures += unchanged;
            if (unchanged) REQUIRE(f.memory.live() == tables);
            REQUIRE(f.memory.reachable(f.table.root()).size() == f.memory.live());
            REQUIRE(meaning(f.table) == model.coalesced());
            for (const u64 probe : {start, end - 1, end, start - 1}) {
                const auto found = f.table.lookup(probe);
                REQUIRE(found.has_value() == model.overlaps(probe, probe + 1));
            }
        }
        CHECK(maps > 200);
        CHECK(failures > 100);
        f.memory.begin();
        REQUIRE(f.table.unmap(0, bit(47)));
        CHECK(f.memory.live() == 1);
        f.memory.roots.clear();
        f.table.destroy();
        CHECK(f.memory.live() == 0);
    }
}

TEST_CASE("a shared slot shows what its owner maps, even later, but only the owner can change it") {
    Fixture f(host_paging);
    const u64 shared = 0xFFFF'FF80'0000'0000;
    const auto slot = static_cast<unsigned>(extract(shared, 47, 39));
    REQUIRE(f.table.pin_top_slot(slot));
    REQUIRE(f.table.pin_top_slot(slot));  // again is fine
    PageTableAlgorithm other(host_paging, f.memory,
                             PageTableAlgorithm::make_root(host_paging, f.memory).value());
    CHECK_FALSE(other.share_top_slot(slot - 1, f.table));  // not pinned
    CHECK_FALSE(other.share_top_slot(512, f.table));
    REQUIRE(other.share_top_slot(slot, f.table));
    CHECK_FALSE(other.share_top_slot(slot, f.table));  // in use

    REQUIRE(f.table.map(shared, HostPhysical(0), 4 * mib, ram));
    CHECK(other.lookup(shared + mib));
    CHECK_FALSE(other.unmap(shared, 4 * mib));
    CHECK_FALSE(other.map(shared + 8 * mib, HostPhysical(0), 4 * kib, ram));
    CHECK_FALSE(other.protect(shared, 4 * mib, {.permissions = read_only}));
    CHECK_FALSE(
        other.unmap(0xFFFF'8000'0000'0000, 0x8000'0000'0000 - page_size));  // a range that contains it

    // The pinned table outlives its last mapping.
    REQUIRE(f.table.unmap(shared, 4 * mib));
    CHECK_FALSE(other.lookup(shared));
    REQUIRE(f.table.map(shared + gib, HostPhysical(0), 4 * kib, ram));
    CHECK(other.lookup(shared + gib));

    CHECK(other.table_count() == 1);
    other.destroy();
    CHECK(f.table.lookup(shared + gib));
    f.memory.roots.clear();  // no core uses it any more
    f.table.destroy();
    CHECK(f.memory.live() == 0);
}

TEST_CASE("nested tables are not shared") {
    Fixture f(ept_paging);
    CHECK_FALSE(f.table.pin_top_slot(0));
    Fixture g(npt_paging);
    CHECK_FALSE(g.table.pin_top_slot(0));
}

TEST_CASE("a page that becomes a shadow stack's changes the checksum") {
    Fixture f(host_paging);
    REQUIRE(f.table.map(0, HostPhysical(0), 4 * kib, {.permissions = read_only}));
    const u64 before = f.table.checksum();
    REQUIRE(f.table.protect(0, 4 * kib, {.permissions = read_only, .shadow_stack = true}));
    CHECK(f.table.lookup(0)->attributes.shadow_stack);
    CHECK(f.table.checksum() != before);
}

TEST_CASE("the checksum follows translations and nothing else") {
    Fixture f(ept_paging), g(ept_paging);
    const u64 empty = f.table.checksum();
    REQUIRE(f.table.map(0, HostPhysical(0), 4 * mib, ram));
    REQUIRE(g.table.map(2 * mib, HostPhysical(2 * mib), 2 * mib, ram));
    REQUIRE(g.table.map(0, HostPhysical(0), 2 * mib, ram));
    CHECK(f.table.checksum() == g.table.checksum());
    CHECK(f.table.checksum() != empty);
    REQUIRE(g.table.protect(0, 2 * mib, {.permissions = read_only}));
    CHECK(f.table.checksum() != g.table.checksum());
}

TEST_CASE("a nested table and a host table do not take each other's addresses") {
    STATIC_REQUIRE_FALSE(std::is_invocable_v<decltype(&HostPageTable::lookup), HostPageTable, GuestPhysical>);
    STATIC_REQUIRE(std::is_invocable_v<decltype(&NestedPageTable::lookup), NestedPageTable, GuestPhysical>);
    STATIC_REQUIRE_FALSE(std::is_convertible_v<HostPageTable, NestedPageTable>);
}

TEST_CASE("a branch translates alike but on the way to its address") {
    for (const PagingFormat* format : formats) {
        FakeTableMemory memory(*format);
        PageTableAlgorithm table(*format, memory, PageTableAlgorithm::make_root(*format, memory).value());
        constexpr u64 apic = 0xFEE00000, base = 3 * gib;
        REQUIRE(table.map(0, HostPhysical(gib), 4 * mib, {.permissions = read_write}));
        REQUIRE(table.map(5 * gib, HostPhysical(2 * gib), 4 * kib, {.permissions = read_write}));
        const bool deep = format == &npt_paging;  // with a table at each level of the way
        if (deep) REQUIRE(table.map(apic + 0x1000, HostPhysical(0x5000), 0x1000, {.permissions = read_only}));

        memory.fail_at = memory.allocations() + 1;
        const usize before = memory.live();
        CHECK_FALSE(table.branch(apic));
        CHECK(memory.live() == before);
        memory.fail_at = ~u64{0};

        const auto root = table.branch(apic);
        REQUIRE(root);
        CHECK(memory.live() == before + (deep ? 4 : 2));
        const PageTableAlgorithm other(*format, memory, *root);
        CHECK(other.checksum() == table.checksum());
        REQUIRE(table.map(apic, HostPhysical(0x9000), 0x1000, {.permissions = read_write}));
        CHECK(table.lookup(apic)->physical == HostPhysical(0x9000));
        CHECK_FALSE(other.lookup(apic));
        CHECK(other.lookup(apic + 0x1000).has_value() == deep);
        for (const u64 address : {u64{0}, 4 * mib - page_size, 5 * gib, base})
            CHECK(other.lookup(address) == table.lookup(address));
        // Tables that both have show the same later on, too.
        REQUIRE(table.map(5 * gib + page_size, HostPhysical(0x3000), page_size, {.permissions = read_write}));
        CHECK(other.lookup(5 * gib + page_size) == table.lookup(5 * gib + page_size));
    }
}
