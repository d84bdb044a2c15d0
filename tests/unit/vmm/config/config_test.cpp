#include "vmm/config/config.hpp"

#include <catch2/catch.hpp>
#include <memory>
#include <random>
#include <string>
#include <vector>

using namespace bulkhead;

namespace {

struct StringSink final : Sink {
    std::string text;
    void write(std::string_view piece) override { text += piece; }
};

struct Loaded {
    std::vector<VmConfig> room;
    Config config;
    std::string problems;
    unsigned count = 0;

    explicit Loaded(std::string_view text, size_t vms = 4) : room(vms), config(room) {
        static toml::Document document;
        StringSink sink;
        count = parse_config("bulkhead.toml", text, document, config, sink);
        problems = sink.text;
        CHECK(count == static_cast<unsigned>(std::count(problems.begin(), problems.end(), '\n')));
    }
    const VmConfig& vm(size_t index = 0) const {
        REQUIRE(index < config.vms().size());
        return config.vms()[index];
    }
};

std::string vm_problems(const std::string& lines) {
    return Loaded("[vm.a]\nkernel = \"k\"\n" + lines).problems;
}

std::string text_of(const CpuSet& set) {
    StringSink sink;
    format_value(sink, set);
    return sink.text;
}

}  // namespace

TEST_CASE("the example of the design document is read as it is meant") {
    const Loaded file(R"(# bulkhead.toml
[host]
console = "com1"            # com1..com4, 115200n8 by default
escape  = "ctrl-]"

[vm.web]
cpuset.cpus = "1-2"         # physical cores; cgroup words where cgroups have one
vcpus       = 2
memory.max  = "512M"
kernel      = "vmlinuz"     # names of modules
initrd      = "initrd.img"
cmdline     = "console=ttyS0"
autostart   = true
on_reboot   = "restart"     # restart | destroy | preserve
on_crash    = "preserve"
)");
    CHECK(file.problems == "");
    CHECK(file.config.host.console == ComPort::com1);
    CHECK(file.config.host.baud == 115200);
    CHECK(file.config.host.escape == 0x1D);
    REQUIRE(file.config.vms().size() == 1);
    const VmConfig& vm = file.vm();
    CHECK(vm.name.view() == "web");
    CHECK_FALSE(vm.refused);
    CHECK(text_of(vm.cpus) == "1-2");
    CHECK(vm.vcpus == 2);
    CHECK(vm.memory_bytes == 512 * mib);
    CHECK(vm.kernel.view() == "vmlinuz");
    CHECK(vm.initrd.view() == "initrd.img");
    CHECK(vm.cmdline.view() == "console=ttyS0");
    CHECK(vm.autostart);
    CHECK(vm.on_reboot == LifecycleAction::restart);
    CHECK(vm.on_crash == LifecycleAction::preserve);
}

TEST_CASE("every setting can be given, in tables or in dotted keys") {
    const Loaded file(R"(
[host]
console = "com2"
baud = 57_600
escape = "Ctrl-A"
log_level = "debug"
screen = false
on_panic = "reset"

[vm."mach-1.0_x"]
kernel = 'gnumach'
modules = [
  "ext2fs.static --readonly",   # name and arguments
  'exec',
]
boot = "multiboot"
console = "com3"
autostart = false
on_reboot = "preserve"
on_crash = "destroy"
memory.max = 0x1000_0000
[vm."mach-1.0_x".cpuset]
cpus = "0, 2-3,255"
[vm."mach-1.0_x".cpu]
weight = 10000
max = "50000 100000"
gang = true

[vm]
b.kernel = "k"
)");
    CHECK(file.problems == "");
    const HostConfig& host = file.config.host;
    CHECK(host.console == ComPort::com2);
    CHECK(host.baud == 57600);
    CHECK(host.escape == 1);
    CHECK(host.log_level == LogLevel::debug);
    CHECK_FALSE(host.screen);
    CHECK(host.on_panic == PanicAction::reset);
    const VmConfig& vm = file.vm(0);
    CHECK(vm.name.view() == "mach-1.0_x");
    REQUIRE(vm.module_count() == 2);
    CHECK(vm.module(0) == "ext2fs.static --readonly");
    CHECK(vm.module(1) == "exec");
    CHECK(vm.boot == BootProtocol::multiboot1);
    CHECK(vm.console == ComPort::com3);
    CHECK_FALSE(vm.autostart);
    CHECK(vm.on_reboot == LifecycleAction::preserve);
    CHECK(vm.on_crash == LifecycleAction::destroy);
    CHECK(vm.memory_bytes == 256 * mib);
    CHECK(text_of(vm.cpus) == "0,2-3,255");
    CHECK(vm.vcpus == 4);  // as many as cores
    CHECK(vm.cpu_weight == 10000);
    CHECK(vm.cpu_limit.quota_us == 50000);
    CHECK(vm.cpu_limit.period_us == 100000);
    CHECK(vm.gang);
    const VmConfig& b = file.vm(1);
    CHECK(b.name.view() == "b");
    CHECK(b.vcpus == 1);
    CHECK(b.cpus.empty());
    CHECK(b.memory_bytes == VmConfig::default_memory);
    CHECK(b.cpu_weight == 100);
    CHECK(b.cpu_limit.quota_us == CpuLimit::unlimited);
    CHECK(b.boot == BootProtocol::automatic);
}

