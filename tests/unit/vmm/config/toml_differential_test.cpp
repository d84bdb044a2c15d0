// Everything that our subset accepts, toml++ must accept, and read the same from it.
// The packaged library, not the header alone: toml++ 3.3.0 has an undefined shift that the sanitizers object
// to.
#define TOML_HEADER_ONLY 0
#define TOML_SHARED_LIB 1
#include <toml++/toml.h>

#include <catch2/catch.hpp>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "vmm/config/toml.hpp"

using bulkhead::i64;
using bulkhead::Reporter;
using bulkhead::toml::Document;
using bulkhead::toml::Kind;
using bulkhead::toml::no_node;
using bulkhead::toml::NodeIndex;

namespace {

struct StringSink final : bulkhead::Sink {
    std::string text;
    void write(std::string_view piece) override { text += piece; }
};

bool same(const Document& document, NodeIndex node, const toml::node& other);

bool same_children(const Document& document, NodeIndex table, const toml::table& other) {
    size_t count = 0;
    for (NodeIndex i = document[table].first_child; i != no_node; i = document[i].next, ++count) {
        StringSink key;
        document.write_key(i, key);
        const toml::node* value = other.get(key.text);
        if (value == nullptr || !same(document, i, *value)) return false;
    }
    return count == other.size();
}

bool same(const Document& document, NodeIndex node, const toml::node& other) {
    switch (document[node].kind) {
        case Kind::table: return other.is_table() && same_children(document, node, *other.as_table());
        case Kind::array: {
            if (!other.is_array()) return false;
            size_t index = 0;
            for (NodeIndex i = document[node].first_child; i != no_node; i = document[i].next, ++index) {
                const toml::node* element = other.as_array()->get(index);
                if (element == nullptr || !same(document, i, *element)) return false;
            }
            return index == other.as_array()->size();
        }
        case Kind::string: {
            StringSink text;
            document.write_text(node, text);
            return other.is_string() && other.as_string()->get() == text.text;
        }
        case Kind::integer: return other.is_integer() && other.as_integer()->get() == document.integer(node);
        case Kind::boolean: return other.is_boolean() && other.as_boolean()->get() == document.boolean(node);
    }
    return false;
}

// Sentences that are mostly TOML, with the interesting spots favoured.
class Generator {
  public:
    explicit Generator(unsigned seed) : random_(seed) {}

    std::string file() {
        std::string text;
        for (unsigned lines = below(8) + 1; lines > 0; --lines) text += line();
        for (unsigned mutations = chance(2) ? 0 : below(4); mutations > 0 && !text.empty(); --mutations)
            mutate(text);
        return text;
    }
    unsigned below(unsigned limit) { return static_cast<unsigned>(random_() % limit); }
    bool chance(unsigned in) { return below(in) == 0; }

