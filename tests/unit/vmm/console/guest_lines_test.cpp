#include "vmm/console/guest_lines.hpp"

#include <catch2/catch.hpp>
#include <random>
#include <string>

#include "tests/unit/vmm/console/fake_management.hpp"

using namespace bulkhead;

namespace {

struct Bench {
    FakeManagement management;
    GuestLines lines;

    FakeManagement::Vm& add(u16 id, std::string_view name, usize storage = 1024, usize stamps = 16) {
        auto& vm = management.add(id, name);
        vm.storage.assign(storage, 0);
        vm.stamps.assign(stamps, {});
        vm.ring = std::make_unique<ConsoleRing>(vm.storage, vm.stamps);
        return vm;
    }
    static void guest(FakeManagement::Vm& vm, u64 time, std::string_view text) {
        vm.ring->write({reinterpret_cast<const u8*>(text.data()), text.size()}, time);
    }
    // All lines there are now: "time name: text", one a row.
    std::string all() {
        std::string text;
        GuestLines::Line line;
        for (int i = 0; i < 100'000 && lines.next(management, line); ++i) {
            text += (line.time ? std::to_string(*line.time) : "?") + " " + std::string(line.name.view()) +
                    ": " + std::string(line.text.view()) + "\n";
        }
        return text;
    }
};

std::string plain(std::string_view bytes) {
    FixedString<200> out;
    append_plain(out, bytes);
    return std::string(out.view());
}

}  // namespace

TEST_CASE("lines of several VMs come in the order in which they were begun") {
    Bench bench;
    auto& web = bench.add(1, "web");
    auto& db = bench.add(2, "db");
    Bench::guest(web, 10, "one\r\ntw");
    Bench::guest(db, 11, "three\n");
    Bench::guest(web, 12, "o\r\nfour\r\n");
    Bench::guest(db, 20, "five\n");
    Bench::guest(web, 30, "login: ");
    bench.lines.begin(bench.management, std::nullopt, std::nullopt, false);
    CHECK(bench.all() ==
          "10 web: one\n10 web: two\n11 db: three\n12 web: four\n20 db: five\n30 web: login: \n");
    bench.lines.begin(bench.management, VmId(2), std::nullopt, false);
    CHECK(bench.all() == "11 db: three\n20 db: five\n");
    bench.lines.begin(bench.management, std::nullopt, 1, false);
    CHECK(bench.all() == "20 db: five\n30 web: login: \n");
    bench.lines.begin(bench.management, std::nullopt, 0, false);
    CHECK(bench.all() == "");
}

TEST_CASE("following shows lines when they are complete, and VMs that are made later") {
    Bench bench;
    auto& web = bench.add(1, "web");
    bench.lines.begin(bench.management, std::nullopt, std::nullopt, true);
    Bench::guest(web, 5, "half");
    CHECK(bench.all() == "");
    Bench::guest(web, 6, " a line\n");
    CHECK(bench.all() == "5 web: half a line\n");
    auto& late = bench.add(9, "late");
    Bench::guest(late, 7, "here\n");
    CHECK(bench.all() == "7 late: here\n");
    late.ring.reset();
    CHECK(bench.all() == "");
    late.ring = std::make_unique<ConsoleRing>(late.storage, late.stamps);
    Bench::guest(late, 8, "again\n");
    CHECK(bench.all() == "8 late: again\n");
}

TEST_CASE("what was begun while looking does not keep the look from ending") {
    Bench bench;
    auto& web = bench.add(1, "web");
    Bench::guest(web, 1, "a\n");
    bench.lines.begin(bench.management, std::nullopt, std::nullopt, false);
    Bench::guest(web, 2, "b\n");
    CHECK(bench.all() == "1 web: a\n");
}

TEST_CASE("long lines come in pieces, and lost stamps and bytes are no harm") {
    Bench bench;
    auto& web = bench.add(1, "web", 1024, 2);
    Bench::guest(web, 1, std::string(450, 'x') + "\n" + std::string(200, 'y') + "\n");
    bench.lines.begin(bench.management, std::nullopt, std::nullopt, false);
    CHECK(bench.all() == "1 web: " + std::string(200, 'x') + "\n1 web: " + std::string(200, 'x') +
                             "\n1 web: " + std::string(50, 'x') + "\n1 web: " + std::string(200, 'y') + "\n");
    for (u64 i = 0; i < 100; ++i) Bench::guest(web, 10 + i, "line " + std::to_string(i) + " and so on\n");
    bench.lines.begin(bench.management, std::nullopt, std::nullopt, false);
    const std::string all = bench.all();
    CHECK(
        all.ends_with("? web: line 97 and so on\n108 web: line 98 and so on\n109 web: line 99 and so on\n"));
    CHECK(all.size() > 1024);
}

TEST_CASE("the last lines of a ring are found, whatever is in it") {
    u8 storage[512];
    ConsoleRing ring(storage);
    const auto put = [&](std::string_view text) {
        ring.write({reinterpret_cast<const u8*>(text.data()), text.size()});
    };
    CHECK(begin_of_last_lines(ring, 5) == 0);
    put("a\nb\nc\n");
    CHECK(begin_of_last_lines(ring, 0) == 6);
    CHECK(begin_of_last_lines(ring, 1) == 4);
    CHECK(begin_of_last_lines(ring, 2) == 2);
    CHECK(begin_of_last_lines(ring, 9) == 0);
    put("d");
    CHECK(begin_of_last_lines(ring, 1) == 6);
    CHECK(begin_of_last_lines(ring, 2) == 4);
    put(std::string(2000, '.'));
    CHECK(begin_of_last_lines(ring, 1) == ring.oldest());
    put("\n" + std::string(300, 'z') + "\n");
    CHECK(begin_of_last_lines(ring, 1) == ring.total() - 301);
}

TEST_CASE("control sequences are left out of lines") {
    CHECK(plain("\x1b[0;32m  OK  \x1b[0m done") == "  OK   done");
    CHECK(plain("a\x1b]0;title\x07z") == "az");
    CHECK(plain("a\x1b]0;title\x1b\\z") == "az");
    CHECK(plain("a\x1bP1$r0m\x1b\\z") == "az");
    CHECK(plain("a\x1b(Bz\x1b") == "az\x1b");
    CHECK(plain("a\tb\rc") == "a bc");
    CHECK(plain("a\x1b[12;3") == "a");
    CHECK(plain("a\x1b]never ended") == "a");
}

TEST_CASE("any bytes of guests give lines without end of line, and the look ends") {
    std::mt19937 random(3);
    Bench bench;
    auto& web = bench.add(1, "web", 512, 8);
    auto& db = bench.add(2, "db", 256, 4);
    bench.lines.begin(bench.management, std::nullopt, std::nullopt, true);
    GuestLines::Line line;
    u64 shown = 0;
    for (u64 i = 0; i < 30'000; ++i) {
        if (random() % 500 == 0) db.ring = std::make_unique<ConsoleRing>(db.storage, db.stamps);
        std::string text(random() % 40, 0);
        for (char& c : text) c = random() % 8 == 0 ? '\n' : static_cast<char>(random());
        Bench::guest(random() % 2 == 0 ? web : db, i, text);
        for (int k = 0; k < 3 && bench.lines.next(bench.management, line); ++k) {
            ++shown;
            CHECK(line.text.view().find('\n') == std::string_view::npos);
            FixedString<200> out;
            append_plain(out, line.text);
            CHECK(out.size() <= line.text.size());
        }
    }
    CHECK(shown > 1000);
    bench.lines.begin(bench.management, std::nullopt, std::nullopt, false);
    CHECK(bench.all().size() < 20'000);
}
