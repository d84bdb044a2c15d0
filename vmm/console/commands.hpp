// The operator's commands. A command is one row: its name, usage, help, example, arguments and handler stand
// together. Rows are grouped in one file each (commands_*.cpp); a new group is entered in command_groups().
//
// Nothing a command does may keep the caller for long: a handler does a bounded piece of work, prints at most
// a few KiB, and asks to be called again if there is more to do. Meanwhile guests run.
#pragma once

#include <optional>
#include <span>
#include <string_view>

#include "vmm/console/command_line.hpp"
#include "vmm/console/guest_lines.hpp"
#include "vmm/console/json_writer.hpp"
#include "vmm/console/line_editor.hpp"
#include "vmm/console/management.hpp"

namespace bulkhead {

class CommandInterpreter;
struct Command;

// What an argument names: for completion. `rest`: as many words as there are.
enum class ArgumentKind : u8 { none, vm, command, key, text, rest };

// Exit counts as they were when the operator last looked.
struct ExitBaseline {
    VmId vm{};
    bool used = false;
    u64 nanoseconds = 0;
    ExitStatistics statistics;
};

// What `top` compares with what it sees now.
struct TopSample {
    struct Vm {
        VmId id{};
        u64 cpu_nanoseconds = 0;
        u64 exits = 0;
    };
    u64 nanoseconds = 0;
    usize vm_count = 0;
    Vm vms[Config::max_vms];
    u64 busy_nanoseconds[CpuSet::max_cpus] = {};
};

// Working memory of commands, too large for a stack. One command at a time uses it, but for what says
// otherwise.
struct CommandMemory {
    static constexpr usize max_snippet = 8 * kib;

    ScreenText screen;
    char snippet[max_snippet];
    usize snippet_size = 0;
    GuestLines lines;
    GuestLines::Line line;
    TopSample before, now;
    VcpuRegisters registers;
    ExitStatistics exits, exits_before;
    ExitRecord last_exits[16];
    // These stay.
    ExitBaseline baselines[Config::max_vms];
    usize next_baseline = 0;
};

class CommandContext {
  public:
    CommandContext(CommandInterpreter& the_interpreter, Management& the_management, CommandMemory& the_memory,
                   Sink& the_output, const CommandLine& line, const Command& command);
    CommandContext(const CommandContext&) = delete;
    CommandContext& operator=(const CommandContext&) = delete;

    CommandInterpreter& interpreter;
    Management& management;
    CommandMemory& memory;
    Sink& out;                                    // lines end with \n
    JsonWriter writer;                            // on `out`
    std::span<const std::string_view> arguments;  // as many as the command's row allows
    std::string_view rest;                        // of the line as typed, for `repeat`
    bool json = false;                            // print one JSON document instead of text
    std::optional<std::string_view> values[3];    // of the row's options, in their order

    // --- What a handler may ask for ---
    std::optional<VmId> attach;       // hand the terminal to this VM's console ...
    std::optional<u64> attach_lines;  // ... with so many of its last lines
    bool live = false;                // any key ends the command
    bool whole_screen = false;        // nothing else may be written meanwhile
    bool wants_text = false;          // call again when the operator has typed a text into memory.snippet

    // Call again, at once or when nanoseconds() is so late. `calls` tells a handler where it is.
    void again(u64 nanoseconds = 0) {
        wanted_again = true;
        not_before = nanoseconds;
    }
    unsigned calls = 0;
    bool wanted_again = false;
    u64 not_before = 0;

    // For the handler's use from call to call.
    VmSummary vm;
    u64 position = 0;
    u64 end = 0;
    u64 since = 0;

    [[nodiscard]] const Command& command() const { return command_; }
    [[nodiscard]] bool has_option(std::string_view name) const { return line_.has_option(name); }
    // The number that an option or word gives, in its range; says what is wrong otherwise.
    [[nodiscard]] bool number(std::string_view what, std::string_view word, u64 least, u64 most, u64& value);
    // For an option with a value, "--last=": `value` keeps its default when it is not given.
    [[nodiscard]] bool option_number(std::string_view name, u64 least, u64 most, u64& value);

    // Says what went wrong: "start: TEXT", or {"error":"TEXT"}.
    void fail(std::string_view text);
    void fail(const Error& error) { fail(error.text.view()); }
    bool failed = false;
    FixedString<200> failure;
    // An answer that is one sentence: "web: started", or {"vm":"web","result":"started"}.
    void done(std::string_view result);

    // Finds the VM that `word` names, by name or by id: `vm`. Says so if there is none.
    [[nodiscard]] bool find_vm(std::string_view word);
    // Another call of the handler for a VM list: refreshes `vm`. False when it is gone.
    [[nodiscard]] bool refresh_vm();

