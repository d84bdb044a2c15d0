#include "vmm/config/toml.hpp"

#include <catch2/catch.hpp>
#include <memory>
#include <string>

using namespace bulkhead;
using toml::Kind;

namespace {

struct StringSink final : Sink {
    std::string text;
    void write(std::string_view piece) override { text += piece; }
};

struct Parsed {
    std::unique_ptr<toml::Document> document = std::make_unique<toml::Document>();
    StringSink problems;
    bool good = false;
    std::string text;

    explicit Parsed(std::string_view source) : text(source) {
        Reporter reporter("t.toml", text, problems);
        good = document->parse(text, reporter);
        CHECK(good == problems.text.empty());
        CHECK(good != (*document)[document->root()].erroneous);
    }
    toml::NodeIndex at(std::initializer_list<std::string_view> path) const {
        toml::NodeIndex node = document->root();
        for (const auto part : path) {
            node = document->find(node, part);
            REQUIRE(node != toml::no_node);
        }
        return node;
    }
    std::string string(std::initializer_list<std::string_view> path) const {
        StringSink sink;
        const auto node = at(path);
        CHECK((*document)[node].kind == Kind::string);
        document->write_text(node, sink);
        return sink.text;
    }
    i64 integer(std::initializer_list<std::string_view> path) const {
        const auto node = at(path);
        CHECK((*document)[node].kind == Kind::integer);
        return document->integer(node);
    }
};

std::string problems_of(std::string_view text) {
    return Parsed(text).problems.text;
}

}  // namespace

TEST_CASE("keys are bare, quoted or dotted, and the same key in other clothes is the same key") {
    const Parsed p(
        "bare_key-1 = 1\n\"quoted key\" = 2\n'lit\\eral' = 3\n1234 = 4\n\"\" = 5\n"
        "a . \"b\" . c = 6\na.'b'.d = 7\n\"\\u0061\".e = 8\n\"\xC3\xA9\" = 9\n3.14 = 10\n");
    REQUIRE(p.problems.text == "");
    CHECK(p.integer({"bare_key-1"}) == 1);
    CHECK(p.integer({"quoted key"}) == 2);
    CHECK(p.integer({"lit\\eral"}) == 3);
    CHECK(p.integer({"1234"}) == 4);
    CHECK(p.integer({""}) == 5);
    CHECK(p.integer({"a", "b", "c"}) == 6);
    CHECK(p.integer({"a", "b", "d"}) == 7);
    CHECK(p.integer({"a", "e"}) == 8);
    CHECK(p.integer({"\xC3\xA9"}) == 9);
    CHECK(p.integer({"3", "14"}) == 10);
}

TEST_CASE("strings mean what the TOML specification says") {
    const Parsed p(
        "a = \"I'm a string. \\\"You can quote me\\\". Name\\tJos\\u00E9\\nLocation\\tSF.\"\n"
        "b = 'C:\\Users\\nodejs'\n"
        "c = \"\"\"\nRoses are red\nViolets are blue\"\"\"\n"
        "d = \"\"\"\\\n   The quick brown \\\n\n\n  fox.\\\n   \"\"\"\n"
        "e = \"\"\"Here are two quotation marks: \"\". Simple enough.\"\"\"\n"
        "f = \"\"\"\"This,\" she said, \"is just a pointless statement.\"\"\"\"\n"
        "g = '''\nThe first newline is\ntrimmed in raw strings.\n'''\n"
        "h = '''Here are fifteen quotation marks: \"\"\"\"\"\"\"\"\"\"\"\"\"\"\"'''\n"
        "i = ''''That,' she said, 'is still pointless.''''\n"
        "j = \"\\U0001F600\\b\\f\\r\\\\\"\n"
        "k = \"\"\"\"\"\"\nl = ''''''\nm = \"\"\"\"\"\"\"\"\n");
    REQUIRE(p.problems.text == "");
    CHECK(p.string({"a"}) == "I'm a string. \"You can quote me\". Name\tJos\xC3\xA9\nLocation\tSF.");
    CHECK(p.string({"b"}) == "C:\\Users\\nodejs");
    CHECK(p.string({"c"}) == "Roses are red\nViolets are blue");
    CHECK(p.string({"d"}) == "The quick brown fox.");
    CHECK(p.string({"e"}) == "Here are two quotation marks: \"\". Simple enough.");
    CHECK(p.string({"f"}) == "\"This,\" she said, \"is just a pointless statement.\"");
    CHECK(p.string({"g"}) == "The first newline is\ntrimmed in raw strings.\n");
    CHECK(p.string({"h"}) == "Here are fifteen quotation marks: \"\"\"\"\"\"\"\"\"\"\"\"\"\"\"");
    CHECK(p.string({"i"}) == "'That,' she said, 'is still pointless.'");
    CHECK(p.string({"j"}) == "\xF0\x9F\x98\x80\b\f\r\\");
    CHECK(p.string({"k"}) == "");
    CHECK(p.string({"l"}) == "");
    CHECK(p.string({"m"}) == "\"\"");
}

