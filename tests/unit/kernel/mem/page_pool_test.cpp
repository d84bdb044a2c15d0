#include "kernel/mem/page_pool.hpp"

#include <catch2/catch.hpp>
#include <map>
#include <random>
#include <vector>

using namespace bulkhead;

namespace {

constexpr HostPhysical start{0x40'3000};

struct Fixture {
    explicit Fixture(u64 pages) : bitmap(PagePool::bitmap_words(pages)), pool(start, pages, bitmap) {}
    std::vector<u64> bitmap;
    PagePool pool;
};

}  // namespace

TEST_CASE("a pool gives each page once and then says that it is empty") {
    Fixture f(70);
    CHECK(f.pool.total_pages() == 70);
    for (u64 i = 0; i < 70; ++i) CHECK(*f.pool.allocate() == start + i * page_size);
    CHECK(f.pool.free_pages() == 0);
    CHECK_FALSE(f.pool.allocate());
    REQUIRE(f.pool.free(start + 66 * page_size));
    CHECK(*f.pool.allocate() == start + 66 * page_size);
    CHECK_FALSE(PagePool().allocate());
}

TEST_CASE("freeing twice, or what is not the pool's, is an error") {
    Fixture f(8);
    const HostPhysical page = *f.pool.allocate();
    REQUIRE(f.pool.free(page));
    CHECK_FALSE(f.pool.free(page));
    CHECK_FALSE(f.pool.free(page + 1));
    CHECK_FALSE(f.pool.free(start - page_size));
    CHECK_FALSE(f.pool.free(start + 8 * page_size));
    REQUIRE(f.pool.allocate_run(4));
    CHECK_FALSE(f.pool.free_run(start, 5));
    CHECK_FALSE(f.pool.free_run(start, 0));
    CHECK_FALSE(f.pool.free_run(start, ~u64{0}));
    CHECK(f.pool.free_pages() == 4);
    CHECK(f.pool.free_run(start, 4));
}

TEST_CASE("a run that begins in the pool and ends behind it is not freed") {
    Fixture f(64);  // the bitmap has no bit to spare
    REQUIRE(f.pool.allocate_run(64, page_size));
    CHECK_FALSE(f.pool.free_run(start + 63 * page_size, 2));
    CHECK_FALSE(f.pool.free_run(start, ~u64{0} / page_size));
    CHECK(f.pool.free_pages() == 0);
    CHECK(f.pool.free_run(start + 63 * page_size, 1));
}

TEST_CASE("runs are contiguous and aligned by their address, not by their place in the pool") {
    Fixture f(64);
    REQUIRE(f.pool.allocate());
    const auto run = f.pool.allocate_run(3, 16 * kib);
    REQUIRE(run);
    CHECK(*run == HostPhysical(0x40'4000));
    CHECK(*f.pool.allocate_run(2, 8 * kib) == HostPhysical(0x40'8000));
    CHECK(*f.pool.allocate() == HostPhysical(0x40'7000));  // the gap
    CHECK_FALSE(f.pool.allocate_run(0));
    CHECK_FALSE(f.pool.allocate_run(1, 100));
    CHECK_FALSE(f.pool.allocate_run(1, 0));
    CHECK_FALSE(f.pool.allocate_run(65));
    CHECK_FALSE(f.pool.allocate_run(~u64{0}));
    CHECK_FALSE(f.pool.allocate_run(1, bit(63)));
}

TEST_CASE("a bitmap that is too short shortens the pool") {
    std::vector<u64> bitmap(1);
    PagePool pool(start, 1000, bitmap);
    CHECK(pool.total_pages() == 64);
}

TEST_CASE("random runs never overlap, and all come back") {
    std::mt19937_64 random(3);
    Fixture f(300);
    std::map<u64, u64> live;  // start, pages
    for (int step = 0; step < 5000; ++step) {
        const u64 pages = 1 + random() % 9, alignment = page_size << random() % 4;
        if (random() % 2 == 0) {
            const auto run = f.pool.allocate_run(pages, alignment);
            if (!run) continue;
            REQUIRE(run->is_aligned(alignment));
            const auto next = live.lower_bound(run->raw());
            if (next != live.end()) REQUIRE(run->raw() + pages * page_size <= next->first);
            if (next != live.begin())
                REQUIRE(std::prev(next)->first + std::prev(next)->second * page_size <= run->raw());
            live[run->raw()] = pages;
        } else if (!live.empty()) {
            const auto victim = std::next(live.begin(), static_cast<long>(random() % live.size()));
            REQUIRE(f.pool.free_run(HostPhysical(victim->first), victim->second));
            live.erase(victim);
        }
        u64 used = 0;
        for (const auto& [_, count] : live) used += count;
        REQUIRE(f.pool.free_pages() == 300 - used);
    }
}
