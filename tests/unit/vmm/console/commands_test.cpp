#include "vmm/console/commands.hpp"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>
#include <set>
#include <string>

#include "tests/unit/vmm/console/fake_management.hpp"

using namespace bulkhead;
using nlohmann::json;

namespace {

struct Desk {
    FakeManagement management;
    Prompt prompt{management};
    std::optional<VmId> attached;

    Desk() {
        auto& web = management.add(1, "web", VmState::running, 2, 512 * mib, 12'345'678'901);
        web.config.kernel.append("vmlinuz");
        web.config.initrd.append("initrd.img");
        web.config.cmdline.append("console=ttyS0");
        web.config.cpus = *parse_cpu_list("1-2");
        (void)web.config.add_module("ext2fs --args");
        auto add_exits = [&](ExitReason reason, u64 count, u64 ticks) {
            web.exits.of(reason) = {count, ticks};
        };
        add_exits(ExitReason::cpuid, 10, 12'000);
        add_exits(ExitReason::port_io, 600, 900'000);
        add_exits(ExitReason::hlt, 390, 39'000);
        web.exits.guest_ticks = 10'000'000;
        for (usize i = 0; i < 3; ++i) web.exits.host_caused[i] = u64{1} << i;
        management.add(2, "database-server", VmState::crashed, 16, 3 * gib, 999).reason =
            "triple fault\x1b[2J";
        management.add(3, "off", VmState::off, 1, 16 * mib + 4 * kib);
    }
    std::string run(std::string_view line) {
        const std::string text = prompt.run(line);
        attached = prompt.interpreter->attach();
        return text;
    }
    json run_json(std::string_view line) {
        const std::string text = run(line);
        INFO(text);
        REQUIRE(text.ends_with("\n"));
        REQUIRE(std::count(text.begin(), text.end(), '\n') == 1);
        REQUIRE(json::accept(text));
        return json::parse(text);
    }
    std::string completions(std::string_view text) {
        struct Collector final : CandidateSink {
            std::string words;
            void candidate(std::string_view word) override { words += std::string(word) + " "; }
        } collector;
        prompt.interpreter->complete(text, collector);
        return collector.words;
    }
};

}  // namespace

TEST_CASE("list shows one line for each VM") {
    Desk desk;
    CHECK(desk.run("list") ==
          "NAME               ID  MEMORY VCPUS STATE               TIME\n"
          "web                 1    512M     2 r----- running      12.3\n"
          "database-server     2      3G    16 ----c- crashed       0.0\n"
          "off                 3  16388K     1 ------ off           0.0\n");
}

TEST_CASE("list without VMs is a head line") {
    FakeManagement management;
    Prompt prompt(management);
    CHECK(prompt.run("list") == "NAME            ID  MEMORY VCPUS STATE               TIME\n");
}

TEST_CASE("list --json is an array with exact numbers") {
    Desk desk;
    const json list = desk.run_json("list --json");
    REQUIRE(list.size() == 3);
    CHECK(list[0] == json::parse(R"({"id":1,"name":"web","state":"running","flags":"r-----","vcpus":2,
                                     "memory_bytes":536870912,"cpu_seconds":12.345,"sleep_counts":false})"));
    CHECK(list[1]["name"] == "database-server");
}

TEST_CASE("info shows state and configuration") {
    Desk desk;
    CHECK(desk.run("info web") ==
          "name        web\n"
          "id          1\n"
          "state       running (r-----)\n"
          "vcpus       2\n"
          "memory      512M\n"
          "cpu time    12.3 s\n"
          "uptime      90.5 s\n"
          "resets      2\n"
          "kernel      vmlinuz\n"
          "initrd      initrd.img\n"
          "cmdline     console=ttyS0\n"
          "module      ext2fs --args\n"
          "boot        auto\n"
          "cpuset.cpus 1-2\n"
          "cpu.weight  100\n"
          "autostart   true\n"
          "on_reboot   restart\n"
          "on_crash    preserve\n");
    CHECK(desk.run("info 2").find("reason      triple fault?[2J\n") != std::string::npos);
    const json info = desk.run_json("info web --json");
    CHECK(info["cpuset.cpus"] == "1-2");
    CHECK(info["cpu.max"] == "max");
    CHECK(info["modules"] == json::parse(R"(["ext2fs --args"])"));
    CHECK(info["uptime_seconds"] == 90.5);
    CHECK(desk.run_json("info 2 --json")["reason"] == "triple fault\x1b[2J");
    CHECK_FALSE(desk.run_json("info 2 --json").contains("last_fault"));
}

TEST_CASE("info shows where the vCPU was that stopped its VM") {
    Desk desk;
    VmFault fault;
    fault.vcpu = 3;
    fault.uptime_nanoseconds = 12'300'000'000;
    fault.cs = 0x10;
    fault.rip = 0x100076;
    fault.what.append("triple\x1b fault");
    fault.efer = 0xD01;
    desk.management.vms[0].fault = fault;
    CHECK(desk.run("info web")
              .find("last fault  triple? fault\n"
                    "            vCPU 3, 12.3 s after power-on; cs 0x10 rip 0x100076 rsp 0x0\n"
                    "            rflags 0x0 cr0 0x0 cr2 0x0 cr3 0x0\n"
                    "            cr4 0x0 efer 0xd01\n") != std::string::npos);
    const json kept = desk.run_json("info web --json")["last_fault"];
    CHECK(kept["what"] == "triple\x1b fault");
    CHECK(kept["vcpu"] == 3);
    CHECK(kept["rip"] == "0x100076");
    CHECK(kept["efer"] == "0xd01");
}

TEST_CASE("exits are sorted by count, with share and mean cost") {
    Desk desk;
    CHECK(desk.run("exits web") ==
          "REASON                              COUNT SHARE %  MEAN CYCLES\n" +
              std::string(name_of(ExitReason::port_io)) +
              std::string(26 - name_of(ExitReason::port_io).size(), ' ') +
              "            600    60.0         1500\n" + std::string(name_of(ExitReason::hlt)) +
              std::string(26 - name_of(ExitReason::hlt).size(), ' ') +
              "            390    39.0          100\n" + std::string(name_of(ExitReason::cpuid)) +
              std::string(26 - name_of(ExitReason::cpuid).size(), ' ') +
              "             10     1.0         1200\n"
              "all                                  1000   100.0          951\n"
              "caused by the host: 7 (tick 1, kick 2, device 4)\n"
              "in the guest: 91.3 % of the cycles\n");
    const json exits = desk.run_json("exits web --json");
    CHECK(exits["total"] == 1000);
    CHECK(exits["exits"].size() == 3);
    CHECK(exits["exits"][0]["count"] == 600);
    CHECK(exits["exits"][0]["cycles"] == 900000);
    CHECK(exits["host_caused"] == json::parse(R"({"tick": 1, "kick": 2, "device": 4})"));
    CHECK(desk.run("exits off") == "exits: the VM has no exits: it is off\n");
}

TEST_CASE("a VM's exits are watched for a second: how many there are, and the last ones' instructions") {
    Desk desk;
    desk.management.records = {
        {.vcpu = 1,
         .reason = ExitReason::msr_write,
         .code = 32,
         .address = 0xFFFFFFFF81000000,
         .size = 2,
         .bytes = {0x0F, 0x30}},
        {.vcpu = 0, .reason = ExitReason::nested_page_fault, .code = 48, .address = 0x1000}};
    CHECK(desk.run("exits web --budget") ==
          "REASON                        A SECOND\n"
          "port I/O                         240.0\n"
          "HLT                                0.8\n"
          "all                              240.8\n"
          "in 1.2 s of the guest's time; 3 caused by the host\n"
          "VCPU THE LAST EXITS             ADDRESS           INSTRUCTION, AND WHAT FOLLOWS IT\n"
          "   1 WRMSR                      ffffffff81000000  0f 30\n"
          "   0 nested page fault          0000000000001000 \n");
    CHECK(desk.management.watched == 1'000'000'000);
    const json budget = desk.run_json("exits web --budget --json");
    CHECK(budget["name"] == "web");
    CHECK(budget["watched_seconds"] == 1.25);
    CHECK(budget["total"] == 301);
    CHECK(budget["host_caused"]["kick"] == 3);
    CHECK(budget["rates"][0] == json::parse(R"({"reason": "port I/O", "count": 300, "per_second": 240.0})"));
    CHECK(budget["last"][0] == json::parse(R"({"vcpu": 1, "reason": "WRMSR", "code": 32,
                                               "address": "0xffffffff81000000", "bytes": "0f30"})"));
    CHECK(budget["last"][1]["bytes"] == "");
    CHECK(desk.run("exits off --budget") == "exits: the VM has no exits: it is off\n");
}

TEST_CASE("exit counts near the limit of 64 bits do not overflow") {
    Desk desk;
    auto& exits = desk.management.vms[0].exits;
    exits.of(ExitReason::cpuid) = {~u64{0} / 2, ~u64{0} / 2};
    exits.of(ExitReason::hlt) = {~u64{0} / 4, 0};
    exits.of(ExitReason::port_io) = {0, 0};
    CHECK(desk.run("exits web").find("66.6") != std::string::npos);
}

TEST_CASE("actions reach the VM that was named, by name or by id") {
    Desk desk;
    CHECK(desk.run("start web") == "web: started\n");
    CHECK(desk.run("pause 2") == "database-server: paused\n");
    CHECK(desk.run("unpause web") == "web: unpaused\n");
    CHECK(desk.run("reset web") == "web: reset\n");
    CHECK(desk.run("shutdown web") == "web: asked to shut down\n");
    CHECK(desk.run("destroy off") == "off: destroyed\n");
    desk.run("reboot");
    desk.run("poweroff");
    CHECK(desk.management.calls == std::vector<std::string>{"start 1", "pause 2", "unpause 1", "reset 1",
                                                            "shutdown 1", "destroy 3", "reboot 0",
                                                            "poweroff 0"});
    desk.management.error = "it runs already; pause it first";
    CHECK(desk.run("start web") == "start: it runs already; pause it first\n");
    CHECK(desk.run("reboot") == "reboot: it runs already; pause it first\n");
}

TEST_CASE("a VM that is not there is named, with the nearest that is") {
    Desk desk;
    CHECK(desk.run("start wbe") == "start: there is no VM \"wbe\"; did you mean web?\n");
    CHECK(desk.run("start 99") == "start: there is no VM \"99\"; list shows those there are\n");
    CHECK(desk.run("start 65537") == "start: there is no VM \"65537\"; list shows those there are\n");
    CHECK(desk.run_json("info wbe --json") ==
          json::parse(R"({"error":"there is no VM \"wbe\"; did you mean web?"})"));
    CHECK(desk.management.calls.empty());
}

TEST_CASE("console hands over the terminal of a VM that has one") {
    Desk desk;
    CHECK(desk.run("console web") == "");
    CHECK(desk.attached == VmId(1));
    desk.management.vms[0].ring.reset();
    CHECK(
        desk.run("console web") ==
        "console: the VM has no console here; start it, or look at the port that its configuration names\n");
    CHECK_FALSE(desk.attached);
}

TEST_CASE("dmesg prints the log, filtered") {
    Desk desk;
    desk.management.log_line(1'234'567, LogLevel::info, "VMX: on, 4 cores");
    desk.management.log_line(12'000'001, LogLevel::warning, "web: odd \x1b]0;x\x07");
    CHECK(desk.run("dmesg") ==
          "[    1.234567] VMX: on, 4 cores\n"
          "[   12.000001] warning: web: odd ?]0;x?\n");
    const json log = desk.run_json("dmesg --json");
    CHECK(log[0] == json::parse(R"({"seconds":1.234,"level":"info","text":"VMX: on, 4 cores"})"));
    CHECK(log[1]["text"] == "web: odd \x1b]0;x\x07");
}

TEST_CASE("version tells what runs") {
    Desk desk;
    CHECK(desk.run("version") == "Bulkhead 0.1, VT-x, 4 cores, 8G of memory\n");
    CHECK(desk.run_json("version --json")["cpus"] == 4);
}

TEST_CASE("unknown commands, options and wrong numbers of arguments are explained") {
    Desk desk;
    CHECK(desk.run("lsit") == "unknown command \"lsit\"; did you mean list?\n");
    CHECK(desk.run("xyzzy") == "unknown command \"xyzzy\"; help lists them\n");
    CHECK(desk.run("\"\x1b[2J\"") == "unknown command \"?[2J\"; help lists them\n");
    CHECK(desk.run(std::string(500, 'x')).size() < 200);
    CHECK(desk.run("start") == "start: missing argument; usage: start VM\n");
    CHECK(desk.run("start a b") == "start: unexpected argument; usage: start VM\n");
    CHECK(desk.run("list --xml") == "list: unknown option --xml; usage: list\n");
    CHECK(desk.run("list --jsno") == "list: unknown option --jsno (did you mean --json?); usage: list\n");
    CHECK(desk.run_json("console web --json")["error"] == "it has no answer in JSON");
    CHECK(desk.run("--json") == "{\"error\":\"unknown command \\\"--json\\\"; help lists them\"}\n");
    CHECK(desk.run("a 'b") == "a ' is not closed; add another one\n");
    CHECK(desk.run("") == "");
    CHECK(desk.run("   ") == "");
    CHECK(desk.run_json("lsit --json")["error"] == "unknown command \"lsit\"; did you mean list?");
    CHECK(desk.run_json("list x --json")["error"] == "unexpected argument; usage: list");
}

TEST_CASE("every command has help, an example that parses, and a place in the list") {
    Desk desk;
    const std::string all = desk.run("help");
    std::set<std::string_view> names;
    for (const CommandGroup& group : command_groups()) {
        CHECK(all.find(std::string(group.title) + ":\n") != std::string::npos);
        for (const Command& command : group.commands) {
            INFO(command.name);
            CHECK(names.insert(command.name).second);
            CHECK(all.find("  " + std::string(command.name) + " ") != std::string::npos);
            CHECK(command.usage.starts_with(command.name));
            CHECK(command.example.starts_with(command.name));
            CHECK(command.help.ends_with(".\n"));
            CHECK(!command.summary.empty());
            CHECK(command.run != nullptr);
            const std::string help = desk.run("help " + std::string(command.name));
            CHECK(help == "usage: " + std::string(command.usage) + (command.json ? " [--json]\n" : "\n") +
                              std::string(command.help) + "example: " + std::string(command.example) + "\n");
            size_t start = 0;
            for (size_t end; (end = help.find('\n', start)) != std::string::npos; start = end + 1) {
                CHECK(end - start <= 90);
            }
            CommandLine line;
            REQUIRE(line.parse(command.example));
            CHECK(line.words().size() > command.required);
            CHECK(desk.run_json("help --json " + std::string(command.name))["example"] == command.example);
            // The row's number of arguments and its options take the example.
            const std::string answer = desk.run(command.example);
            CHECK(answer.find("usage:") == (command.name == "help" ? 0 : std::string::npos));
        }
    }
    CHECK(names.size() == 36);
    CHECK(desk.run_json("help --json").size() == names.size());
    CHECK(desk.run("help lsit") == "help: unknown command \"lsit\"; did you mean list?\n");
}

TEST_CASE("Tab offers commands, VMs and options where they fit") {
    Desk desk;
    CHECK(desk.completions("res") == "reset ");
    CHECK(desk.completions("set web cpuset") == "cpuset.cpus ");
    CHECK(desk.completions("x web 0 --") == "--physical --vcpu= --unit= --json ");
    CHECK(desk.completions("start ") == "web database-server off ");
    CHECK(desk.completions("start w") == "web ");
    CHECK(desk.completions("start web ") == "");
    CHECK(desk.completions("list -") == "--json ");
    CHECK(desk.completions("integrity -") == "--json ");
    CHECK(desk.completions("list --json -") == "");
    CHECK(desk.completions("console web --j") == "");
    CHECK(desk.completions("help st") == "start ");
    CHECK(desk.completions("version ") == "");
    CHECK(desk.completions("nonsense ") == "");
    CHECK(desk.completions("start 'w") == "");
    CHECK(desk.completions("") != "");
}

TEST_CASE("hostile names stay text") {
    Desk desk;
    desk.management.add(9, "\x1b[2Jweb\r\n", VmState::running);
    const std::string shown =
        desk.run("list") + desk.run("info 9") + desk.run("start 9") + desk.run("exits 9");
    for (const char c : shown) CHECK((c == '\n' || (c >= 0x20 && c < 0x7F)));
    CHECK(desk.run_json("list --json")[3]["name"] == "\x1b[2Jweb\r\n");
}

TEST_CASE("integrity shows checksums and what is free") {
    Desk desk;
    CHECK(desk.run("integrity") ==
          "text and constants  1234567890abcdef\n"
          "page tables         000000000000fedc\n"
          "free pages          42\n"
          "free 2 MiB units    7\n");
    const json document = json::parse(desk.run("integrity --json"));
    CHECK(document["text_checksum"].get<u64>() == 0x1234567890ABCDEF);
    CHECK(document["table_checksum"].get<u64>() == 0xFEDC);
    CHECK(document["free_pages"].get<u64>() == 42);
    CHECK(document["free_units"].get<u64>() == 7);
}

TEST_CASE("mitigations shows hazards, measures and how often each barrier was issued") {
    Desk desk;
    // Skylake with microcode, and two cores.
    desk.management.facts = {.vendor = SpeculationFacts::Vendor::intel,
                             .family = 6,
                             .model = 0x5E,
                             .leaf7_edx = 0xBC002E00,
                             .architecture = 0x2000C04};
    desk.management.cores.resize(2);
    const std::string text = desk.run("mitigations");
    CHECK(text.find("HAZARD                      STATE        MEASURE\n"
                    "Spectre v1                  mitigated    ") == 0);
    CHECK(text.find("L1 terminal fault           mitigated    L1D flush at change of guest\n") !=
          std::string::npos);
    CHECK(text.find("SPEC_CTRL 0x1 in the host, 0x0 in guests\n") != std::string::npos);
    CHECK(text.find(
              "core 1: VERW at entry 100, SPEC_CTRL at entry 101, IBRS at exit 102, RSB fill at exit 104, "
              "BHB clear at exit 105, IBPB at change of guest 106, L1D flush at change of guest 107\n") !=
          std::string::npos);
    const json document = json::parse(desk.run("mitigations --json"));
    CHECK(document["hazards"].size() == 17);
    CHECK(document["hazards"][0]["hazard"] == "Spectre v1");
    CHECK(document["host_spec_ctrl"] == 1);
    CHECK(document["cores"].size() == 2);
    CHECK(document["cores"][1]["VERW at entry"] == 100);
    CHECK_FALSE(document["cores"][1].contains("IBPB at exit"));
}

TEST_CASE("mitigations says when a processor has nothing to be told") {
    Desk desk;
    desk.management.cores.resize(1);
    CHECK(desk.run("mitigations").find("the processor has no barriers that have to be issued\n") !=
          std::string::npos);
    CHECK(json::parse(desk.run("mitigations --json"))["cores"][0].size() == 1);
}