TEST_CASE("integers come in four bases, with underscores and 64 bits") {
    const Parsed p(
        "a = +99\nb = -17\nc = 1_000\nd = 0xDEAD_beef\ne = 0o755\nf = 0b1101\ng = -0\nh = +0\n"
        "i = 9223372036854775807\nj = -9223372036854775808\nk = 0x7fffffffffffffff\nl = 0x00\n");
    REQUIRE(p.problems.text == "");
    CHECK(p.integer({"a"}) == 99);
    CHECK(p.integer({"b"}) == -17);
    CHECK(p.integer({"c"}) == 1000);
    CHECK(p.integer({"d"}) == 0xDEADBEEF);
    CHECK(p.integer({"e"}) == 0755);
    CHECK(p.integer({"f"}) == 13);
    CHECK(p.integer({"g"}) == 0);
    CHECK(p.integer({"h"}) == 0);
    CHECK(p.integer({"i"}) == INT64_MAX);
    CHECK(p.integer({"j"}) == INT64_MIN);
    CHECK(p.integer({"k"}) == INT64_MAX);
    CHECK(p.integer({"l"}) == 0);
}

TEST_CASE("arrays hold scalars of any kind over any number of lines") {
    const Parsed p("a = [ 1, \"two\", # comment ]\n\n  true, ]\nb = []\nc = [\n]\n");
    REQUIRE(p.problems.text == "");
    const auto& d = *p.document;
    auto node = d[p.at({"a"})].first_child;
    CHECK(d.integer(node) == 1);
    node = d[node].next;
    FixedString<8> text;
    CHECK(d.read_text(node, text));
    CHECK(text.view() == "two");
    node = d[node].next;
    CHECK(d[node].kind == Kind::boolean);
    CHECK(d.boolean(node));
    CHECK(d[node].next == toml::no_node);
    CHECK(d[p.at({"b"})].first_child == toml::no_node);
}

TEST_CASE("tables are defined by headers in any order, each once") {
    const Parsed p(
        "[x.y.z]\nk = 1\n[x]\nk = 2\n[ a . \"b.c\" ]\nk = 3\n"
        "[fruit]\napple.color = 1\napple.taste.sweet = true\n[fruit.apple.texture]\nsmooth = "
        "true\r\n[empty]");
    REQUIRE(p.problems.text == "");
    CHECK(p.integer({"x", "y", "z", "k"}) == 1);
    CHECK(p.integer({"x", "k"}) == 2);
    CHECK(p.integer({"a", "b.c", "k"}) == 3);
    CHECK(p.integer({"fruit", "apple", "color"}) == 1);
    CHECK(p.document->boolean(p.at({"fruit", "apple", "texture", "smooth"})));
    CHECK((*p.document)[p.at({"empty"})].kind == Kind::table);
}