TEST_CASE("an empty file means the defaults and no VM") {
    const Loaded file("");
    CHECK(file.problems == "");
    CHECK(file.config.vms().empty());
    CHECK(file.config.host.screen);
}

TEST_CASE("each wrong value is named with its place and what to do") {
    CHECK(vm_problems("memori.max = 2") ==
          "bulkhead.toml:3:1: unknown key \"memori.max\"; did you mean memory.max?\n");
    CHECK(vm_problems("vcpu = 2") == "bulkhead.toml:3:1: unknown key \"vcpu\"; did you mean vcpus?\n");
    CHECK(vm_problems("memory.maxx = 2") ==
          "bulkhead.toml:3:8: unknown key \"memory.maxx\"; did you mean memory.max?\n");
    CHECK(vm_problems("\"memory.max\" = 2") ==
          "bulkhead.toml:3:1: unknown key \"memory.max\"; write memory.max without quotes\n");
    CHECK(vm_problems("frobnicate = 2") ==
          "bulkhead.toml:3:1: unknown key \"frobnicate\"; the known keys are cpuset.cpus vcpus memory.max "
          "kernel "
          "initrd cmdline modules boot console cpu.weight cpu.max cpu.gang autostart on_reboot on_crash\n");
    CHECK(vm_problems("vcpus = 0") == "bulkhead.toml:3:9: vcpus is 0; give a number from 1 to 16\n");
    CHECK(vm_problems("vcpus = 17") == "bulkhead.toml:3:9: vcpus is 17; give a number from 1 to 16\n");
    CHECK(vm_problems("vcpus = 16").empty());
    CHECK(vm_problems("cpuset.cpus = \"0-15\"").empty());
    CHECK(vm_problems("cpuset.cpus = \"0-16\"") ==
          "bulkhead.toml:1:5: VM \"a\" has 17 cores and no vcpus; add vcpus = a number from 1 to 16\n");
    CHECK(vm_problems("cpuset.cpus = \"0-16\"\nvcpus = 2").empty());
    CHECK(vm_problems("vcpus = -1") == "bulkhead.toml:3:9: vcpus is -1; give a number from 1 to 16\n");
    CHECK(vm_problems("vcpus = \"2\"") ==
          "bulkhead.toml:3:9: vcpus is a string; write an integer such as 2\n");
    CHECK(vm_problems("vcpus.x = 1") == "bulkhead.toml:3:1: vcpus is a table; write an integer such as 2\n");
    CHECK(vm_problems("memory = \"1G\"") ==
          "bulkhead.toml:3:10: memory is a string; it is a table with keys such as memory.max\n");
    CHECK(vm_problems("memory.max = true") ==
          "bulkhead.toml:3:14: memory.max is a boolean; write a string such as \"512M\"\n");
    CHECK(vm_problems("memory.max = \"1T\"") ==
          "bulkhead.toml:3:14: memory.max: \"1T\" is not a size; the suffixes are K, M and G\n");
    CHECK(vm_problems("memory.max = \"M\"") ==
          "bulkhead.toml:3:14: memory.max: \"M\" is not a size; write one such as \"512M\"\n");
    CHECK(vm_problems("memory.max = 512") ==
          "bulkhead.toml:3:14: memory.max is 512 bytes; give 2M to 16384G (an integer counts bytes)\n");
    CHECK(vm_problems("memory.max = 2097153") ==
          "bulkhead.toml:3:14: memory.max is 2097153 bytes; give a multiple of 4K\n");
    CHECK(vm_problems("memory.max = \"18446744073709551615G\"") ==
          "bulkhead.toml:3:14: memory.max: \"18446744073709551615G\" does not fit 64 bits; write a smaller "
          "size\n");
    CHECK(vm_problems("cpuset.cpus = \"\"") ==
          "bulkhead.toml:3:15: cpuset.cpus: expected a core's number; write a list such as \"1-2,4\"\n");
    CHECK(vm_problems("cpuset.cpus = \"3-1\"") ==
          "bulkhead.toml:3:15: cpuset.cpus: the range 3-1 runs backwards; write 1-3\n");
    CHECK(vm_problems("cpuset.cpus = \"0-256\"") ==
          "bulkhead.toml:3:15: cpuset.cpus: core 256 is out of range; cores are numbered 0 to 255\n");
    CHECK(vm_problems("cpuset.cpus = \"1;2\"") ==
          "bulkhead.toml:3:15: cpuset.cpus: unexpected \";2\" in the list; write a list such as \"1-2,4\"\n");
    CHECK(vm_problems("boot = \"pxe\"") ==
          "bulkhead.toml:3:8: boot cannot be \"pxe\"; choose auto, linux, pvh, multiboot or multiboot2\n");
    CHECK(vm_problems("on_crash = \"explode\"") ==
          "bulkhead.toml:3:12: on_crash cannot be \"explode\"; choose restart, destroy or preserve\n");
    CHECK(vm_problems("cpu.weight = 10001") ==
          "bulkhead.toml:3:14: cpu.weight is 10001; give a number from 1 to 10000\n");
    CHECK(vm_problems("cpu.max = \"fast\"") ==
          "bulkhead.toml:3:11: cpu.max: \"fast\" is not a limit; write \"QUOTA PERIOD\" in microseconds, or "
          "\"max\"\n");
    CHECK(vm_problems("cpu.max = \"max 10\"") ==
          "bulkhead.toml:3:11: cpu.max: the period of 10 us is out of range; give 1000 to 1000000\n");
    CHECK(vm_problems("cpu.max = \"1 1000\"") ==
          "bulkhead.toml:3:11: cpu.max: the quota of 1 us is too small; give at least 1000\n");
    CHECK(vm_problems("initrd = \"\"") ==
          "bulkhead.toml:3:10: initrd is empty; give the name of a module or remove the line\n");
    CHECK(vm_problems("initrd = \"a\\nb\"") ==
          "bulkhead.toml:3:10: initrd has a control character; remove it\n");
    CHECK(vm_problems("initrd = \"" + std::string(128, 'x') + "\"") ==
          "bulkhead.toml:3:10: initrd is longer than 127 bytes; shorten it\n");
    CHECK(vm_problems("cmdline = \"" + std::string(2048, 'x') + "\"") ==
          "bulkhead.toml:3:11: cmdline is longer than 2047 bytes; shorten it\n");
    CHECK(vm_problems("cmdline = \"" + std::string(2047, 'x') + "\"") == "");
    CHECK(
        vm_problems("modules = [1]") ==
        "bulkhead.toml:3:12: modules has an integer in it; give names such as [\"ext2fs.static --args\"]\n");
    CHECK(vm_problems("console = \"com1\"") ==
          "bulkhead.toml:3:11: com1 is the management console; choose another port or remove the line\n");
    CHECK(Loaded("[vm.a]\nvcpus = 1\n").problems ==
          "bulkhead.toml:1:5: VM \"a\" has no kernel; add kernel = \"NAME OF A MODULE\"\n");
    CHECK(
        Loaded("[vm.a]\nkernel=\"k\"\nconsole=\"com2\"\n[vm.b]\nkernel=\"k\"\nconsole=\"com2\"\n").problems ==
        "bulkhead.toml:6:9: com2 is already given to VM \"a\"; choose another port\n");
}

