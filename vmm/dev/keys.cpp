#include "vmm/dev/keys.hpp"

namespace bulkhead {

namespace {

constexpr u8 extended_prefix = 0xE0;
constexpr u8 release_prefix = 0xF0;

struct Key {
    u8 code = 0;  // make code; 0: none
    bool extended = false;
    bool shifted = false;
};

struct NamedKey {
    std::string_view name;
    Key key;
};

constexpr NamedKey named_keys[] = {
    {"enter", {0x5A}},        {"ret", {0x5A}},
    {"tab", {0x0D}},          {"esc", {0x76}},
    {"backspace", {0x66}},    {"space", {0x29}},
    {"up", {0x75, true}},     {"down", {0x72, true}},
    {"left", {0x6B, true}},   {"right", {0x74, true}},
    {"home", {0x6C, true}},   {"end", {0x69, true}},
    {"pageup", {0x7D, true}}, {"pagedown", {0x7A, true}},
    {"insert", {0x70, true}}, {"delete", {0x71, true}},
    {"f1", {0x05}},           {"f2", {0x06}},
    {"f3", {0x04}},           {"f4", {0x0C}},
    {"f5", {0x03}},           {"f6", {0x0B}},
    {"f7", {0x83}},           {"f8", {0x0A}},
    {"f9", {0x01}},           {"f10", {0x09}},
    {"f11", {0x78}},          {"f12", {0x07}},
};

constexpr NamedKey modifiers[] = {{"shift-", {0x12}}, {"ctrl-", {0x14}}, {"alt-", {0x11}}};

// Row by row: the character, the one with Shift, and the make code.
struct CharacterKey {
    char plain;
    char shifted;
    u8 code;
};

constexpr CharacterKey character_keys[] = {
    {'`', '~', 0x0E},       {'1', '!', 0x16},       {'2', '@', 0x1E},   {'3', '#', 0x26},
    {'4', '$', 0x25},       {'5', '%', 0x2E},       {'6', '^', 0x36},   {'7', '&', 0x3D},
    {'8', '*', 0x3E},       {'9', '(', 0x46},       {'0', ')', 0x45},   {'-', '_', 0x4E},
    {'=', '+', 0x55},       {'q', 'Q', 0x15},       {'w', 'W', 0x1D},   {'e', 'E', 0x24},
    {'r', 'R', 0x2D},       {'t', 'T', 0x2C},       {'y', 'Y', 0x35},   {'u', 'U', 0x3C},
    {'i', 'I', 0x43},       {'o', 'O', 0x44},       {'p', 'P', 0x4D},   {'[', '{', 0x54},
    {']', '}', 0x5B},       {'\\', '|', 0x5D},      {'a', 'A', 0x1C},   {'s', 'S', 0x1B},
    {'d', 'D', 0x23},       {'f', 'F', 0x2B},       {'g', 'G', 0x34},   {'h', 'H', 0x33},
    {'j', 'J', 0x3B},       {'k', 'K', 0x42},       {'l', 'L', 0x4B},   {';', ':', 0x4C},
    {'\'', '"', 0x52},      {'z', 'Z', 0x1A},       {'x', 'X', 0x22},   {'c', 'C', 0x21},
    {'v', 'V', 0x2A},       {'b', 'B', 0x32},       {'n', 'N', 0x31},   {'m', 'M', 0x3A},
    {',', '<', 0x41},       {'.', '>', 0x49},       {'/', '?', 0x4A},   {' ', ' ', 0x29},
    {'\n', '\n', 0x5A},     {'\r', '\r', 0x5A},     {'\t', '\t', 0x0D}, {'\b', '\b', 0x66},
    {'\x7F', '\x7F', 0x66}, {'\x1B', '\x1B', 0x76},
};

Key key_of(char character) {
    for (const CharacterKey& key : character_keys) {
        if (key.plain == character) return {key.code, false, false};
        if (key.shifted == character) return {key.code, false, true};
    }
    return {};
}

// The capacity holds what can be asked for: three modifiers of 1 + 2 bytes and a key of 2 + 3.
void add(ScanCodes& codes, u8 code) {
    static_cast<void>(codes.push_back(code));
}

void press(ScanCodes& codes, const Key& key) {
    if (key.extended) add(codes, extended_prefix);
    add(codes, key.code);
}

void release(ScanCodes& codes, const Key& key) {
    if (key.extended) add(codes, extended_prefix);
    add(codes, release_prefix);
    add(codes, key.code);
}

}  // namespace

std::optional<ScanCodes> scan_codes_of(char character) {
    const Key key = key_of(character);
    if (key.code == 0) return std::nullopt;
    ScanCodes codes;
    if (key.shifted) press(codes, modifiers[0].key);
    press(codes, key);
    release(codes, key);
    if (key.shifted) release(codes, modifiers[0].key);
    return codes;
}

std::optional<ScanCodes> scan_codes_of_key(std::string_view name) {
    bool held[3] = {};
    for (bool found = true; found;) {
        found = false;
        for (unsigned i = 0; i < 3; ++i) {
            // "-" alone, or at the end, is the key itself.
            if (held[i] || !name.starts_with(modifiers[i].name) || name.size() == modifiers[i].name.size()) {
                continue;
            }
            held[i] = found = true;
            name.remove_prefix(modifiers[i].name.size());
        }
    }
    Key key;
    if (name.size() == 1) {
        key = key_of(name[0]);
        held[0] = held[0] || key.shifted;
    } else {
        for (const NamedKey& candidate : named_keys) {
            if (candidate.name == name) key = candidate.key;
        }
    }
    if (key.code == 0) return std::nullopt;
    ScanCodes codes;
    for (unsigned i = 0; i < 3; ++i) {
        if (held[i]) press(codes, modifiers[i].key);
    }
    press(codes, key);
    release(codes, key);
    for (unsigned i = 3; i-- > 0;) {
        if (held[i]) release(codes, modifiers[i].key);
    }
    return codes;
}

}  // namespace bulkhead
