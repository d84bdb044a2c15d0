#include "vmm/console/commands.hpp"

#include <algorithm>

#include "kernel/base/filtered.hpp"
#include "vmm/config/nearest.hpp"

namespace bulkhead {
namespace {

void offer(CandidateSink& candidates, std::string_view word, std::string_view typed) {
    if (word.starts_with(typed)) candidates.candidate(word);
}

template <class Visitor>
void for_each_command(const Visitor& visit) {
    for (const CommandGroup& group : command_groups()) {
        for (const Command& command : group.commands) visit(command);
    }
}

}  // namespace

std::span<const CommandGroup> command_groups() {
    static const CommandGroup groups[] = {
        {"Virtual machines", vm_commands},
        {"Consoles and screens", console_commands},
        {"Inspection", inspection_commands},
        {"Statistics", statistics_commands},
        {"Host", host_commands},
        {"Integrity", integrity_commands},
#ifdef BULKHEAD_RECORD
        {"Recording", recording_commands},
#endif
        {"Speculation", mitigation_commands},
    };
    return groups;
}

const Command* find_command(std::string_view name) {
    const Command* found = nullptr;
    for_each_command([&](const Command& command) {
        if (command.name == name) found = &command;
    });
    return found;
}

FixedString<64> nearest_command(std::string_view name) {
    Nearest nearest(name);
    for_each_command([&](const Command& command) { nearest.consider(command.name); });
    return nearest.word();
}

std::span<const std::string_view> vm_keys() {
    static constexpr std::string_view keys[] = {
        "kernel",    "initrd",   "cmdline",     "modules",    "boot",    "memory.max", "vcpus",  "autostart",
        "on_reboot", "on_crash", "cpuset.cpus", "cpu.weight", "cpu.max", "cpu.gang",   "console"};
    return keys;
}

// --- Completion ---

void CommandInterpreter::complete(std::string_view text, CandidateSink& candidates) {
    usize start = text.size();
    while (start > 0 && text[start - 1] != ' ') --start;
    std::string_view typed = text;
    typed.remove_prefix(start);
    if (running()) {  // a config is being typed
        if (start == 0) {
            for (const std::string_view key : vm_keys()) offer(candidates, key, typed);
        }
        return;
    }
    if (!unfinished_.parse(text.substr(0, start))) return;  // an open quote
    const auto words = unfinished_.words();
    if (words.empty()) {
        for_each_command([&](const Command& command) { offer(candidates, command.name, typed); });
        return;
    }
    const Command* command = find_command(words[0]);
    if (command == nullptr) return;
    if (typed.starts_with("-")) {
        for (const std::string_view option : command->options) {
            if (!option.empty() && !unfinished_.has_option(option)) offer(candidates, option, typed);
        }
        if (command->json && !unfinished_.has_option("--json")) offer(candidates, "--json", typed);
        return;
    }
    const usize position = words.size() - 1;
    if (position >= std::size(command->arguments)) return;
    switch (command->arguments[position]) {
        case ArgumentKind::vm: {
            VmSummary vm;
            const usize count = management_.vm_count();
            for (usize i = 0; i < count && management_.summary(i, vm); ++i) offer(candidates, vm.name, typed);
            break;
        }
        case ArgumentKind::command:
            for_each_command([&](const Command& each) { offer(candidates, each.name, typed); });
            break;
        case ArgumentKind::key:
            for (const std::string_view key : vm_keys()) offer(candidates, key, typed);
            break;
        case ArgumentKind::text:
        case ArgumentKind::rest:
        case ArgumentKind::none: break;
    }
}

// --- What commands print ---

void print_column(Sink& out, std::string_view text, usize width) {
    print(out, "{}", Filtered(text));
    usize used = text.size();
    do {
        out.write(" ");
    } while (++used < width + 1);
}

usize name_width(const Management& management) {
    VmSummary vm;
    usize width = 12;
    const usize count = management.vm_count();
    for (usize i = 0; i < count && management.summary(i, vm); ++i) width = std::max(width, vm.name.size());
    return width;
}

void format_value(Sink& sink, const ByteSize& size) {
    if (size.bytes != 0 && size.bytes % gib == 0) {
        print(sink, "{}G", size.bytes / gib);
    } else if (size.bytes != 0 && size.bytes % mib == 0) {
        print(sink, "{}M", size.bytes / mib);
    } else {
        print(sink, "{}K", size.bytes / kib);
    }
}

void format_value(Sink& sink, const Seconds& seconds) {
    print(sink, "{}.{}", seconds.nanoseconds / 1'000'000'000, seconds.nanoseconds / 100'000'000 % 10);
}

void format_value(Sink& sink, const Hex& hex) {
    print(sink, "{:#x}", hex.value);
}

void format_value(Sink& sink, const Tenths& tenths) {
    print(sink, "{}.{}", tenths.value / 10, tenths.value % 10);
}

void format_value(Sink& sink, const LogTime& time) {
    print(sink, "[{:>5}.{:06}]", time.microseconds / 1'000'000, time.microseconds % 1'000'000);
}

u64 permille(u64 part, u64 whole) {
    if (whole == 0) return 0;
    constexpr u64 huge = ~u64{0} / 1000;
    return part <= huge ? part * 1000 / whole : part / std::max<u64>(whole / 1000, 1);
}

}  // namespace bulkhead
