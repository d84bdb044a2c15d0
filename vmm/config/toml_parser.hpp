// The parser behind toml::Document::parse(). toml_parser.cpp knows statements, tables and how to go on after
// a problem; toml_tokens.cpp keys, strings and values.
#pragma once

#include "kernel/base/fixed_vector.hpp"
#include "vmm/config/toml.hpp"

namespace bulkhead::toml {

[[nodiscard]] constexpr bool is_bare_key_byte(char c) {
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
}

struct KeyPart {
    u32 offset = 0;
    u32 length = 0;
};
using Key = FixedVector<KeyPart, Document::max_key_parts>;

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

}  // namespace bulkhead::toml
