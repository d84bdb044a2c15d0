// Reading what the parser has vetted.
#include "kernel/base/utf8.hpp"
#include "vmm/config/toml.hpp"

namespace bulkhead::toml {
namespace {

unsigned digit_value(char c) {
    if (c >= '0' && c <= '9') return static_cast<unsigned>(c - '0');
    if (c >= 'a' && c <= 'f') return static_cast<unsigned>(c - 'a' + 10);
    if (c >= 'A' && c <= 'F') return static_cast<unsigned>(c - 'A' + 10);
    return 16;
}

bool is_space(char c) {
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

}  // namespace

std::string_view name_of(Kind kind) {
    switch (kind) {
        case Kind::table: return "a table";
        case Kind::array: return "an array";
        case Kind::string: return "a string";
        case Kind::integer: return "an integer";
        case Kind::boolean: return "a boolean";
    }
    return "";
}

TokenReader::TokenReader(std::string_view token) : rest_(token) {
    if (token.empty() || (token[0] != '"' && token[0] != '\'')) return;
    escapes_ = token[0] == '"';
    multi_line_ = token.size() >= 6 && token[1] == token[0] && token[2] == token[0];
    const usize quotes = multi_line_ ? 3 : 1;
    rest_.remove_prefix(quotes);
    rest_.remove_suffix(quotes < rest_.size() ? quotes : rest_.size());
    // A line feed right after the opening quotes is not part of the text.
    if (multi_line_ && !rest_.empty() && rest_[0] == '\n') rest_.remove_prefix(1);
}

int TokenReader::next() {
    while (pending_at_ == pending_size_) {
        if (rest_.empty()) return -1;
        if (!escapes_ || rest_[0] != '\\') {
            const u8 byte = static_cast<u8>(rest_[0]);
            rest_.remove_prefix(1);
            return byte;
        }
        unescape();
    }
    return static_cast<u8>(pending_[pending_at_++]);
}

void TokenReader::unescape() {
    pending_at_ = pending_size_ = 0;
    rest_.remove_prefix(1);
    if (rest_.empty()) return;
    const char kind = rest_[0];
    if (multi_line_ && is_space(kind)) {
        // A backslash at the end of a line eats all white space up to the next text.
        while (!rest_.empty() && is_space(rest_[0])) rest_.remove_prefix(1);
        return;
    }
    rest_.remove_prefix(1);
    u32 code_point = static_cast<u8>(kind);
    switch (kind) {
        case 'b': code_point = '\b'; break;
        case 't': code_point = '\t'; break;
        case 'n': code_point = '\n'; break;
        case 'f': code_point = '\f'; break;
        case 'r': code_point = '\r'; break;
        case 'u':
        case 'U':
            code_point = 0;
            for (usize i = kind == 'u' ? 4 : 8; i > 0 && !rest_.empty(); --i) {
                code_point = code_point << 4 | (digit_value(rest_[0]) & 15);
                rest_.remove_prefix(1);
            }
            break;
        default: break;  // \" and \\ stand for themselves
    }
    pending_size_ = static_cast<u8>(encode_utf8(code_point, pending_));
}

NodeIndex Document::find(NodeIndex table, std::string_view key) const {
    for (NodeIndex i = nodes_[table].first_child; i != no_node; i = nodes_[i].next) {
        TokenReader reader(key_token(i));
        usize at = 0;
        int byte = reader.next();
        while (byte >= 0 && at < key.size() && static_cast<u8>(key[at]) == byte) {
            ++at;
            byte = reader.next();
        }
        if (byte < 0 && at == key.size()) return i;
    }
    return no_node;
}

void Document::write_token(std::string_view token, Sink& sink) {
    char buffer[64];
    usize size = 0;
    TokenReader reader(token);
    for (int byte = reader.next(); byte >= 0; byte = reader.next()) {
        buffer[size++] = static_cast<char>(byte);
        if (size == sizeof buffer) {
            sink.write({buffer, size});
            size = 0;
        }
    }
    if (size > 0) sink.write({buffer, size});
}

std::string_view Document::key_token(NodeIndex node) const {
    return {text_.data() + nodes_[node].key_offset, nodes_[node].key_length};
}

std::string_view Document::value_token(NodeIndex node) const {
    return {text_.data() + nodes_[node].value_offset, nodes_[node].value_length};
}

bool Document::boolean(NodeIndex node) const {
    return value_token(node) == "true";
}

i64 Document::integer(NodeIndex node) const {
    return parse_integer(value_token(node)).value;
}

ParsedInteger parse_integer(std::string_view token) {
    bool negative = false;
    bool sign = false;
    if (!token.empty() && (token[0] == '+' || token[0] == '-')) {
        sign = true;
        negative = token[0] == '-';
        token.remove_prefix(1);
    }
    unsigned base = 10;
    if (token.size() >= 2 && token[0] == '0' && (token[1] == 'x' || token[1] == 'o' || token[1] == 'b')) {
        if (sign) return {0, IntegerError::malformed};
        base = token[1] == 'x' ? 16 : token[1] == 'o' ? 8 : 2;
        token.remove_prefix(2);
    }
    if (token.empty()) return {0, IntegerError::malformed};
    if (base == 10 && token[0] == '0' && token.size() > 1) return {0, IntegerError::leading_zero};
    constexpr u64 largest = 0x7FFF'FFFF'FFFF'FFFF;
    const u64 limit = negative ? largest + 1 : largest;
    u64 value = 0;
    bool after_digit = false;
    bool overflow = false;
    for (const char c : token) {
        if (c == '_') {
            if (!after_digit) return {0, IntegerError::malformed};
            after_digit = false;
            continue;
        }
        const unsigned digit = digit_value(c);
        if (digit >= base) return {0, IntegerError::malformed};
        after_digit = true;
        if (value > (limit - digit) / base) overflow = true;
        if (!overflow) value = value * base + digit;
    }
    if (!after_digit) return {0, IntegerError::malformed};
    if (overflow) return {0, IntegerError::out_of_range};
    return {static_cast<i64>(negative ? 0 - value : value), std::nullopt};
}

}  // namespace bulkhead::toml
