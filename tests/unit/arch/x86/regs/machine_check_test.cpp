#include "arch/x86/regs/machine_check.hpp"

#include <catch2/catch.hpp>

using namespace bulkhead;
using namespace bulkhead::machine_check;

TEST_CASE("an empty bank tells nothing, whatever else is in it") {
    CHECK(severity_of({}, true) == Severity::none);
    CHECK(severity_of({.status = ~valid, .address = 0x1000, .misc = 0x8C}, true) == Severity::none);
}

TEST_CASE("what the hardware has mended is counted, even where many such errors were lost") {
    CHECK(severity_of({.status = valid | enabled}, false) == Severity::corrected);
    CHECK(severity_of({.status = valid | overflow | address_valid | misc_valid}, true) ==
          Severity::corrected);
}

TEST_CASE("an uncorrected error with a physical address is contained in that page") {
    constexpr u64 status = valid | uncorrected | enabled | address_valid;
    CHECK(severity_of({.status = status, .address = 0x12345678}, false) == Severity::contained);
    CHECK(severity_of({.status = status, .address = 0x12345678}, true) == Severity::contained);
    // Physical, known to the byte, the cache line or the page.
    for (const u64 granularity : {u64{0}, u64{6}, u64{12}})
        CHECK(severity_of({.status = status | misc_valid, .misc = 2u << 6 | granularity}, true) ==
              Severity::contained);
}

TEST_CASE("an uncorrected error of which anything is in doubt is fatal") {
    constexpr u64 status = valid | uncorrected | enabled | address_valid;
    CHECK(severity_of({.status = status | context_corrupt}, false) == Severity::fatal);
    CHECK(severity_of({.status = status | overflow}, false) == Severity::fatal);
    CHECK(severity_of({.status = status & ~address_valid}, false) == Severity::fatal);
    for (const u64 mode : {0u, 1u, 3u, 7u})  // segment offset, linear, memory, generic
        CHECK(severity_of({.status = status | misc_valid, .misc = mode << 6}, true) == Severity::fatal);
    CHECK(severity_of({.status = status | misc_valid, .misc = 2u << 6 | 13}, true) == Severity::fatal);
    // Without SER_P these bits of MISC mean something else.
    CHECK(severity_of({.status = status | misc_valid, .misc = 1u << 6}, false) == Severity::contained);
}
