#include "vmm/console/session.hpp"

#include <catch2/catch.hpp>
#include <random>
#include <string>

#include "tests/fakes/terminal.hpp"
#include "tests/unit/vmm/console/fake_management.hpp"

using namespace bulkhead;

namespace {

struct Desk {
    Terminal terminal;
    FakeManagement management;
    std::unique_ptr<Session> owned = std::make_unique<Session>(terminal, management, 0x1D);
    Session& session = *owned;

    Desk() {
        management.add(1, "web");
        management.add(2, "db");
        session.start();
    }
    void type(std::string_view keys) {
        for (const char c : keys) {
            session.input(static_cast<u8>(c));
            while (c == '\r' && !session.attached() && session.poll()) {
            }
        }
    }
    void guest(size_t vm, std::string_view text) {
        management.vms[vm].ring->write({reinterpret_cast<const u8*>(text.data()), text.size()});
    }
    void drain() {
        while (session.poll()) {
        }
    }
};

}  // namespace

TEST_CASE("a command's output follows the line, and a new prompt follows that") {
    Desk desk;
    desk.type("version\r");
    CHECK(desk.terminal.text() ==
          "bulkhead> version\nBulkhead 0.1, VT-x, 4 cores, 8G of memory\nbulkhead>\n");
    CHECK(desk.terminal.cursor_row() == "bulkhead> |");
    desk.type("\r");
    CHECK(desk.terminal.y == 3);
    desk.type("abc\x03");
    CHECK(desk.terminal.row(3) == "bulkhead> abc^C");
    CHECK(desk.terminal.cursor_row() == "bulkhead> |");
}

TEST_CASE("attaching replays what was missed and then forwards both ways") {
    Desk desk;
    desk.guest(0, "login: ");
    desk.type("console web\r");
    CHECK(desk.session.attached() == VmId(1));
    CHECK(desk.terminal.row(1) == "attached to web; CTRL-] leaves");
    desk.drain();
    CHECK(desk.terminal.row(2) == "login:");
    desk.type("root\r\x03\x1b[A");
    CHECK(desk.management.vms[0].received == "root\r\x03\x1b[A");
    desk.guest(0, "root\r\nPassword: ");
    desk.guest(1, "not for this terminal");
    desk.drain();
    CHECK(desk.terminal.row(2) == "login: root");
    CHECK(desk.terminal.cursor_row() == "Password: |");
    desk.type("\x1d");
    CHECK_FALSE(desk.session.attached());
    CHECK(desk.management.vms[0].received == "root\r\x03\x1b[A");
    CHECK(desk.terminal.cursor_row() == "bulkhead> |");
    desk.guest(0, "more");
    desk.drain();
    CHECK(desk.terminal.cursor_row() == "bulkhead> |");
    desk.type("console web\r");
    desk.drain();
    CHECK(desk.terminal.text().find("Password: more") != std::string::npos);
}

TEST_CASE("the prompt is the operator's again, whatever the guest did to the terminal") {
    const char* const attacks[] = {
        "\x1b[?1049h\x1b[31;8m\x1b[?25l\x0e\x1b(0",  // alternate screen, hidden text, no cursor, line drawing
        "\x1b[5;10r\x1b[7;1H\x1b[4h\x1b[2h",         // scroll region, insertion, locked keyboard
        "\x1b[?1000h\x1b]0;half a title",            // mouse reports, a string without end
        "\x1b[12;3",                                 // half a sequence
        "\x1bPq#0;2;0;0;0",                          // sixel data without end
        "\x1b",
    };
    for (const char* attack : attacks) {
        Desk desk;
        desk.type("console web\r");
        desk.guest(0, attack);
        desk.drain();
        desk.type("\x1d");
        INFO(attack + 1);
        CHECK(desk.terminal.cursor_row() == "bulkhead> |");
        CHECK(desk.terminal.y == Terminal::rows - 1);
        CHECK(desk.terminal.plain);
        CHECK(desk.terminal.cursor_visible);
        CHECK(desk.terminal.ascii);
        CHECK_FALSE(desk.terminal.alternate);
        CHECK_FALSE(desk.terminal.insertion);
        CHECK_FALSE(desk.terminal.locked);
        CHECK_FALSE(desk.terminal.mouse);
        CHECK(desk.terminal.top == 0);
        CHECK(desk.terminal.bottom == Terminal::rows - 1);
        CHECK(desk.terminal.row(Terminal::rows - 2) == "left the console of web");
    }
}

