#include "kernel/bootinfo/host_options.hpp"

#include <catch2/catch.hpp>
#include <string>

using namespace bulkhead;

TEST_CASE("without options all is at its default") {
    const HostOptions options = parse_host_options("   ");
    CHECK_FALSE(options.console);
    CHECK_FALSE(options.no_console);
    CHECK(options.baud == 115200);
    CHECK(options.log_level == LogLevel::info);
    CHECK(options.screen);
    CHECK(options.on_panic == HostOptions::OnPanic::halt);
    CHECK(options.max_cpus == 256);
    CHECK(options.acpi);
    CHECK_FALSE(options.virtual_interrupts);
    CHECK(options.complaint_count == 0);
}

TEST_CASE("every option is understood, and of two the last counts") {
    const HostOptions options = parse_host_options(
        "console=com1 console=com3  baud=38400 loglevel=debug screen=off panic=reset maxcpus=2 acpi=off "
        "virtual-interrupts=off virtual-interrupts=on");
    CHECK(options.console == 2);
    CHECK(options.baud == 38400);
    CHECK(options.log_level == LogLevel::debug);
    CHECK_FALSE(options.screen);
    CHECK(options.on_panic == HostOptions::OnPanic::reset);
    CHECK(options.max_cpus == 2);
    CHECK_FALSE(options.acpi);
    CHECK(options.virtual_interrupts == true);
    CHECK(options.complaint_count == 0);
    CHECK(parse_host_options("console=none").no_console);
    CHECK(parse_host_options("virtual-interrupts=off").virtual_interrupts == false);
}

TEST_CASE("what is not understood is reported, and the rest holds") {
    const HostOptions options = parse_host_options("consol=com1 screen=maybe loglevel=debug");
    CHECK(options.log_level == LogLevel::debug);
    CHECK(options.screen);
    REQUIRE(options.complaint_count == 2);
    CHECK(options.complaints[0].view().starts_with(
        "HV-E131: unknown host option \"consol=com1\"; known are console "));
    CHECK(options.complaints[1] ==
          "HV-E132: host option screen=maybe: on or off is wanted; using the default");
}

TEST_CASE("bad values leave the default") {
    for (const char* word : {"console=com5",
                             "console=com0",
                             "console=com",
                             "console=com11",
                             "console",
                             "baud=0",
                             "baud=115201",
                             "baud=7",
                             "baud=99999999999",
                             "baud=-1",
                             "loglevel=",
                             "panic=",
                             "maxcpus=0",
                             "maxcpus=257",
                             "maxcpus=1x",
                             "acpi=1",
                             "virtual-interrupts=auto",
                             "=",
                             "=on",
                             "screen acpi"}) {
        INFO(word);
        const HostOptions options = parse_host_options(word);
        CHECK(options.complaint_count >= 1);
        CHECK_FALSE(options.console);
        CHECK(options.baud == 115200);
        CHECK(options.max_cpus == 256);
        CHECK((options.screen && options.acpi && !options.virtual_interrupts));
    }
}

TEST_CASE("a flood of nonsense is counted, not stored") {
    std::string line;
    for (int i = 0; i < 1000; ++i) line += "x" + std::to_string(i) + std::string(200, 'y') + " ";
    const HostOptions options = parse_host_options(line);
    CHECK(options.complaint_count == 1000);
    CHECK(options.complaints.size() == 4);
}
