// The lines of a TOML file: which tables they open, and where their keys go.
#include "vmm/config/toml_parser.hpp"

#include "kernel/base/filtered.hpp"

namespace bulkhead::toml {
namespace {

bool same_key(std::string_view token_a, std::string_view token_b) {
    TokenReader a(token_a);
    TokenReader b(token_b);
    while (true) {
        const int byte = a.next();
        if (byte != b.next()) return false;
        if (byte < 0) return true;
    }
}

}  // namespace

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
