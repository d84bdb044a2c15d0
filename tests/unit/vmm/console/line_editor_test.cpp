#include "vmm/console/line_editor.hpp"

#include <catch2/catch.hpp>
#include <random>
#include <string>
#include <vector>

#include "tests/fakes/terminal.hpp"

using namespace bulkhead;
using Event = LineEditor::Event;

namespace {

struct WordCompleter final : Completer {
    std::vector<std::string> words;
    void complete(std::string_view text, CandidateSink& candidates) override {
        asked = std::string(text);
        for (const auto& word : words) candidates.candidate(word);
    }
    std::string asked;
};

struct Desk {
    Terminal terminal;
    WordCompleter completer;
    LineEditor editor{terminal, "bulkhead> ", completer};

    Desk() { editor.start(); }
    Event type(std::string_view keys) {
        Event last = Event::none;
        for (const char c : keys) {
            last = editor.input(static_cast<u8>(c));
            CHECK_FALSE(terminal.wrapped);
        }
        return last;
    }
    // Types a whole line and begins the next one.
    std::string enter(std::string_view keys) {
        CHECK(type(std::string(keys) + "\r") == Event::line);
        const std::string line(editor.line());
        editor.start();
        return line;
    }
    std::string shown() const { return terminal.cursor_row(); }
};

}  // namespace

TEST_CASE("typed characters appear behind the prompt, and Enter ends the line") {
    Desk desk;
    CHECK(desk.shown() == "bulkhead> |");
    CHECK(desk.type("list") == Event::none);
    CHECK(desk.shown() == "bulkhead> list|");
    CHECK(desk.type("\r") == Event::line);
    CHECK(desk.editor.line() == "list");
    CHECK(desk.terminal.x == 0);
    CHECK(desk.terminal.y == 1);
}

TEST_CASE("the line feed after a carriage return is not another line") {
    Desk desk;
    CHECK(desk.enter("a") == "a");
    CHECK(desk.type("\n") == Event::none);
    CHECK(desk.type("\n") == Event::line);
    desk.editor.start();
    CHECK(desk.type("b\n") == Event::line);
    CHECK(desk.editor.line() == "b");
}

TEST_CASE("characters go in and out anywhere in the line") {
    Desk desk;
    desk.type(
        "start wb\x1b[D"
        "e");
    CHECK(desk.shown() == "bulkhead> start we|b");
    desk.type(
        "\x01"
        "re");
    CHECK(desk.shown() == "bulkhead> re|start web");
    desk.type("\x7f\x08");
    CHECK(desk.shown() == "bulkhead> |start web");
    desk.type("\x7f");
    CHECK(desk.shown() == "bulkhead> |start web");
    desk.type("\x1b[3~\x04");
    CHECK(desk.shown() == "bulkhead> |art web");
    desk.type("\x05\x04\x1b[3~");
    CHECK(desk.shown() == "bulkhead> art web|");
    CHECK(desk.enter("") == "art web");
}

TEST_CASE("Home, End and the arrows are known in every common form") {
    for (const char* home : {"\x1b[H", "\x1bOH", "\x1b[1~", "\x1b[7~", "\x01", "\x1b[1;2H", "\x9bH"}) {
        for (const char* end : {"\x1b[F", "\x1bOF", "\x1b[4~", "\x1b[8~", "\x05",
                                "\x8f"
                                "F"}) {
            Desk desk;
            desk.type("ab");
            desk.type(home);
            CHECK(desk.shown() == "bulkhead> |ab");
            desk.type(end);
            CHECK(desk.shown() == "bulkhead> ab|");
        }
    }
    Desk desk;
    desk.type("ab\x1bOD\x02");
    CHECK(desk.shown() == "bulkhead> |ab");
    desk.type("\x1b[D\x02");
    CHECK(desk.shown() == "bulkhead> |ab");
    desk.type("\x1bOC\x06\x06\x1b[C");
    CHECK(desk.shown() == "bulkhead> ab|");
}

TEST_CASE("the kill keys take the end, the beginning or a word") {
    Desk desk;
    desk.type("one two  three\x1b[D\x1b[D\x0b");
    CHECK(desk.shown() == "bulkhead> one two  thr|");
    desk.type("\x17");
    CHECK(desk.shown() == "bulkhead> one two  |");
    desk.type("\x17");
    CHECK(desk.shown() == "bulkhead> one |");
    desk.type("x\x02\x15");
    CHECK(desk.shown() == "bulkhead> |x");
    desk.type("\x0b\x15\x17");
    CHECK(desk.shown() == "bulkhead> |");
}

