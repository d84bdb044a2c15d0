// Commands for what guests show and what is typed at them.
#include <algorithm>

#include "kernel/base/filtered.hpp"
#include "vmm/console/commands.hpp"
#include "vmm/console/keys.hpp"

namespace bulkhead {
namespace {

constexpr u64 millisecond = 1'000'000;
// Lines that come later are looked for so often.
constexpr u64 follow_interval = 50 * millisecond;
// Lines printed in one call of a handler.
constexpr unsigned lines_a_call = 16;

constexpr std::string_view no_console =
    "the VM has no console here; start it, or look at the port that its configuration names";

void console(CommandContext& context) {
    if (!context.find_vm(context.arguments[0])) return;
    u64 lines = ~u64{0};
    if (!context.option_number("--last=", 0, 1'000'000, lines)) return;
    if (context.management.console(context.vm.id) == nullptr) return context.fail(no_console);
    context.attach = context.vm.id;
    if (lines != ~u64{0}) context.attach_lines = lines;
}

// The lines that memory.lines has. position: the last time shown, so that a piece of a long line has one.
void print_guest_lines(CommandContext& context, bool names) {
    GuestLines::Line& line = context.memory.line;
    unsigned printed = 0;
    for (; printed < lines_a_call && context.memory.lines.next(context.management, line); ++printed) {
        if (context.json) {
            JsonWriter& writer = context.writer;
            writer.begin_object();
            writer.text("vm", line.name);
            writer.key("seconds");
            if (line.time) {
                writer.seconds(context.management.nanoseconds_at(*line.time));
            } else {
                writer.null();
            }
            writer.key("text");
            writer.text(line.text);
            writer.end_object();
            continue;
        }
        if (names) {
            if (line.time) {
                print(context.out, "{} ", LogTime{context.management.nanoseconds_at(*line.time) / 1000});
            } else {
                context.out.write("[           ?] ");
            }
            print(context.out, "{}: ", Filtered(line.name));
        }
        FixedString<200> text;
        append_plain(text, line.text);
        print(context.out, "{}\n", Filtered(text));
    }
    if (printed == lines_a_call) return context.again();
    if (context.live) return context.again(context.management.nanoseconds() + follow_interval);
    if (!context.json) return;
    context.writer.end_array();
    context.out.write("\n");
}

void scrollback(CommandContext& context) {
    if (context.calls == 0) {
        if (!context.find_vm(context.arguments[0])) return;
        u64 lines = 100;
        if (context.arguments.size() > 1 &&
            !context.number("the number of lines", context.arguments[1], 1, 1'000'000, lines))
            return;
        if (context.management.console(context.vm.id) == nullptr) return context.fail(no_console);
        context.memory.lines.begin(context.management, context.vm.id, lines, false);
        if (context.json) context.writer.begin_array();
    }
    print_guest_lines(context, false);
}

void logs(CommandContext& context) {
    if (context.calls == 0) {
        const bool follow = context.has_option("-f");
        if (follow && context.json) return context.fail("-f has no end, and so no JSON document");
        std::optional<VmId> only;
        if (!context.arguments.empty()) {
            if (!context.find_vm(context.arguments[0])) return;
            only = context.vm.id;
        }
        u64 last = ~u64{0};
        if (!context.option_number("--last=", 0, 1'000'000, last)) return;
        const std::optional<u64> lines = last == ~u64{0} ? std::nullopt : std::optional(last);
        context.memory.lines.begin(context.management, only, lines, follow);
        context.live = follow;
        if (context.json) context.writer.begin_array();
    }
    print_guest_lines(context, true);
}

void screen(CommandContext& context) {
    if (!context.find_vm(context.arguments[0])) return;
    ScreenText& text = context.memory.screen;
    text.columns = text.rows = 0;
    text.cursor_visible = false;
    for (auto& row : text.characters) std::fill(std::begin(row), std::end(row), ' ');
    if (auto result = context.management.screen(context.vm.id, text); !result)
        return context.fail(result.error());
    const unsigned rows = text.rows < ScreenText::max_rows ? text.rows : ScreenText::max_rows;
    const unsigned columns = text.columns < ScreenText::max_columns ? text.columns : ScreenText::max_columns;
    JsonWriter& writer = context.writer;
    if (context.json) {
        writer.begin_object();
        writer.text("vm", context.vm.name);
        writer.number("columns", columns);
        writer.number("rows", rows);
        writer.key("cursor");
        if (text.cursor_visible) {
            writer.begin_object();
            writer.number("column", text.cursor_column);
            writer.number("row", text.cursor_row);
            writer.end_object();
        } else {
            writer.null();
        }
        writer.key("lines");
        writer.begin_array();
    }
    unsigned last = rows;
    for (unsigned row = 0, used = 0; row < rows; ++row) {
        const std::string_view characters(text.characters[row], columns);
        if (characters.find_last_not_of(std::string_view(" \0", 2)) != std::string_view::npos) used = row + 1;
        last = used;
    }
    for (unsigned row = 0; row < rows; ++row) {
        std::string_view characters(text.characters[row], columns);
        characters = characters.substr(0, characters.find_last_not_of(std::string_view(" \0", 2)) + 1);
        if (context.json) {
            writer.text(characters);
        } else if (row < last) {
            print(context.out, "{}\n", Filtered(characters));
        }
    }
    if (context.json) {
        writer.end_array();
        writer.end_object();
        context.out.write("\n");
        return;
    }
    print(context.out, "({} x {}", columns, rows);
    if (text.cursor_visible)
        print(context.out, ", cursor in column {}, row {}", text.cursor_column + 1, text.cursor_row + 1);
    if (last < rows) print(context.out, "; {} empty rows at the end left out", rows - last);
    context.out.write(")\n");
}

// How long a VM may leave what is typed at it unread.
constexpr u64 patience = 2'000 * millisecond;

// The next of what is to be sent, from word `word` and byte `at` of it; `dry`: only look whether it is right.
// For the serial port, words are separated by blanks.
Result<bool> send_next(CommandContext& context, bool keyboard, usize& word, usize& at, bool dry) {
    const std::string_view text = context.arguments[word];
    usize next = at;
    bool sent = true;
    if (at >= text.size()) {
        const bool blank = !keyboard && word + 1 < context.arguments.size();
        if (blank && !dry) sent = context.management.send_input(context.vm.id, ' ');
        if (sent) ++word, at = 0;
        return sent;
    }
    if (keyboard) {
        const auto stroke = next_stroke(text, next);
        if (!stroke) return std::unexpected(stroke.error());
        if (!dry) sent = context.management.send_scan_codes(context.vm.id, *stroke);
    } else {
        const auto byte = next_character(text, next);
        if (!byte) return std::unexpected(byte.error());
        if (!dry) sent = context.management.send_input(context.vm.id, *byte);
    }
    if (sent) at = next;
    return sent;
}

// position: the word; end: the byte in it; since: when something was last sent.
void send(CommandContext& context) {
    const bool keyboard = context.has_option("--keyboard");
    if (context.calls == 0) {
        if (!context.find_vm(context.arguments[0])) return;
        for (usize word = 1, at = 0; word < context.arguments.size();) {
            if (auto right = send_next(context, keyboard, word, at, true); !right)
                return context.fail(right.error());
        }
        context.position = 1;
        context.since = context.management.nanoseconds();
    }
    for (unsigned sent = 0; context.position < context.arguments.size(); ++sent) {
        if (sent == lines_a_call) return context.again();
        const auto moved = send_next(context, keyboard, context.position, context.end, false);
        if (!moved) return context.fail(moved.error());
        const u64 now = context.management.nanoseconds();
        if (*moved) {
            context.since = now;
            continue;
        }
        if (now - context.since > patience) {
            return context.fail(keyboard
                                    ? "the VM is off, or does not read its keyboard; not all was sent"
                                    : "the VM is off, or does not read its serial port; not all was sent");
        }
        return context.again(now + 5 * millisecond);
    }
    context.done("sent");
}

constexpr Command rows[] = {
    {.name = "console",
     .usage = "console VM [--last N]",
     .summary = "attaches this terminal to a VM's serial port",
     .help = "First replays what the VM has sent lately (all that is kept, or the last N lines),\n"
             "then passes everything on in both directions. The escape key (CTRL-] unless\n"
             "configured) leaves.\n",
     .example = "console web --last 20",
     .run = console,
     .arguments = {ArgumentKind::vm},
     .required = 1,
     .json = false,
     .options = {"--last="}},
    {.name = "scrollback",
     .usage = "scrollback VM [LINES]",
     .summary = "shows what a VM's serial port sent before",
     .help = "The last LINES lines (100), without colours and other control sequences; the VM's\n"
             "last 64 KiB are kept. See also logs.\n",
     .example = "scrollback web 40",
     .run = scrollback,
     .arguments = {ArgumentKind::vm, ArgumentKind::text},
     .required = 1},
    {.name = "logs",
     .usage = "logs [VM] [-f] [--last N]",
     .summary = "shows the serial output of all VMs, line by line",
     .help = "Each line with the seconds since boot at which it was begun and its VM's name, in\n"
             "the order of time. -f goes on with lines that come, when they are complete; any key\n"
             "ends it. --last N: only the last N lines of each VM.\n",
     .example = "logs -f --last 5",
     .run = logs,
     .arguments = {ArgumentKind::vm},
     .options = {"-f", "--last="}},
    {.name = "screen",
     .usage = "screen VM",
     .summary = "shows a VM's text screen",
     .help = "The characters that the guest's VGA shows, without colours.\n",
     .example = "screen web",
     .run = screen,
     .arguments = {ArgumentKind::vm},
     .required = 1},
    {.name = "send",
     .usage = "send VM KEYS... [--keyboard]",
     .summary = "types at a VM",
     .help = "To its serial port: text with \\n \\r \\t \\e \\b \\xHH and ^C, in quotes (a backslash\n"
             "outside is the prompt's own). With --keyboard each word is a key of its PS/2 keyboard\n"
             "(Enter, F1, Ctrl-Alt-Del, Alt-x) or text, typed on a US keyboard.\n",
     .example = "send web 'root\\n'",
     .run = send,
     .arguments = {ArgumentKind::vm, ArgumentKind::rest},
     .required = 2,
     .options = {"--keyboard"}},
};

}  // namespace

constinit const std::span<const Command> console_commands = rows;

}  // namespace bulkhead
