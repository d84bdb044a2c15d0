#include "arch/x86/regs/apic.hpp"

#include <catch2/catch.hpp>

using namespace bulkhead;

// The values that the manual's start-up algorithm for xAPIC writes (Intel SDM Vol. 3A, 9.4.4.1, June 2023
// edition): 000C4500H and 000C46XXH are INIT and start-up to all others, of which the shorthand is left out
// here.
TEST_CASE("the words for starting a core are the manual's") {
    REQUIRE(apic::icr_init() == 0x000C4500 - 0x000C0000);
    REQUIRE(apic::icr_startup(0x9E) == 0x000C469E - 0x000C0000);
    REQUIRE(apic::icr_nmi() == 0x4400);
    REQUIRE(apic::icr_fixed(0xE0) == 0x40E0);
}

TEST_CASE("a destination has eight bits in xAPIC mode and thirty-two in x2APIC mode") {
    REQUIRE(apic::icr_destination(0xFE, false) == 0xFE000000);
    REQUIRE(apic::icr_destination(0xFE, true) == 0xFE);
    REQUIRE(apic::icr_destination(0x12345, true) == 0x12345);
}
