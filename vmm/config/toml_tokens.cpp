// What stands in a line of TOML: comments, keys, strings, numbers, arrays.
#include "kernel/base/filtered.hpp"
#include "kernel/base/utf8.hpp"
#include "vmm/config/toml_parser.hpp"

namespace bulkhead::toml {
namespace {

bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

bool is_hex_digit(char c) {
    return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

// Which of TOML's other types a token that is no integer was meant to be.
bool looks_like_date(std::string_view token) {
    if (token.size() < 3 || !is_digit(token[0])) return false;
    usize digits = 1;
    while (digits < token.size() && is_digit(token[digits])) ++digits;
    return digits < token.size() && (token[digits] == ':' || (token[digits] == '-' && digits >= 4));
}

bool looks_like_float(std::string_view token) {
    if (!token.empty() && (token[0] == '+' || token[0] == '-')) token.remove_prefix(1);
    if (token == "inf" || token == "nan") return true;
    if (token.empty() || !is_digit(token[0])) return false;
    if (token.size() > 1 && token[0] == '0' && token[1] == 'x') return false;
    for (const char c : token) {
        if (c == '.' || c == 'e' || c == 'E') return true;
    }
    return false;
}

}  // namespace

// --- Lexical elements ---

// One character inside a comment or a string: not a control character, and valid UTF-8.
bool Parser::text_character() {
    const Utf8Character character = first_utf8(from(at_));
    if (!character.valid) {
        reporter_.report(at_, "byte {:#04x} is not valid UTF-8; save the file as UTF-8",
                         static_cast<unsigned>(static_cast<u8>(text_[at_])));
        return false;
    }
    if ((character.code_point < 0x20 && character.code_point != '\t') || character.code_point == 0x7F) {
        reporter_.report(at_, "control character {:#04x}; remove it or write \\u{:04X} in a \"string\"",
                         character.code_point, character.code_point);
        return false;
    }
    at_ += character.length;
    return true;
}

bool Parser::skip_comment() {
    while (!at_line_end()) {
        if (!text_character()) return false;
    }
    return true;
}

bool Parser::skip_blanks_comments_lines() {
    while (true) {
        skip_blanks();
        if (peek() == '#') {
            if (!skip_comment()) return false;
        }
        if (at_end() || !at_line_end()) return true;
        skip_line_end();
    }
}

bool Parser::end_of_statement() {
    skip_blanks();
    if (peek() == '#') return skip_comment();
    if (at_line_end()) return true;
    reporter_.report(at_, "unexpected text at the end of the line; start a new line or a # comment");
    return false;
}

bool Parser::key(Key& parts) {
    while (true) {
        skip_blanks();
        const usize start = at_;
        if (peek() == '"' || peek() == '\'') {
            if (!string(false)) return false;
        } else {
            while (is_bare_key_byte(peek())) ++at_;
            if (at_ == start) {
                reporter_.report(
                    at_, "expected a key; bare keys are made of A-Z a-z 0-9 _ and -, others are \"quoted\"");
                return false;
            }
        }
        if (!parts.push_back({static_cast<u32>(start), static_cast<u32>(at_ - start)})) {
            reporter_.report(start, "a key of more than {} parts; no known key is that deep",
                             Document::max_key_parts);
            return false;
        }
        skip_blanks();
        if (peek() != '.') return true;
        ++at_;
    }
}

bool Parser::string(bool multi_line_allowed) {
    const usize start = at_;
    const char quote = peek();
    const bool multi_line = multi_line_allowed && peek(1) == quote && peek(2) == quote;
    at_ += multi_line ? 3 : 1;
    while (!at_end()) {
        const char c = peek();
        if (c == quote) {
            usize run = 1;
            while (multi_line && run < 5 && peek(run) == quote) ++run;
            at_ += run;
            // Up to two quotes may stand right before the closing three.
            if (!multi_line || run >= 3) return true;
        } else if (c == '\\' && quote == '"') {
            if (!escape(multi_line)) return false;
        } else if (c == '\n' && multi_line) {
            ++at_;
        } else if (c == '\r' && multi_line) {
            reporter_.report(
                at_,
                "CR inside a multi-line string, which not all parsers read alike; save the file with "
                "LF line ends");
            return false;
        } else if (at_line_end()) {
            break;
        } else if (!text_character()) {
            return false;
        }
    }
    reporter_.report(start, "the string is not closed; end it with {}{}{}", quote,
                     multi_line ? std::string_view(&quote, 1) : "",
                     multi_line ? std::string_view(&quote, 1) : "");
    return false;
}

bool Parser::escape(bool multi_line) {
    const usize start = at_++;
    const char kind = peek();
    switch (kind) {
        case 'b':
        case 't':
        case 'n':
        case 'f':
        case 'r':
        case '"':
        case '\\': ++at_; return true;
        default: break;
    }
    if (kind == 'u' || kind == 'U') {
        ++at_;
        const usize digits = kind == 'u' ? 4 : 8;
        u32 code_point = 0;
        for (usize i = 0; i < digits; ++i, ++at_) {
            if (!is_hex_digit(peek())) {
                reporter_.report(start, "\\{} needs {} hexadecimal digits", kind, digits);
                return false;
            }
            const char c = peek();
            code_point = code_point << 4 | static_cast<u32>(is_digit(c) ? c - '0' : (c | 0x20) - 'a' + 10);
        }
        if (code_point > 0x10FFFF || (code_point >= 0xD800 && code_point <= 0xDFFF)) {
            reporter_.report(start, "{} is no Unicode character; use 0 to D7FF or E000 to 10FFFF",
                             Filtered({text_.data() + start, at_ - start}));
            return false;
        }
        return true;
    }
    if (multi_line) {
        // A backslash with nothing but blanks after it joins lines.
        usize end = at_;
        while (end < text_.size() && (text_[end] == ' ' || text_[end] == '\t')) ++end;
        if (end < text_.size() && text_[end] == '\n') {
            at_ = end + 1;
            return true;
        }
    }
    reporter_.report(
        start,
        "unknown escape; use \\b \\t \\n \\f \\r \\\" \\\\ \\uXXXX \\UXXXXXXXX, or a 'literal string'");
    return false;
}

// --- Values ---

bool Parser::value(NodeIndex node, bool in_array) {
    Node& target = document_.nodes_[node];
    target.value_offset = static_cast<u32>(at_);
    bool good = false;
    switch (peek()) {
        case '"':
        case '\'':
            target.kind = Kind::string;
            good = string(true);
            break;
        case '[':
            if (in_array) {
                reporter_.report(at_, "arrays in arrays are not supported here; write one flat array");
                return false;
            }
            target.kind = Kind::array;
            good = array(node);
            break;
        case '{':
            reporter_.report(at_,
                             "inline tables are not supported here; use a [table] header or dotted keys");
            return false;
        default: good = number_or_word(node); break;
    }
    target.value_length = static_cast<u32>(at_) - target.value_offset;
    return good;
}

bool Parser::array(NodeIndex node) {
    const usize start = at_++;
    while (true) {
        if (!skip_blanks_comments_lines()) return false;
        if (peek() == ']') break;
        if (at_end()) {
            reporter_.report(start, "the array is not closed; end it with ]");
            return false;
        }
        const NodeIndex element = add(node, {static_cast<u32>(at_), 0}, Kind::string, Node::Origin::header);
        if (element == no_node || !value(element, true)) return false;
        if (!skip_blanks_comments_lines()) return false;
        if (peek() == ',') {
            ++at_;
        } else if (peek() != ']') {
            if (at_end()) {
                reporter_.report(start, "the array is not closed; end it with ]");
            } else {
                reporter_.report(at_, "expected , or ] in the array");
            }
            return false;
        }
    }
    ++at_;
    return true;
}

bool Parser::number_or_word(NodeIndex node) {
    const usize start = at_;
    while (is_bare_key_byte(peek()) || peek() == '+' || peek() == '.' || peek() == ':') ++at_;
    const std::string_view word(text_.data() + start, at_ - start);
    if (word.empty()) {
        reporter_.report(start, "expected a value: a \"string\", an integer, true, false or an [array]");
        return false;
    }
    if (word == "true" || word == "false") {
        document_.nodes_[node].kind = Kind::boolean;
        return true;
    }
    if (looks_like_date(word)) {
        reporter_.report(start, "dates and times are not supported here; did you mean a \"string\"?");
        return false;
    }
    if (looks_like_float(word)) {
        reporter_.report(start,
                         "floating-point numbers are not supported here; write an integer or a \"string\"");
        return false;
    }
    if (!is_digit(word[0]) && word[0] != '+' && word[0] != '-') {
        reporter_.report(start, "{} is not a value; put text in \"quotes\"", Filtered(word));
        return false;
    }
    const ParsedInteger parsed = parse_integer(word);
    document_.nodes_[node].kind = Kind::integer;
    if (!parsed.error) return true;
    switch (*parsed.error) {
        case IntegerError::malformed:
            reporter_.report(start, "{} is not an integer; put text in \"quotes\"", Filtered(word));
            break;
        case IntegerError::leading_zero:
            reporter_.report(start, "{} starts with a zero; write it without, or octal as 0o17",
                             Filtered(word));
            break;
        case IntegerError::out_of_range:
            reporter_.report(start, "{} does not fit 64 bits with sign; write a smaller number",
                             Filtered(word));
            break;
    }
    return false;
}

}  // namespace bulkhead::toml
