// Commands about the hypervisor and the machine it runs on.
#include "kernel/base/filtered.hpp"
#include "vmm/config/nearest.hpp"
#include "vmm/console/commands.hpp"

namespace bulkhead {
namespace {

void help_all(Sink& out) {
    for (const CommandGroup& group : command_groups()) {
        print(out, "{}:\n", group.title);
        for (const Command& command : group.commands) {
            print(out, "  {:12} {}\n", command.name, command.summary);
        }
    }
    out.write("help COMMAND tells more. A VM is given by its name or id; Tab completes.\n");
}

void help(CommandContext& context) {
    if (context.arguments.empty()) return help_all(context.out);
    const std::string_view name = context.arguments[0];
    const Command* command = find_command(name);
    if (command != nullptr) {
        print(context.out, "usage: {}\n{}example: {}\n", command->usage, command->help, command->example);
        return;
    }
    Nearest nearest(name);
    for (const CommandGroup& group : command_groups()) {
        for (const Command& each : group.commands) nearest.consider(each.name);
    }
    FixedString<200> text;
    print(text, "unknown command \"{}\"", Filtered(name));
    if (!nearest.word().empty()) print(text, "; did you mean {}?", nearest.word());
    context.fail(text);
}

void dmesg_json(CommandContext& context) {
    JsonWriter writer(context.out);
    LogEntry entry;
    writer.begin_array();
    for (u64 next = 0; context.management.read_log(next, entry); next = entry.sequence + 1) {
        writer.begin_object();
        writer.seconds("seconds", entry.microseconds * 1000);
        writer.text("level", name_of(entry.level));
        writer.text("text", entry.text);
        writer.end_object();
    }
    writer.end_array();
    context.out.write("\n");
}

void dmesg(CommandContext& context) {
    if (context.json) return dmesg_json(context);
    LogEntry entry;
    for (u64 next = 0; context.management.read_log(next, entry); next = entry.sequence + 1) {
        print(context.out, "[{:>5}.{:06}] ", entry.microseconds / 1'000'000, entry.microseconds % 1'000'000);
        if (entry.level != LogLevel::info) print(context.out, "{}: ", name_of(entry.level));
        print(context.out, "{}\n", Filtered(entry.text));
    }
}

void version(CommandContext& context) {
    const HostInfo host = context.management.host();
    if (context.json) {
        JsonWriter writer(context.out);
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
        JsonWriter writer(context.out);
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

void reboot(CommandContext& context) {
    if (const auto result = context.management.reboot(); !result) context.fail(result.error().text);
}

void poweroff(CommandContext& context) {
    if (const auto result = context.management.poweroff(); !result) context.fail(result.error().text);
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
     .usage = "dmesg [--json]",
     .summary = "shows the hypervisor's log",
     .help = "The last lines of the log, each with the seconds since boot; info lines go\n"
             "without their level.\n",
     .example = "dmesg",
     .run = dmesg,
     .options = {"--json"}},
    {.name = "clock",
     .usage = "clock [--json]",
     .summary = "shows the machine's clocks",
     .help = "The real-time clock as it is read now, and the time-stamp counter with its frequency.\n",
     .example = "clock",
     .run = clock,
     .options = {"--json"}},
    {.name = "version",
     .usage = "version [--json]",
     .summary = "tells what runs here, and on what",
     .help = "Bulkhead's version, the processor's extension in use, cores and memory.\n",
     .example = "version",
     .run = version,
     .options = {"--json"}},
    {.name = "reboot",
     .usage = "reboot",
     .summary = "restarts the physical machine",
     .help = "All VMs lose their power at once; shut them down first if they have to.\n",
     .example = "reboot",
     .run = reboot},
    {.name = "poweroff",
     .usage = "poweroff",
     .summary = "turns the physical machine off",
     .help = "All VMs lose their power at once; shut them down first if they have to.\n",
     .example = "poweroff",
     .run = poweroff},
};

}  // namespace

constinit const std::span<const Command> host_commands = rows;

}  // namespace bulkhead