TEST_CASE("what TOML forbids is refused") {
    const char* const invalid[] = {
        "key = # INVALID",
        "first = \"Tom\" last = \"Preston-Werner\"",
        "= \"no key name\"",
        "name = \"Tom\"\nname = \"Pradyun\"",
        "spelling = \"favorite\"\n\"spelling\" = \"favourite\"",
        "fruit.apple = 1\nfruit.apple.smooth = true",
        "a = \"\"\"Here are three quotation marks: \"\"\".\"\"\"",
        "a = '''Here are fifteen apostrophes: ''''''''''''''''''",
        "a = \"\"\"x\"\"\"\"\"\"",
        "[fruit]\napple = \"red\"\n[fruit]\norange = \"orange\"",
        "[fruit]\napple = \"red\"\n[fruit.apple]\ntexture = \"smooth\"",
        "[fruit]\napple.color = \"red\"\n[fruit.apple]",
        "[fruit]\napple.taste.sweet = true\n[fruit.apple.taste]",
        "[a.b.c]\nz = 9\n[a]\nb.c.t = \"extended\"",
        "[a.b.c.d]\nz = 9\n[a]\nb.c.d.k.t = \"extended\"",
        "[[a.b]]\n[a]\nb.y = 2",
        "a = 1\n[a]",
        "a = []\n[a.b]",
        "[a]\nb = 1\n[a.b.c]",
        "a.b = 1\n[a]",
        "[]",
        "[a",
        "[a]b = 1",
        "[a.]",
        "[.a]",
        "[a..b]",
        "a..b = 1",
        ".a = 1",
        "a. = 1",
        "a b = 1",
        "a",
        "a =",
        "a == 1",
        "\"a = 1",
        "\"\"\"a\"\"\" = 1",
        "'''a''' = 1",
        "a = 'x\ny'",
        "a = \"x\ny\"",
        "a = \"\"\"x",
        "a = '''x",
        "a = \"\\x41\"",
        "a = \"\\u12\"",
        "a = \"\\uD800\"",
        "a = \"\\U00110000\"",
        "a = \"\\ \"",
        "a = \"\"\"a \\ b\"\"\"",
        "a = \"\\\"",
        "a = 01",
        "a = -01",
        "a = +0x1",
        "a = 0X1",
        "a = 0x",
        "a = 0xg",
        "a = 0o8",
        "a = 0b2",
        "a = 1__0",
        "a = _1",
        "a = 1_",
        "a = 0x_1",
        "a = +",
        "a = --1",
        "a = 1a",
        "a = 9223372036854775808",
        "a = -9223372036854775809",
        "a = 0xffffffffffffffff",
        "a = True",
        "a = truer",
        "a = bare",
        "a = [1 2]",
        "a = [1,,2]",
        "a = [,]",
        "a = [1",
        "a = [1\nb = 2",
        "a = ]",
        "# bare \r carriage return",
        "a = 1\rb = 2",
        "# control \x01",
        "# delete \x7f",
        "a = \"\x1f\"",
        "a = '\x0b'",
        "# overlong \xC0\x80",
        "# surrogate \xED\xA0\x80",
        "# too big \xF4\x90\x80\x80",
        "# cut off \xE2\x82",
        "\xC3\xA9 = 1",
    };
    for (const char* text : invalid) {
        INFO(text);
        CHECK_FALSE(Parsed(text).good);
    }
    CHECK_FALSE(Parsed(std::string_view("a = \"\0\"", 7)).good);
    CHECK_FALSE(Parsed(std::string_view("# \0", 3)).good);
}

