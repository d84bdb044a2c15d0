// The schema: which keys there are and what they may hold. One table for [host], one for [vm.NAME]; a new
// setting is a new row.
#include "kernel/base/filtered.hpp"
#include "vmm/config/setting.hpp"

namespace bulkhead {
namespace {

using toml::Kind;
using toml::no_node;
using toml::NodeIndex;

bool has_control_character(std::string_view text) {
    for (const char c : text) {
        if (static_cast<u8>(c) < 0x20 || c == 0x7F) return true;
    }
    return false;
}

template <usize Capacity>
bool store_text(const Setting& setting, FixedString<Capacity>& target) {
    if (!setting.document.read_text(setting.node, target)) {
        setting.reporter.report(setting.offset(), "{} is longer than {} bytes; shorten it", setting.path,
                                Capacity);
        return false;
    }
    if (has_control_character(target)) {
        setting.reporter.report(setting.offset(), "{} has a control character; remove it", setting.path);
        return false;
    }
    return true;
}

template <usize Capacity>
bool store_module_name(const Setting& setting, FixedString<Capacity>& target) {
    if (!store_text(setting, target)) return false;
    if (target.empty()) {
        setting.reporter.report(setting.offset(), "{} is empty; give the name of a module or remove the line",
                                setting.path);
        return false;
    }
    return true;
}

template <class Enum, usize N>
bool store_choice(const Setting& setting, const Enum (&choices)[N], Enum& target) {
    FixedString<31> word;
    const bool fits = setting.document.read_text(setting.node, word);
    for (const Enum choice : choices) {
        if (fits && name_of(choice) == word.view()) {
            target = choice;
            return true;
        }
    }
    if (!setting.reporter.begin(setting.offset())) return false;
    Sink& sink = setting.reporter.sink();
    print(sink, "{} cannot be \"{}\"; choose ", setting.path, Filtered(word));
    for (usize i = 0; i < N; ++i) {
        if (i > 0) sink.write(i + 1 == N ? std::string_view(" or ") : std::string_view(", "));
        sink.write(name_of(choices[i]));
    }
    setting.reporter.end();
    return false;
}

bool store_number(const Setting& setting, u64 least, u64 most, u64& target) {
    const i64 value = setting.document.integer(setting.node);
    if (value < 0 || static_cast<u64>(value) < least || static_cast<u64>(value) > most) {
        setting.reporter.report(setting.offset(), "{} is {}; give a number from {} to {}", setting.path,
                                value, least, most);
        return false;
    }
    target = static_cast<u64>(value);
    return true;
}

bool store_number(const Setting& setting, u64 least, u64 most, unsigned& target) {
    u64 value = 0;
    if (!store_number(setting, least, most, value)) return false;
    target = static_cast<unsigned>(value);
    return true;
}

bool store_boolean(const Setting& setting, bool& target) {
    target = setting.document.boolean(setting.node);
    return true;
}

bool store_cpus(const Setting& setting, VmConfig& vm) {
    FixedString<511> text;  // every other core of 256 takes 457
    if (!store_text(setting, text)) return false;
    return setting.store(parse_cpu_list(text), vm.cpus);
}

bool store_memory(const Setting& setting, VmConfig& vm) {
    u64 bytes = 0;
    if (setting.kind() == Kind::integer) {
        const i64 value = setting.document.integer(setting.node);
        bytes = value < 0 ? 0 : static_cast<u64>(value);
    } else {
        FixedString<31> text;
        if (!store_text(setting, text) || !setting.store(parse_size(text), bytes)) return false;
    }
    if (bytes < VmConfig::min_memory || bytes > VmConfig::max_memory) {
        setting.reporter.report(setting.offset(),
                                "memory.max is {} bytes; give 2M to {}G (an integer counts bytes)", bytes,
                                VmConfig::max_memory / gib);
        return false;
    }
    if (bytes % page_size != 0) {
        setting.reporter.report(setting.offset(), "memory.max is {} bytes; give a multiple of 4K", bytes);
        return false;
    }
    vm.memory_bytes = bytes;
    return true;
}

bool store_modules(const Setting& setting, VmConfig& vm) {
    vm.clear_modules();
    bool good = true;
    for (NodeIndex i = setting.document[setting.node].first_child; i != no_node;
         i = setting.document[i].next) {
        const Setting element{setting.document, setting.reporter, i, setting.path};
        if (element.kind() != Kind::string) {
            setting.reporter.report(element.offset(),
                                    "{} has {} in it; give names such as [\"ext2fs.static --args\"]",
                                    setting.path, name_of(element.kind()));
            good = false;
            continue;
        }
        FixedString<511> text;
        if (!store_module_name(element, text)) {
            good = false;
        } else if (!vm.add_module(text)) {
            setting.reporter.report(element.offset(),
                                    "more than {} modules or 1023 bytes of them; give fewer",
                                    VmConfig::max_modules);
            return false;
        }
    }
    return good;
}

bool store_cpu_limit(const Setting& setting, VmConfig& vm) {
    FixedString<63> text;
    if (!store_text(setting, text)) return false;
    return setting.store(parse_cpu_limit(text), vm.cpu_limit);
}

bool store_baud(const Setting& setting, HostConfig& host) {
    u64 baud = 0;
    if (!store_number(setting, 50, 115200, baud)) return false;
    // The 16550's divisor is a whole number of 115200ths.
    if (115200 % baud != 0) {
        setting.reporter.report(setting.offset(),
                                "baud is {}; give a divisor of 115200 such as 9600, 38400, 57600", baud);
        return false;
    }
    host.baud = static_cast<u32>(baud);
    return true;
}

bool store_escape(const Setting& setting, HostConfig& host) {
    FixedString<31> text;
    if (!store_text(setting, text)) return false;
    return setting.store(parse_escape_key(text), host.escape);
}

constexpr SettingRow<HostConfig> rows_of_host[] = {
    {"console",
     [](const Setting& s, HostConfig& h) {
         return store_choice(s, {ComPort::com1, ComPort::com2, ComPort::com3, ComPort::com4}, h.console);
     },
     "\"com1\"", Kind::string},
    {"baud", store_baud, "115200", Kind::integer},
    {"escape", store_escape, "\"ctrl-]\"", Kind::string},
    {"log_level",
     [](const Setting& s, HostConfig& h) {
         return store_choice(s, {LogLevel::error, LogLevel::warning, LogLevel::info, LogLevel::debug},
                             h.log_level);
     },
     "\"info\"", Kind::string},
    {"screen", [](const Setting& s, HostConfig& h) { return store_boolean(s, h.screen); }, "true",
     Kind::boolean},
    {"on_panic",
     [](const Setting& s, HostConfig& h) {
         return store_choice(s, {PanicAction::halt, PanicAction::reset}, h.on_panic);
     },
     "\"halt\"", Kind::string},
};

constexpr SettingRow<VmConfig> rows_of_vm[] = {
    {"cpuset.cpus", store_cpus, "\"1-2\"", Kind::string},
    {"vcpus", [](const Setting& s, VmConfig& v) { return store_number(s, 1, VmConfig::max_vcpus, v.vcpus); },
     "2", Kind::integer},
    {"memory.max", store_memory, "\"512M\"", Kind::string, Kind::integer},
    {"kernel", [](const Setting& s, VmConfig& v) { return store_module_name(s, v.kernel); }, "\"vmlinuz\"",
     Kind::string},
    {"initrd", [](const Setting& s, VmConfig& v) { return store_module_name(s, v.initrd); }, "\"initrd.img\"",
     Kind::string},
    {"cmdline", [](const Setting& s, VmConfig& v) { return store_text(s, v.cmdline); }, "\"console=ttyS0\"",
     Kind::string},
    {"modules", store_modules, "[\"NAME ARGUMENTS\"]", Kind::array},
    {"boot",
     [](const Setting& s, VmConfig& v) {
         return store_choice(s,
                             {BootProtocol::automatic, BootProtocol::linux_boot, BootProtocol::pvh,
                              BootProtocol::multiboot1, BootProtocol::multiboot2},
                             v.boot);
     },
     "\"auto\"", Kind::string},
    {"console",
     [](const Setting& s, VmConfig& v) {
         return store_choice(s, {ComPort::none, ComPort::com1, ComPort::com2, ComPort::com3, ComPort::com4},
                             v.console);
     },
     "\"com2\"", Kind::string},
    {"cpu.weight", [](const Setting& s, VmConfig& v) { return store_number(s, 1, 10000, v.cpu_weight); },
     "100", Kind::integer},
    {"cpu.max", store_cpu_limit, "\"50000 100000\"", Kind::string},
    {"cpu.gang", [](const Setting& s, VmConfig& v) { return store_boolean(s, v.gang); }, "true",
     Kind::boolean},
    {"autostart", [](const Setting& s, VmConfig& v) { return store_boolean(s, v.autostart); }, "true",
     Kind::boolean},
    {"on_reboot",
     [](const Setting& s, VmConfig& v) {
         return store_choice(
             s, {LifecycleAction::restart, LifecycleAction::destroy, LifecycleAction::preserve}, v.on_reboot);
     },
     "\"restart\"", Kind::string},
    {"on_crash",
     [](const Setting& s, VmConfig& v) {
         return store_choice(
             s, {LifecycleAction::restart, LifecycleAction::destroy, LifecycleAction::preserve}, v.on_crash);
     },
     "\"preserve\"", Kind::string},
};

}  // namespace

std::span<const SettingRow<HostConfig>> host_rows() {
    return rows_of_host;
}
std::span<const SettingRow<VmConfig>> vm_rows() {
    return rows_of_vm;
}

}  // namespace bulkhead