TEST_CASE("a guest that types through the terminal's answers reaches no command") {
    Desk desk;
    desk.type("console web\r\x1d");
    desk.type("\x1b]ldestroy db\r\x1b\\\x1b[24;80R\x1bP0$rdestroy db\r\x1b\\");
    CHECK(desk.management.calls.empty());
    CHECK(desk.terminal.cursor_row() == "bulkhead> |");
}

TEST_CASE("input the VM has no room for waits, and what cannot wait is dropped with one note") {
    Desk desk;
    desk.type("console web\r");
    auto& vm = desk.management.vms[0];
    vm.fifo_room = 2;
    desk.type("abcd");
    CHECK(vm.received == "ab");
    vm.fifo_room = 1;
    desk.session.poll();
    CHECK(vm.received == "abc");
    vm.fifo_room = 1;
    desk.type("e");  // in order: d first
    CHECK(vm.received == "abcd");
    desk.type(std::string(Session::max_pending + 50, 'x'));
    CHECK(desk.terminal.text().find("[bulkhead: input is dropped: the VM does not read it]") !=
          std::string::npos);
    CHECK(desk.terminal.text().find("dropped", desk.terminal.text().find("dropped") + 1) ==
          std::string::npos);
    vm.fifo_room = 2000;
    desk.session.poll();
    CHECK(vm.received == "abcde" + std::string(Session::max_pending - 1, 'x'));
    desk.type("y");
    CHECK(vm.received.back() == 'y');
    // What still waits when the operator leaves is not sent later.
    vm.fifo_room = 0;
    desk.type("z\x1d");
    vm.fifo_room = 1000;
    desk.type("console web\r");
    desk.session.poll();
    CHECK(vm.received.back() == 'y');
}

TEST_CASE("output that a slow line lost is counted on the screen") {
    Desk desk;
    desk.type("console web\r");
    desk.guest(0, std::string(100, 'x'));
    desk.drain();
    CHECK(desk.terminal.text().find("[bulkhead: 36 bytes of output were lost: this line is too slow]") !=
          std::string::npos);
}

TEST_CASE("a flood is forwarded in bounded pieces, so that the escape key gets through") {
    Desk desk;
    auto& vm = desk.management.vms[0];
    vm.storage.assign(4096, 0);
    vm.ring = std::make_unique<ConsoleRing>(vm.storage);
    desk.guest(0, std::string(4096, '.'));
    desk.type("console web\r");
    CHECK(desk.session.poll());
    CHECK(desk.session.poll());
    desk.type("\x1d");
    CHECK_FALSE(desk.session.poll());
    CHECK(desk.terminal.cursor_row() == "bulkhead> |");
}

TEST_CASE("output that comes without a ring is forwarded to whom it concerns") {
    Desk desk;
    const auto send = [&](u16 vm, std::string_view text) {
        desk.session.guest_output(VmId(vm), {reinterpret_cast<const u8*>(text.data()), text.size()});
    };
    send(1, "lost");
    desk.type("console web\r");
    send(1, "shown");
    send(2, "lost");
    CHECK(desk.terminal.row(2) == "shown");
}

TEST_CASE("a VM that disappears gives the terminal back") {
    Desk desk;
    desk.type("console web\r");
    desk.management.vms.pop_front();
    CHECK_FALSE(desk.session.poll());
    CHECK_FALSE(desk.session.attached());
    CHECK(desk.terminal.text().find("[bulkhead: the VM is gone]") != std::string::npos);
    CHECK(desk.terminal.cursor_row() == "bulkhead> |");
}

