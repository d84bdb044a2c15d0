// Commands about the hypervisor and the machine it runs on.
#include "kernel/base/filtered.hpp"
#include "vmm/console/answer_lines.hpp"
#include "vmm/console/commands.hpp"
#include "vmm/console/isolation.hpp"

namespace bulkhead {
namespace {

void help_json(CommandContext& context, const Command& command) {
    JsonWriter& writer = context.writer;
    writer.begin_object();
    writer.text("command", command.name);
    writer.text("usage", command.usage);
    writer.text("summary", command.summary);
    writer.text("help", command.help);
    writer.text("example", command.example);
    writer.boolean("json", command.json);
    writer.end_object();
}

// One group a call.
void help_all(CommandContext& context) {
    const auto groups = command_groups();
    if (context.json && context.calls == 0) context.writer.begin_array();
    if (context.position < groups.size()) {
        const CommandGroup& group = groups[context.position++];
        if (!context.json) print(context.out, "{}:\n", group.title);
        for (const Command& command : group.commands) {
            if (context.json) {
                help_json(context, command);
            } else {
                print(context.out, "  {:12} {}\n", command.name, command.summary);
            }
        }
        return context.again();
    }
    if (context.json) {
        context.writer.end_array();
        context.out.write("\n");
        return;
    }
    context.out.write("help COMMAND tells more. A VM is given by its name or id; Tab completes.\n");
}

void help(CommandContext& context) {
    if (context.arguments.empty()) return help_all(context);
    const std::string_view name = context.arguments[0];
    const Command* command = find_command(name);
    if (command != nullptr) {
        if (context.json) {
            help_json(context, *command);
            context.out.write("\n");
            return;
        }
        print(context.out, "usage: {}{}\n{}example: {}\n", command->usage,
              command->json ? std::string_view(" [--json]") : std::string_view(), command->help,
              command->example);
        return;
    }
    const auto nearest = nearest_command(name);
    FixedString<200> text;
    print(text, "unknown command \"{}\"", Filtered(name.substr(0, 64)));
    if (!nearest.empty()) print(text, "; did you mean {}?", nearest);
    context.fail(text);
}

// position: the entry that is next.
void dmesg(CommandContext& context) {
    constexpr unsigned entries_a_call = 16;
    constexpr u64 follow_interval = 50'000'000;
    if (context.calls == 0) {
        context.live = context.has_option("-f");
        if (context.live && context.json) return context.fail("-f has no end, and so no JSON document");
        if (context.json) context.writer.begin_array();
    }
    LogEntry entry;
    unsigned shown = 0;
    for (; shown < entries_a_call && context.management.read_log(context.position, entry); ++shown) {
        context.position = entry.sequence + 1;
        if (context.json) {
            JsonWriter& writer = context.writer;
            writer.begin_object();
            writer.seconds("seconds", entry.microseconds * 1000);
            writer.text("level", name_of(entry.level));
            writer.text("text", entry.text);
            writer.end_object();
            continue;
        }
        print(context.out, "{} ", LogTime{entry.microseconds});
        if (entry.level != LogLevel::info) print(context.out, "{}: ", name_of(entry.level));
        print(context.out, "{}\n", Filtered(entry.text));
    }
    if (shown == entries_a_call) return context.again();
    if (context.live) return context.again(context.management.nanoseconds() + follow_interval);
    if (!context.json) return;
    context.writer.end_array();
    context.out.write("\n");
}

void version(CommandContext& context) {
    const HostInfo host = context.management.host();
    if (context.json) {
        JsonWriter& writer = context.writer;
        writer.begin_object();
        writer.text("version", host.version);
        writer.text("backend", host.backend);
        writer.number("cpus", host.cpus);
        writer.number("memory_bytes", host.memory_bytes);
        writer.end_object();
        context.out.write("\n");
        return;
    }
    print(context.out, "Bulkhead {}, {}, {} cores, {} of memory\n", host.version, host.backend, host.cpus,
          ByteSize{host.memory_bytes});
}

void clock(CommandContext& context) {
    const HostInfo host = context.management.host();
    const u64 second = host.wall_clock % 86400;
    if (context.json) {
        JsonWriter& writer = context.writer;
        writer.begin_object();
        writer.number("wall_clock", host.wall_clock);
        writer.number("tsc", host.tsc);
        writer.number("tsc_hz", host.tsc_hz);
        writer.end_object();
        context.out.write("\n");
        return;
    }
    print(context.out, "machine clock: {:02}:{:02}:{:02} UTC ({} s since 1970), TSC {} at {} Hz\n",
          second / 3600, second / 60 % 60, second % 60, host.wall_clock, host.tsc, host.tsc_hz);
}

void plan(CommandContext& context) {
    AnswerLines lines(context);
    if (context.json) context.writer.begin_array();
    context.management.print_plan(lines);
    if (!context.json) return;
    context.writer.end_array();
    context.out.write("\n");
}

void wait(CommandContext& context) {
    if (context.calls > 0) {
        if (context.json) context.out.write("{\"result\":\"waited\"}\n");
        return;
    }
    u64 seconds = 0;
    if (!context.number("the number of seconds", context.arguments[0], 1, 86'400, seconds)) return;
    context.again(context.management.nanoseconds() + seconds * 1'000'000'000);
}

void end_machine(CommandContext& context, Result<> (Management::*action)()) {
    const auto result = (context.management.*action)();
    if (!result) return context.fail(result.error());
    if (context.json) context.out.write("{\"result\":\"done\"}\n");
}

constexpr Command rows[] = {
    {.name = "help",
     .usage = "help [COMMAND]",
     .summary = "lists the commands or explains one",
     .help = "Without an argument, one line for each command; with one, its usage and an example.\n",
     .example = "help list",
     .run = help,
     .arguments = {ArgumentKind::command}},
    {.name = "dmesg",
     .usage = "dmesg [-f]",
     .summary = "shows the hypervisor's log",
     .help = "The last lines of the log, each with the seconds since boot; info lines go\n"
             "without their level. -f goes on with lines that come; any key ends it.\n",
     .example = "dmesg -f",
     .run = dmesg,
     .options = {"-f"}},
    {.name = "plan",
     .usage = "plan",
     .summary = "shows what was decided at boot",
     .help = "Every VM's cores, memory ranges, modules and devices, and why anything was refused.\n",
     .example = "plan",
     .run = plan},
    {.name = "isolation",
     .usage = "isolation",
     .summary = "proves that no VM reaches another's memory",
     .help = "Walks every page table, the kernel's and each VM's, and looks for memory of another\n"
             "VM. Then tries: on each core that serves a VM, in that VM's address space, a load\n"
             "from each 2 MiB of the others' memory has to fault; and so in the kernel's, on all.\n",
     .example = "isolation",
     .run = check_isolation},
    {.name = "repeat",
     .usage = "repeat [--verbose] N COMMAND [; COMMAND]...",
     .summary = "runs commands again and again",
     .help = "Up to the first error or Ctrl-C; then says how often it went and how long it took.\n"
             "What the commands print is left out, but with --verbose.\n",
     .example = "repeat 100 destroy web; start web; wait 1",
     .run = [](CommandContext& context) { context.interpreter.repeat(context); },
     .arguments = {ArgumentKind::text, ArgumentKind::command, ArgumentKind::rest},
     .required = 1,
     .options = {"--verbose"}},
    {.name = "wait",
     .usage = "wait SECONDS",
     .summary = "does nothing for a while",
     .help = "For repeat. Ctrl-C ends it.\n",
     .example = "wait 5",
     .run = wait,
     .arguments = {ArgumentKind::text},
     .required = 1},
    {.name = "clock",
     .usage = "clock",
     .summary = "shows the machine's clocks",
     .help = "The real-time clock as it is read now, and the time-stamp counter with its frequency.\n",
     .example = "clock",
     .run = clock},
    {.name = "version",
     .usage = "version",
     .summary = "tells what runs here, and on what",
     .help = "Bulkhead's version, the processor's extension in use, cores and memory.\n",
     .example = "version",
     .run = version},
    {.name = "reboot",
     .usage = "reboot",
     .summary = "restarts the physical machine",
     .help = "All VMs lose their power at once; shut them down first if they have to.\n",
     .example = "reboot",
     .run = [](CommandContext& context) { end_machine(context, &Management::reboot); }},
    {.name = "poweroff",
     .usage = "poweroff",
     .summary = "turns the physical machine off",
     .help = "All VMs lose their power at once; shut them down first if they have to.\n",
     .example = "poweroff",
     .run = [](CommandContext& context) { end_machine(context, &Management::poweroff); }},
};

}  // namespace

constinit const std::span<const Command> host_commands = rows;

}  // namespace bulkhead
