#include "kernel/base/format.hpp"

namespace bulkhead {
namespace {

struct Specification {
    char align = 0;  // '<', '>' or 0: numbers to the right, text to the left
    bool alternate = false;
    bool zero = false;
    unsigned width = 0;
    char type = 0;  // 'x', 'X' or 0
};

Specification parse_specification(std::string_view text) {
    Specification result;
    usize i = 0;
    if (i < text.size() && text[i] == ':') ++i;
    if (i < text.size() && (text[i] == '<' || text[i] == '>')) result.align = text[i++];
    if (i < text.size() && text[i] == '#') result.alternate = true, ++i;
    if (i < text.size() && text[i] == '0') result.zero = true, ++i;
    while (i < text.size() && text[i] >= '0' && text[i] <= '9' && result.width < 100) {
        result.width = result.width * 10 + static_cast<unsigned>(text[i++] - '0');
    }
    if (i < text.size()) result.type = text[i];
    return result;
}

void pad(Sink& sink, char fill, usize count) {
    for (; count > 0; --count) sink.write({&fill, 1});
}

void print_padded(Sink& sink, const Specification& spec, std::string_view text, bool right) {
    const usize fill = text.size() < spec.width ? spec.width - text.size() : 0;
    if (spec.align != 0) right = spec.align == '>';
    if (right) pad(sink, ' ', fill);
    sink.write(text);
    if (!right) pad(sink, ' ', fill);
}

void print_number(Sink& sink, Specification spec, u64 value, bool negative) {
    char buffer[24];
    usize at = sizeof buffer;
    const unsigned base = (spec.type == 'x' || spec.type == 'X') ? 16 : 10;
    const char* digits = spec.type == 'X' ? "0123456789ABCDEF" : "0123456789abcdef";
    do {
        buffer[--at] = digits[value % base];
        value /= base;
    } while (value != 0);
    const std::string_view prefix = negative ? "-" : (spec.alternate && base == 16) ? "0x" : "";
    const std::string_view number(buffer + at, sizeof buffer - at);
    const usize length = prefix.size() + number.size();
    const usize fill = length < spec.width ? spec.width - length : 0;
    if (!spec.zero && spec.align != '<') pad(sink, ' ', fill);
    sink.write(prefix);
    if (spec.zero) pad(sink, '0', fill);
    sink.write(number);
    if (!spec.zero && spec.align == '<') pad(sink, ' ', fill);
}

void print_argument(Sink& sink, Specification spec, const FormatArgument& argument) {
    using Kind = FormatArgument::Kind;
    switch (argument.kind) {
        case Kind::unsigned_number: print_number(sink, spec, argument.number, false); break;
        case Kind::signed_number: {
            const bool negative = static_cast<i64>(argument.number) < 0;
            print_number(sink, spec, negative ? 0 - argument.number : argument.number, negative);
            break;
        }
        case Kind::address:
            if (spec.type == 0) spec.type = 'x', spec.alternate = true;
            print_number(sink, spec, argument.number, false);
            break;
        case Kind::boolean: print_padded(sink, spec, argument.number != 0 ? "true" : "false", false); break;
        case Kind::character: {
            const char c = static_cast<char>(argument.number);
            print_padded(sink, spec, {&c, 1}, false);
            break;
        }
        case Kind::text: print_padded(sink, spec, argument.text, false); break;
        case Kind::custom: argument.print(sink, argument.object); break;
    }
}

}  // namespace

void print_arguments(Sink& sink, std::string_view format, std::span<const FormatArgument> arguments) {
    usize next = 0;
    while (!format.empty()) {
        usize plain = 0;
        while (plain < format.size() && format[plain] != '{' && format[plain] != '}') ++plain;
        if (plain > 0) sink.write(format.substr(0, plain));
        format.remove_prefix(plain);
        if (format.empty()) return;
        if (format.size() >= 2 && format[1] == format[0]) {
            sink.write(format.substr(0, 1));
            format.remove_prefix(2);
            continue;
        }
        usize end = 1;
        while (end < format.size() && format[end] != '}') ++end;
        if (next < arguments.size()) {
            print_argument(sink, parse_specification(format.substr(1, end - 1)), arguments[next++]);
        }
        format.remove_prefix(end < format.size() ? end + 1 : format.size());
    }
}

}  // namespace bulkhead
