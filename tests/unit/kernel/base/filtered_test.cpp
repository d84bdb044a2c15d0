#include "kernel/base/filtered.hpp"

#include <catch2/catch.hpp>
#include <string>

#include "kernel/base/fixed_string.hpp"
#include "kernel/base/utf8.hpp"

using namespace bulkhead;

namespace {
std::string filtered(std::string_view text) {
    FixedString<512> out;
    print(out, "{}", Filtered(text));
    return std::string(out.view());
}
}  // namespace

TEST_CASE("plain text passes, controls do not") {
    CHECK(filtered("plain text ~") == "plain text ~");
    CHECK(filtered("\x1b[2J\x07\r\n\t\x7f") == "?[2J?????");
    CHECK(filtered(std::string_view("a\0b", 3)) == "a?b");
    CHECK(filtered("") == "");
}

TEST_CASE("UTF-8 passes unless a byte of it is a C1 control to an 8-bit terminal") {
    CHECK(filtered("caf\xC3\xA9") == "caf\xC3\xA9");
    CHECK(filtered("\xC2\x9B[2J") == "?[2J");  // CSI
    CHECK(filtered("\xC3\x9C") == "?");        // U+00DC holds 9Ch, ST
    CHECK(filtered("\xE2\x80\xAE"
                   "abc") == "?abc");  // right-to-left override
}

TEST_CASE("each byte that is not valid UTF-8 is replaced") {
    CHECK(filtered("\x9B[2J") == "?[2J");
    CHECK(filtered("\xC0\xAF") == "??");
    CHECK(filtered("\xE2\x82") == "??");
    CHECK(filtered("\xED\xA0\x80") == "???");
    CHECK(filtered("\xF5x\xFF") == "?x?");
}

TEST_CASE("UTF-8 is decoded and encoded alike for every scalar value") {
    for (u32 code = 0; code <= 0x10FFFF; ++code) {
        if (code >= 0xD800 && code <= 0xDFFF) continue;
        char bytes[4];
        const usize length = encode_utf8(code, bytes);
        const Utf8Character character = first_utf8({bytes, length});
        if (!character.valid || character.code_point != code || character.length != length) FAIL(code);
    }
    CHECK_FALSE(first_utf8("\xF4\x90\x80\x80").valid);
    CHECK_FALSE(first_utf8("\xE0\x9F\xBF").valid);
    CHECK(first_utf8("").length == 0);
}
