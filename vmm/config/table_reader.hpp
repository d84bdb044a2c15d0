// Reads a table of the config file by the rows of its keys.
#pragma once

#include "kernel/base/filtered.hpp"
#include "vmm/config/nearest.hpp"
#include "vmm/config/setting.hpp"

namespace bulkhead {

using KeyPath = FixedString<63>;

// `prefix` plus the node's key. False for what no known path looks like: too long, or a dot inside a key (the
// key "cpu.max" in quotes is not cpu.max).
[[nodiscard]] inline bool extend(const toml::Document& document, const KeyPath& prefix, toml::NodeIndex node,
                                 KeyPath& out) {
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
    TableReader(const toml::Document& document, Reporter& reporter, std::span<const SettingRow<Target>> rows,
                Target& target)
        : document_(document), reporter_(reporter), rows_(rows), target_(target) {}

    // False if anything below the table was reported, now or by the parser. Known paths have two parts at
    // most, so this ends at depth two.
    bool read(toml::NodeIndex table, const KeyPath& prefix) {
        bool good = !document_[table].erroneous;
        for (toml::NodeIndex i = document_[table].first_child; i != toml::no_node; i = document_[i].next) {
            if (!read_node(i, prefix)) good = false;
        }
        return good;
    }

  private:
    bool read_node(toml::NodeIndex node, const KeyPath& prefix) {
        KeyPath path;
        if (!extend(document_, prefix, node, path)) {
            FixedString<63> key;
            (void)document_.read_key(node, key);
            for (const SettingRow<Target>& row : rows_) {
                if (row.path == key.view()) {
                    reporter_.report(document_[node].key_offset,
                                     "unknown key \"{}\"; write {} without quotes", Filtered(key), row.path);
                    return false;
                }
            }
            return unknown(node, path);
        }
        const bool is_table = document_[node].kind == toml::Kind::table;
        bool is_prefix = false;
        for (const SettingRow<Target>& row : rows_) {
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

    bool store(toml::NodeIndex node, const SettingRow<Target>& row) {
        if (document_[node].erroneous) return false;
        const toml::Kind kind = document_[node].kind;
        if (kind != row.kind && kind != row.also) {
            const u32 where =
                kind == toml::Kind::table ? document_[node].key_offset : document_[node].value_offset;
            reporter_.report(where, "{} is {}; write {} such as {}", row.path, name_of(kind),
                             name_of(row.kind), row.example);
            return false;
        }
        return row.store(Setting{document_, reporter_, node, row.path}, target_);
    }

    bool unknown(toml::NodeIndex node, const KeyPath& shortest) {
        // Of an unknown table its first key is shown, too: memori.max is near to something, memori is not.
        KeyPath path = shortest;
        const toml::NodeIndex child = document_[node].first_child;
        if (document_[node].kind == toml::Kind::table && child != toml::no_node && !path.empty()) {
            if (KeyPath longer; extend(document_, path, child, longer)) path = longer;
        }
        Nearest nearest(path);
        for (const SettingRow<Target>& row : rows_) nearest.consider(row.path);
        if (!reporter_.begin(document_[node].key_offset)) return false;
        Sink& sink = reporter_.sink();
        print(sink, "unknown key \"{}\"; ", Filtered(path));
        if (!nearest.word().empty()) {
            print(sink, "did you mean {}?", nearest.word());
        } else {
            sink.write("the known keys are");
            for (const SettingRow<Target>& row : rows_) print(sink, " {}", row.path);
        }
        reporter_.end();
        return false;
    }

    [[nodiscard]] std::string_view first_below(std::string_view path) const {
        for (const SettingRow<Target>& row : rows_) {
            if (row.path.starts_with(path)) return row.path;
        }
        return "";
    }

    const toml::Document& document_;
    Reporter& reporter_;
    std::span<const SettingRow<Target>> rows_;
    Target& target_;
};

}  // namespace bulkhead
