#include "vmm/console/json_writer.hpp"

#include "kernel/base/utf8.hpp"

namespace bulkhead {

void JsonWriter::EscapingSink::write(std::string_view text) {
    while (!text.empty()) {
        const Utf8Character character = first_utf8(text);
        const u32 code = character.valid ? character.code_point : 0xFFFD;
        if (code == '"' || code == '\\') {
            print(next_, "\\{}", static_cast<char>(code));
        } else if (code >= 0x20 && code < 0x7F) {
            next_.write(text.substr(0, 1));
        } else if (code == '\n') {
            next_.write("\\n");
        } else if (code < 0x10000) {
            print(next_, "\\u{:04x}", code);
        } else {
            const u32 offset = code - 0x10000;
            print(next_, "\\u{:04x}\\u{:04x}", 0xD800 + (offset >> 10), 0xDC00 + (offset & 0x3FF));
        }
        text.remove_prefix(character.length);
    }
}

void JsonWriter::separate() {
    if (after_key_) {
        after_key_ = false;
        return;
    }
    if (depth_ == 0) return;
    const u64 level = u64{1} << ((depth_ - 1) & 63);
    if ((has_members_ & level) != 0) sink_.write(",");
    has_members_ |= level;
}

void JsonWriter::open(char bracket) {
    separate();
    sink_.write({&bracket, 1});
    has_members_ &= ~(u64{1} << (depth_ & 63));
    ++depth_;
}

void JsonWriter::close(char bracket) {
    if (depth_ > 0) --depth_;
    sink_.write({&bracket, 1});
}

void JsonWriter::key(std::string_view name) {
    text(name);
    sink_.write(":");
    after_key_ = true;
}

void JsonWriter::text(std::string_view value) {
    separate();
    sink_.write("\"");
    EscapingSink(sink_).write(value);
    sink_.write("\"");
}

void JsonWriter::number(u64 value) {
    separate();
    print(sink_, "{}", value);
}

void JsonWriter::boolean(bool value) {
    separate();
    sink_.write(value ? std::string_view("true") : std::string_view("false"));
}

void JsonWriter::null() {
    separate();
    sink_.write("null");
}

void JsonWriter::tenths(u64 value) {
    separate();
    print(sink_, "{}.{}", value / 10, value % 10);
}

void JsonWriter::seconds(u64 nanoseconds) {
    separate();
    print(sink_, "{}.{:03}", nanoseconds / 1'000'000'000, nanoseconds / 1'000'000 % 1000);
}

}  // namespace bulkhead