TEST_CASE("wrong host settings keep their defaults") {
    const Loaded file(
        "[host]\nbaud = 12345\nescape = \"ctrl-m\"\nconsole = \"com9\"\non_panic = 1\nscreen = false\ncolour "
        "= 1\n");
    CHECK(
        file.problems ==
        "bulkhead.toml:2:8: baud is 12345; give a divisor of 115200 such as 9600, 38400, 57600\n"
        "bulkhead.toml:3:10: escape: \"ctrl-m\" is a key that guests need (Escape, Enter, Tab or Backspace); "
        "use "
        "\"ctrl-]\"\n"
        "bulkhead.toml:4:11: console cannot be \"com9\"; choose com1, com2, com3 or com4\n"
        "bulkhead.toml:5:12: on_panic is an integer; write a string such as \"halt\"\n"
        "bulkhead.toml:7:1: unknown key \"colour\"; the known keys are console baud escape log_level screen "
        "on_panic\n");
    CHECK(file.config.host.baud == 115200);
    CHECK(file.config.host.escape == 0x1D);
    CHECK(file.config.host.console == ComPort::com1);
    CHECK_FALSE(file.config.host.screen);
}

TEST_CASE("an erroneous VM is refused and the others stay") {
    const Loaded file(R"([vm.good]
kernel = "k"
[vm.typo]
kernel = "k"
vcpuss = 1
[vm.syntax]
kernel = "k
[vm.twice]
kernel = "k"
[vm.also-good]
kernel = "k"
[vm.twice]
kernel = "other"
[vm."bad name\u001B"]
kernel = "k"
[vm.later]
kernel = "k"
[vm.later.cpu]
weight = ?
[vm.header
kernel = "k"
[vm.42]
kernel = "k"
)",
                      16);
    CHECK(file.problems ==
          "bulkhead.toml:7:10: the string is not closed; end it with \"\n"
          "bulkhead.toml:12:1: this table is already defined on line 8; join the two\n"
          "bulkhead.toml:19:10: expected a value: a \"string\", an integer, true, false or an [array]\n"
          "bulkhead.toml:20:11: expected ] at the end of the table header\n"
          "bulkhead.toml:5:1: unknown key \"vcpuss\"; did you mean vcpus?\n"
          "bulkhead.toml:14:5: VM name \"bad name?\" has a character that is not allowed; use A-Z a-z 0-9 . "
          "_ and -\n"
          "bulkhead.toml:22:5: VM name \"42\" looks like an id; add a letter\n");
    std::string verdicts;
    for (const VmConfig& vm : file.config.vms()) {
        verdicts += std::string(vm.name.view()) + (vm.refused ? "-" : "+") + " ";
    }
    CHECK(verdicts == "good+ typo- syntax- twice- also-good+ bad name?- later- header- 42- ");
}

