#include "vmm/console/keys.hpp"

#include <optional>

#include "kernel/base/filtered.hpp"

namespace bulkhead {
namespace {

char lower(char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
}

// Other names that people and programs have for keys.
constexpr struct {
    std::string_view alias, name;
} aliases[] = {{"del", "delete"},  {"ins", "insert"},    {"escape", "esc"},
               {"pgup", "pageup"}, {"pgdn", "pagedown"}, {"return", "enter"}};

constexpr usize longest_key = 32;

// A key's name, with its modifiers, as vmm/dev/keys knows it.
FixedString<longest_key + 8> canonical(std::string_view word) {
    FixedString<longest_key> small;
    for (const char c : word) {
        const char l = lower(c);
        small.append({&l, 1});
    }
    std::string_view key = small;
    const usize dash = key.rfind('-');
    const usize start = dash == std::string_view::npos ? 0 : dash + 1;
    FixedString<longest_key + 8> result(key.substr(0, start));
    key.remove_prefix(start);
    for (const auto& [alias, name] : aliases) {
        if (key == alias) key = name;
    }
    result.append(key);
    return result;
}

bool has_modifier(std::string_view name) {
    for (const std::string_view modifier : {"ctrl-", "alt-", "shift-"}) {
        if (name.starts_with(modifier) && name.size() > modifier.size()) return true;
    }
    return false;
}

std::optional<u8> hexadecimal(char c) {
    if (c >= '0' && c <= '9') return static_cast<u8>(c - '0');
    if (lower(c) >= 'a' && lower(c) <= 'f') return static_cast<u8>(lower(c) - 'a' + 10);
    return std::nullopt;
}

}  // namespace

Result<u8> next_character(std::string_view text, usize& at) {
    const char c = text[at++];
    const bool last = at == text.size();
    if (c == '^') {
        if (last) return fail("after ^ comes a letter; \\^ is the character itself");
        const char key = text[at++];
        if (key == '?') return u8{0x7F};
        if ((key < '@' || key > '_') && (key < 'a' || key > 'z'))
            return fail("there is no control character ^{}; \\^ is the character itself",
                        Filtered({&key, 1}));
        return static_cast<u8>(key & 0x1F);
    }
    if (c != '\\') return static_cast<u8>(c);
    if (last) return fail("the text ends with a backslash; \\\\ is the character itself");
    const char kind = text[at++];
    switch (kind) {
        case 'n': return u8{'\n'};
        case 'r': return u8{'\r'};
        case 't': return u8{'\t'};
        case 'b': return u8{'\b'};
        case 'e': return u8{0x1B};
        case 'x': {
            const auto high = at < text.size() ? hexadecimal(text[at]) : std::nullopt;
            const auto low = at + 1 < text.size() ? hexadecimal(text[at + 1]) : std::nullopt;
            if (!high || !low) return fail("after \\x come two hexadecimal digits, such as \\x1b");
            at += 2;
            return static_cast<u8>(*high << 4 | *low);
        }
        default: break;
    }
    if ((kind >= 'a' && kind <= 'z') || (kind >= '0' && kind <= '9'))
        return fail("there is no escape \\{}; there are \\n \\r \\t \\e \\b \\xHH \\\\ \\^", kind);
    return static_cast<u8>(kind);
}

Result<ScanCodes> next_stroke(std::string_view word, usize& at) {
    // One character is just typed: "X" is not "x".
    if (at == 0 && word.size() > 1 && word.size() <= longest_key) {
        const auto name = canonical(word);
        if (const auto codes = scan_codes_of_key(name)) {
            at = word.size();
            return *codes;
        }
        if (has_modifier(name)) {
            return fail(
                "there is no key \"{}\"; keys are Enter, Tab, Esc, Backspace, Space, arrows (Up), Home, "
                "End, PgUp, PgDn, Ins, Del, F1 to F12",
                Filtered(word));
        }
    }
    const auto character = next_character(word, at);
    if (!character) return std::unexpected(character.error());
    if (const auto codes = scan_codes_of(static_cast<char>(*character))) return *codes;
    if (*character >= 1 && *character <= 26) {
        const char key[] = {'c', 't', 'r', 'l', '-', static_cast<char>('a' + *character - 1)};
        if (const auto codes = scan_codes_of_key({key, sizeof key})) return *codes;
    }
    return fail("no key of a US keyboard has the character {:#04x}", *character);
}

}  // namespace bulkhead
