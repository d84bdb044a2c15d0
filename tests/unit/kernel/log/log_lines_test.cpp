#include "kernel/log/log_lines.hpp"

#include <catch2/catch.hpp>

#include "kernel/base/format.hpp"

using namespace bulkhead;

namespace {

struct NoTime final : MicrosecondClock {
    u64 microseconds() const override { return 0; }
};
struct NoInterrupts final : InterruptFlag {
    bool disable() override { return false; }
    void restore(bool) override {}
};

struct Fixture {
    // Entry `sequence` as "LEVEL: TEXT"; empty if there is none.
    std::string line(u64 sequence) {
        LogEntry entry;
        if (!logger.read(sequence, entry)) return {};
        return std::string(name_of(entry.level)) + ": " + std::string(entry.text);
    }
    std::vector<u8> storage = std::vector<u8>(4096);
    LogRing ring{storage};
    NoTime clock;
    NoInterrupts interrupts;
    Logger logger{ring, clock, interrupts};
};

}  // namespace

TEST_CASE("each line of a report becomes a line of the log, whatever pieces it is written in") {
    Fixture f;
    LogLines lines(f.logger, LogLevel::info);
    lines.write("CORE ");
    lines.write("USE\n   0");
    CHECK(f.line(0) == "info: CORE USE");
    CHECK(f.line(1).empty());
    print(lines, " {}\n\nend\n", "shared");
    CHECK(f.line(1) == "info:    0 shared");
    CHECK(f.line(2) == "info: ");
    CHECK(f.line(3) == "info: end");
    CHECK(f.line(4).empty());
}

TEST_CASE("the lines of a report have the level and the beginning that they are given") {
    Fixture f;
    LogLines lines(f.logger, LogLevel::error, "HV-E043:");
    lines.write(" +0x1 main\n +0x2 entry\n");
    CHECK(f.line(0) == "error: HV-E043: +0x1 main");
    CHECK(f.line(1) == "error: HV-E043: +0x2 entry");
}
