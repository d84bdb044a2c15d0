#include "kernel/base/filtered.hpp"

#include "kernel/base/utf8.hpp"

namespace bulkhead {
namespace {

bool is_harmless(std::string_view text, const Utf8Character& character) {
    if (!character.valid || character.code_point < 0x20 || character.code_point == 0x7F) return false;
    for (usize i = 0; i < character.length; ++i) {
        const u8 byte = static_cast<u8>(text[i]);
        if (byte >= 0x80 && byte <= 0x9F) return false;
    }
    return true;
}

}  // namespace

void format_value(Sink& sink, const Filtered& value) {
    std::string_view rest = value.text;
    while (!rest.empty()) {
        usize plain = 0;
        Utf8Character character;
        while (plain < rest.size()) {
            const std::string_view from(rest.data() + plain, rest.size() - plain);
            character = first_utf8(from);
            if (!is_harmless(from, character)) break;
            plain += character.length;
        }
        if (plain > 0) sink.write(rest.substr(0, plain));
        rest.remove_prefix(plain);
        if (rest.empty()) return;
        sink.write("?");
        rest.remove_prefix(character.length);
    }
}

}  // namespace bulkhead
