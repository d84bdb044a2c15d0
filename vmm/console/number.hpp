// Numbers that an operator types.
#pragma once

#include <optional>
#include <string_view>

#include "kernel/base/types.hpp"

namespace bulkhead {

// Decimal, or hexadecimal after 0x. Nothing for what is no number or does not fit.
[[nodiscard]] constexpr std::optional<u64> parse_number(std::string_view word) {
    const bool hexadecimal = word.starts_with("0x") || word.starts_with("0X");
    if (hexadecimal) word.remove_prefix(2);
    if (word.empty()) return std::nullopt;
    const u64 base = hexadecimal ? 16 : 10;
    u64 value = 0;
    for (const char c : word) {
        u64 digit = 16;
        if (c >= '0' && c <= '9') digit = static_cast<u64>(c - '0');
        if (c >= 'a' && c <= 'f') digit = static_cast<u64>(c - 'a') + 10;
        if (c >= 'A' && c <= 'F') digit = static_cast<u64>(c - 'A') + 10;
        if (digit >= base || value > (~u64{0} - digit) / base) return std::nullopt;
        value = value * base + digit;
    }
    return value;
}

}  // namespace bulkhead