TEST_CASE("messages leave the line that is being edited intact") {
    Desk desk;
    desk.type("start wb\x1b[D");
    desk.session.notify("db: stopped: triple fault\x1b[2J");
    CHECK(desk.terminal.row(0) == "db: stopped: triple fault?[2J");
    CHECK(desk.terminal.cursor_row() == "bulkhead> start w|b");
    desk.type("e\r");
    CHECK(desk.management.calls == std::vector<std::string>{"start 1"});
    desk.type("console web\r");
    desk.session.notify("db: stopped");
    CHECK(desk.terminal.text().find("[bulkhead: db: stopped]") != std::string::npos);
}

TEST_CASE("any bytes from operator and guest keep the session alive") {
    std::mt19937 random(5);
    Desk desk;
    for (int i = 0; i < 20000; ++i) {
        switch (random() % 8) {
            case 0: desk.type("console web\r"); break;
            case 1: desk.guest(0, std::string(random() % 100, static_cast<char>(random()))); break;
            case 2: desk.session.poll(); break;
            case 3: desk.type("\x1d"); break;
            case 4: desk.session.notify(std::string(random() % 200, static_cast<char>(random()))); break;
            default: desk.session.input(static_cast<u8>(random())); break;
        }
    }
    desk.type("\x1d\x03\x03\x15version\r");
    CHECK(desk.terminal.text().find("Bulkhead 0.1, VT-x") != std::string::npos);
}

TEST_CASE("a command's output comes in bounded pieces, and what is typed meanwhile waits for the prompt") {
    Desk desk;
    for (int i = 0; i < 200; ++i) desk.management.log_line(static_cast<u64>(i), LogLevel::info, "line");
    struct Counting final : Sink {
        usize bytes = 0;
        std::string text;
        void write(std::string_view piece) override {
            bytes += piece.size();
            text += piece;
        }
    } line;
    auto session = std::make_unique<Session>(line, desk.management, 0x1D);
    session->start();
    for (const char c : std::string_view("dmesg\rversion\rpau")) session->input(static_cast<u8>(c));
    usize polls = 0;
    for (bool more = true; more; ++polls) {
        line.bytes = 0;
        more = session->poll();
        CHECK(line.bytes <= Session::output_bytes + 200);
    }
    CHECK(polls > 10);
    CHECK(line.text.find("Bulkhead 0.1, VT-x") > line.text.find("0.000199] line"));
    CHECK(line.text.ends_with("bulkhead> \x1b[Kpau"));
}

TEST_CASE("Ctrl-C breaks a command off") {
    Desk desk;
    for (int i = 0; i < 2000; ++i) desk.management.log_line(static_cast<u64>(i), LogLevel::info, "line");
    for (const char c : std::string_view("dmesg\r")) desk.session.input(static_cast<u8>(c));
    for (int i = 0; i < 5; ++i) CHECK(desk.session.poll());
    desk.session.input(3);
    CHECK(desk.terminal.cursor_row() == "bulkhead> |");
    CHECK_FALSE(desk.session.poll());
    desk.type("repeat 1000000 version\r\x03");
    CHECK(desk.terminal.cursor_row() == "bulkhead> |");
}

TEST_CASE("any key ends a command that goes on, and the rest of an arrow key is not typed") {
    Desk desk;
    for (const char* key : {"q", "x", "\x03", "\r", "\x1b[A", "\x1bOP", "\x1b[15~"}) {
        INFO(key);
        desk.management.log_line(1'000'000, LogLevel::info, "shown");
        for (const char c : std::string_view("dmesg -f\r")) desk.session.input(static_cast<u8>(c));
        while (desk.session.poll()) {
        }
        CHECK(desk.terminal.text().find("shown") != std::string::npos);
        for (const char* c = key; *c != 0; ++c) desk.session.input(static_cast<u8>(*c));
        CHECK(desk.terminal.cursor_row() == "bulkhead> |");
    }
    // A lone Escape, and then a command.
    for (const char c : std::string_view("dmesg -f\r")) desk.session.input(static_cast<u8>(c));
    while (desk.session.poll()) {
    }
    desk.type("\x1bversion\r");
    CHECK(desk.terminal.text().find("Bulkhead 0.1, VT-x") != std::string::npos);
}

