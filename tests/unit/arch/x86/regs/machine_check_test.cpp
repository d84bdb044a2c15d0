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

namespace {

constexpr u64 lost = valid | uncorrected | enabled | address_valid;
// As a processor with recovery tells of it.
constexpr u64 recoverable = lost | misc_valid | signalled;
constexpr u64 physical = 2u << 6;

}  // namespace

TEST_CASE("an uncorrected error with a physical address is contained in that page") {
    CHECK(severity_of({.status = lost, .address = 0x12345678}, false) == Severity::contained);
    // Physical, known to the byte, the cache line or the page.
    for (const u64 granularity : {u64{0}, u64{6}, u64{12}})
        CHECK(severity_of({.status = recoverable, .misc = physical | granularity}, true) ==
              Severity::contained);
}

TEST_CASE("an uncorrected error of which anything is in doubt is fatal") {
    for (const u64 doubt : {context_corrupt, overflow}) {
        CHECK(severity_of({.status = lost | doubt}, false) == Severity::fatal);
        CHECK(severity_of({.status = recoverable | doubt, .misc = physical}, true) == Severity::fatal);
    }
    CHECK(severity_of({.status = lost & ~address_valid}, false) == Severity::fatal);
    CHECK(severity_of({.status = recoverable & ~address_valid, .misc = physical}, true) == Severity::fatal);
    CHECK(severity_of({.status = recoverable & ~misc_valid}, true) == Severity::fatal);
    for (const u64 mode : {0u, 1u, 3u, 7u})  // segment offset, linear, memory, generic
        CHECK(severity_of({.status = recoverable, .misc = mode << 6}, true) == Severity::fatal);
    CHECK(severity_of({.status = recoverable, .misc = physical | 13}, true) == Severity::fatal);
    // Without SER_P these bits of MISC mean something else.
    CHECK(severity_of({.status = lost | misc_valid, .misc = 1u << 6}, false) == Severity::contained);
}

TEST_CASE("an error in data that nobody has used asks for no action") {
    CHECK(severity_of({.status = recoverable & ~signalled, .misc = physical}, true) == Severity::corrected);
    CHECK(severity_of({.status = lost}, true) == Severity::corrected);
    CHECK(severity_of({.status = lost | context_corrupt}, true) == Severity::fatal);
}

TEST_CASE("the host survives what is contained, where the interrupted code can go on") {
    const auto damage = [](u64 global_status, bool in_guest, Severity severity) {
        Damage d(global_status, in_guest);
        d.add(Severity::none);
        d.add(severity);
        d.add(Severity::corrected);
        return d;
    };
    for (const bool in_guest : {false, true}) {
        CHECK(damage(restart_valid, in_guest, Severity::contained).host_survives());
        CHECK_FALSE(damage(restart_valid, in_guest, Severity::fatal).host_survives());
        CHECK_FALSE(damage(restart_valid, in_guest, Severity::fatal).guest_survives());
        // Told of another processor's error.
        CHECK(damage(restart_valid, in_guest, Severity::none).host_survives());
        CHECK_FALSE(damage(0, in_guest, Severity::none).host_survives());
    }
    // The interrupted code is lost: bearable if it was a guest's and nothing else is.
    CHECK_FALSE(damage(error_at_instruction, false, Severity::contained).host_survives());
    CHECK(damage(error_at_instruction, true, Severity::contained).host_survives());
    CHECK_FALSE(damage(error_at_instruction, true, Severity::contained).guest_survives());
    // It can go on, but would meet its error again.
    CHECK_FALSE(damage(restart_valid | error_at_instruction, true, Severity::contained).guest_survives());
    // Somebody else's error.
    CHECK(damage(restart_valid, true, Severity::contained).guest_survives());
    CHECK(damage(restart_valid, true, Severity::none).guest_survives());
    // Fatal is fatal, whatever else there is.
    Damage both(restart_valid, true);
    both.add(Severity::fatal);
    both.add(Severity::contained);
    CHECK_FALSE(both.host_survives());
}
