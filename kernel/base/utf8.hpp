// UTF-8, one character at a time, from text that nobody has vetted.
#pragma once

#include <string_view>

#include "kernel/base/types.hpp"

namespace bulkhead {

struct Utf8Character {
    u32 code_point = 0;
    u8 length = 0;  // bytes taken from the text: 0 at its end, 1 for a byte that starts no valid character
    bool valid = false;
};

// The first character of `text`. Overlong forms, surrogates and values past 10FFFFh are not valid
// (The Unicode Standard 15.0, table 3-7).
[[nodiscard]] constexpr Utf8Character first_utf8(std::string_view text) {
    if (text.empty()) return {};
    const u8 lead = static_cast<u8>(text[0]);
    if (lead < 0x80) return {lead, 1, true};
    u8 length = 0;
    u32 value = 0;
    if (lead >= 0xC2 && lead <= 0xDF) length = 2, value = lead & 0x1Fu;
    if (lead >= 0xE0 && lead <= 0xEF) length = 3, value = lead & 0x0Fu;
    if (lead >= 0xF0 && lead <= 0xF4) length = 4, value = lead & 0x07u;
    if (length == 0 || text.size() < length) return {0, 1, false};
    for (usize i = 1; i < length; ++i) {
        const u8 next = static_cast<u8>(text[i]);
        if ((next & 0xC0) != 0x80) return {0, 1, false};
        value = value << 6 | (next & 0x3Fu);
    }
    constexpr u32 smallest[] = {0, 0, 0x80, 0x800, 0x10000};
    const bool surrogate = value >= 0xD800 && value <= 0xDFFF;
    if (value < smallest[length] || value > 0x10FFFF || surrogate) return {0, 1, false};
    return {value, length, true};
}

// Writes the encoding of `code_point`, a Unicode scalar value, and returns its length.
constexpr usize encode_utf8(u32 code_point, char (&out)[4]) {
    const auto tail = [&](unsigned shift) { return static_cast<char>(0x80 | (code_point >> shift & 0x3F)); };
    if (code_point < 0x80) {
        out[0] = static_cast<char>(code_point);
        return 1;
    }
    if (code_point < 0x800) {
        out[0] = static_cast<char>(0xC0 | code_point >> 6);
        out[1] = tail(0);
        return 2;
    }
    if (code_point < 0x10000) {
        out[0] = static_cast<char>(0xE0 | code_point >> 12);
        out[1] = tail(6);
        out[2] = tail(0);
        return 3;
    }
    out[0] = static_cast<char>(0xF0 | (code_point >> 18 & 7));
    out[1] = tail(12);
    out[2] = tail(6);
    out[3] = tail(0);
    return 4;
}

}  // namespace bulkhead
