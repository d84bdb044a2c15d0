// Commands that show VMs and change their state.
#include "kernel/base/filtered.hpp"
#include "vmm/console/commands.hpp"

namespace bulkhead {
namespace {

using Action = Result<> (Management::*)(VmId);

// Runs an action on the VM that the first argument names, and says what was done: "web: started".
void act(CommandContext& context, Action action, std::string_view done) {
    VmSummary vm;
    if (!context.find_vm(context.arguments[0], vm)) return;
    if (const auto result = (context.management.*action)(vm.id); !result) {
        context.fail(result.error().text);
    } else {
        print(context.out, "{}: {}\n", Filtered(vm.name), done);
    }
}

void write_summary(JsonWriter& writer, const VmSummary& vm) {
    writer.number("id", vm.id.raw());
    writer.text("name", vm.name);
    writer.text("state", name_of(vm.state));
    writer.text("flags", flags_of(vm.state));
    writer.number("vcpus", vm.vcpus);
    writer.number("memory_bytes", vm.memory_bytes);
    writer.seconds("cpu_seconds", vm.cpu_nanoseconds);
}

void list_json(CommandContext& context) {
    JsonWriter writer(context.out);
    VmSummary vm;
    writer.begin_array();
    const usize count = context.management.vm_count();
    for (usize i = 0; i < count && context.management.summary(i, vm); ++i) {
        writer.begin_object();
        write_summary(writer, vm);
        writer.end_object();
    }
    writer.end_array();
    context.out.write("\n");
}

void list(CommandContext& context) {
    if (context.json) return list_json(context);
    VmSummary vm;
    const usize count = context.management.vm_count();
    usize width = 12;
    for (usize i = 0; i < count && context.management.summary(i, vm); ++i) {
        if (vm.name.size() > width) width = vm.name.size();
    }
    print_column(context.out, "NAME", width);
    context.out.write("   ID  MEMORY VCPUS STATE               TIME\n");
    for (usize i = 0; i < count && context.management.summary(i, vm); ++i) {
        FixedString<24> memory;
        FixedString<24> time;
        print(memory, "{}", ByteSize{vm.memory_bytes});
        print(time, "{}", Seconds{vm.cpu_nanoseconds});
        print_column(context.out, vm.name, width);
        print(context.out, "{:>5} {:>7} {:>5} {} {:9} {:>7}\n", vm.id.raw(), memory.view(), vm.vcpus,
              flags_of(vm.state), name_of(vm.state), time.view());
    }
}

void info_json(CommandContext& context, const VmDetails& vm) {
    JsonWriter writer(context.out);
    writer.begin_object();
    write_summary(writer, vm.summary);
    writer.seconds("uptime_seconds", vm.uptime_nanoseconds);
    writer.number("resets", vm.resets);
    writer.text("reason", vm.reason);
    if (vm.config != nullptr) {
        const VmConfig& config = *vm.config;
        writer.printed("cpuset.cpus", config.cpus);
        writer.number("cpu.weight", config.cpu_weight);
        writer.key("cpu.max");
        if (config.cpu_limit.quota_us == CpuLimit::unlimited) {
            writer.text("max");
        } else {
            FixedString<48> limit;
            print(limit, "{} {}", config.cpu_limit.quota_us, config.cpu_limit.period_us);
            writer.text(limit);
        }
        writer.boolean("cpu.gang", config.gang);
        writer.text("kernel", config.kernel);
        writer.text("initrd", config.initrd);
        writer.text("cmdline", config.cmdline);
        writer.key("modules");
        writer.begin_array();
        for (usize i = 0; i < config.module_count(); ++i) writer.text(config.module(i));
        writer.end_array();
        writer.text("boot", name_of(config.boot));
        writer.text("console", name_of(config.console));
        writer.boolean("autostart", config.autostart);
        writer.text("on_reboot", name_of(config.on_reboot));
        writer.text("on_crash", name_of(config.on_crash));
    }
    writer.end_object();
    context.out.write("\n");
}

template <class T>
void line(Sink& out, std::string_view label, const T& value) {
    print(out, "{:12}", label);
    print(out, "{}\n", value);
}

void info_config(Sink& out, const VmConfig& config) {
    line(out, "kernel", Filtered(config.kernel));
    if (!config.initrd.empty()) line(out, "initrd", Filtered(config.initrd));
    if (!config.cmdline.empty()) line(out, "cmdline", Filtered(config.cmdline));
    for (usize i = 0; i < config.module_count(); ++i) line(out, "module", Filtered(config.module(i)));
    line(out, "boot", name_of(config.boot));
    if (!config.cpus.empty()) line(out, "cpuset.cpus", config.cpus);
    line(out, "cpu.weight", config.cpu_weight);
    if (config.cpu_limit.quota_us != CpuLimit::unlimited) {
        print(out, "cpu.max     {} us in {} us\n", config.cpu_limit.quota_us, config.cpu_limit.period_us);
    }
    if (config.gang) line(out, "cpu.gang", config.gang);
    if (config.console != ComPort::none) line(out, "console", name_of(config.console));
    line(out, "autostart", config.autostart);
    line(out, "on_reboot", name_of(config.on_reboot));
    line(out, "on_crash", name_of(config.on_crash));
}

void info(CommandContext& context) {
    VmDetails vm;
    if (!context.find_vm(context.arguments[0], vm.summary)) return;
    if (!context.management.details(vm.summary.id, vm)) return context.fail("the VM is gone");
    if (context.json) return info_json(context, vm);
    Sink& out = context.out;
    line(out, "name", Filtered(vm.summary.name));
    line(out, "id", vm.summary.id.raw());
    print(out, "state       {} ({})\n", name_of(vm.summary.state), flags_of(vm.summary.state));
    if (!vm.reason.empty()) line(out, "reason", Filtered(vm.reason));
    line(out, "vcpus", vm.summary.vcpus);
    line(out, "memory", ByteSize{vm.summary.memory_bytes});
    print(out, "cpu time    {} s\n", Seconds{vm.summary.cpu_nanoseconds});
    print(out, "uptime      {} s\n", Seconds{vm.uptime_nanoseconds});
    line(out, "resets", vm.resets);
    if (vm.config != nullptr) info_config(out, *vm.config);
}

void console(CommandContext& context) {
    VmSummary vm;
    if (!context.find_vm(context.arguments[0], vm)) return;
    if (context.management.console(vm.id) == nullptr) {
        return context.fail(
            "the VM has no console here; start it, or look at the port that its configuration names");
    }
    context.attach = vm.id;
}

constexpr Command rows[] = {
    {.name = "list",
     .usage = "list [--json]",
     .summary = "shows the VMs",
     .help = "One line for each VM: name, id, memory, vCPUs, state and the processor time used,\n"
             "in seconds. The state's letters are xl's: r running, b blocked (idle), p paused,\n"
             "s shut down, c crashed, d dying.\n",
     .example = "list --json",
     .run = list,
     .options = {"--json"}},
    {.name = "info",
     .usage = "info VM [--json]",
     .summary = "shows all about one VM",
     .help = "State, resources and configuration of one VM, given by name or id; for one that\n"
             "stopped by itself, the reason too.\n",
     .example = "info web",
     .run = info,
     .arguments = {ArgumentKind::vm},
     .required = 1,
     .options = {"--json"}},
    {.name = "console",
     .usage = "console VM",
     .summary = "attaches this terminal to a VM's serial port",
     .help = "First replays what the VM has sent lately, then passes everything on in both\n"
             "directions. The escape key (CTRL-] unless configured) leaves.\n",
     .example = "console web",
     .run = console,
     .arguments = {ArgumentKind::vm},
     .required = 1},
    {.name = "start",
     .usage = "start VM",
     .summary = "turns a VM on",
     .help = "Creates the VM from its configuration and the modules in memory and starts it.\n"
             "One that has stopped and was preserved starts afresh.\n",
     .example = "start web",
     .run = [](CommandContext& context) { act(context, &Management::start, "started"); },
     .arguments = {ArgumentKind::vm},
     .required = 1},
    {.name = "pause",
     .usage = "pause VM",
     .summary = "stops a VM's vCPUs; its memory stays",
     .help = "The VM gets no processor until unpause.\n",
     .example = "pause web",
     .run = [](CommandContext& context) { act(context, &Management::pause, "paused"); },
     .arguments = {ArgumentKind::vm},
     .required = 1},
    {.name = "unpause",
     .usage = "unpause VM",
     .summary = "lets a paused VM go on",
     .help = "Ends the effect of pause.\n",
     .example = "unpause web",
     .run = [](CommandContext& context) { act(context, &Management::unpause, "unpaused"); },
     .arguments = {ArgumentKind::vm},
     .required = 1},
    {.name = "reset",
     .usage = "reset VM",
     .summary = "presses a VM's reset button",
     .help = "The guest is not asked: what it has not written to a disk is lost. The VM starts\n"
             "anew from the kernel in memory.\n",
     .example = "reset web",
     .run = [](CommandContext& context) { act(context, &Management::reset, "reset"); },
     .arguments = {ArgumentKind::vm},
     .required = 1},
    {.name = "shutdown",
     .usage = "shutdown VM",
     .summary = "asks a VM's guest to turn itself off",
     .help = "Presses the ACPI power button. What the guest makes of it is its own affair;\n"
             "destroy does not ask.\n",
     .example = "shutdown web",
     .run = [](CommandContext& context) { act(context, &Management::shutdown, "asked to shut down"); },
     .arguments = {ArgumentKind::vm},
     .required = 1},
    {.name = "destroy",
     .usage = "destroy VM",
     .summary = "pulls a VM's plug",
     .help = "Ends the VM at once and frees all that it had. Its configuration stays: start\n"
             "makes it anew.\n",
     .example = "destroy web",
     .run = [](CommandContext& context) { act(context, &Management::destroy, "destroyed"); },
     .arguments = {ArgumentKind::vm},
     .required = 1},
};

}  // namespace

constinit const std::span<const Command> vm_commands = rows;

}  // namespace bulkhead