  private:
    const CommandLine& line_;
    const Command& command_;
};

struct Command {
    std::string_view name;
    std::string_view usage;    // with the name: "info VM"; --json is added where it goes
    std::string_view summary;  // a few words, for the list of commands
    std::string_view help;     // sentences; lines end with \n
    std::string_view example;  // a line as one would type it
    void (*run)(CommandContext& context);
    ArgumentKind arguments[4] = {};  // kinds of the possible arguments; the rest is ArgumentKind::none
    u8 required = 0;                 // how many of them must be there
    bool json = true;                // has an answer in JSON
    // "--once", "-f", "--last=" (which takes a value); --json is not among them.
    std::string_view options[3] = {};
};

struct CommandGroup {
    std::string_view title;
    std::span<const Command> commands;
};

[[nodiscard]] std::span<const CommandGroup> command_groups();
[[nodiscard]] const Command* find_command(std::string_view name);
// The name nearest to a mistyped one; empty when none is near.
[[nodiscard]] FixedString<64> nearest_command(std::string_view name);
// Keys of [vm.NAME], for completion.
[[nodiscard]] std::span<const std::string_view> vm_keys();

// The groups' rows, each in its file.
extern const std::span<const Command> vm_commands;
extern const std::span<const Command> console_commands;
extern const std::span<const Command> inspection_commands;
extern const std::span<const Command> statistics_commands;
extern const std::span<const Command> integrity_commands;
extern const std::span<const Command> mitigation_commands;
extern const std::span<const Command> host_commands;
extern const std::span<const Command> recording_commands;  // of the image that records exits only

// Reads lines and runs them, step by step; completes them too. About 90 KiB, most of it what `exits --diff`
// remembers.
class CommandInterpreter final : public Completer {
  public:
    enum class Progress : u8 {
        done,     // the command is over
        more,     // call step() again
        waiting,  // likewise, but nothing is to be done now
        text,     // give_text() first
    };

    explicit CommandInterpreter(Management& management) : management_(management) {}

    // Begins to run `line`. What it prints goes to `out`, in step().
    void begin(std::string_view line, Sink& out);
    [[nodiscard]] Progress step();
    [[nodiscard]] bool running() const { return outer_.context.has_value(); }
    // Breaks it off where it is.
    void cancel();
    // A line of the text that the command wants; true when it was the last one, a single ".".
    [[nodiscard]] bool give_text(std::string_view line);

    // Of the command that runs, or has just ended.
    [[nodiscard]] bool live() const { return running() && outer_.context->live; }
    [[nodiscard]] bool whole_screen() const { return running() && outer_.context->whole_screen; }
    [[nodiscard]] std::optional<VmId> attach() const { return attach_; }
    [[nodiscard]] std::optional<u64> attach_lines() const { return attach_lines_; }

    // `repeat`: a step of it.
    void repeat(CommandContext& context);

    void complete(std::string_view text, CandidateSink& candidates) override;

  private:
    struct Run {
        CommandLine line;
        const Command* command = nullptr;
        std::optional<CommandContext> context;
    };
    // What an inner command prints, if nobody wants to see it.
    class NullSink final : public Sink {
      public:
        void write(std::string_view) override {}
    };

    void begin(Run& run, std::string_view line, Sink& out);
    [[nodiscard]] bool prepare(Run& run, std::string_view line, Sink& out, FixedString<200>& problem);
    [[nodiscard]] Progress step(Run& run);

    Management& management_;
    CommandMemory memory_;
    FixedString<CommandLine::max_length> text_;  // the line as typed
    Run outer_, inner_;
    NullSink nowhere_;
    bool failed_ = false;  // the inner command that ended last
    FixedString<200> failure_;
    std::optional<VmId> attach_;
    std::optional<u64> attach_lines_;
    std::string_view repeat_rest_;  // of text_: what is left of this run
    bool text_done_ = false;
    bool text_too_long_ = false;
    CommandLine unfinished_;
};

// Text in a column of `width` characters, with at least one blank after it.
void print_column(Sink& out, std::string_view text, usize width);
// The width of a column for the VMs' names.
[[nodiscard]] usize name_width(const Management& management);

// Bytes in the largest unit that keeps them whole: "512M".
struct ByteSize {
    u64 bytes;
};
void format_value(Sink& sink, const ByteSize& size);

// Nanoseconds as seconds with one decimal.
struct Seconds {
    u64 nanoseconds;
};
void format_value(Sink& sink, const Seconds& seconds);

// "0x1f".
struct Hex {
    u64 value;
};
void format_value(Sink& sink, const Hex& hex);

// "12.3" for 123.
struct Tenths {
    u64 value;
};
void format_value(Sink& sink, const Tenths& tenths);

// Seconds since boot as the log shows them: "[    1.234567]".
struct LogTime {
    u64 microseconds;
};
void format_value(Sink& sink, const LogTime& time);

// Anything that can be printed, to the right in a column of `width`.
template <class T>
void print_right(Sink& out, const T& value, usize width) {
    FixedString<48> text;
    print(text, "{}", value);
    for (usize i = text.size(); i < width; ++i) out.write(" ");
    out.write(text);
}

// Tenths of a percent, rounded down. Of huge numbers the low digits do not matter.
[[nodiscard]] u64 permille(u64 part, u64 whole);

}  // namespace bulkhead
