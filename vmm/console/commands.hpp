// The operator's commands. A command is one row: its name, usage, help, example, arguments and handler stand
// together. Rows are grouped in one file each (commands_*.cpp); a new group is entered in command_groups().
#pragma once

#include <optional>
#include <span>
#include <string_view>

#include "vmm/console/command_line.hpp"
#include "vmm/console/json_writer.hpp"
#include "vmm/console/line_editor.hpp"
#include "vmm/console/management.hpp"

namespace bulkhead {

// What an argument names: for completion.
enum class ArgumentKind : u8 { none, vm, command, text };

class CommandContext {
  public:
    CommandContext(Management& the_management, Sink& the_output,
                   std::span<const std::string_view> the_arguments, const CommandLine& line,
                   std::string_view command)
        : management(the_management),
          out(the_output),
          arguments(the_arguments),
          json(line.has_option("--json")),
          line_(line),
          command_(command) {}
    CommandContext(const CommandContext&) = delete;
    CommandContext& operator=(const CommandContext&) = delete;

    Management& management;
    Sink& out;                                    // lines end with \n
    std::span<const std::string_view> arguments;  // as many as the command's row allows
    bool json;                                    // print one JSON document instead of text
    std::optional<VmId> attach;                   // set it to hand the terminal to a VM

    [[nodiscard]] bool has_option(std::string_view name) const { return line_.has_option(name); }

    // Says what went wrong: "start: TEXT", or {"error":"TEXT"}.
    void fail(std::string_view text);

    // The VM that `word` names, by name or by id. Says so if there is none.
    [[nodiscard]] bool find_vm(std::string_view word, VmSummary& out_vm);

  private:
    const CommandLine& line_;
    std::string_view command_;
};

struct Command {
    std::string_view name;
    std::string_view usage;    // with the name: "info VM [--json]"
    std::string_view summary;  // a few words, for the list of commands
    std::string_view help;     // sentences; lines end with \n
    std::string_view example;  // a line as one would type it
    void (*run)(CommandContext& context);
    ArgumentKind arguments[4] = {};  // kinds of the possible arguments; the rest is ArgumentKind::none
    u8 required = 0;                 // how many of them must be there
    std::string_view options[3] = {};
};

struct CommandGroup {
    std::string_view title;
    std::span<const Command> commands;
};

[[nodiscard]] std::span<const CommandGroup> command_groups();
[[nodiscard]] const Command* find_command(std::string_view name);

// The groups' rows, each in its file.
extern const std::span<const Command> vm_commands;
extern const std::span<const Command> statistics_commands;
extern const std::span<const Command> host_commands;

// Reads lines and runs them; completes them too.
class CommandInterpreter final : public Completer {
  public:
    explicit CommandInterpreter(Management& management) : management_(management) {}

    // Runs `line`; what it prints goes to `out`. Returns the VM to attach the terminal to, if that was asked.
    std::optional<VmId> execute(std::string_view line, Sink& out);

    void complete(std::string_view text, CandidateSink& candidates) override;

  private:
    void complain_about_command(std::string_view name, Sink& out, bool json);

    Management& management_;
    CommandLine line_;
    CommandLine unfinished_;
};

// Text in a column of `width` characters, with at least one blank after it.
void print_column(Sink& out, std::string_view text, usize width);

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

}  // namespace bulkhead
