// Text formatting into a sink, without allocation. A small subset of std::format's language:
// {} {:x} {:X} {:#x} {:08x} {:>8} {:<8} {:5}; literal braces are doubled. Arguments: integers, bool, char,
// string views, address and number types (printed in hexadecimal with 0x), and anything with a
// `void format_value(Sink&, const T&)` found by argument-dependent lookup.
#pragma once

#include <concepts>
#include <span>
#include <string_view>
#include <type_traits>

#include "kernel/base/types.hpp"

namespace bulkhead {

// Where text goes: a log, a console, a fixed buffer.
class Sink {
  public:
    virtual void write(std::string_view text) = 0;

  protected:
    ~Sink() = default;
};

struct FormatArgument {
    enum class Kind : u8 { unsigned_number, signed_number, boolean, character, text, address, custom };
    Kind kind;
    u64 number = 0;
    std::string_view text = {};
    const void* object = nullptr;
    void (*print)(Sink&, const void*) = nullptr;
};

namespace detail {

template <class T>
concept HasRaw = requires(const T& value) {
    { value.raw() } -> std::integral;
};

template <class T>
constexpr FormatArgument make_argument(const T& value) {
    using Kind = FormatArgument::Kind;
    if constexpr (std::is_same_v<T, bool>) {
        return {.kind = Kind::boolean, .number = value};
    } else if constexpr (std::is_same_v<T, char>) {
        return {.kind = Kind::character, .number = static_cast<u8>(value)};
    } else if constexpr (std::is_integral_v<T> && std::is_signed_v<T>) {
        return {.kind = Kind::signed_number, .number = static_cast<u64>(static_cast<i64>(value))};
    } else if constexpr (std::is_integral_v<T>) {
        return {.kind = Kind::unsigned_number, .number = value};
    } else if constexpr (HasRaw<T>) {
        return {.kind = Kind::address, .number = static_cast<u64>(value.raw())};
    } else if constexpr (std::is_convertible_v<const T&, std::string_view>) {
        return {.kind = Kind::text, .text = std::string_view(value)};
    } else {
        return {.kind = Kind::custom, .object = &value, .print = [](Sink& sink, const void* object) {
                    format_value(sink, *static_cast<const T*>(object));
                }};
    }
}

void not_a_valid_format_string();  // never defined: reaching it makes the constant evaluation fail

consteval usize count_placeholders(std::string_view format) {
    usize count = 0;
    for (usize i = 0; i < format.size(); ++i) {
        const char c = format[i];
        if (c != '{' && c != '}') continue;
        if (i + 1 < format.size() && format[i + 1] == c) {
            ++i;
            continue;
        }
        if (c == '}') not_a_valid_format_string();
        while (i < format.size() && format[i] != '}') ++i;
        if (i == format.size()) not_a_valid_format_string();
        ++count;
    }
    return count;
}

}  // namespace detail

// A format string whose placeholders were counted against its arguments at compile time.
template <class... Arguments>
struct FormatString {
    std::string_view text;

    template <class T>
    requires std::is_convertible_v<const T&, std::string_view>
    consteval FormatString(const T& literal) : text(literal) {  // NOLINT: implicit on purpose
        if (detail::count_placeholders(text) != sizeof...(Arguments)) detail::not_a_valid_format_string();
    }
};

void print_arguments(Sink& sink, std::string_view format, std::span<const FormatArgument> arguments);

template <class... Arguments>
void print(Sink& sink, FormatString<std::type_identity_t<Arguments>...> format,
           const Arguments&... arguments) {
    if constexpr (sizeof...(Arguments) == 0) {
        print_arguments(sink, format.text, {});
    } else {
        const FormatArgument list[] = {detail::make_argument(arguments)...};
        print_arguments(sink, format.text, list);
    }
}

}  // namespace bulkhead
