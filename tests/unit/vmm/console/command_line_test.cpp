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

TEST_CASE("an option's value stands behind it or in it, and is no word") {
    CommandLine line;
    REQUIRE(line.parse("x --vcpu 2 web --unit=4 10 --vcpus"));
    CHECK(line.take_value("--vcpu") == "2");
    CHECK(line.take_value("--unit") == "4");
    CHECK_FALSE(line.take_value("--last"));
    CHECK(line.words().size() == 3);
    CHECK(line.words()[1] == "web");
    CHECK(line.words()[2] == "10");
    REQUIRE(line.parse("a --n"));
    CHECK(line.take_value("--n") == "");
    REQUIRE(line.parse("a --n 1 --m 2 b"));
    CHECK(line.take_value("--n") == "1");
    CHECK(line.take_value("--m") == "2");
    CHECK(line.words().size() == 2);
}

TEST_CASE("short flags are made options where the caller knows them") {
    CommandLine line;
    REQUIRE(line.parse("logs -f web --last 3 -f"));
    CHECK(line.take_flag("-f"));
    CHECK(line.has_option("-f"));
    CHECK(line.take_value("--last") == "3");
    CHECK(line.words().size() == 2);
    CHECK(line.words()[1] == "web");
    REQUIRE(line.parse("-f"));
    CHECK(line.take_flag("-f"));
    CHECK(line.words().size() == 1);
}