TEST_CASE("TOML that is not supported here is refused by name") {
    CHECK(problems_of("a = 3.14") ==
          "t.toml:1:5: floating-point numbers are not supported here; write an integer or a \"string\"\n");
    for (const char* text : {"a = 1e6", "a = -1E6", "a = inf", "a = -nan", "a = 6.626e-34", "a = 1_0.5"}) {
        INFO(text);
        CHECK(problems_of(text).find("floating-point numbers are not supported here") != std::string::npos);
    }
    CHECK(problems_of("a = 1979-05-27T07:32:00Z") ==
          "t.toml:1:5: dates and times are not supported here; did you mean a \"string\"?\n");
    CHECK(problems_of("a = 07:32:00").find("dates and times") != std::string::npos);
    CHECK(problems_of("a = 1979-05-27 07:32:00").find("dates and times") != std::string::npos);
    CHECK(problems_of("a = { b = 1 }") ==
          "t.toml:1:5: inline tables are not supported here; use a [table] header or dotted keys\n");
    CHECK(problems_of("a = [[1]]") ==
          "t.toml:1:6: arrays in arrays are not supported here; write one flat array\n");
    CHECK(problems_of("[[vm]]\na = 1") ==
          "t.toml:1:1: arrays of tables are not supported here; give each table a name of its own, in single "
          "brackets\n");
    CHECK(problems_of("\xEF\xBB\xBF# hello") ==
          "t.toml:1:1: the file starts with a byte order mark; save it as UTF-8 without one\n");
    CHECK(problems_of("a = '''x\r\ny'''").find("LF line ends") != std::string::npos);
}

TEST_CASE("one pass reports every problem, with line and column") {
    CHECK(problems_of("a = 1\nb = \n  c d = 2\n# \xC3\xA4 comment\n\"\xC3\xA4\" = x\n[t\nu = [1, 2\nv = 3\n"
                      "w = [\n  1,\n  oops,\n  3,\n]\nw = 1\n") ==
          "t.toml:2:5: expected a value: a \"string\", an integer, true, false or an [array]\n"
          "t.toml:3:5: expected = after the key\n"
          "t.toml:5:7: x is not a value; put text in \"quotes\"\n"
          "t.toml:6:3: expected ] at the end of the table header\n"
          "t.toml:8:1: expected , or ] in the array\n"
          "t.toml:11:3: oops is not a value; put text in \"quotes\"\n"
          "t.toml:14:1: w is already defined on line 9; remove one of the two\n");
}

TEST_CASE("a string that never ends does not hide the lines after it") {
    CHECK(problems_of("a = \"\"\"\ntext\n[t]\nb = ?\n") ==
          "t.toml:1:5: the string is not closed; end it with \"\"\"\n"
          "t.toml:4:5: expected a value: a \"string\", an integer, true, false or an [array]\n");
}

TEST_CASE("a flood of problems is cut short, but counted") {
    std::string text;
    for (int i = 0; i < 150; ++i) text += "?\n";
    StringSink sink;
    Reporter reporter("t.toml", text, sink);
    auto document = std::make_unique<toml::Document>();
    CHECK_FALSE(document->parse(text, reporter));
    reporter.finish();
    CHECK(reporter.count() == 150);
    CHECK(std::count(sink.text.begin(), sink.text.end(), '\n') == 101);
    CHECK(sink.text.ends_with("t.toml: 50 more problems are not shown; correct the above first\n"));
}

TEST_CASE("a file that is too long is refused as a whole") {
    CHECK(Parsed(std::string(toml::Document::max_text, '\n')).good);
    const Parsed longer(std::string(toml::Document::max_text + 1, '\n'));
    CHECK_FALSE(longer.good);
    CHECK(longer.problems.text.find("at most 1048576 are supported") != std::string::npos);
}

TEST_CASE("a file with more keys than there is room for is refused, not overrun") {
    std::string text;
    for (int i = 0; i < 5000; ++i) text += "k" + std::to_string(i) + " = 1\n";
    const Parsed p(text);
    CHECK_FALSE(p.document->complete());
    CHECK(p.problems.text ==
          "t.toml:3071:1: more than 3070 keys and values in one file; the rest is not read\n");
    const Parsed deep("a.b.c.d.e.f.g.h.i = 1\n");
    CHECK(deep.problems.text == "t.toml:1:17: a key of more than 8 parts; no known key is that deep\n");
}

TEST_CASE("the text of a problem cannot drive the terminal") {
    const std::string problems = problems_of("\"\x1b[2J\" = 1\n\"\x9b\" = 1\n");
    for (const char c : problems) CHECK((c == '\n' || (c >= 0x20 && c < 0x7F)));
}