TEST_CASE("names are one to 31 characters of a safe set") {
    CHECK(check_vm_name("a"));
    CHECK(check_vm_name("Web-1.example_x"));
    CHECK(check_vm_name(std::string(31, 'x')));
    CHECK_FALSE(check_vm_name(""));
    CHECK_FALSE(check_vm_name(std::string(32, 'x')));
    CHECK_FALSE(check_vm_name("a b"));
    CHECK_FALSE(check_vm_name("7"));
    CHECK_FALSE(check_vm_name("--json"));
    CHECK_FALSE(check_vm_name("\xC3\xA9"));
    CHECK(Loaded("[vm." + std::string(32, 'x') + "]\nkernel = \"k\"").problems ==
          "bulkhead.toml:1:5: the VM's name has 32 characters; at most 31 are allowed\n");
}

TEST_CASE("stray tables and keys are reported") {
    CHECK(Loaded("vcpus = 1\n[hots]\nconsole = \"com1\"\n[vms.a]\nkernel = \"k\"\n").problems ==
          "bulkhead.toml:1:1: \"vcpus\" belongs to no table; put it below [host] or [vm.NAME]\n"
          "bulkhead.toml:2:2: unknown table \"hots\"; did you mean [host]?\n"
          "bulkhead.toml:4:2: unknown table \"vms\"; did you mean [vm.NAME]?\n");
    CHECK(Loaded("vm = 1").problems == "bulkhead.toml:1:1: vm is an integer; it is a table: [vm.NAME]\n");
    CHECK(Loaded("[vm]\nweb = true").problems ==
          "bulkhead.toml:2:7: vm.web is a boolean; it is a table: [vm.web]\n");
}