TEST_CASE("messages wait for the end of a command's document, and are lines of a log that is followed") {
    Desk desk;
    for (int i = 0; i < 100; ++i) desk.management.log_line(static_cast<u64>(i), LogLevel::info, "line");
    for (const char c : std::string_view("dmesg --json\r")) desk.session.input(static_cast<u8>(c));
    CHECK(desk.session.poll());
    desk.session.notify("VM db \x1b stopped");
    CHECK(desk.terminal.text().find("stopped") == std::string::npos);
    while (desk.session.poll()) {
    }
    CHECK(desk.terminal.row(Terminal::rows - 2) == "VM db ? stopped");
    CHECK(desk.terminal.cursor_row() == "bulkhead> |");
    for (const char c : std::string_view("dmesg -f\r")) desk.session.input(static_cast<u8>(c));
    while (desk.session.poll()) {
    }
    desk.session.notify("while following");
    while (desk.session.poll()) {
    }
    CHECK(desk.terminal.row(Terminal::rows - 2) == "while following");
    desk.type("q");
    // Too many to hold back are counted.
    for (const char c : std::string_view("top\r")) desk.session.input(static_cast<u8>(c));
    while (desk.session.poll()) {
    }
    for (int i = 0; i < 100; ++i) desk.session.notify("message " + std::to_string(i) + std::string(50, '.'));
    desk.type("q");
    CHECK(desk.terminal.text().find(" more messages: see dmesg)\n") != std::string::npos);
}

TEST_CASE("what a command does may poll the session without harm") {
    Desk desk;
    desk.management.hook = [&] {
        CHECK_FALSE(desk.session.poll());
        desk.session.notify("VM web started");
    };
    desk.type("start web\r");
    CHECK(desk.terminal.text() == "bulkhead> start web\nweb: started\nVM web started\nbulkhead>\n");
}

TEST_CASE("a config is typed at a prompt of its own, and Ctrl-C drops it") {
    Desk desk;
    desk.type("create\r");
    CHECK(desk.terminal.cursor_row() == "config> |");
    desk.type("[vm.new]\rmemory\t = \"16M\"\r");
    CHECK(desk.terminal.cursor_row() == "config> |");
    desk.type(".\r");
    CHECK(desk.management.snippet == "[vm.new]\nmemory.max  = \"16M\"\n");
    CHECK(desk.terminal.cursor_row() == "bulkhead> |");
    desk.management.calls.clear();
    desk.type("create\r[vm.new2]\r\x03");
    CHECK(desk.terminal.cursor_row() == "bulkhead> |");
    desk.type(".\rversion\r");
    CHECK(desk.management.calls.empty());
    // Its lines are not in the history.
    desk.type("\x1b[A\x1b[A\x1b[A");
    CHECK(desk.terminal.cursor_row() == "bulkhead> create|");
    desk.type("\x03");
    // Pasted at once.
    for (const char c : std::string_view("create\r[vm.p]\rkernel = 'k'\r.\rvers"))
        desk.session.input(static_cast<u8>(c));
    while (desk.session.poll()) {
    }
    CHECK(desk.management.snippet == "[vm.p]\nkernel = 'k'\n");
    CHECK(desk.terminal.cursor_row() == "bulkhead> vers|");
}

TEST_CASE("console --last replays the last lines only") {
    Desk desk;
    desk.guest(0, "one\r\ntwo\r\nthree\r\nlogin: ");
    desk.type("console web --last 2\r");
    desk.drain();
    CHECK(desk.terminal.row(2) == "three");
    CHECK(desk.terminal.row(3) == "login:");
}
