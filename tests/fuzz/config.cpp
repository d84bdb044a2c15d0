// The config file: every problem is one plain line with a position in the file, what was accepted is in the
// ranges that the reference gives, and reading it twice says the same.
#include "vmm/config/config.hpp"

#include "tests/fuzz/fuzz.hpp"

using namespace bulkhead;

namespace {

struct Reading {
    fuzz::TextSink problems;
    unsigned count = 0;
};

void read(std::string_view text, Config& config, Reading& reading) {
    static toml::Document document;
    reading.count = parse_config("f", text, document, config, reading.problems);
}

void check_vm(const VmConfig& vm) {
    MUST(check_vm_name(vm.name));
    MUST(!vm.kernel.empty() && !vm.kernel.truncated() && !vm.cmdline.truncated());
    MUST(fuzz::is_plain(vm.cmdline));
    MUST(vm.vcpus >= 1 && vm.vcpus <= VmConfig::max_vcpus);
    MUST(vm.memory_bytes >= VmConfig::min_memory && vm.memory_bytes <= VmConfig::max_memory);
    MUST(vm.memory_bytes % page_size == 0);
    MUST(vm.cpu_weight >= 1 && vm.cpu_weight <= 10000);
    MUST(vm.cpu_limit.period_us >= 1000 && vm.cpu_limit.period_us <= 1'000'000);
    MUST(vm.cpu_limit.quota_us >= 1000);
    for (usize i = 0; i < vm.module_count(); ++i) MUST(!vm.module(i).empty());
}

}  // namespace

void fuzz_one(fuzz::Input& in) {
    static VmConfig room[4], other_room[4];
    Config config(room), again(other_room);
    const std::string_view text = in.text(8192);
    Reading first, second;
    read(text, config, first);
    read(text, again, second);
    MUST(first.count == second.count && first.problems.text == second.problems.text);
    MUST(config.vms().size() == again.vms().size());

    MUST(fuzz::is_plain(first.problems.text, true));
    unsigned lines = 0;
    for (usize at = 0; at < first.problems.text.size(); ++lines) {
        const usize end = first.problems.text.find('\n', at);
        MUST(end != std::string::npos);
        MUST(first.problems.text.compare(at, 2, "f:") == 0);
        at = end + 1;
    }
    MUST(first.count == 0 ? lines == 0 : lines >= 1 && lines <= Reporter::max_shown + 1);

    const HostConfig& host = config.host;
    MUST(host.console != ComPort::none && host.baud >= 50 && 115200 % host.baud == 0 && host.escape < 0x20);
    for (usize i = 0; i < config.vms().size(); ++i) {
        const VmConfig& vm = config.vms()[i];
        if (first.count == 0) MUST(!vm.refused);
        if (vm.refused) continue;
        check_vm(vm);
        for (usize j = 0; j < i; ++j) MUST(config.vms()[j].name.view() != vm.name.view());
    }
}