TEST_CASE("Ctrl and Alt move by words") {
    Desk desk;
    desk.type(
        "one two three\x1b[1;5D\x1b"
        "b");
    CHECK(desk.shown() == "bulkhead> one |two three");
    desk.type(
        "\x1b[1;5C\x1b"
        "f");
    CHECK(desk.shown() == "bulkhead> one two three|");
}

TEST_CASE("Ctrl-C drops the line, Ctrl-L redraws the screen") {
    Desk desk;
    desk.type("abc");
    CHECK(desk.type("\x03") == Event::cancelled);
    CHECK(desk.terminal.row(0) == "bulkhead> abc^C");
    desk.editor.start();
    desk.type("de\x02\x0c");
    CHECK(desk.terminal.y == 0);
    CHECK(desk.shown() == "bulkhead> d|e");
    CHECK(desk.terminal.text() == "bulkhead> de\n");
}

TEST_CASE("the history keeps lines, once each in a row, and the line being written") {
    Desk desk;
    desk.enter("one");
    desk.enter("two");
    desk.enter("two");
    desk.enter("   ");
    desk.enter("");
    desk.type("thr\x1b[A");
    CHECK(desk.shown() == "bulkhead> two|");
    desk.type("\x10");
    CHECK(desk.shown() == "bulkhead> one|");
    desk.type("\x1b[A");
    CHECK(desk.shown() == "bulkhead> one|");
    CHECK(desk.terminal.bells == 1);
    desk.type("\x1b[B\x0e");
    CHECK(desk.shown() == "bulkhead> thr|");
    desk.type("\x0e\x1b[B");
    CHECK(desk.shown() == "bulkhead> thr|");
    CHECK(desk.enter("\x1b[A\x1b[A!") == "one!");
    desk.type("\x1b[A\x1b[A\x1b[A");
    CHECK(desk.shown() == "bulkhead> one|");
}

TEST_CASE("the history forgets the oldest lines only") {
    Desk desk;
    for (int i = 0; i < 40; ++i) desk.enter("line" + std::to_string(i));
    for (int i = 0; i < 50; ++i) desk.type("\x10");
    CHECK(desk.shown() == "bulkhead> line8|");
}

TEST_CASE("a long line scrolls sideways within one row") {
    Desk desk;
    std::string line;
    for (int i = 0; i < 30; ++i) line += std::to_string(100 + i) + ".";
    desk.type(line);
    CHECK(desk.terminal.y == 0);
    CHECK(desk.shown().substr(0, 11) == "bulkhead> <");
    CHECK(desk.shown().ends_with("128.129.|"));
    desk.type("\x01");
    CHECK(desk.shown().substr(0, 20) == "bulkhead> |100.101.1");
    CHECK(desk.shown().size() == 80);  // 79 columns and the mark of the cursor
    CHECK(desk.shown().back() == '>');
    // The cursor is always on its character, wherever it goes.
    for (size_t at = 0; at < line.size(); ++at) {
        const std::string row = desk.shown();
        CHECK(row[row.find('|') + 1] == line[at]);
        desk.type("\x06");
    }
    for (size_t at = line.size(); at > 0; --at) {
        desk.type("\x02");
        const std::string row = desk.shown();
        CHECK(row[row.find('|') + 1] == line[at - 1]);
    }
    CHECK(desk.terminal.y == 0);
    CHECK(desk.enter("") == line);
}

TEST_CASE("a full line takes no more") {
    Desk desk;
    desk.type(std::string(LineEditor::max_line + 20, 'x'));
    CHECK(desk.terminal.bells == 20);
    CHECK(desk.enter("") == std::string(LineEditor::max_line, 'x'));
}

TEST_CASE("Tab completes what is certain and lists on the second press what is not") {
    Desk desk;
    desk.completer.words = {"pause", "poweroff", "unpause", "power on", "po\x1b[2J"};
    desk.type("po\t");
    CHECK(desk.shown() == "bulkhead> poweroff |");
    desk.type("\x15p\t");
    CHECK(desk.shown() == "bulkhead> p|");
    CHECK(desk.terminal.bells == 1);
    desk.type("\t");
    CHECK(desk.terminal.text() == "bulkhead> p\npause  poweroff\nbulkhead> p\n");
    CHECK(desk.shown() == "bulkhead> p|");
    desk.completer.words = {"web-1", "web-2"};
    desk.type("\x15start w\t");
    CHECK(desk.completer.asked == "start w");
    CHECK(desk.shown() == "bulkhead> start web-|");
    desk.completer.words = {};
    desk.type("x\t\t");
    CHECK(desk.shown() == "bulkhead> start web-x|");
}

