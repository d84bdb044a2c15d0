#include "vmm/console/console_ring.hpp"

#include <atomic>
#include <catch2/catch.hpp>
#include <string>
#include <thread>
#include <vector>

using namespace bulkhead;

namespace {

void put(ConsoleRing& ring, std::string_view text) {
    ring.write({reinterpret_cast<const u8*>(text.data()), text.size()});
}

std::string get(ConsoleRing& ring, size_t most = 1000) {
    std::vector<u8> buffer(most);
    const usize count = ring.read(buffer);
    return std::string(buffer.begin(), buffer.begin() + static_cast<long>(count));
}

}  // namespace

TEST_CASE("what is written is read once") {
    u8 storage[16];
    ConsoleRing ring(storage);
    CHECK(get(ring) == "");
    put(ring, "hello");
    CHECK(ring.has_news());
    CHECK(get(ring, 3) == "hel");
    put(ring, " there");
    CHECK(get(ring) == "lo there");
    CHECK_FALSE(ring.has_news());
    CHECK(ring.total() == 11);
    CHECK(ring.dropped() == 0);
}

TEST_CASE("attaching replays what is still there") {
    u8 storage[8];
    ConsoleRing ring(storage);
    put(ring, "abc");
    CHECK(get(ring) == "abc");
    ring.rewind();
    CHECK(get(ring) == "abc");
    put(ring, "defghijkl");
    ring.rewind();
    CHECK(get(ring) == "efghijkl");
    CHECK(ring.dropped() == 0);
}

TEST_CASE("a reader that is too slow learns how much it missed") {
    u8 storage[8];
    ConsoleRing ring(storage);
    put(ring, "ab");
    CHECK(get(ring) == "ab");
    put(ring, "0123456789");
    CHECK(get(ring) == "23456789");
    CHECK(ring.dropped() == 2);
    put(ring, std::string(100, 'x') + "end");
    CHECK(get(ring) == "xxxxxend");
    CHECK(ring.dropped() == 2 + 95);
    ring.rewind();
    CHECK(ring.dropped() == 0);
}

TEST_CASE("only a power of two of the storage is used, and none is none") {
    u8 storage[13];
    ConsoleRing ring({storage, 13});
    CHECK(ring.capacity() == 8);
    put(ring, "0123456789");
    CHECK(get(ring) == "23456789");
    ConsoleRing empty({storage, 0});
    put(empty, "abc");
    CHECK(get(empty) == "");
    CHECK(empty.total() == 3);
    CHECK(empty.dropped() == 3);
    CHECK_FALSE(empty.has_news());
    empty.rewind();
}

TEST_CASE("with writer and reader at the same time, every byte is right or counted as dropped") {
    std::vector<u8> storage(64);
    ConsoleRing ring(storage);
    constexpr u64 total = 300'000;
    std::thread writer([&] {
        u8 piece[23];
        for (u64 at = 0; at < total;) {
            const usize count = static_cast<usize>(std::min<u64>(1 + at % 23, total - at));
            for (usize i = 0; i < count; ++i) piece[i] = static_cast<u8>((at + i) * 167 >> 3);
            ring.write({piece, count});
            at += count;
        }
    });
    u64 position = 0;  // bytes read and bytes dropped make up the stream
    u64 read = 0;
    bool right = true;
    while (position < total) {
        u8 buffer[40];
        const u64 before = ring.dropped();
        const usize count = ring.read(buffer);
        position += ring.dropped() - before;
        for (usize i = 0; i < count; ++i)
            right = right && buffer[i] == static_cast<u8>((position + i) * 167 >> 3);
        position += count;
        read += count;
    }
    writer.join();
    CHECK(right);
    CHECK(position == total);
    CHECK(read + ring.dropped() == total);
}

TEST_CASE("each line's beginning has its time, as long as it is remembered") {
    u8 storage[64];
    LineStamp stamps[4];
    ConsoleRing ring(storage, stamps);
    const auto put_at = [&](u64 time, std::string_view text) {
        ring.write({reinterpret_cast<const u8*>(text.data()), text.size()}, time);
    };
    put_at(5, "ab");
    put_at(6, "c\nd\n");
    put_at(7, "e");
    CHECK(ring.line_time(0) == 5);
    CHECK(ring.line_time(4) == 6);
    CHECK(ring.line_time(6) == 7);
    CHECK_FALSE(ring.line_time(1));
    CHECK_FALSE(ring.line_time(7));
    put_at(8, "\n\n");
    put_at(9, "x");
    CHECK_FALSE(ring.line_time(0));
    CHECK(ring.line_time(4) == 6);
    CHECK(ring.line_time(8) == 8);
    CHECK(ring.line_time(9) == 9);
    // More at once than the ring keeps: the line that the rest begins in has no beginning.
    put_at(10, std::string(100, 'y') + "\nz");
    CHECK_FALSE(ring.line_time(10));
    CHECK(ring.line_time(ring.total() - 1) == 10);
}

TEST_CASE("readers with cursors of their own do not disturb each other") {
    u8 storage[16];
    ConsoleRing ring(storage);
    put(ring, "hello");
    ConsoleRing::Cursor cursor;
    u8 bytes[3];
    CHECK(ring.read(cursor, bytes) == 3);
    CHECK(get(ring) == "hello");
    put(ring, "0123456789abcdef");
    CHECK(ring.read(cursor, bytes) == 3);
    CHECK(std::string(bytes, bytes + 3) == "012");
    CHECK(cursor.dropped == 2);
    CHECK(get(ring) == "0123456789abcdef");
    CHECK(ring.dropped() == 0);
    cursor.position = 1000;  // of another life
    CHECK(ring.read(cursor, bytes) == 3);
    CHECK(std::string(bytes, bytes + 3) == "012");
    ring.rewind_to(ring.total() - 2);
    CHECK(get(ring) == "ef");
}

TEST_CASE("with writer and reader at the same time, a line's time is right or forgotten") {
    std::vector<u8> storage(256);
    std::vector<LineStamp> stamps(16);
    ConsoleRing ring(storage, stamps);
    constexpr u64 total = 100'000;  // lines of three bytes; line n is begun at time n + 1
    std::thread writer([&] {
        for (u64 i = 0; i < total; ++i) ring.write({reinterpret_cast<const u8*>("ab\n"), 3}, i + 1);
    });
    bool right = true;
    u64 found = 0;
    for (u64 end = 0; end < 3 * total;) {
        end = ring.total();
        const u64 line = end / 3;
        for (u64 back = 1; back <= 20 && back <= line; ++back) {
            const auto time = ring.line_time((line - back) * 3);
            if (!time) continue;
            ++found;
            right = right && *time == line - back + 1;
        }
    }
    writer.join();
    CHECK(right);
    CHECK(found > 0);
}
