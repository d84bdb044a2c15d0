// Commands beyond the life of one VM: vCPUs, cores, memory, screens, keys, logs, creation, repetition; and
// what holds for all of them.
#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>
#include <random>
#include <set>
#include <string>

#include "tests/unit/vmm/console/fake_management.hpp"
#include "vmm/console/commands.hpp"
#include "vmm/console/number.hpp"
#include "vmm/console/output_buffer.hpp"

using namespace bulkhead;
using nlohmann::json;

namespace {

CpuSet cpus(std::string_view list) {
    return *parse_cpu_list(list);
}

struct Desk {
    FakeManagement management;
    Prompt prompt{management};

    Desk() {
        auto& web = management.add(1, "web", VmState::running, 2, 512 * mib, 12'345'678'901);
        web.vcpus = {{0, VcpuSummary::State::running, 1, cpus("1-2"), 10'000'000'000, 1234},
                     {1, VcpuSummary::State::waiting_for_sipi, VcpuSummary::no_core, cpus("1-2"), 0, 0}};
        web.exits.of(ExitReason::hlt) = {100, 1000};
        web.exits.guest_ticks = 5000;
        web.registers.rip = 0x1008;
        web.registers.gprs[0] = 0xFFFF'8000'0000'0001;
        web.registers.segments[1] = {.selector = 0x10, .base = 0, .limit = 0xFFFFFFFF, .access = 0xA09B};
        web.registers.segments[7].unusable = true;
        web.registers.gdtr = {.base = 0xFE00, .limit = 0x7F};
        web.registers.last_exit = "HLT";
        web.registers.last_code = 12;
        for (int i = 0; i < 600; ++i) web.memory.push_back(static_cast<u8>(i));
        web.memory_summary.ram_bytes = 512 * mib;
        web.memory_summary.overhead_bytes = 4 * mib;
        web.memory_summary.overhead_used_bytes = 2500 * kib;
        (void)web.memory_summary.ranges.push_back({HostPhysical(0x10000000), 4 * mib});
        (void)web.memory_summary.ranges.push_back({HostPhysical(0x20000000), 512 * mib});
        web.screen.columns = 80;
        web.screen.rows = 25;
        web.screen.cursor_visible = true;
        web.screen.cursor_column = 7;
        web.screen.cursor_row = 1;
        for (auto& row : web.screen.characters) std::fill(std::begin(row), std::end(row), ' ');
        std::copy_n("GRUB loading.", 13, web.screen.characters[0]);
        std::copy_n("login: \x1b", 8, web.screen.characters[1]);
        web.gang = GangSummary{10, 1200, 2345, 9999};
        auto& db = management.add(2, "db", VmState::blocked, 1, 256 * mib, 1'000'000'000);
        db.vcpus = {{0, VcpuSummary::State::blocked, 3, cpus("3"), 1'000'000'000, 77}};
        management.add(3, "off", VmState::off).ring.reset();
        management.cores = {{0, 0, true, {}, false, 0, 2'000'000'000, 98'000'000'000, 400, 3},
                            {1, 2, true, {}, true, 1, 50'000'000'000, 50'000'000'000, 1, 9},
                            {2, 4, false, "it did not answer within 100 ms", false, 0, 0, 0, 0, 0}};
        management.modules["web.toml"] = "[vm.web]\nkernel = \"vmlinuz\"\n";
        management.log_line(1'000'000, LogLevel::info, "hello");
        management.plan = "web: cores 1-2\ndb: refused\x1b: no memory\n";
    }
    std::string run(std::string_view line, std::vector<std::string> typed = {}, unsigned live_steps = 1) {
        return prompt.run(line, std::move(typed), live_steps);
    }
    json run_json(std::string_view line, std::vector<std::string> typed = {}) {
        const std::string text = run(line, std::move(typed));
        INFO(line << ": " << text);
        REQUIRE(text.ends_with("\n"));
        REQUIRE(std::count(text.begin(), text.end(), '\n') == 1);
        REQUIRE(json::accept(text));
        return json::parse(text);
    }
    void guest(size_t vm, u64 time, std::string_view text) {
        management.vms[vm].ring->write({reinterpret_cast<const u8*>(text.data()), text.size()}, time);
    }
    void larger_ring(size_t vm) {
        auto& each = management.vms[vm];
        each.storage.assign(4096, 0);
        each.stamps.assign(64, {});
        each.ring = std::make_unique<ConsoleRing>(each.storage, each.stamps);
    }
};

}  // namespace

TEST_CASE("numbers that operators type are decimal or hexadecimal and do not overflow") {
    CHECK(parse_number("0") == 0);
    CHECK(parse_number("18446744073709551615") == ~u64{0});
    CHECK_FALSE(parse_number("18446744073709551616"));
    CHECK(parse_number("0xffffFFFFffffffff") == ~u64{0});
    CHECK_FALSE(parse_number("0x10000000000000000"));
    for (const char* word : {"", "0x", "12a", "-1", "+1", " 1", "1 ", "0xg", "ten"})
        CHECK_FALSE(parse_number(word));
}

TEST_CASE("vcpu-list shows where each vCPU runs") {
    Desk desk;
    CHECK(desk.run("vcpu-list") ==
          "NAME            ID VCPU CORE STATE               TIME        EXITS AFFINITY\n"
          "web              1    0    1 running             10.0         1234 1-2\n"
          "web              1    1    - waiting for SIPI     0.0            0 1-2\n"
          "db               2    0    3 blocked              1.0           77 3\n");
    CHECK(desk.run("vcpu-list db").find("web") == std::string::npos);
    const json list = desk.run_json("vcpu-list --json");
    REQUIRE(list.size() == 3);
    CHECK(list[1]["core"].is_null());
    CHECK(list[0]["affinity"] == "1-2");
    CHECK(desk.run_json("vcpu-list db --json").size() == 1);
}

TEST_CASE("vcpu-pin takes one vCPU or all, and a list of cores or all") {
    Desk desk;
    CHECK(desk.run("vcpu-pin web 1 0,2") == "web: vCPU 1 runs on 0,2\n");
    CHECK(desk.run("vcpu-pin web all all") == "web: all vCPUs run on 0-1\n");
    CHECK(desk.management.calls ==
          std::vector<std::string>{"pin 1 to 0,2 1", "pin 0 to 0-1 1", "pin 1 to 0-1 1"});
    CHECK(desk.run("vcpu-pin web 256 0") == "vcpu-pin: vCPU \"256\" is no number from 0 to 255\n");
    CHECK(desk.run("vcpu-pin web 0 9-1").starts_with("vcpu-pin: "));
    CHECK(desk.run("vcpu-pin off all 0") == "vcpu-pin: the VM has no vCPUs: it is off\n");
    CHECK(desk.management.calls.size() == 3);
}

TEST_CASE("set passes key and value on, and joins the words of a value") {
    Desk desk;
    CHECK(desk.run("set web cpu.weight 200") == "web: cpu.weight is now 200\n");
    CHECK(desk.run("set web cpu.max 50000 100000") == "web: cpu.max is now 50000 100000\n");
    CHECK(desk.run("set web cmdline 'a b' -- --c") == "web: cmdline is now a b --c\n");
    CHECK(desk.run_json("set web cpu.gang true --json")["result"] == "cpu.gang is now true");
    CHECK(desk.management.calls == std::vector<std::string>{"set cpu.weight=200 1",
                                                            "set cpu.max=50000 100000 1",
                                                            "set cmdline=a b --c 1", "set cpu.gang=true 1"});
    desk.management.error = "unknown key \"cpu.wait\"; did you mean cpu.weight?";
    CHECK(desk.run("set web cpu.wait 2") == "set: unknown key \"cpu.wait\"; did you mean cpu.weight?\n");
}

TEST_CASE("rename checks the name first") {
    Desk desk;
    CHECK(desk.run("rename web web2") == "web: renamed to web2\n");
    CHECK(desk.run("rename web 12").starts_with("rename: "));
    CHECK(desk.run("rename web '\x1b[2J'").find('\x1b') == std::string::npos);
    CHECK(desk.management.calls == std::vector<std::string>{"rename to web2 1"});
}

TEST_CASE("create takes a module or typed lines, and shows what is wrong with them") {
    Desk desk;
    CHECK(desk.run("create web.toml") == "created\n");
    CHECK(desk.management.snippet == "[vm.web]\nkernel = \"vmlinuz\"\n");
    CHECK(desk.run("create none") == "create: there is no module \"none\"\n");
    CHECK(desk.run("create", {"[vm.a]", "kernel = \"k\""}).ends_with("created\n"));
    CHECK(desk.management.snippet == "[vm.a]\nkernel = \"k\"\n");
    desk.management.problems = {"2:1: unknown key \x1b[2J", "3:1: more"};
    desk.management.error = "2 problems; nothing was created";
    CHECK(desk.run("create web.toml") ==
          "2:1: unknown key ?[2J\n3:1: more\ncreate: 2 problems; nothing was created\n");
    const json answer = desk.run_json("create --json", {"[vm.a]"});
    CHECK(answer["problems"].size() == 2);
    CHECK(answer["error"] == "2 problems; nothing was created");
}

TEST_CASE("a typed config that is too long is refused as a whole") {
    Desk desk;
    const std::vector<std::string> lines(100, std::string(100, 'x'));
    CHECK(desk.run("create", lines).ends_with("create: the text is longer than 8 KiB\n"));
    CHECK(desk.management.snippet.empty());
}

TEST_CASE("regs shows registers, segments and the last exit") {
    Desk desk;
    const std::string text = desk.run("regs web");
    CHECK(
        text.starts_with("web vCPU 0, last exit: HLT (code 0xc)\n"
                         "rax    ffff800000000001  rcx    0000000000000000  rdx    0000000000000000\n"));
    CHECK(text.find("rip    0000000000001008") != std::string::npos);
    CHECK(text.find("\ncs     0010  0000000000000000 ffffffff   a09b\n") != std::string::npos);
    CHECK(text.find("\ntr     0000  0000000000000000 00000000   0000 unusable\n") != std::string::npos);
    CHECK(text.ends_with("gdtr         000000000000fe00     007f\nidtr         0000000000000000     0000\n"));
    const json regs = desk.run_json("regs web 1 --json");
    CHECK(regs["rax"] == "0xffff800000000001");
    CHECK(regs["vcpu"] == 1);
    CHECK(regs["segments"]["cs"]["access"] == 0xA09B);
    CHECK(regs["segments"]["tr"]["usable"] == false);
    CHECK(regs["gdtr"]["limit"] == 0x7F);
    CHECK(desk.run("regs web 2") == "regs: the VM has no vCPU 2\n");
}

TEST_CASE("x shows memory in units, at numbers and registers, up to what cannot be read") {
    Desk desk;
    CHECK(desk.run("x web 0x1000 20") ==
          "0000000000001000  00010203 04050607 08090a0b 0c0d0e0f  |................|\n"
          "0000000000001010  10111213                             |....|\n");
    CHECK(desk.run("x web rip 2 --unit 8") ==
          "0000000000001008  0f0e0d0c0b0a0908 1716151413121110  |................|\n");
    CHECK(desk.run("x web 0x11041 2 --physical --unit=1") ==
          "0000000000011041  4142                                 |AB|\n");
    const std::string end = desk.run("x web 0x1250 32");
    CHECK(end.ends_with("0000000000001258  from here on nothing can be read\n"));
    const std::string all = desk.run("x web 0x1000 600");
    CHECK(std::count(all.begin(), all.end(), '\n') == 38);
    CHECK(desk.prompt.most_in_a_step < OutputBuffer::size / 2);
    const json memory = desk.run_json("x web 0x1000 700 --json");
    REQUIRE(memory["memory"].size() == 3);
    CHECK(memory["memory"][0]["bytes"].get<std::string>().size() == 512);
    CHECK(memory["memory"][2]["address"] == "0x1200");
    CHECK(memory["unreadable_from"] == "0x1258");
    CHECK(desk.run_json("x web 0x1000 --json")["unreadable_from"].is_null());
}

TEST_CASE("x refuses what is no address, unit or count") {
    Desk desk;
    CHECK(desk.run("x web 0x10 4") == "x: nothing is mapped at 0x10\n");
    CHECK(desk.run("x web 0x10000000000000000") ==
          "x: \"0x10000000000000000\" is no address: give a number such as 0x1000, or a register such as "
          "rip\n");
    CHECK(desk.run("x web 0 1 --unit 3") == "x: --unit is 1, 2, 4 or 8\n");
    CHECK(desk.run("x web 0 1 --unit") == "x: --unit \"\" is no number from 1 to 8\n");
    CHECK(desk.run("x web 0 0") == "x: the count \"0\" is no number from 1 to 65536\n");
    CHECK(desk.run("x web 0 99999999999999999999").starts_with("x: the count "));
    CHECK(desk.run("x web 0 1 --vcpu 256").starts_with("x: --vcpu \"256\" is no number"));
    auto& web = desk.management.vms[0];
    web.memory_base = ~u64{0} - 15;
    web.memory.resize(16);
    CHECK(desk.run("x web 0xfffffffffffffff0 32").ends_with("here the addresses end\n"));
}

TEST_CASE("screen shows text without its empty end, filtered") {
    Desk desk;
    CHECK(
        desk.run("screen web") ==
        "GRUB loading.\nlogin: ?\n(80 x 25, cursor in column 8, row 2; 23 empty rows at the end left out)\n");
    const json screen = desk.run_json("screen web --json");
    CHECK(screen["lines"].size() == 25);
    CHECK(screen["lines"][0] == "GRUB loading.");
    CHECK(screen["cursor"]["column"] == 7);
    CHECK(desk.run("screen db") == "screen: the VM shows a graphics mode\n");
}

TEST_CASE("send types at the serial port or at the keyboard, and waits for room") {
    Desk desk;
    auto& web = desk.management.vms[0];
    CHECK(desk.run("send web 'root\\n' ^C a") == "web: sent\n");
    CHECK(web.received == "root\n \x03 a");
    CHECK(desk.run("send web Ctrl-Alt-Del a --keyboard") == "web: sent\n");
    CHECK(web.scan_codes == std::vector<u8>{0x14, 0x11, 0xE0, 0x71, 0xE0, 0xF0, 0x71, 0xF0, 0x11, 0xF0, 0x14,
                                            0x1C, 0xF0, 0x1C});
    web.received.clear();
    web.fifo_room = 3;
    CHECK(desk.run("send web abcdef") ==
          "send: the VM is off, or does not read its serial port; not all was sent\n");
    CHECK(web.received == "abc");
    // Nothing is sent of what is wrong.
    web.fifo_room = 100;
    CHECK(desk.run("send web 'ok\\q'").starts_with("send: there is no escape \\q"));
    CHECK(web.received == "abc");
    CHECK(desk.run("send web").starts_with("send: missing argument"));
}

TEST_CASE("exits --diff counts from the last look on") {
    Desk desk;
    CHECK(desk.run("exits web --diff").find("100   100.0") != std::string::npos);
    auto& exits = desk.management.vms[0].exits;
    exits.of(ExitReason::hlt).count += 5;
    exits.of(ExitReason::cpuid) = {3, 30};
    const json difference = desk.run_json("exits web --diff --json");
    CHECK(difference["total"] == 8);
    CHECK(difference["difference_seconds"].is_number());
    CHECK(desk.run_json("exits web --diff --json")["total"] == 0);
    CHECK(desk.run_json("exits web --json")["total"] == 108);
    // Started anew: it counts from zero again.
    exits = {};
    exits.of(ExitReason::hlt).count = 2;
    CHECK(desk.run_json("exits web --diff --json")["total"] == 2);
}

TEST_CASE("mem and cpus show who has what") {
    Desk desk;
    CHECK(desk.run("mem") ==
          "8G for VMs, 6G of it free (largest run 4G); 3M for the hypervisor\n"
          "NAME              RAM OVERHEAD  OF IT USED RANGES OF MACHINE MEMORY\n"
          "web              512M       4M       2500K 0x10000000-0x103fffff\n"
          "                                           0x20000000-0x3fffffff\n");
    CHECK(desk.run_json("mem --json")["vms"][0]["ranges"][1]["bytes"] == 512 * mib);
    CHECK(desk.run("cpus") ==
          "CORE APIC ID STATE     VCPUS  BUSY %      BUSY S      IDLE S   INTERRUPTS        KICKS\n"
          "   0       0 shared        0     2.0         2.0        98.0          400            3\n"
          "   1       2 dedicated     1    50.0        50.0        50.0            1            9\n"
          "   2       4 offline: it did not answer within 100 ms\n");
    CHECK(desk.run_json("cpus --json")[2]["reason"] == "it did not answer within 100 ms");
}

TEST_CASE("info shows a gang's skew") {
    Desk desk;
    CHECK(desk.run("info web").find("gang skew   1.2 us last, 2.3 us mean, 9.9 us most, in 10 starts\n") !=
          std::string::npos);
    CHECK(desk.run_json("info web --json")["gang"]["greatest_skew_nanoseconds"] == 9999);
    CHECK_FALSE(desk.run_json("info db --json").contains("gang"));
}

TEST_CASE("top compares two looks, the busiest VM first") {
    Desk desk;
    struct Working final : Sink {
        void write(std::string_view) override {}
    };
    // Nothing is measured while nothing runs.
    CHECK(desk.run_json("top 1 --json")["vms"][0]["cpu_percent"] == 0.0);
    StringSink sink;
    auto& interpreter = *desk.prompt.interpreter;
    interpreter.begin("top 1 --once", sink);
    REQUIRE(interpreter.step() == CommandInterpreter::Progress::waiting);
    desk.management.clock += 500'000'000;
    REQUIRE(interpreter.step() == CommandInterpreter::Progress::waiting);
    desk.management.vms[0].summary.cpu_nanoseconds += 100'000'000;
    desk.management.vms[1].summary.cpu_nanoseconds += 900'000'000;
    desk.management.vms[1].exits.of(ExitReason::cpuid).count += 5000;
    desk.management.cores[1].busy_nanoseconds += 1'000'000'000;
    desk.management.clock += 500'000'000;
    REQUIRE(interpreter.step() == CommandInterpreter::Progress::done);
    const std::string text = sink.text;
    INFO(text);
    CHECK(text.find('\x1b') == std::string::npos);
    CHECK(text.find("cores   0:   0.0    1:  99.9    2:   off") != std::string::npos);
    CHECK(text.find("db ") < text.find("web "));
    CHECK(text.find("  89.9     1.9     4998\n") != std::string::npos);
}

TEST_CASE("top draws in place until it is ended") {
    Desk desk;
    const std::string text = desk.run("top 1", {}, 40'000);
    CHECK(text.starts_with("\x1b[2J\x1b[HBulkhead 0.1, VT-x, up 10"));
    size_t drawn = 0;
    for (size_t at = 0; (at = text.find("\x1b[H", at)) != std::string::npos; ++at) ++drawn;
    CHECK(drawn >= 3);
    for (int i = 0; i < 60; ++i) desk.management.add(static_cast<u16>(100 + i), "vm" + std::to_string(i));
    const std::string full = desk.run("top 1");
    CHECK(std::count(full.begin(), full.end(), '\n') <= 23);
    CHECK(full.find("... and ") != std::string::npos);
}

TEST_CASE("logs merges the consoles of all VMs and filters them") {
    Desk desk;
    desk.larger_ring(0);
    desk.larger_ring(1);
    desk.guest(0, 1'000'000'000, "boot\r\n\x1b[31mred\x1b[0m \x9B\x31m \x1b]0;t\x07!\r\n");
    desk.guest(1, 1'000'000'500, "db up\n");
    desk.guest(0, 2'000'000'000, "bulkhead> \n");
    CHECK(desk.run("logs") ==
          "[    1.000000] web: boot\n[    1.000000] web: red ?1m !\n[    1.000000] db: db up\n"
          "[    2.000000] web: bulkhead> \n");
    CHECK(desk.run("logs db") == "[    1.000000] db: db up\n");
    CHECK(desk.run("logs --last 1") == "[    1.000000] db: db up\n[    2.000000] web: bulkhead> \n");
    const json logs = desk.run_json("logs --json");
    REQUIRE(logs.size() == 4);
    CHECK(logs[1]["text"].get<std::string>().starts_with("\x1b[31mred"));
    CHECK(logs[3] == json::parse(R"({"vm":"web","seconds":2.000,"text":"bulkhead> "})"));
    CHECK(desk.run_json("logs -f --json")["error"] == "-f has no end, and so no JSON document");
    CHECK(desk.run("scrollback web 2") == "red ?1m !\nbulkhead> \n");
    CHECK(desk.run_json("scrollback db --json").size() == 1);
    CHECK(desk.run("scrollback off").starts_with("scrollback: the VM has no console here"));
}

TEST_CASE("logs -f and dmesg -f go on with what comes") {
    Desk desk;
    using enum CommandInterpreter::Progress;
    StringSink sink;
    auto& interpreter = *desk.prompt.interpreter;
    interpreter.begin("logs -f", sink);
    REQUIRE(interpreter.step() == waiting);
    CHECK(interpreter.live());
    desk.guest(0, 5'000'000'000, "news\n");
    desk.management.clock += 1'000'000'000;
    REQUIRE(interpreter.step() == waiting);
    CHECK(sink.take() == "[    5.000000] web: news\n");
    interpreter.cancel();
    CHECK_FALSE(interpreter.running());
    interpreter.begin("dmesg -f", sink);
    REQUIRE(interpreter.step() == waiting);
    CHECK(sink.take() == "[    1.000000] hello\n");
    desk.management.log_line(2'000'000, LogLevel::error, "later");
    CHECK(interpreter.step() == waiting);
    CHECK(sink.take().empty());
    desk.management.clock += 1'000'000'000;
    CHECK(interpreter.step() == waiting);
    CHECK(sink.take() == "[    2.000000] error: later\n");
}

TEST_CASE("console takes how many lines are to be replayed") {
    Desk desk;
    desk.run("console web --last 3");
    CHECK(desk.prompt.interpreter->attach() == VmId(1));
    CHECK(desk.prompt.interpreter->attach_lines() == 3);
    desk.run("console --last=0 web");
    CHECK(desk.prompt.interpreter->attach_lines() == 0);
    desk.run("console web");
    CHECK_FALSE(desk.prompt.interpreter->attach_lines());
    CHECK(desk.run("console web --last x").starts_with("console: --last \"x\" is no number"));
    CHECK_FALSE(desk.prompt.interpreter->attach());
}

TEST_CASE("plan shows the plan, filtered") {
    Desk desk;
    CHECK(desk.run("plan") == "web: cores 1-2\ndb: refused?: no memory\n");
    CHECK(desk.run_json("plan --json").size() == 2);
}

TEST_CASE("repeat runs commands so often, up to the first error") {
    Desk desk;
    const std::string text = desk.run("repeat 3 destroy web; start 'web' ; wait 1");
    CHECK(text.starts_with("3 of 3 runs in 3."));
    CHECK(desk.management.calls ==
          std::vector<std::string>{"destroy 1", "start 1", "destroy 1", "start 1", "destroy 1", "start 1"});
    CHECK(desk.run("repeat --verbose 2 start web")
              .starts_with("web: started\nweb: started\n2 of 2 runs in 0."));
    desk.management.error = "out of memory";
    const json answer = desk.run_json("repeat --json 5 start web");
    CHECK(answer["error"] == "out of memory");
    CHECK(answer["done"] == 0);
    CHECK(answer["wanted"] == 5);
    desk.management.error.clear();
    desk.management.calls.clear();
    CHECK(desk.run_json("repeat 2 start web --json")["done"] == 2);
    CHECK(desk.run("repeat 2 list --xml").starts_with("repeat: stopped in run 1: unknown option --xml"));
    CHECK(desk.run("repeat 2 start web; lsit")
              .starts_with("repeat: stopped in run 1: unknown command \"lsit\""));
    CHECK(desk.run("repeat 2 send web 'a;b'").starts_with("2 of 2 runs"));
    CHECK(desk.management.vms[0].received == "a;ba;b");
}

TEST_CASE("repeat refuses what has no end") {
    Desk desk;
    for (const char* line : {"top", "dmesg -f", "logs -f", "console web", "create"}) {
        INFO(line);
        const std::string text = desk.run("repeat 2 " + std::string(line));
        CHECK(text.find("has no end of its own; it cannot be repeated") != std::string::npos);
        CHECK_FALSE(desk.prompt.interpreter->attach());
    }
    CHECK(desk.run("repeat 2 repeat 2 list").find("repeat cannot repeat itself") != std::string::npos);
    CHECK(desk.run("repeat 2") ==
          "repeat: what is to be repeated? usage: repeat [--verbose] N COMMAND [; COMMAND]...\n");
    CHECK(desk.run("repeat 0 list").starts_with("repeat: the count \"0\" is no number"));
    CHECK(desk.run("repeat 99999999999999999999 list").starts_with("repeat: the count"));
    CHECK(desk.run("repeat").starts_with("repeat: missing argument"));
}

TEST_CASE("a step of repeat is a step of what is repeated") {
    Desk desk;
    StringSink sink;
    auto& interpreter = *desk.prompt.interpreter;
    interpreter.begin("repeat 1000000 start web", sink);
    for (int i = 0; i < 100; ++i) REQUIRE(interpreter.step() == CommandInterpreter::Progress::more);
    CHECK(desk.management.calls.size() <= 100);
    interpreter.cancel();
    CHECK(desk.run("version").starts_with("Bulkhead"));
}

TEST_CASE("every command with --json prints one document, whatever its arguments are") {
    Desk desk;
    const char* const arguments[] = {"",
                                     "web",
                                     "off",
                                     "nobody",
                                     "web 0",
                                     "web 1 2",
                                     "web 0x1000",
                                     "web web",
                                     "1",
                                     "99999999999",
                                     "web '\x1b'",
                                     "web a b c d",
                                     "web cpu.max max",
                                     "web 0x1000 1 --unit 2",
                                     "--frob",
                                     "3 list; version"};
    for (const CommandGroup& group : command_groups()) {
        for (const Command& command : group.commands) {
            for (const char* each : arguments) {
                for (const char* error : {"", "it \"cannot\" be\x1b"}) {
                    desk.management.error = error;
                    desk.management.vms[0].fifo_room = 1000;
                    const std::string line = std::string(command.name) + " --json " + each;
                    const json answer = desk.run_json(line, {"[vm.x]"});
                    INFO(line << ": " << answer.dump());
                    CHECK((answer.is_object() || answer.is_array()));
                    CHECK(desk.prompt.most_in_a_step < OutputBuffer::size);
                }
            }
        }
    }
}

TEST_CASE("every command's example works") {
    for (const CommandGroup& group : command_groups()) {
        for (const Command& command : group.commands) {
            Desk desk;
            const std::string answer = desk.run(command.example, {"[vm.x]"}, 3);
            INFO(command.example << ": " << answer);
            CHECK(answer.find("usage:") == (command.name == "help" ? 0 : std::string::npos));
            CHECK(answer.find(std::string(command.name) + ": ") != 0);
            if (command.json && command.options[0] != "-f") {
                const json parsed = desk.run_json(std::string(command.example) + " --json", {"[vm.x]"});
                if (parsed.is_object()) CHECK_FALSE(parsed.contains("error"));
            }
        }
    }
}

TEST_CASE("with the most VMs there may be, no step prints more than the buffer holds") {
    Desk desk;
    while (desk.management.vms.size() < Config::max_vms) {
        const auto id = static_cast<u16>(desk.management.vms.size() + 10);
        auto& vm = desk.management.add(id, "a-very-long-name-of-a-vm-000" + std::to_string(id),
                                       VmState::running, 16);
        for (unsigned i = 0; i < 16; ++i)
            vm.vcpus.push_back({i, VcpuSummary::State::running, i, cpus("0-255"), ~u64{0}, ~u64{0}});
        vm.memory_summary = desk.management.vms[0].memory_summary;
        while (vm.memory_summary.ranges.push_back({HostPhysical(~u64{0} >> 12), 1})) {
        }
    }
    while (desk.management.cores.size() < 256) desk.management.cores.push_back(desk.management.cores[2]);
    for (int i = 0; i < 2000; ++i)
        desk.management.log_line(~u64{0} / 2000, LogLevel::info, std::string(200, '"'));
    desk.larger_ring(0);
    for (int i = 0; i < 40; ++i) desk.guest(0, 1, std::string(90, '"') + "\n");
    for (const char* line : {"list", "vcpu-list", "mem", "cpus", "top --once", "dmesg", "logs", "help"}) {
        for (const char* option : {"", " --json"}) {
            INFO(line << option);
            const std::string text = desk.run(std::string(line) + option);
            CHECK(text.size() > 1000);
            CHECK(desk.prompt.most_in_a_step < OutputBuffer::size);
        }
    }
    CHECK(desk.run_json("vcpu-list --json").size() == 3 + 61 * 16);
    CHECK(desk.run_json("list --json").size() == 64);
    CHECK(desk.run_json("cpus --json").size() == 256);
}

TEST_CASE("any line at the prompt is answered, in plain text") {
    std::mt19937 random(11);
    Desk desk;
    const char* const pieces[] = {
        "web",    "off", " ",  " ",   " ",       "--json",     "--",
        "-f",     "'",   "\"", "\\",  "0x1000",  "1",          "99999999999999999999",
        "--unit", "=",   ";",  "all", "\x1b[2J", "--keyboard", "--last"};
    std::vector<std::string_view> names;
    for (const CommandGroup& group : command_groups()) {
        for (const Command& command : group.commands) names.push_back(command.name);
    }
    for (int i = 0; i < 4000; ++i) {
        std::string line(names[random() % names.size()]);
        for (unsigned n = random() % 8; n > 0; --n) {
            line += " ";
            line += pieces[random() % std::size(pieces)];
            if (random() % 10 == 0) line += static_cast<char>(random());
        }
        if (line.starts_with("wait")) continue;  // for 1000h seconds, perhaps
        desk.management.vms[0].fifo_room = 100;
        const std::string text = desk.run(line, {"x"});
        const bool top = line.find("top") != std::string::npos;
        for (const char c : text) {
            if (c == '\n' || (c == '\x1b' && top)) continue;
            if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) {
                INFO(line << " -> " << text);
                REQUIRE(false);
            }
        }
    }
    CHECK(desk.run("version").starts_with("Bulkhead"));
}

TEST_CASE("isolation tries every pair of VMs that have memory, and from the kernel, and says what it found") {
    Desk desk;
    desk.management.vms[1].memory_summary = desk.management.vms[0].memory_summary;
    CHECK(desk.run("isolation") ==
          "5 page tables with 321 mappings: 0 lead to memory of another VM\n"
          "the kernel on 4 core(s): 20 loads from VMs' memory that is not its own: each page-faulted\n"
          "web on 1 core(s): 10 loads from VMs' memory that is not its own: each page-faulted\n"
          "db on 1 core(s): 10 loads from VMs' memory that is not its own: each page-faulted\n"
          "isolated: no VM's memory is in reach of another\n");
    CHECK(desk.management.reach_checks == std::vector<std::pair<int, int>>{{-1, 1}, {-1, 2}, {1, 2}, {2, 1}});
    json report = desk.run_json("isolation --json");
    CHECK(report["isolated"] == true);
    CHECK(report["tables"] == 5);
    CHECK(report["mappings"] == 321);
    CHECK(report["leak_count"] == 0);
    CHECK(report["leaks"].empty());
    REQUIRE(report["viewers"].size() == 3);
    CHECK(report["viewers"][0]["viewer"] == "the kernel");
    CHECK(report["viewers"][2]["viewer"] == "db");
    CHECK(report["viewers"][2]["loads"] == 10);

    desk.management.reached_by = 2;
    CHECK(desk.run("isolation")
              .find("db on 1 core(s): 10 loads from VMs' memory that is not its own: "
                    "NOT ISOLATED: on core 2 it can read memory of web at 0x1234000\n"
                    "NOT ISOLATED\n") != std::string::npos);
    CHECK(desk.run("repeat 3 isolation").find("VMs are not isolated") != std::string::npos);
    report = desk.run_json("isolation --json");
    CHECK(report["isolated"] == false);
    CHECK(report["viewers"][1]["isolated"] == true);
    CHECK(report["viewers"][2]["isolated"] == false);

    desk.management.reached_by.reset();
    desk.management.tables.leaks = 2;
    CHECK(desk.run("isolation").find("LEAK: leak 1\n") != std::string::npos);
    report = desk.run_json("isolation --json");
    CHECK(report["isolated"] == false);
    CHECK(report["leaks"] == json{"leak 0", "leak 1"});

    desk.management.tables.leaks = 0;
    desk.management.tables_unreadable = true;
    CHECK(desk.run("isolation").ends_with("\nNOT ISOLATED\n"));
    desk.management.tables_unreadable = false;
    desk.management.unreachable_core = true;
    CHECK(desk.run("isolation").find("NOT ISOLATED: core 3 does not answer") != std::string::npos);
}