TEST_CASE("completion in the middle of a line looks at what is before the cursor") {
    Desk desk;
    desk.completer.words = {"start"};
    desk.type("st web\x01\x06\x06\t");
    CHECK(desk.completer.asked == "st");
    CHECK(desk.shown() == "bulkhead> start| web");
}

TEST_CASE("many candidates are listed within the width of the screen") {
    Desk desk;
    for (int i = 0; i < 40; ++i) desk.completer.words.push_back("machine-" + std::to_string(100 + i));
    desk.type("m\t\t\t");
    CHECK(desk.terminal.row(1).starts_with("machine-100  machine-101"));
    CHECK(desk.terminal.row(2).starts_with("machine-1"));
}

TEST_CASE("what a broken or hostile terminal sends is ignored") {
    const char* const ignored[] = {
        "\x1b[24;80R",                     // cursor position report
        "\x1b[?62;1;6c",                   // device attributes
        "\x1b[>0;95;0c",                   //
        "\x1b]l title with list\r\x1b\\",  // title report that tries to be a line
        "\x1bP1$r0m\x1b\\",                // DECRQSS
        "\x1b_application\x9c",            //
        "\x1b]0;x\x07",                    //
        "\x1b[[A",                         // F1 on the Linux console
        "\x1bOP",                          // F1
        "\x1b[15~",                        // F5
        "\x1b[200~",                       // bracketed paste
        "\x1b[201~",                       //
        "\x1b(B",                          //
        "\x1b[1;2;3;4;99999999999999x",    //
        "\x9b"
        "5n",  // 8-bit CSI
        "\x9d"
        "text\x9c",                              // 8-bit OSC
        "\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80",  // UTF-8
        "\xC3\x9B",                              // UTF-8 whose tail is an 8-bit CSI
        "\x80\x81\xFE\xFF",                      //
        "\x1b\x1b\x1b[20~",                      //
        "\x1b[12\x18",                           // broken off
    };
    for (const char* bytes : ignored) {
        Desk desk;
        desk.type("ab");
        desk.type(bytes);
        desk.type("c");
        INFO(bytes + 1);
        CHECK(desk.enter("") == "abc");
    }
    Desk desk;
    CHECK(desk.type(std::string("a\0b", 3) + "\r") == Event::line);
    CHECK(desk.editor.line() == "ab");
}

TEST_CASE("a string that never ends is left with Ctrl-C") {
    Desk desk;
    CHECK(desk.type("\x1b]list\r\r\r") == Event::none);
    desk.type("\x03");
    CHECK(desk.enter("list") == "list");
}

TEST_CASE("Enter and Ctrl-C work within a half-sent sequence") {
    Desk desk;
    CHECK(desk.type("list\x1b[\r") == Event::line);
    CHECK(desk.editor.line() == "list");
}

TEST_CASE("other output makes the line disappear and come back") {
    Desk desk;
    desk.type("sta\x02");
    desk.editor.hide();
    desk.terminal.write("web: stopped\r\n");
    desk.editor.show();
    CHECK(desk.terminal.row(0) == "web: stopped");
    CHECK(desk.shown() == "bulkhead> st|a");
}

TEST_CASE("no input leaves the row, wraps it or writes what is not printable into the line") {
    std::mt19937 random(11);
    Desk desk;
    desk.completer.words = {"list", "info", "a-rather-long-name-of-a-machine"};
    static const char* const keys[] = {"\x1b[D",  "\x1b[C", "\x1b[A", "\x1b[B", "\x01", "\x05",
                                       "\x7f",    "\x04",   "\x17",   "\t",     "a",    "list ",
                                       "\x1b[3~", "\x1b",   "[",      "\x9b",   "\x0b"};
    for (int i = 0; i < 20000; ++i) {
        const std::string key = random() % 8 == 0 ? std::string(1, static_cast<char>(random()))
                                                  : keys[random() % std::size(keys)];
        for (const char c : key) {
            if (desk.editor.input(static_cast<u8>(c)) != Event::none) desk.editor.start();
        }
        for (const char c : desk.editor.line()) REQUIRE((c >= 0x20 && c < 0x7F));
        REQUIRE(desk.terminal.x >= 10);
        REQUIRE_FALSE(desk.terminal.wrapped);
        REQUIRE(desk.terminal.row(desk.terminal.y).starts_with("bulkhead>"));
    }
}
