#include "vmm/console/keys.hpp"

#include <catch2/catch.hpp>
#include <random>
#include <string>
#include <vector>

using namespace bulkhead;

namespace {

std::string bytes_of(std::string_view text) {
    std::string bytes;
    for (usize at = 0; at < text.size();) {
        const auto byte = next_character(text, at);
        if (!byte) return "error: " + std::string(byte.error().text.view());
        bytes += static_cast<char>(*byte);
    }
    return bytes;
}

std::vector<int> strokes_of(std::string_view word) {
    std::vector<int> codes;
    for (usize at = 0; at < word.size();) {
        const auto stroke = next_stroke(word, at);
        if (!stroke) return {-1};
        codes.insert(codes.end(), stroke->begin(), stroke->end());
    }
    return codes;
}

}  // namespace

TEST_CASE("escapes and control characters become the bytes they name") {
    CHECK(bytes_of("ls -l") == "ls -l");
    CHECK(bytes_of("a\\nb\\r\\t\\e\\b") == "a\nb\r\t\x1b\b");
    CHECK(bytes_of("\\x41\\xfF") == "A\xFF");
    CHECK(bytes_of("^C^c^]^?^@") == std::string("\x03\x03\x1d\x7f\0", 5));
    CHECK(bytes_of("\\\\\\^\\H") == "\\^H");
    CHECK(bytes_of("\xC3\xA4") == "\xC3\xA4");
}

TEST_CASE("escapes that mean nothing say so") {
    CHECK(bytes_of("\\q").starts_with("error: there is no escape \\q"));
    CHECK(bytes_of("\\").starts_with("error: the text ends with a backslash"));
    CHECK(bytes_of("^").starts_with("error: after ^ comes a letter"));
    CHECK(bytes_of("^1").starts_with("error: there is no control character ^1"));
    CHECK(bytes_of("\\x4").starts_with("error: after \\x come two"));
    CHECK(bytes_of("\\xg0").starts_with("error: after \\x come two"));
    CHECK(bytes_of("^\x1b") == "error: there is no control character ^?; \\^ is the character itself");
}

TEST_CASE("words are keys by name, in any case, or text on a US keyboard") {
    CHECK(strokes_of("Enter") == std::vector<int>{0x5A, 0xF0, 0x5A});
    CHECK(strokes_of("f12") == std::vector<int>{0x07, 0xF0, 0x07});
    CHECK(strokes_of("Ctrl-Alt-Del") ==
          std::vector<int>{0x14, 0x11, 0xE0, 0x71, 0xE0, 0xF0, 0x71, 0xF0, 0x11, 0xF0, 0x14});
    CHECK(strokes_of("PgUp") == strokes_of("pageup"));
    CHECK(strokes_of("Escape") == strokes_of("\\e"));
    CHECK(strokes_of("aB") == std::vector<int>{0x1C, 0xF0, 0x1C, 0x12, 0x32, 0xF0, 0x32, 0xF0, 0x12});
    CHECK(strokes_of("X") == std::vector<int>{0x12, 0x22, 0xF0, 0x22, 0xF0, 0x12});
    CHECK(strokes_of("ls\\n") == std::vector<int>{0x4B, 0xF0, 0x4B, 0x1B, 0xF0, 0x1B, 0x5A, 0xF0, 0x5A});
    CHECK(strokes_of("^C") == strokes_of("Ctrl-c"));
    CHECK(strokes_of("Ctrl--") == std::vector<int>{0x14, 0x4E, 0xF0, 0x4E, 0xF0, 0x14});
}

TEST_CASE("keys that no keyboard has are named") {
    usize at = 0;
    const auto stroke = next_stroke("Ctrl-Alt-Dell", at);
    REQUIRE_FALSE(stroke);
    CHECK(stroke.error().text.view().starts_with("there is no key \"Ctrl-Alt-Dell\"; keys are Enter"));
    CHECK(strokes_of("\xC3\xA4") == std::vector<int>{-1});
    CHECK(strokes_of("\\x00") == std::vector<int>{-1});
}

TEST_CASE("any text is either sent completely or refused, and always gets on") {
    std::mt19937 random(7);
    for (int i = 0; i < 20000; ++i) {
        std::string text(1 + random() % 40, 0);
        const char* interesting = "\\^xXaF1-ctrl\n\x1b";
        for (char& c : text) c = random() % 2 == 0 ? interesting[random() % 15] : static_cast<char>(random());
        for (usize at = 0; at < text.size();) {
            const usize before = at;
            const auto stroke = next_stroke(text, at);
            if (!stroke) break;
            REQUIRE(at > before);
            REQUIRE(!stroke->empty());
        }
    }
}
