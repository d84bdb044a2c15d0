// The text of a config file as a tree: a subset of TOML 1.0.0. A file that is accepted means what any TOML
// parser says it means; a file that is not is refused with the position of every problem.
//
// Supported: comments; bare, quoted and dotted keys; [table] headers; the four kinds of strings with all
// escapes; integers in four bases with underscores; booleans; arrays of these, over several lines too.
// Refused as "not supported here": floats, dates and times, inline tables, arrays of tables, arrays in
// arrays. Also refused, since parsers differ: CR LF inside multi-line strings, and a byte order mark.
//
// After a problem the parser goes on at the next line that looks like a key or a header, so that one pass
// reports all of them. The tables concerned are marked.
#pragma once

#include <optional>
#include <string_view>

#include "kernel/base/fixed_string.hpp"
#include "kernel/base/types.hpp"
#include "vmm/config/reporter.hpp"

namespace bulkhead::toml {

enum class Kind : u8 { table, array, string, integer, boolean };

[[nodiscard]] std::string_view name_of(Kind kind);  // with its article: "a string"

using NodeIndex = u16;
constexpr NodeIndex no_node = 0xFFFF;

struct Node {
    // How a table came to be decides who may add to it (TOML 1.0.0, "Table" and "Keys").
    enum class Origin : u8 {
        implied,  // named on the way to a [header]; may still get a header of its own
        header,   // has its header: neither a second one nor dotted keys from outside may define it again
        dotted,   // made by dotted keys; a [header] may only go through it
    };

    Kind kind = Kind::table;
    Origin origin = Origin::implied;
    bool erroneous = false;  // it or something below it was reported
    NodeIndex parent = no_node;
    NodeIndex first_child = no_node;
    NodeIndex last_child = no_node;
    NodeIndex next = no_node;  // sibling, in the file's order
    // Into the text; the tokens as they stand there, quotes included.
    u32 key_offset = 0;
    u32 key_length = 0;
    u32 value_offset = 0;
    u32 value_length = 0;
};

// Yields the bytes that a vetted key or string token stands for.
class TokenReader {
  public:
    explicit TokenReader(std::string_view token);

    // The next byte, or -1 at the end.
    [[nodiscard]] int next();

  private:
    void unescape();

    std::string_view rest_;
    bool escapes_ = false;
    bool multi_line_ = false;
    char pending_[4] = {};
    u8 pending_at_ = 0;
    u8 pending_size_ = 0;
};

// Holds positions in the text only: the text must outlive it. About 90 KiB: not for a stack.
class Document {
  public:
    static constexpr usize max_nodes = 3072;
    static constexpr usize max_text = 1 * mib;
    static constexpr usize max_key_parts = 8;

    // Forgets what was there before. False if anything was reported.
    bool parse(std::string_view text, Reporter& reporter);

    // False when the text was not read to its end: what is missing is unknown.
    [[nodiscard]] bool complete() const { return complete_; }

    [[nodiscard]] NodeIndex root() const { return 0; }
    [[nodiscard]] const Node& operator[](NodeIndex index) const { return nodes_[index]; }

    [[nodiscard]] NodeIndex find(NodeIndex table, std::string_view key) const;

    void write_key(NodeIndex node, Sink& sink) const { write_token(key_token(node), sink); }
    void write_text(NodeIndex string, Sink& sink) const { write_token(value_token(string), sink); }
    // No value: it does not fit.
    template <usize Capacity>
    [[nodiscard]] bool read_key(NodeIndex node, FixedString<Capacity>& out) const {
        out.clear();
        write_key(node, out);
        return !out.truncated();
    }
    template <usize Capacity>
    [[nodiscard]] bool read_text(NodeIndex string, FixedString<Capacity>& out) const {
        out.clear();
        write_text(string, out);
        return !out.truncated();
    }
    [[nodiscard]] bool boolean(NodeIndex node) const;
    [[nodiscard]] i64 integer(NodeIndex node) const;

    [[nodiscard]] std::string_view key_token(NodeIndex node) const;
    [[nodiscard]] std::string_view value_token(NodeIndex node) const;

  private:
    friend class Parser;

    static void write_token(std::string_view token, Sink& sink);

    std::string_view text_;
    bool complete_ = false;
    usize count_ = 0;
    Node nodes_[max_nodes];
};

enum class IntegerError : u8 { malformed, leading_zero, out_of_range };

// A TOML integer with sign, base prefix and underscores.
struct ParsedInteger {
    i64 value = 0;
    std::optional<IntegerError> error;
};
[[nodiscard]] ParsedInteger parse_integer(std::string_view token);

}  // namespace bulkhead::toml
