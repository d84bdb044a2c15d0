#include "vmm/console/keys.hpp"

#include <optional>

#include "kernel/base/filtered.hpp"
#include "vmm/config/nearest.hpp"

namespace bulkhead {
namespace {

constexpr u16 extended = 0xE000;  // the scan code has the prefix E0h
constexpr u8 released = 0xF0;

struct NamedKey {
    std::string_view name;
    u16 code;
};

// Scan codes of set 2: IBM Personal System/2 Hardware Interface Technical Reference (1988), "Keyboard
// (101- and 102-key)".
constexpr NamedKey modifiers[] = {{"ctrl", 0x14},  {"control", 0x14},
                                  {"alt", 0x11},   {"altgr", extended | 0x11},
                                  {"shift", 0x12}, {"super", extended | 0x1F}};
constexpr NamedKey keys[] = {
    {"enter", 0x5A},
    {"return", 0x5A},
    {"esc", 0x76},
    {"escape", 0x76},
    {"tab", 0x0D},
    {"space", 0x29},
    {"backspace", 0x66},
    {"del", extended | 0x71},
    {"delete", extended | 0x71},
    {"insert", extended | 0x70},
    {"home", extended | 0x6C},
    {"end", extended | 0x69},
    {"pgup", extended | 0x7D},
    {"pgdn", extended | 0x7A},
    {"up", extended | 0x75},
    {"down", extended | 0x72},
    {"left", extended | 0x6B},
    {"right", extended | 0x74},
    {"menu", extended | 0x2F},
    {"capslock", 0x58},
    {"numlock", 0x77},
    {"scrolllock", 0x7E},
    {"f1", 0x05},
    {"f2", 0x06},
    {"f3", 0x04},
    {"f4", 0x0C},
    {"f5", 0x03},
    {"f6", 0x0B},
    {"f7", 0x83},
    {"f8", 0x0A},
    {"f9", 0x01},
    {"f10", 0x09},
    {"f11", 0x78},
    {"f12", 0x07},
};

// The keys of a US keyboard that have two characters: plain, with Shift, and the codes in the same order.
constexpr std::string_view plain = "abcdefghijklmnopqrstuvwxyz1234567890`-=[]\\;',./ ";
constexpr std::string_view shifted = "ABCDEFGHIJKLMNOPQRSTUVWXYZ!@#$%^&*()~_+{}|:\"<>? ";
constexpr u8 codes[] = {0x1C, 0x32, 0x21, 0x23, 0x24, 0x2B, 0x34, 0x33, 0x43, 0x3B, 0x42, 0x4B,
                        0x3A, 0x31, 0x44, 0x4D, 0x15, 0x2D, 0x1B, 0x2C, 0x3C, 0x2A, 0x1D, 0x22,
                        0x35, 0x1A, 0x16, 0x1E, 0x26, 0x25, 0x2E, 0x36, 0x3D, 0x3E, 0x46, 0x45,
                        0x0E, 0x4E, 0x55, 0x54, 0x5B, 0x5D, 0x4C, 0x52, 0x41, 0x49, 0x4A, 0x29};
static_assert(plain.size() == sizeof codes && shifted.size() == sizeof codes);

constexpr u16 shift_key = 0x12, control_key = 0x14, enter_key = 0x5A;

char lower(char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
}

// True when `text` begins with `name`, which is in small letters.
bool begins_with(std::string_view text, std::string_view name) {
    if (text.size() < name.size()) return false;
    for (usize i = 0; i < name.size(); ++i) {
        if (lower(text[i]) != name[i]) return false;
    }
    return true;
}

std::optional<u16> find_key(std::string_view name) {
    for (const NamedKey& key : keys) {
        if (name.size() == key.name.size() && begins_with(name, key.name)) return key.code;
    }
    return std::nullopt;
}

class Stroke {
  public:
    void hold(u16 key) { (void)held_.push_back(key); }
    // At most four modifiers; pressing the same twice does no harm.
    [[nodiscard]] bool full() const { return held_.full(); }

    [[nodiscard]] KeyStroke press(u16 key) {
        for (const u16 modifier : held_) put(modifier, false);
        put(key, false);
        put(key, true);
        for (usize i = held_.size(); i-- > 0;) put(held_[i], true);
        return bytes_;
    }

  private:
    void put(u16 key, bool release) {
        if ((key & 0xFF00) == extended) (void)bytes_.push_back(0xE0);
        if (release) (void)bytes_.push_back(released);
        (void)bytes_.push_back(static_cast<u8>(key));
    }

    FixedVector<u16, 4> held_;
    KeyStroke bytes_;
};
// Four extended modifiers and an extended key.
static_assert(KeyStroke::capacity() >= 4 * (2 + 3) + 2 + 3);

[[nodiscard]] Result<KeyStroke> stroke_of(u8 character, Stroke stroke) {
    const char c = static_cast<char>(character);
    if (c == '\n' || c == '\r') return stroke.press(enter_key);
    if (c == '\t') return stroke.press(0x0D);
    if (c == 0x1B) return stroke.press(0x76);
    if (c == 0x08 || c == 0x7F) return stroke.press(0x66);
    if (character >= 1 && character <= 26) {
        stroke.hold(control_key);
        return stroke.press(codes[character - 1]);
    }
    if (const usize at = plain.find(c); at != std::string_view::npos) return stroke.press(codes[at]);
    if (const usize at = shifted.find(c); at != std::string_view::npos) {
        stroke.hold(shift_key);
        return stroke.press(codes[at]);
    }
    return fail("no key of a US keyboard has the character {:#04x}", character);
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

Result<KeyStroke> next_stroke(std::string_view word, usize& at) {
    if (at == 0) {
        Stroke stroke;
        std::string_view name = word;
        bool modified = false;
        for (bool found = true; found && !stroke.full();) {
            found = false;
            for (const NamedKey& modifier : modifiers) {
                const usize size = modifier.name.size();
                if (name.size() < size + 2 || name[size] != '-' || !begins_with(name, modifier.name))
                    continue;
                stroke.hold(modifier.code);
                name.remove_prefix(size + 1);
                modified = found = true;
                break;
            }
        }
        if (const auto key = find_key(name)) {
            at = word.size();
            return stroke.press(*key);
        }
        if (modified) {
            at = word.size();
            if (name.size() == 1) return stroke_of(static_cast<u8>(name[0]), stroke);
            Nearest nearest(name);
            for (const NamedKey& key : keys) nearest.consider(key.name);
            if (nearest.word().empty()) return fail("no key is named \"{}\"", Filtered(name));
            return fail("no key is named \"{}\"; did you mean {}?", Filtered(name), nearest.word());
        }
    }
    const auto character = next_character(word, at);
    if (!character) return std::unexpected(character.error());
    return stroke_of(*character, {});
}

}  // namespace bulkhead
