// A key of the config file: what its value may be, and where it goes.
#pragma once

#include <span>

#include "vmm/config/config.hpp"

namespace bulkhead {

// A value of the right kind on its way into the target.
struct Setting {
    const toml::Document& document;
    Reporter& reporter;
    toml::NodeIndex node;
    std::string_view path;  // "memory.max"

    [[nodiscard]] usize offset() const { return document[node].value_offset; }
    [[nodiscard]] toml::Kind kind() const { return document[node].kind; }

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
struct SettingRow {
    std::string_view path;
    bool (*store)(const Setting&, Target&);
    std::string_view example;  // of a value, for "what to do"
    toml::Kind kind;
    toml::Kind also = kind;  // a second kind that is taken
};

// All keys, in the order in which they are shown.
[[nodiscard]] std::span<const SettingRow<HostConfig>> host_rows();  // of [host]
[[nodiscard]] std::span<const SettingRow<VmConfig>> vm_rows();      // of [vm.NAME]

}  // namespace bulkhead
