// Running a line: what is the command, are its arguments right, and call after call of its handler.
#include <algorithm>

#include "kernel/base/filtered.hpp"
#include "vmm/config/nearest.hpp"
#include "vmm/console/commands.hpp"
#include "vmm/console/number.hpp"

namespace bulkhead {
namespace {

usize possible_arguments(const Command& command) {
    usize count = 0;
    for (const ArgumentKind kind : command.arguments) {
        if (kind == ArgumentKind::rest) return CommandLine::max_words;
        if (kind == ArgumentKind::none) break;
        ++count;
    }
    return count;
}

// `option` as typed against "--once" or "--last=".
bool matches(std::string_view known, std::string_view option) {
    if (known.empty()) return false;
    if (!known.ends_with("=")) return option == known;
    return option.substr(0, option.find('=')) == known.substr(0, known.size() - 1);
}

void write_error(Sink& out, std::string_view text) {
    JsonWriter writer(out);
    writer.begin_object();
    writer.text("error", text);
    writer.end_object();
    out.write("\n");
}

// "repeat N" and its options, of a line that begins so: what follows is a line of its own.
usize prefix_of_repeat(std::string_view line) {
    constexpr std::string_view name = "repeat";
    usize at = 0;
    const auto word = [&] {
        while (at < line.size() && (line[at] == ' ' || line[at] == '\t')) ++at;
        const usize start = at;
        while (at < line.size() && line[at] != ' ' && line[at] != '\t') ++at;
        return line.substr(start, at - start);
    };
    if (word() != name) return line.size();
    while (word().starts_with("--")) {
    }
    return at;
}

}  // namespace

// --- For handlers ---

CommandContext::CommandContext(CommandInterpreter& the_interpreter, Management& the_management,
                               CommandMemory& the_memory, Sink& the_output, const CommandLine& line,
                               const Command& command)
    : interpreter(the_interpreter),
      management(the_management),
      memory(the_memory),
      out(the_output),
      writer(the_output),
      arguments(line.words().subspan(1)),
      line_(line),
      command_(command) {}

void CommandContext::fail(std::string_view text) {
    failed = true;
    failure.clear();
    failure.append(text);
    if (json) {
        write_error(out, text);
    } else {
        print(out, "{}: {}\n", command_.name, Filtered(text));
    }
}

void CommandContext::done(std::string_view result) {
    if (json) {
        writer.begin_object();
        writer.text("vm", vm.name);
        writer.text("result", result);
        writer.end_object();
        out.write("\n");
    } else {
        print(out, "{}: {}\n", Filtered(vm.name), result);
    }
}

bool CommandContext::number(std::string_view what, std::string_view word, u64 least, u64 most, u64& value) {
    if (const auto parsed = parse_number(word); parsed && *parsed >= least && *parsed <= most) {
        value = *parsed;
        return true;
    }
    FixedString<200> text;
    print(text, "{} \"{}\" is no number from {} to {}", what, Filtered(word.substr(0, 40)), least, most);
    fail(text);
    return false;
}

bool CommandContext::option_number(std::string_view name, u64 least, u64 most, u64& value) {
    for (usize i = 0; i < std::size(values); ++i) {
        if (command_.options[i] == name && values[i])
            return number(name.substr(0, name.size() - 1), *values[i], least, most, value);
    }
    return true;
}

bool CommandContext::find_vm(std::string_view word) {
    const auto id = parse_number(word);
    Nearest nearest(word);
    const usize count = management.vm_count();
    for (usize i = 0; i < count && management.summary(i, vm); ++i) {
        if (vm.name.view() == word || (id && vm.id.raw() == *id)) return true;
        nearest.consider(vm.name);
    }
    FixedString<160> text;
    print(text, "there is no VM \"{}\"; ", Filtered(word.substr(0, 64)));
    if (nearest.word().empty()) {
        text.append("list shows those there are");
    } else {
        print(text, "did you mean {}?", nearest.word());
    }
    fail(text);
    return false;
}

bool CommandContext::refresh_vm() {
    const VmId id = vm.id;
    const usize count = management.vm_count();
    for (usize i = 0; i < count && management.summary(i, vm); ++i) {
        if (vm.id == id) return true;
    }
    return false;
}

// --- Running a line ---

void CommandInterpreter::begin(std::string_view line, Sink& out) {
    attach_.reset();
    attach_lines_.reset();
    inner_.context.reset();
    text_.clear();
    text_.append(line.substr(0, CommandLine::max_length));
    begin(outer_, line.size() > CommandLine::max_length ? line : text_.view(), out);
}

void CommandInterpreter::begin(Run& run, std::string_view line, Sink& out) {
    run.context.reset();
    FixedString<200> problem;
    if (prepare(run, line, out, problem)) return;
    if (problem.empty()) return;
    failed_ = true;
    failure_ = problem;
    // With the command's name, if there is one.
    if (run.context) {
        run.context->fail(problem);
    } else if (run.line.has_option("--json")) {
        write_error(out, problem);
    } else {
        print(out, "{}\n", problem);
    }
    run.context.reset();
}

bool CommandInterpreter::prepare(Run& run, std::string_view line, Sink& out, FixedString<200>& problem) {
    CommandLine& words = run.line;
    run.command = nullptr;
    const usize prefix = prefix_of_repeat(line);
    if (const auto parsed = words.parse(line.substr(0, prefix)); !parsed) {
        problem.append(parsed.error().text);
        return false;
    }
    if (words.empty()) return false;
    const bool json = words.has_option("--json");
    const std::string_view name = words.words().empty() ? words.options()[0] : words.words()[0];
    const Command* command = words.words().empty() ? nullptr : find_command(name);
    if (command == nullptr) {
        print(problem, "unknown command \"{}\"; ", Filtered(name.substr(0, 64)));
        const auto nearest = nearest_command(name);
        if (nearest.empty()) {
            problem.append("help lists them");
        } else {
            print(problem, "did you mean {}?", nearest);
        }
        return false;
    }
    run.command = command;
    // Words that are options or options' values are no arguments.
    std::optional<std::string_view> values[3];
    for (usize i = 0; i < std::size(values); ++i) {
        const std::string_view option = command->options[i];
        if (option.size() == 2 && !words.take_flag(option)) problem.append("too many options");
        if (option.ends_with("=")) values[i] = words.take_value(option.substr(0, option.size() - 1));
    }
    run.context.emplace(*this, management_, memory_, out, words, *command);
    CommandContext& context = *run.context;
    std::copy(std::begin(values), std::end(values), context.values);
    context.json = json;
    context.rest = line.substr(prefix);
    if (json && !command->json) problem.append("it has no answer in JSON");
    for (const std::string_view option : words.options()) {
        const bool known =
            option == "--json" || std::any_of(std::begin(command->options), std::end(command->options),
                                              [&](std::string_view each) { return matches(each, option); });
        if (known) continue;
        Nearest nearest(option);
        for (const std::string_view each : command->options) nearest.consider(each);
        if (command->json) nearest.consider("--json");
        problem.clear();
        print(problem, "unknown option {}", Filtered(option.substr(0, 40)));
        if (!nearest.word().empty()) print(problem, " (did you mean {}?)", nearest.word());
        print(problem, "; usage: {}", command->usage);
    }
    const usize arguments = context.arguments.size();
    if (problem.empty() && (arguments < command->required || arguments > possible_arguments(*command))) {
        print(problem, "{} argument; usage: {}",
              arguments < command->required ? std::string_view("missing") : std::string_view("unexpected"),
              command->usage);
    }
    return problem.empty();
}

CommandInterpreter::Progress CommandInterpreter::step(Run& run) {
    if (!run.context) return Progress::done;
    CommandContext& context = *run.context;
    if (context.wants_text && !text_done_) return Progress::text;
    if (context.not_before != 0 && management_.nanoseconds() < context.not_before) return Progress::waiting;
    context.wanted_again = context.wants_text = false;
    context.not_before = 0;
    run.command->run(context);
    ++context.calls;
    if (context.wants_text) {
        memory_.snippet_size = 0;
        text_done_ = text_too_long_ = false;
        return Progress::text;
    }
    if (context.wanted_again) return context.not_before == 0 ? Progress::more : Progress::waiting;
    failed_ = context.failed;
    failure_ = context.failure;
    return Progress::done;
}

CommandInterpreter::Progress CommandInterpreter::step() {
    const Progress progress = step(outer_);
    if (progress == Progress::done && outer_.context) {
        attach_ = outer_.context->attach;
        attach_lines_ = outer_.context->attach_lines;
        outer_.context.reset();
    }
    return progress;
}

void CommandInterpreter::cancel() {
    outer_.context.reset();
    inner_.context.reset();
    attach_.reset();
}

bool CommandInterpreter::give_text(std::string_view line) {
    if (line == ".") {
        text_done_ = true;
        // Too long for a snippet: say so rather than take half of it.
        if (text_too_long_) memory_.snippet_size = CommandMemory::max_snippet + 1;
        return true;
    }
    if (memory_.snippet_size + line.size() + 1 > CommandMemory::max_snippet) {
        text_too_long_ = true;
        return false;
    }
    std::copy(line.begin(), line.end(), memory_.snippet + memory_.snippet_size);
    memory_.snippet_size += line.size();
    memory_.snippet[memory_.snippet_size++] = '\n';
    return false;
}

// --- repeat ---

// position: the time it runs; end: how often it is to run; since: when it began; `calls` 0: the first call.
void CommandInterpreter::repeat(CommandContext& context) {
    const bool verbose = context.has_option("--verbose");
    const auto end = [&](bool failed) {
        const u64 took = management_.nanoseconds() - context.since;
        if (failed) context.failed = true, context.failure = failure_;
        if (context.json) {
            JsonWriter& writer = context.writer;
            writer.begin_object();
            writer.number("wanted", context.end);
            writer.number("done", context.position);
            writer.seconds("seconds", took);
            if (failed) writer.text("error", failure_);
            writer.end_object();
            context.out.write("\n");
            return;
        }
        if (failed)
            print(context.out, "repeat: stopped in run {}: {}\n", context.position + 1, Filtered(failure_));
        print(context.out, "{} of {} runs in {} s\n", context.position, context.end, Seconds{took});
    };
    if (context.calls == 0) {
        if (!context.number("the count", context.arguments[0], 1, 1'000'000'000, context.end)) return;
        if (context.rest.find_first_not_of(" \t;") == std::string_view::npos)
            return context.fail("what is to be repeated? usage: repeat [--verbose] N COMMAND [; COMMAND]...");
        // At the line's end, --json is for repeat: what it repeats is not to be seen.
        constexpr std::string_view json = " --json";
        if (context.rest.ends_with(json)) {
            context.json = true;
            context.rest.remove_suffix(json.size());
        }
        context.since = management_.nanoseconds();
        repeat_rest_ = context.rest;
        return context.again();
    }
    if (!inner_.context) {
        // The next command of the line, up to a ; outside quotes.
        usize length = 0;
        char quote = 0;
        for (; length < repeat_rest_.size() && (quote != 0 || repeat_rest_[length] != ';'); ++length) {
            const char c = repeat_rest_[length];
            if (c == '\\' && quote != '\'' && length + 1 < repeat_rest_.size()) {
                ++length;
            } else if (quote == 0 ? c == '"' || c == '\'' : c == quote) {
                quote = quote == 0 ? c : '\0';
            }
        }
        const std::string_view line = repeat_rest_.substr(0, length);
        repeat_rest_.remove_prefix(std::min(length + 1, repeat_rest_.size()));
        failed_ = false;
        begin(inner_, line, verbose && !context.json ? context.out : nowhere_);
        if (failed_) return end(true);
        if (inner_.context && inner_.command == &context.command()) {
            inner_.context.reset();
            failure_ = "repeat cannot repeat itself";
            return end(true);
        }
    }
    switch (step(inner_)) {
        case Progress::more: return context.again();
        case Progress::waiting: {
            if (inner_.context->live) break;
            return context.again(inner_.context->not_before);
        }
        case Progress::text: break;
        case Progress::done:
            if (inner_.context && inner_.context->attach) break;
            inner_.context.reset();
            if (failed_) return end(true);
            if (repeat_rest_.empty()) {
                repeat_rest_ = context.rest;
                if (++context.position == context.end) return end(false);
            }
            return context.again();
    }
    inner_.context.reset();
    failure_.clear();
    print(failure_, "{} has no end of its own; it cannot be repeated", inner_.command->name);
    end(true);
}

}  // namespace bulkhead
