// The schema: which keys there are and what they may hold. One table for [host], one for [vm.NAME]; a new
// setting is a new row.
#include "vmm/config/config.hpp"

#include <new>

#include "kernel/base/filtered.hpp"
#include "vmm/config/nearest.hpp"

namespace bulkhead {
namespace {

using toml::Document;
using toml::Kind;
using toml::no_node;
using toml::NodeIndex;

// A value of the right kind on its way into the target.
struct Setting {
    const Document& document;
    Reporter& reporter;
    NodeIndex node;
    std::string_view path;  // "memory.max"

    [[nodiscard]] usize offset() const { return document[node].value_offset; }
    [[nodiscard]] Kind kind() const { return document[node].kind; }

    // Reports `path: error`.
    bool refuse(const Error& error) const {
        reporter.report(offset(), "{}: {}", path, error.text);
        return false;
    }
    template <class T, class U>
    bool store(const Result<T>& parsed, U& target) const {
        if (!parsed) return refuse(parsed.error());
        target = *parsed;
        return true;
    }
};

// Handlers return false when they have reported something.
template <class Target>
struct Row {
    std::string_view path;
    bool (*store)(const Setting&, Target&);
    std::string_view example;  // of a value, for "what to do"
    Kind kind;
    Kind also = kind;  // a second kind that is taken
};

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

constexpr Row<HostConfig> host_rows[] = {
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

constexpr Row<VmConfig> vm_rows[] = {
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

using Path = FixedString<63>;

// `prefix` plus the node's key. False for what no known path looks like: too long, or a dot inside a key (the
// key "cpu.max" in quotes is not cpu.max).
bool extend(const Document& document, const Path& prefix, NodeIndex node, Path& out) {
    FixedString<63> key;
    if (!document.read_key(node, key)) return false;
    out.clear();
    out.append(prefix);
    if (!prefix.empty()) out.append(".");
    out.append(key);
    bool dotted = false;
    for (const char c : key.view()) dotted = dotted || c == '.';
    return !dotted && !out.truncated();
}

template <class Target>
class TableReader {
  public:
    TableReader(const Document& document, Reporter& reporter, std::span<const Row<Target>> rows,
                Target& target)
        : document_(document), reporter_(reporter), rows_(rows), target_(target) {}

    // False if anything below the table was reported, now or by the parser. Known paths have two parts at
    // most, so this ends at depth two.
    bool read(NodeIndex table, const Path& prefix) {
        bool good = !document_[table].erroneous;
        for (NodeIndex i = document_[table].first_child; i != no_node; i = document_[i].next) {
            if (!read_node(i, prefix)) good = false;
        }
        return good;
    }

  private:
    bool read_node(NodeIndex node, const Path& prefix) {
        Path path;
        if (!extend(document_, prefix, node, path)) {
            FixedString<63> key;
            (void)document_.read_key(node, key);
            for (const Row<Target>& row : rows_) {
                if (row.path == key.view()) {
                    reporter_.report(document_[node].key_offset,
                                     "unknown key \"{}\"; write {} without quotes", Filtered(key), row.path);
                    return false;
                }
            }
            return unknown(node, path);
        }
        const bool is_table = document_[node].kind == Kind::table;
        bool is_prefix = false;
        for (const Row<Target>& row : rows_) {
            if (row.path == path.view()) return store(node, row);
            is_prefix = is_prefix || (row.path.starts_with(path.view()) && row.path[path.size()] == '.');
        }
        if (!is_prefix) return unknown(node, path);
        if (is_table) return read(node, path);
        if (document_[node].erroneous) return false;  // reported already
        reporter_.report(document_[node].value_offset, "{} is {}; it is a table with keys such as {}", path,
                         name_of(document_[node].kind), first_below(path));
        return false;
    }

    bool store(NodeIndex node, const Row<Target>& row) {
        if (document_[node].erroneous) return false;
        const Kind kind = document_[node].kind;
        if (kind != row.kind && kind != row.also) {
            const u32 where = kind == Kind::table ? document_[node].key_offset : document_[node].value_offset;
            reporter_.report(where, "{} is {}; write {} such as {}", row.path, name_of(kind),
                             name_of(row.kind), row.example);
            return false;
        }
        return row.store(Setting{document_, reporter_, node, row.path}, target_);
    }

    bool unknown(NodeIndex node, const Path& shortest) {
        // Of an unknown table its first key is shown, too: memori.max is near to something, memori is not.
        Path path = shortest;
        const NodeIndex child = document_[node].first_child;
        if (document_[node].kind == Kind::table && child != no_node && !path.empty()) {
            if (Path longer; extend(document_, path, child, longer)) path = longer;
        }
        Nearest nearest(path);
        for (const Row<Target>& row : rows_) nearest.consider(row.path);
        if (!reporter_.begin(document_[node].key_offset)) return false;
        Sink& sink = reporter_.sink();
        print(sink, "unknown key \"{}\"; ", Filtered(path));
        if (!nearest.word().empty()) {
            print(sink, "did you mean {}?", nearest.word());
        } else {
            sink.write("the known keys are");
            for (const Row<Target>& row : rows_) print(sink, " {}", row.path);
        }
        reporter_.end();
        return false;
    }

    [[nodiscard]] std::string_view first_below(std::string_view path) const {
        for (const Row<Target>& row : rows_) {
            if (row.path.starts_with(path)) return row.path;
        }
        return "";
    }

    const Document& document_;
    Reporter& reporter_;
    std::span<const Row<Target>> rows_;
    Target& target_;
};

// Problems that lie between settings. `table`: the VM's.
bool check_vm(const Document& document, Reporter& reporter, NodeIndex table, const Config& config,
              VmConfig& vm) {
    const auto port_node = document.find(table, "console");
    bool good = true;
    if (vm.kernel.empty()) {
        reporter.report(document[table].key_offset,
                        "VM \"{}\" has no kernel; add kernel = \"NAME OF A MODULE\"", vm.name);
        good = false;
    }
    if (vm.console != ComPort::none) {
        if (vm.console == config.host.console) {
            reporter.report(document[port_node].value_offset,
                            "{} is the management console; choose another port or remove the line",
                            name_of(vm.console));
            good = false;
        }
        for (const VmConfig& other : config.vms()) {
            if (other.name == vm.name || other.refused || other.console != vm.console) continue;
            reporter.report(document[port_node].value_offset,
                            "{} is already given to VM \"{}\"; choose another port", name_of(vm.console),
                            other.name);
            good = false;
        }
    }
    return good;
}

void read_vm(const Document& document, Reporter& reporter, NodeIndex node, const Config& config,
             VmConfig* vm) {
    vm->refused = true;
    FixedString<63> name;
    (void)document.read_key(node, name);
    if (const auto checked = check_vm_name(name); !checked) {
        reporter.report(document[node].key_offset, "{}", checked.error().text);
        FilteringSink filtered(vm->name);
        filtered.write(name);
        return;
    }
    vm->name.append(name);
    if (document[node].kind != Kind::table) {
        if (!document[node].erroneous) {
            reporter.report(document[node].value_offset, "vm.{} is {}; it is a table: [vm.{}]", name,
                            name_of(document[node].kind), name);
        }
        return;
    }
    bool good = TableReader<VmConfig>(document, reporter, vm_rows, *vm).read(node, Path());
    if (document.find(node, "vcpus") == no_node && !vm->cpus.empty()) {
        vm->vcpus = vm->cpus.count();
        if (vm->vcpus > VmConfig::max_vcpus) {
            reporter.report(document[node].key_offset,
                            "VM \"{}\" has {} cores and no vcpus; add vcpus = a number from 1 to {}", name,
                            vm->vcpus, VmConfig::max_vcpus);
            good = false;
        }
    }
    // A table whose lines could not all be read may well have had what seems missing.
    if (good) good = check_vm(document, reporter, node, config, *vm);
    vm->refused = !good;
}

void report_unknown_top(const Document& document, Reporter& reporter, NodeIndex node) {
    FixedString<63> key;
    (void)document.read_key(node, key);
    if (document[node].kind != Kind::table) {
        reporter.report(document[node].key_offset,
                        "\"{}\" belongs to no table; put it below [host] or [vm.NAME]", Filtered(key));
        return;
    }
    const bool host = edit_distance(key, "host") < edit_distance(key, "vm");
    reporter.report(document[node].key_offset, "unknown table \"{}\"; did you mean {}?", Filtered(key),
                    host ? std::string_view("[host]") : std::string_view("[vm.NAME]"));
}

}  // namespace

VmConfig* Config::add() {
    if (count_ == room_.size()) return nullptr;
    return new (&room_[count_++]) VmConfig();
}

void Config::clear() {
    host = HostConfig{};
    count_ = 0;
}

void Config::refuse_all() {
    for (VmConfig& vm : room_.first(count_)) vm.refused = true;
}

unsigned parse_config(std::string_view file_name, std::string_view text, toml::Document& document,
                      Config& config, Sink& problems) {
    Reporter reporter(file_name, text, problems);
    config.clear();
    document.parse(text, reporter);

    // The host first: VMs are checked against it.
    const NodeIndex host = document.find(document.root(), "host");
    if (host != no_node && document[host].kind == Kind::table) {
        (void)TableReader<HostConfig>(document, reporter, host_rows, config.host).read(host, Path());
    }
    for (NodeIndex i = document[document.root()].first_child; i != no_node; i = document[i].next) {
        const toml::Node& node = document[i];
        FixedString<15> key;
        const bool known = document.read_key(i, key) && (key == "host" || key == "vm");
        if (!known) {
            report_unknown_top(document, reporter, i);
        } else if (node.kind != Kind::table) {
            if (!node.erroneous) {
                reporter.report(node.key_offset, "{} is {}; it is a table: {}", key, name_of(node.kind),
                                key == "host" ? std::string_view("[host]") : std::string_view("[vm.NAME]"));
            }
        } else if (key == "vm") {
            for (NodeIndex table = node.first_child; table != no_node; table = document[table].next) {
                VmConfig* vm = config.add();
                if (vm == nullptr) {
                    reporter.report(document[table].key_offset, "more than {} VMs; remove some",
                                    config.vms().size());
                    break;
                }
                read_vm(document, reporter, table, config, vm);
            }
        }
    }
    if (!document.complete()) config.refuse_all();
    reporter.finish();
    return reporter.count();
}

unsigned parse_vm_snippet(std::string_view text, Document& document, const Config& config, VmConfig& vm,
                          Sink& problems) {
    Reporter reporter("snippet", text, problems);
    new (&vm) VmConfig();
    document.parse(text, reporter);
    bool found = false;
    for (NodeIndex i = document[document.root()].first_child; i != no_node; i = document[i].next) {
        FixedString<15> key;
        if (!document.read_key(i, key) || key != "vm" || document[i].kind != Kind::table) {
            reporter.report(document[i].key_offset, "only one table [vm.NAME] may be here");
            continue;
        }
        for (NodeIndex table = document[i].first_child; table != no_node; table = document[table].next) {
            if (found) {
                reporter.report(document[table].key_offset,
                                "only one VM may be here; create them one by one");
                break;
            }
            found = true;
            read_vm(document, reporter, table, config, &vm);
        }
    }
    if (!found && reporter.count() == 0) reporter.report(0, "there is no VM here; begin with [vm.NAME]");
    if (!document.complete()) vm.refused = true;
    reporter.finish();
    return reporter.count();
}

Result<> update_vm(VmConfig& vm, std::string_view key, std::string_view value, Document& document,
                   const Config& config) {
    const Row<VmConfig>* row = nullptr;
    Nearest nearest(key);
    for (const Row<VmConfig>& known : vm_rows) {
        nearest.consider(known.path);
        if (known.path == key) row = &known;
    }
    if (row == nullptr) {
        if (nearest.word().empty()) return fail("there is no key {}; see `help set`", Filtered(key));
        return fail("there is no key {}; did you mean {}?", Filtered(key), nearest.word());
    }
    FixedString<500> line;
    const bool bare = row->kind == Kind::string && !value.starts_with('"') && !value.starts_with('\'');
    print(line, "{} = ", key);
    if (bare) line.append("\"");
    for (const char& c : value) {
        if (bare && (c == '"' || c == '\\')) line.append("\\");
        line.append({&c, 1});
    }
    if (bare) line.append("\"");
    if (line.truncated()) return fail("the value is too long");
    FixedString<200> problem;
    Reporter reporter("value", line, problem);
    bool good = document.parse(line, reporter);
    if (good) good = TableReader<VmConfig>(document, reporter, vm_rows, vm).read(document.root(), Path());
    if (good) good = check_vm(document, reporter, document.root(), config, vm);
    if (good) return {};
    std::string_view text = problem.view();
    return fail("{}", text.substr(0, text.find('\n')));
}

}  // namespace bulkhead