TEST_CASE("more VMs than there is room for are reported, and the first ones stay") {
    std::string text;
    for (const char c : {'a', 'b', 'c'}) text += std::string("[vm.") + c + "]\nkernel = \"k\"\n";
    const Loaded file(text, 2);
    CHECK(file.problems == "bulkhead.toml:5:5: more than 2 VMs; remove some\n");
    CHECK(file.config.vms().size() == 2);
}

TEST_CASE("a file that could not be read to its end starts no VM") {
    std::string text = "[vm.a]\nkernel = \"k\"\n[x]\n";
    for (int i = 0; i < 4000; ++i) text += "k" + std::to_string(i) + " = 1\n";
    const Loaded file(text);
    CHECK(file.vm().refused);
}

TEST_CASE("lists of cores, sizes, limits and escape keys have their own small languages") {
    CHECK(text_of(*parse_cpu_list("0-255")) == "0-255");
    CHECK(parse_cpu_list("0-255")->count() == 256);
    CHECK(text_of(*parse_cpu_list(" 4 , 1-2 ,3")) == "1-4");
    for (const char* bad : {"", ",", "1,", "1-", "-1", "a", "1 2", "99999999999999999999", "1-2-3"}) {
        INFO(bad);
        CHECK_FALSE(parse_cpu_list(bad));
    }
    CHECK(*parse_size("1") == 1);
    CHECK(*parse_size("4k") == 4 * kib);
    CHECK(*parse_size("3G") == 3 * gib);
    CHECK_FALSE(parse_size("1.5G"));
    CHECK_FALSE(parse_size("1 G"));
    CHECK_FALSE(parse_size("-1"));
    CHECK(parse_cpu_limit("max")->quota_us == CpuLimit::unlimited);
    CHECK(parse_cpu_limit("max 50000")->period_us == 50000);
    CHECK(parse_cpu_limit("20000")->quota_us == 20000);
    CHECK(parse_cpu_limit(" 20000  50000 ")->period_us == 50000);
    CHECK_FALSE(parse_cpu_limit(""));
    CHECK_FALSE(parse_cpu_limit("maximum"));
    CHECK_FALSE(parse_cpu_limit("1000 1000 1000"));
    CHECK(*parse_escape_key("ctrl-]") == 0x1D);
    CHECK(*parse_escape_key("CTRL-a") == 1);
    CHECK(*parse_escape_key("ctrl-\\") == 0x1C);
    for (const char* bad : {"", "ctrl-", "ctrl-1", "ctrl-[", "ctrl-j", "alt-x", "ctrl-xx", "ctrl-`"}) {
        INFO(bad);
        CHECK_FALSE(parse_escape_key(bad));
    }
    CHECK(name_of_key(0x1D).view() == "CTRL-]");
    CHECK(name_of_key(1).view() == "CTRL-A");
}

TEST_CASE("no bytes make the reader fail, and every VM that is not refused has a name and a kernel") {
    std::mt19937 random(1);
    const std::string seed =
        "[host]\nconsole = \"com1\"\n[vm.a]\ncpuset.cpus = \"1-2\"\nvcpus = 2\nmemory.max = \"512M\"\nkernel "
        "= \"k\"\n"
        "modules = [\"a b\", 'c']\n[vm.b.cpu]\nweight = 5\n";
    for (int i = 0; i < 3000; ++i) {
        std::string text = seed;
        for (unsigned n = random() % 6; n > 0; --n) {
            const size_t at = random() % text.size();
            switch (random() % 3) {
                case 0: text[at] = static_cast<char>(random()); break;
                case 1: text.erase(at, random() % 9); break;
                default: text.insert(at, seed.substr(random() % seed.size(), random() % 30)); break;
            }
            if (text.empty()) text = seed;
        }
        std::vector<VmConfig> room(3);
        Config config(room);
        static toml::Document document;
        StringSink sink;
        parse_config("f", text, document, config, sink);
        for (const VmConfig& vm : config.vms()) {
            if (!vm.refused) CHECK((check_vm_name(vm.name) && !vm.kernel.empty() && vm.vcpus > 0));
        }
    }
}
