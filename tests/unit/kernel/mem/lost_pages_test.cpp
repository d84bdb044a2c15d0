#include "kernel/mem/lost_pages.hpp"

#include <catch2/catch.hpp>
#include <set>
#include <thread>
#include <vector>

using namespace bulkhead;

namespace {

LostPage page(u64 address) {
    return {.page = HostPhysical(address), .bank = 3, .status = 0xB000};
}

}  // namespace

TEST_CASE("a lost page is taken once, with what told of it") {
    LostPages pages;
    CHECK_FALSE(pages.take());
    CHECK(pages.note(page(0x5000), 0));
    CHECK(pages.any_in(HostPhysical(0x5000), 1));
    CHECK(pages.any_in(HostPhysical(0), 0x5001));
    CHECK_FALSE(pages.any_in(HostPhysical(0), 0x5000));
    CHECK_FALSE(pages.any_in(HostPhysical(0x5001), 0x10000));
    const auto taken = pages.take();
    REQUIRE(taken);
    CHECK(taken->page == HostPhysical(0x5000));
    CHECK(taken->bank == 3);
    CHECK(taken->status == 0xB000);
    CHECK_FALSE(pages.take());
    CHECK_FALSE(pages.any_in(HostPhysical(0), ~u64{0}));
}

TEST_CASE("several cores may be told of one page, but none meets it twice before it is taken") {
    LostPages pages;
    CHECK(pages.note(page(0x5000), 0));
    CHECK(pages.note(page(0x5000), 63));
    CHECK_FALSE(pages.note(page(0x5000), 0));
    CHECK_FALSE(pages.note(page(0x5000), 63));
    CHECK(pages.note(page(0x6000), 0));
    REQUIRE(pages.take());
    REQUIRE(pages.take());
    CHECK_FALSE(pages.take());
    CHECK(pages.note(page(0x5000), 0));
}

TEST_CASE("more lost pages than there is room for cannot be survived") {
    LostPages pages;
    for (u64 i = 0; i < LostPages::capacity; ++i) CHECK(pages.note(page(i * page_size), 0));
    CHECK_FALSE(pages.note(page(page_size * 100), 0));
    REQUIRE(pages.take());
    CHECK(pages.note(page(page_size * 100), 0));
}

TEST_CASE("pages noted by several cores at once all come out") {
    LostPages pages;
    constexpr unsigned cores = 4;
    constexpr u64 each = 2000;
    std::vector<std::thread> threads;
    for (unsigned core = 0; core < cores; ++core) {
        threads.emplace_back([&, core] {
            for (u64 i = 0; i < each; ++i) {
                while (!pages.note(page((core * each + i) * page_size), core)) std::this_thread::yield();
            }
        });
    }
    std::set<u64> seen;
    while (seen.size() < cores * each) {
        if (const auto lost = pages.take()) CHECK(seen.insert(lost->page.raw()).second);
    }
    for (auto& thread : threads) thread.join();
    CHECK_FALSE(pages.take());
}