  private:
    template <size_t N>
    std::string pick(const char* const (&list)[N]) {
        return list[below(N)];
    }
    std::string key_part() {
        static const char* const parts[] = {"a",           "b", "c",    "vm",  "web",     "\"a\"", "'b'",
                                            "\"\\u0061\"", "1", "\"\"", "a-b", "\"x y\"", "'\\'"};
        return pick(parts);
    }
    std::string key() {
        std::string text = key_part();
        for (unsigned more = below(3); more > 0; --more) text += (chance(4) ? " . " : ".") + key_part();
        return text;
    }
    std::string characters() {
        static const char* const pieces[] = {
            "x",        "abc", " ", "\\n", "\\t",       "\\\"",    "\\\\", "\\u00e9",         "\\U0001F600",
            "\xC3\xA9", "#",   "'", "=",   "\\b\\f\\r", "\\u0000", "\t",   "\xF0\x9F\x98\x80"};
        std::string text;
        for (unsigned n = below(5); n > 0; --n) text += pick(pieces);
        return text;
    }
    std::string multi_line_characters() {
        static const char* const pieces[] = {"x", "\n",  "\\\n  ", "\"",           "\"\"",     "''",
                                             "'", "\\n", " ",      "\\  \n\n\t y", "\xC3\xA9", "\\u0041"};
        std::string text;
        for (unsigned n = below(6); n > 0; --n) text += pick(pieces);
        return text;
    }
    std::string scalar() {
        static const char* const numbers[] = {"0",
                                              "1",
                                              "-1",
                                              "+5",
                                              "1_000",
                                              "0x1F",
                                              "0xdead_BEEF",
                                              "0o17",
                                              "0b1_0",
                                              "9223372036854775807",
                                              "-9223372036854775808",
                                              "-0",
                                              "007",
                                              "0x",
                                              "1__2",
                                              "1.5",
                                              "1e3",
                                              "1979-05-27",
                                              "07:32:00",
                                              "inf"};
        switch (below(6)) {
            case 0: return chance(2) ? "true" : "false";
            case 1: return pick(numbers);
            case 2: return "\"" + characters() + "\"";
            case 3: return "'" + multi_line_characters() + "'";
            case 4: return "\"\"\"" + multi_line_characters() + "\"\"\"";
            default: return "'''" + multi_line_characters() + "'''";
        }
    }
    std::string value() {
        if (!chance(5)) return scalar();
        std::string text = "[";
        static const char* const gaps[] = {"", " ", "\n", " # c\n", "\r\n", "\t"};
        for (unsigned n = below(4); n > 0; --n)
            text += pick(gaps) + scalar() + pick(gaps) + (n > 1 || chance(3) ? "," : "");
        return text + pick(gaps) + "]";
    }
    std::string line() {
        static const char* const ends[] = {
            "\n", "\n", "\n", "\r\n", " # comment\n", "  \n", " # \xC3\xA9\r\n"};
        switch (below(5)) {
            case 0: return (chance(8) ? "[ " : "[") + key() + "]" + pick(ends);
            case 1: return pick(ends);
            default:
                return (chance(6) ? "  " : "") + key() + (chance(4) ? "=" : " = ") + value() + pick(ends);
        }
    }
    void mutate(std::string& text) {
        static const char interesting[] = "\"'\\[]{}=.,#\n\r\t +-_0x:eEuU\x00\x1f\x7f\x80\xC3";
        const unsigned at = below(static_cast<unsigned>(text.size()));
        switch (below(4)) {
            case 0: text.erase(at, 1 + below(3)); break;
            case 1: text.insert(at, 1, interesting[below(sizeof interesting - 1)]); break;
            case 2: text[at] = interesting[below(sizeof interesting - 1)]; break;
            default:
                text.insert(at, text.substr(below(static_cast<unsigned>(text.size())), below(12)));
                break;
        }
    }

    std::mt19937 random_;
};

// 0: refused by us, 1: accepted and the same, 2: accepted by us alone, 3: read differently.
int compare(const std::string& text, Document& document) {
    StringSink problems;
    Reporter reporter("t.toml", text, problems);
    if (!document.parse(text, reporter)) return 0;
    try {
        const toml::table other = toml::parse(text);
        return same_children(document, document.root(), other) ? 1 : 3;
    } catch (const toml::parse_error&) {
        return 2;
    }
}

}  // namespace

TEST_CASE("whatever is accepted, toml++ accepts and reads the same") {
    auto document = std::make_unique<Document>();
    Generator generator(20240607);
    unsigned accepted = 0;
    unsigned refused = 0;
    for (int i = 0; i < 30000; ++i) {
        const std::string text = generator.file();
        const int outcome = compare(text, *document);
        if (outcome >= 2) FAIL("outcome " << outcome << " for:\n" << text);
        ++(outcome == 0 ? refused : accepted);
    }
    // The generator must not degenerate into refusals.
    CHECK(accepted > 3000);
    CHECK(refused > 3000);
}

TEST_CASE("most of what toml++ accepts is accepted, or is one of the unsupported kinds") {
    auto document = std::make_unique<Document>();
    Generator generator(7);
    for (int i = 0; i < 10000; ++i) {
        const std::string text = generator.file();
        bool theirs = true;
        try {
            (void)toml::parse(text);
        } catch (const toml::parse_error&) {
            theirs = false;
        }
        if (!theirs) continue;
        StringSink problems;
        Reporter reporter("t.toml", text, problems);
        if (document->parse(text, reporter)) continue;
        const bool unsupported = problems.text.find("not supported here") != std::string::npos ||
                                 problems.text.find("LF line ends") != std::string::npos;
        if (!unsupported) FAIL(problems.text << "for:\n" << text);
    }
}
