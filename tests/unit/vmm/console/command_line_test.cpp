#include "vmm/console/command_line.hpp"

#include <catch2/catch.hpp>
#include <string>

using namespace bulkhead;

namespace {
std::string split(std::string_view text) {
    CommandLine line;
    if (const auto result = line.parse(text); !result) {
        CHECK(line.empty());
        return "error: " + std::string(result.error().text.view());
    }
    std::string shown;
    for (const auto word : line.words()) shown += "[" + std::string(word) + "]";
    for (const auto option : line.options()) shown += "{" + std::string(option) + "}";
    return shown;
}
}  // namespace

TEST_CASE("lines are split into words at blanks") {
    CHECK(split("") == "");
    CHECK(split(" \t ") == "");
    CHECK(split("list") == "[list]");
    CHECK(split("  info \t web  ") == "[info][web]");
}

TEST_CASE("quotes and backslashes keep blanks") {
    CHECK(split("a 'b c' \"d e\" f\\ g") == "[a][b c][d e][f g]");
    CHECK(split("x'y'\"z\"") == "[xyz]");
    CHECK(split("'' \"\"") == "[][]");
    CHECK(split("'a\\b\"c'") == "[a\\b\"c]");
    CHECK(split("\"a\\\"b\\\\c\\d\"") == "[a\"b\\c\\d]");
    CHECK(split("end\\") == "[end\\]");
    CHECK(split("cmdline='console=ttyS0 quiet'") == "[cmdline=console=ttyS0 quiet]");
}

TEST_CASE("options stand anywhere, until a lone --") {
    CHECK(split("list --json") == "[list]{--json}");
    CHECK(split("--json info web") == "[info][web]{--json}");
    CHECK(split("info -- --json") == "[info][--json]");
    CHECK(split("info '--json' -x -") == "[info][--json][-x][-]");
}

TEST_CASE("what cannot be split says why") {
    CHECK(split("a 'b") == "error: a ' is not closed; add another one");
    CHECK(split("a \"b'") == "error: a \" is not closed; add another one");
    std::string many;
    for (int i = 0; i < 24; ++i) many += "a ";
    CHECK(split(many) != "");
    CHECK(split(many + "b") == "error: more than 24 words; use quotes to keep words together");
    CHECK(split(std::string(511, 'x')) == "[" + std::string(511, 'x') + "]");
    CHECK(split(std::string(512, 'x')) == "error: the line has 512 characters; at most 511 are taken");
    CHECK(split("--a --a --a --a --a --a --a --a --a") == "error: more than 8 options; give fewer");
}
