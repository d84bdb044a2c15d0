#include "vmm/config/toml.hpp"

#include "kernel/base/filtered.hpp"
#include "kernel/base/fixed_vector.hpp"
#include "kernel/base/utf8.hpp"

namespace bulkhead::toml {
namespace {

bool is_bare_key_byte(char c) {
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
}

bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

bool is_hex_digit(char c) {
    return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

bool same_key(std::string_view token_a, std::string_view token_b) {
    TokenReader a(token_a);
    TokenReader b(token_b);
    while (true) {
        const int byte = a.next();
        if (byte != b.next()) return false;
        if (byte < 0) return true;
    }
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

struct KeyPart {
    u32 offset = 0;
    u32 length = 0;
};
using Key = FixedVector<KeyPart, Document::max_key_parts>;

}  // namespace

// One pass over the text. Functions that return bool have reported what made them return false.
class Parser {
  public:
    Parser(Document& document, std::string_view text, Reporter& reporter)
        : document_(document), text_(text), reporter_(reporter) {}

    void run();

  private:
    // Node 1: where keys go whose table is refused, so that their syntax is checked all the same.
    static constexpr NodeIndex discard = 1;

    [[nodiscard]] bool at_end() const { return at_ == text_.size(); }
    [[nodiscard]] char peek(usize ahead = 0) const {
        return at_ + ahead < text_.size() ? text_[at_ + ahead] : '\0';
    }
    [[nodiscard]] bool at_line_end() const {
        return at_end() || peek() == '\n' || (peek() == '\r' && peek(1) == '\n');
    }
    [[nodiscard]] std::string_view from(usize offset) const {
        return {text_.data() + offset, text_.size() - offset};
    }
    [[nodiscard]] std::string_view token(const KeyPart& part) const {
        return {text_.data() + part.offset, part.length};
    }

    void skip_blanks() {
        while (peek() == ' ' || peek() == '\t') ++at_;
    }
    void skip_line_end() {
        if (peek() == '\r') ++at_;
        if (peek() == '\n') ++at_;
    }
    [[nodiscard]] bool skip_comment();
    [[nodiscard]] bool skip_blanks_comments_lines();

    void statement();
    [[nodiscard]] bool header();
    [[nodiscard]] bool key_value();
    [[nodiscard]] bool end_of_statement();
    [[nodiscard]] bool key(Key& parts);
    [[nodiscard]] bool value(NodeIndex node, bool in_array);
    [[nodiscard]] bool array(NodeIndex node);
    [[nodiscard]] bool string(bool multi_line_allowed);
    [[nodiscard]] bool escape(bool multi_line);
    [[nodiscard]] bool text_character();
    [[nodiscard]] bool number_or_word(NodeIndex node);

    void open_table(const Key& parts, usize start, bool well_formed);
    [[nodiscard]] NodeIndex open_key(const Key& parts);

    [[nodiscard]] NodeIndex child(NodeIndex table, std::string_view key_token) const;
    [[nodiscard]] NodeIndex add(NodeIndex parent, KeyPart part, Kind kind, Node::Origin origin);
    void mark(NodeIndex node);
    void use_discard();
    void resynchronise(usize start);
    [[nodiscard]] bool looks_like_statement();

    Document& document_;
    std::string_view text_;
    Reporter& reporter_;
    usize at_ = 0;
    NodeIndex table_ = 0;
    bool full_ = false;
};

bool Document::parse(std::string_view text, Reporter& reporter) {
    const unsigned before = reporter.count();
    text_ = text;
    count_ = 0;
    complete_ = false;
    Parser(*this, text, reporter).run();
    return reporter.count() == before;
}

void Parser::run() {
    constexpr std::string_view byte_order_mark = "\xEF\xBB\xBF";
    document_.nodes_[0] = Node{};
    document_.nodes_[discard] = Node{};
    document_.count_ = 2;
    document_.nodes_[0].origin = Node::Origin::header;
    if (text_.size() > Document::max_text) {
        reporter_.report(0, "the file has {} bytes; at most {} are supported", text_.size(),
                         Document::max_text);
        mark(0);
        return;
    }
    if (text_.starts_with(byte_order_mark)) {
        reporter_.report(0, "the file starts with a byte order mark; save it as UTF-8 without one");
        mark(0);
        at_ = byte_order_mark.size();
    }
    while (!at_end() && !full_) {
        skip_blanks();
        if (at_line_end()) {
            skip_line_end();
        } else {
            statement();
        }
    }
    document_.complete_ = !full_;
}

void Parser::statement() {
    const usize start = at_;
    bool good;
    if (peek() == '#') {
        good = skip_comment();
    } else {
        good = (peek() == '[' ? header() : key_value()) && end_of_statement();
    }
    if (good) return;
    mark(table_);
    mark(document_.root());
    if (!full_) resynchronise(start);
}

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

// --- Statements ---

bool Parser::header() {
    const usize start = at_++;
    const bool array_of_tables = peek() == '[';
    if (array_of_tables) ++at_;
    Key parts;
    if (!key(parts)) {
        // Charged to the deepest known table that it names: it may have had more to say about a VM.
        NodeIndex table = document_.root();
        for (const KeyPart& part : parts) {
            const NodeIndex next = child(table, token(part));
            if (next == no_node) break;
            table = next;
        }
        mark(table);
        use_discard();
        return false;
    }
    const bool closed = peek() == ']' && (!array_of_tables || peek(1) == ']');
    open_table(parts, start, closed && !array_of_tables);
    if (full_) return false;
    if (!closed) {
        reporter_.report(at_, "expected ] at the end of the table header");
        return false;
    }
    at_ += array_of_tables ? 2 : 1;
    if (array_of_tables) {
        reporter_.report(
            start,
            "arrays of tables are not supported here; give each table a name of its own, in single brackets");
        return false;
    }
    return true;
}

// Makes the table of a header the current one. A header that is not well-formed still tells which table it
// meant, so that the problem is charged to it.
void Parser::open_table(const Key& parts, usize start, bool well_formed) {
    NodeIndex table = document_.root();
    for (usize i = 0; i < parts.size(); ++i) {
        const bool last = i + 1 == parts.size();
        NodeIndex next = child(table, token(parts[i]));
        if (next == no_node) {
            next = add(table, parts[i], Kind::table, last ? Node::Origin::header : Node::Origin::implied);
            if (next == no_node) return;
        } else if (document_.nodes_[next].kind != Kind::table) {
            if (well_formed) {
                reporter_.report(parts[i].offset, "{} is already a value, on line {}; rename one of the two",
                                 Filtered(token(parts[i])),
                                 reporter_.line_of(document_.nodes_[next].key_offset));
            }
            mark(next);
            use_discard();
            return;
        } else if (last && document_.nodes_[next].origin != Node::Origin::implied) {
            if (well_formed) {
                reporter_.report(start, "this table is already defined on line {}; join the two",
                                 reporter_.line_of(document_.nodes_[next].key_offset));
            }
            mark(next);
            use_discard();
            return;
        } else if (last) {
            document_.nodes_[next].origin = Node::Origin::header;
            document_.nodes_[next].key_offset = parts[i].offset;
            document_.nodes_[next].key_length = parts[i].length;
        }
        table = next;
    }
    table_ = table;
}

bool Parser::key_value() {
    Key parts;
    if (!key(parts)) return false;
    const NodeIndex node = open_key(parts);
    if (node == no_node) return false;
    if (peek() != '=') {
        reporter_.report(at_, "expected = after the key");
        mark(node);
        return false;
    }
    ++at_;
    skip_blanks();
    if (value(node, false)) return true;
    mark(node);
    return false;
}

// The node for the value of a new key; no_node only when the document is full.
NodeIndex Parser::open_key(const Key& parts) {
    NodeIndex table = table_;
    for (usize i = 0; i < parts.size(); ++i) {
        const bool last = i + 1 == parts.size();
        const NodeIndex next = child(table, token(parts[i]));
        if (next == no_node) {
            table = add(table, parts[i], last ? Kind::string : Kind::table, Node::Origin::dotted);
            if (table == no_node) return no_node;
            continue;
        }
        const Node& existing = document_.nodes_[next];
        const bool may_pass = existing.kind == Kind::table && existing.origin == Node::Origin::dotted;
        if (last || !may_pass) {
            const u32 line = reporter_.line_of(existing.key_offset);
            if (existing.kind == Kind::table && !last) {
                reporter_.report(parts[i].offset, "table {} is already defined on line {}; put the key there",
                                 Filtered(token(parts[i])), line);
            } else {
                reporter_.report(parts[i].offset, "{} is already defined on line {}; remove one of the two",
                                 Filtered(token(parts[i])), line);
            }
            mark(next);
            return add(discard, parts[parts.size() - 1], Kind::string, Node::Origin::dotted);
        }
        table = next;
    }
    return table;
}

// --- The tree ---

NodeIndex Parser::child(NodeIndex table, std::string_view key_token) const {
    for (NodeIndex i = document_.nodes_[table].first_child; i != no_node; i = document_.nodes_[i].next) {
        if (same_key(document_.key_token(i), key_token)) return i;
    }
    return no_node;
}

NodeIndex Parser::add(NodeIndex parent, KeyPart part, Kind kind, Node::Origin origin) {
    if (document_.count_ == Document::max_nodes) {
        if (!full_) {
            reporter_.report(part.offset, "more than {} keys and values in one file; the rest is not read",
                             Document::max_nodes - 2);
        }
        full_ = true;
        mark(parent);
        return no_node;
    }
    const NodeIndex index = static_cast<NodeIndex>(document_.count_++);
    Node& node = document_.nodes_[index];
    node = Node{};
    node.kind = kind;
    node.origin = origin;
    node.parent = parent;
    node.key_offset = part.offset;
    node.key_length = part.length;
    Node& owner = document_.nodes_[parent];
    if (owner.first_child == no_node) {
        owner.first_child = index;
    } else {
        document_.nodes_[owner.last_child].next = index;
    }
    owner.last_child = index;
    return index;
}

void Parser::mark(NodeIndex node) {
    for (; node != no_node; node = document_.nodes_[node].parent) document_.nodes_[node].erroneous = true;
}

void Parser::use_discard() {
    document_.nodes_[discard] = Node{};
    table_ = discard;
}

// --- Going on after a problem ---

// Moves to the next line; when the problem lies past the first line of the statement (in an array or a
// multi-line string), to the next line that looks like a statement, which may be the problem's own.
void Parser::resynchronise(usize start) {
    usize line = start;
    const usize problem = at_;
    const auto next_line = [&] {
        while (line < text_.size() && text_[line] != '\n') ++line;
        if (line < text_.size()) ++line;
    };
    next_line();
    if (problem < line || line == text_.size()) {
        at_ = line;
        return;
    }
    while (line < text_.size()) {
        at_ = line;
        if (looks_like_statement()) {
            at_ = line;
            return;
        }
        next_line();
    }
    at_ = line;
}

// [word or word = at the beginning of a line. Moves at_.
bool Parser::looks_like_statement() {
    skip_blanks();
    const bool table = peek() == '[';
    while (peek() == '[') ++at_;
    const usize start = at_;
    while (is_bare_key_byte(peek()) || peek() == '.') ++at_;
    if (at_ == start) return false;
    skip_blanks();
    return table ? peek() == ']' : peek() == '=';
}

}  // namespace bulkhead::toml
