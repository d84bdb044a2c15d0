#include "vmm/console/commands.hpp"

#include <algorithm>

#include "kernel/base/filtered.hpp"
#include "vmm/config/nearest.hpp"

namespace bulkhead {
namespace {

usize possible_arguments(const Command& command) {
    usize count = 0;
    while (count < std::size(command.arguments) && command.arguments[count] != ArgumentKind::none) ++count;
    return count;
}

bool knows_option(const Command& command, std::string_view option) {
    return std::find(std::begin(command.options), std::end(command.options), option) !=
           std::end(command.options);
}

std::optional<u16> parse_id(std::string_view word) {
    if (word.empty() || word.size() > 5) return std::nullopt;
    unsigned value = 0;
    for (const char c : word) {
        if (c < '0' || c > '9') return std::nullopt;
        value = value * 10 + static_cast<unsigned>(c - '0');
    }
    if (value > 0xFFFF) return std::nullopt;
    return static_cast<u16>(value);
}

void offer(CandidateSink& candidates, std::string_view word, std::string_view typed) {
    if (word.starts_with(typed)) candidates.candidate(word);
}

}  // namespace

std::span<const CommandGroup> command_groups() {
    static const CommandGroup groups[] = {
        {"Virtual machines", vm_commands},
        {"Statistics", statistics_commands},
        {"Host", host_commands},
    };
    return groups;
}

const Command* find_command(std::string_view name) {
    for (const CommandGroup& group : command_groups()) {
        for (const Command& command : group.commands) {
            if (command.name == name) return &command;
        }
    }
    return nullptr;
}

// --- For handlers ---

void CommandContext::fail(std::string_view text) {
    if (json) {
        JsonWriter writer(out);
        writer.begin_object();
        writer.text("error", text);
        writer.end_object();
        out.write("\n");
    } else {
        print(out, "{}: {}\n", command_, Filtered(text));
    }
}

bool CommandContext::find_vm(std::string_view word, VmSummary& out_vm) {
    const std::optional<u16> id = parse_id(word);
    Nearest nearest(word);
    const usize count = management.vm_count();
    for (usize i = 0; i < count && management.summary(i, out_vm); ++i) {
        if (out_vm.name.view() == word || (id && out_vm.id.raw() == *id)) return true;
        nearest.consider(out_vm.name);
    }
    FixedString<160> text;
    print(text, "there is no VM \"{}\"; ", Filtered(word));
    if (nearest.word().empty()) {
        text.append("list shows those there are");
    } else {
        print(text, "did you mean {}?", nearest.word());
    }
    fail(text);
    return false;
}

void print_column(Sink& out, std::string_view text, usize width) {
    print(out, "{}", Filtered(text));
    usize used = text.size();
    do {
        out.write(" ");
    } while (++used < width + 1);
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

// --- Running a line ---

std::optional<VmId> CommandInterpreter::execute(std::string_view line, Sink& out) {
    if (const auto parsed = line_.parse(line); !parsed) {
        print(out, "{}\n", parsed.error().text);
        return std::nullopt;
    }
    if (line_.empty()) return std::nullopt;
    const bool json = line_.has_option("--json");
    if (line_.words().empty()) {
        complain_about_command(line_.options()[0], out, json);
        return std::nullopt;
    }
    const std::string_view name = line_.words()[0];
    const auto arguments = line_.words().subspan(1);
    const Command* command = find_command(name);
    if (command == nullptr) {
        complain_about_command(name, out, json);
        return std::nullopt;
    }
    // An error is JSON only where an answer would be.
    CommandContext context(management_, out, arguments, line_, command->name);
    context.json = json && knows_option(*command, "--json");
    FixedString<200> problem;
    if (arguments.size() < command->required || arguments.size() > possible_arguments(*command)) {
        print(problem, "{} argument; usage: {}",
              arguments.size() < command->required ? std::string_view("missing")
                                                   : std::string_view("unexpected"),
              command->usage);
    }
    for (const std::string_view option : line_.options()) {
        if (knows_option(*command, option)) continue;
        problem.clear();
        print(problem, "unknown option {}; usage: {}", Filtered(option), command->usage);
    }
    if (!problem.empty()) {
        context.fail(problem);
        return std::nullopt;
    }
    command->run(context);
    return context.attach;
}

void CommandInterpreter::complain_about_command(std::string_view name, Sink& out, bool json) {
    Nearest nearest(name);
    for (const CommandGroup& group : command_groups()) {
        for (const Command& command : group.commands) nearest.consider(command.name);
    }
    FixedString<200> text;
    print(text, "unknown command \"{}\"; ", Filtered(name.substr(0, 64)));
    if (nearest.word().empty()) {
        text.append("help lists them");
    } else {
        print(text, "did you mean {}?", nearest.word());
    }
    if (json) {
        JsonWriter writer(out);
        writer.begin_object();
        writer.text("error", text);
        writer.end_object();
        out.write("\n");
    } else {
        print(out, "{}\n", text.view());
    }
}

void CommandInterpreter::complete(std::string_view text, CandidateSink& candidates) {
    usize start = text.size();
    while (start > 0 && text[start - 1] != ' ') --start;
    std::string_view typed = text;
    typed.remove_prefix(start);
    if (!unfinished_.parse(text.substr(0, start))) return;  // an open quote
    const auto words = unfinished_.words();
    if (words.empty()) {
        for (const CommandGroup& group : command_groups()) {
            for (const Command& command : group.commands) offer(candidates, command.name, typed);
        }
        return;
    }
    const Command* command = find_command(words[0]);
    if (command == nullptr) return;
    if (typed.starts_with("-")) {
        for (const std::string_view option : command->options) {
            if (!option.empty() && !unfinished_.has_option(option)) offer(candidates, option, typed);
        }
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
            for (const CommandGroup& group : command_groups()) {
                for (const Command& each : group.commands) offer(candidates, each.name, typed);
            }
            break;
        case ArgumentKind::text:
        case ArgumentKind::none: break;
    }
}

}  // namespace bulkhead
