#include "arch/x86/vmx/events.hpp"

#include <catch2/catch.hpp>

#include "arch/x86/vmx/control_bits.hpp"

using namespace bulkhead;
using namespace bulkhead::vmx;

TEST_CASE("An external interrupt has type 0 and its vector") {
    const EntryEvent entry =
        encode_event({.type = Event::Type::external_interrupt, .vector = Vector(0x31)}, true, true);
    CHECK(entry == EntryEvent{.information = 0x8000'0031});
}

TEST_CASE("An NMI has type 2 and vector 2 whatever it came with") {
    CHECK(encode_event({.type = Event::Type::nmi, .vector = Vector(0x77)}, true, true).information ==
          0x8000'0202);
}

TEST_CASE("Exceptions push an error code in protected mode only, and only those that have one") {
    for (unsigned vector = 0; vector < 32; ++vector) {
        const Event event = make_exception(Vector(static_cast<u8>(vector)), 0x1234);
        const bool pushes = vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21;
        const EntryEvent in_protected_mode = encode_event(event, true, true);
        const EntryEvent in_real_mode = encode_event(event, false, true);
        INFO(vector);
        CHECK(in_protected_mode.information == (0x8000'0300u | vector | (pushes ? 0x800u : 0u)));
        CHECK(in_protected_mode.error_code == (pushes ? 0x1234 : 0));
        CHECK(in_real_mode.information == (0x8000'0300u | vector));
    }
    // One that lacks its error code gets zero.
    CHECK(encode_event(make_exception(exception::double_fault), true, true).information == 0x8000'0B08);
    CHECK(encode_event(make_exception(exception::double_fault), true, true).error_code == 0);
    // The upper half of an error code is reserved.
    CHECK(encode_event(make_general_protection(0xFFFF'FFFF), true, true).error_code == 0xFFFF);
}

TEST_CASE("Software events carry the length of their instruction") {
    const Event int_n{
        .type = Event::Type::software_interrupt, .vector = Vector(0x80), .instruction_length = 2};
    CHECK(encode_event(int_n, true, false) ==
          EntryEvent{.information = 0x8000'0480, .instruction_length = 2});
    const Event int1{
        .type = Event::Type::privileged_software_exception, .vector = Vector(1), .instruction_length = 1};
    CHECK(encode_event(int1, true, false).information == 0x8000'0501);
    const Event int3{.type = Event::Type::software_exception, .vector = Vector(3), .instruction_length = 1};
    CHECK(encode_event(int3, true, false).information == 0x8000'0603);

    Event odd = int_n;
    odd.instruction_length = 0;
    CHECK(encode_event(odd, true, true).instruction_length == 0);
    CHECK(encode_event(odd, true, false).instruction_length == 1);
    odd.instruction_length = 200;
    CHECK(encode_event(odd, true, false).instruction_length == 15);
}

TEST_CASE("What was broken off comes back as it was") {
    const Event events[] = {
        {.type = Event::Type::external_interrupt, .vector = Vector(0xEF)},
        {.type = Event::Type::nmi, .vector = Vector(2)},
        {.type = Event::Type::hardware_exception, .vector = Vector(14), .error_code = 6},
        {.type = Event::Type::hardware_exception, .vector = Vector(1)},
        {.type = Event::Type::software_interrupt, .vector = Vector(0x80), .instruction_length = 2},
        {.type = Event::Type::privileged_software_exception, .vector = Vector(1), .instruction_length = 1},
        {.type = Event::Type::software_exception, .vector = Vector(3), .instruction_length = 1},
    };
    for (const Event& event : events) {
        const EntryEvent entry = encode_event(event, true, true);
        const auto back = decode_event(entry.information, entry.error_code, entry.instruction_length);
        REQUIRE(back.has_value());
        CHECK(*back == event);
    }
    CHECK_FALSE(decode_event(0x8000'0100, 0, 0).has_value());
    CHECK_FALSE(decode_event(0x8000'0700, 0, 0).has_value());
}
