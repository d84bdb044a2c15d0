// From the config file's tree to the configuration of the host and the VMs.
#include "vmm/config/config.hpp"

#include <new>

#include "kernel/base/filtered.hpp"
#include "vmm/config/nearest.hpp"
#include "vmm/config/table_reader.hpp"

namespace bulkhead {
namespace {

using toml::Document;
using toml::Kind;
using toml::no_node;
using toml::NodeIndex;

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
    bool good = TableReader<VmConfig>(document, reporter, vm_rows(), *vm).read(node, KeyPath());
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
        (void)TableReader<HostConfig>(document, reporter, host_rows(), config.host).read(host, KeyPath());
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
    const SettingRow<VmConfig>* row = nullptr;
    Nearest nearest(key);
    for (const SettingRow<VmConfig>& known : vm_rows()) {
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
    if (good)
        good = TableReader<VmConfig>(document, reporter, vm_rows(), vm).read(document.root(), KeyPath());
    if (good) good = check_vm(document, reporter, document.root(), config, vm);
    if (good) return {};
    std::string_view text = problem.view();
    return fail("{}", text.substr(0, text.find('\n')));
}

}  // namespace bulkhead
