#include "kernel/log/logger.hpp"

#include <catch2/catch.hpp>
#include <deque>
#include <random>
#include <string>

using namespace bulkhead;

namespace {

struct FakeClock final : MicrosecondClock {
    u64 microseconds() const override { return now; }
    u64 now = 1'500'000;
};
struct FakeInterrupts final : InterruptFlag {
    bool disable() override { return std::exchange(enabled, false); }
    void restore(bool value) override { enabled = value; }
    bool enabled = true;
};
struct TextSink final : Sink {
    void write(std::string_view more) override { text += more; }
    std::string text;
};

struct Fixture {
    explicit Fixture(usize size = 4096) : storage(size), ring(storage), logger(ring, clock, interrupts) {}
    std::vector<u8> storage;
    LogRing ring;
    FakeClock clock;
    FakeInterrupts interrupts;
    Logger logger;
};

}  // namespace

TEST_CASE("a line bears its time and, unless it is mere information, its level") {
    Fixture f;
    TextSink serial;
    REQUIRE(f.logger.add_sink(serial, LogLevel::debug));
    f.logger.info("{} cores", 4);
    f.clock.now = 12'000'042;
    f.logger.error("VM {} stopped", "web");
    f.logger.warning("w");
    f.logger.debug("d");
    CHECK(serial.text ==
          "[    1.500000] 4 cores\n"
          "[   12.000042] error: VM web stopped\n"
          "[   12.000042] warning: w\n"
          "[   12.000042] debug: d\n");
    CHECK(f.interrupts.enabled);
}

TEST_CASE("each sink has its level, and sees what was logged before it came") {
    Fixture f;
    f.logger.info("early");
    f.logger.error("bad");
    TextSink screen;
    REQUIRE(f.logger.add_sink(screen, LogLevel::warning));
    f.logger.info("quiet");
    CHECK(screen.text == "[    1.500000] error: bad\n");
    f.logger.set_level(screen, LogLevel::info);
    f.logger.info("loud");
    f.logger.remove_sink(screen);
    f.logger.info("gone");
    CHECK(screen.text == "[    1.500000] error: bad\n[    1.500000] loud\n");
    TextSink more[4];
    for (TextSink& sink : more) CHECK(f.logger.add_sink(sink, LogLevel::info));
    CHECK_FALSE(f.logger.add_sink(screen, LogLevel::info));
}

TEST_CASE("text that could drive a terminal is made harmless") {
    Fixture f;
    f.logger.info("{}", "a\x1b[2Jb\nc\r\x7f\x9b\xc3\xa4~");
    LogEntry entry;
    REQUIRE(f.logger.read(0, entry));
    CHECK(entry.text == "a?[2Jb?c?????~");
}

TEST_CASE("a line that is too long is cut") {
    Fixture f;
    f.logger.info("{}", std::string(1000, 'x'));
    LogEntry entry;
    REQUIRE(f.logger.read(0, entry));
    CHECK(entry.text.size() == 200);
}

TEST_CASE("the ring keeps the newest lines, and reading goes on where it stopped") {
    Fixture f(1024);
    for (int i = 0; i < 1000; ++i) f.logger.info("line {}", i);
    LogEntry entry;
    u64 sequence = 0, count = 0;
    while (f.logger.read(sequence, entry)) {
        CHECK(entry.text == "line " + std::to_string(entry.sequence));
        sequence = entry.sequence + 1;
        ++count;
    }
    CHECK(sequence == 1000);
    CHECK(count >= 1024 / (16 + 8 + 1));
    CHECK_FALSE(f.logger.read(1000, entry));
    f.logger.info("more");
    CHECK(f.logger.read(1000, entry));
}

TEST_CASE("the ring agrees with a list of lines, whatever their lengths") {
    std::mt19937 random(1);
    std::vector<u8> storage(1500);  // 1024 of it are used
    LogRing ring(storage);
    std::deque<std::string> all;
    LogEntry entry;
    for (int step = 0; step < 3000; ++step) {
        const std::string text(random() % 201, static_cast<char>('a' + random() % 26));
        ring.append(static_cast<u64>(step), LogLevel::info, text);
        all.push_back(text);
        REQUIRE(ring.next_sequence() == all.size());
        const u64 from = random() % all.size();
        REQUIRE(ring.read(from, entry));
        REQUIRE(entry.sequence == std::max(from, ring.first_sequence()));
        REQUIRE(entry.text == all[entry.sequence]);
        REQUIRE(entry.microseconds == entry.sequence);
        // What is kept, and the next, do not fit together: nothing is dropped early.
        REQUIRE(ring.first_sequence() <= all.size() - 1);
    }
}

TEST_CASE("while deferred, sinks get their lines from drain, and are told of lines they missed") {
    Fixture f(1024);
    TextSink serial;
    REQUIRE(f.logger.add_sink(serial, LogLevel::info));
    f.logger.set_deferred(true);
    f.logger.info("one");
    f.logger.info("two");
    CHECK(serial.text.empty());
    CHECK(f.logger.drain(1));
    CHECK(serial.text == "[    1.500000] one\n");
    CHECK_FALSE(f.logger.drain(8));
    serial.text.clear();
    for (int i = 0; i < 200; ++i) f.logger.info("flood {:3}", i);
    while (f.logger.drain(1)) {
    }
    CHECK(serial.text.starts_with("[log] "));
    CHECK(serial.text.find(" lines lost\n") != std::string::npos);
    CHECK(serial.text.ends_with("flood 199\n"));
}

TEST_CASE("a panic gets its lines out though someone else holds the log") {
    struct Holder final : Sink {
        void write(std::string_view) override {
            if (std::exchange(entered, true)) return;
            logger->enter_panic();  // as an NMI would that came in the middle of a line
            logger->error("panic");
        }
        Logger* logger = nullptr;
        bool entered = false;
    } holder;
    Fixture f;
    holder.logger = &f.logger;
    REQUIRE(f.logger.add_sink(holder, LogLevel::info));
    f.logger.set_deferred(true);
    f.logger.info("line");
    f.logger.drain(1);
    LogEntry entry;
    REQUIRE(f.logger.read(1, entry));
    CHECK(entry.text == "panic");
}

TEST_CASE("level names are read back") {
    for (const LogLevel level : {LogLevel::error, LogLevel::warning, LogLevel::info, LogLevel::debug}) {
        CHECK(parse_log_level(name_of(level)) == level);
    }
    CHECK_FALSE(parse_log_level("loud"));
    CHECK_FALSE(parse_log_level(""));
}
