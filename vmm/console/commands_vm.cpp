// Commands that show VMs and change their state.
#include "kernel/base/filtered.hpp"
#include "vmm/console/answer_lines.hpp"
#include "vmm/console/commands.hpp"

namespace bulkhead {
namespace {

using Action = Result<> (Management::*)(VmId);

// Lists go on in a next call after so many rows.
constexpr usize rows_a_call = 16;

// Runs an action on the VM that the first argument names, and says what was done: "web: started".
void act(CommandContext& context, Action action, std::string_view done) {
    if (!context.find_vm(context.arguments[0])) return;
    if (const auto result = (context.management.*action)(context.vm.id); !result) {
        context.fail(result.error());
    } else {
        context.done(done);
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
    writer.boolean("sleep_counts", vm.sleep_counts);
}

// position: the VM that is next.
void list(CommandContext& context) {
    Sink& out = context.out;
    VmSummary& vm = context.vm;
    const usize width = name_width(context.management);
    if (context.calls == 0) {
        if (context.json) {
            context.writer.begin_array();
        } else {
            print_column(out, "NAME", width);
            out.write("   ID  MEMORY VCPUS STATE               TIME\n");
        }
    }
    for (usize rows = 0; context.management.summary(context.position, vm); ++rows, ++context.position) {
        if (rows == rows_a_call) return context.again();
        if (context.json) {
            context.writer.begin_object();
            write_summary(context.writer, vm);
            context.writer.end_object();
            continue;
        }
        print_column(out, vm.name, width);
        print(out, "{:>5} ", vm.id.raw());
        print_right(out, ByteSize{vm.memory_bytes}, 7);
        print(out, " {:>5} {} {:9} ", vm.vcpus, flags_of(vm.state), name_of(vm.state));
        print_right(out, Seconds{vm.cpu_nanoseconds}, 7);
        out.write("\n");
    }
    if (!context.json) return;
    context.writer.end_array();
    out.write("\n");
}

void write_config(JsonWriter& writer, const VmConfig& config) {
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

template <class T>
void line(Sink& out, std::string_view label, const T& value) {
    print(out, "{:12}", label);
    print(out, "{}\n", value);
}

void print_config(Sink& out, const VmConfig& config) {
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

struct Microseconds {
    u64 nanoseconds;
};
void format_value(Sink& sink, const Microseconds& time) {
    print(sink, "{}.{}", time.nanoseconds / 1000, time.nanoseconds / 100 % 10);
}

struct FaultRegister {
    std::string_view name;
    u64 VmFault::*value;
};
constexpr FaultRegister fault_registers[] = {
    {"rip", &VmFault::rip}, {"rsp", &VmFault::rsp}, {"rflags", &VmFault::rflags}, {"cr0", &VmFault::cr0},
    {"cr2", &VmFault::cr2}, {"cr3", &VmFault::cr3}, {"cr4", &VmFault::cr4},       {"efer", &VmFault::efer},
};

void write_fault(JsonWriter& writer, const VmFault& fault) {
    writer.key("last_fault");
    writer.begin_object();
    writer.text("what", fault.what);
    writer.number("vcpu", fault.vcpu);
    writer.seconds("uptime_seconds", fault.uptime_nanoseconds);
    writer.printed("cs", Hex{fault.cs});
    for (const FaultRegister& each : fault_registers) writer.printed(each.name, Hex{fault.*each.value});
    writer.end_object();
}

void print_fault(Sink& out, const VmFault& fault) {
    print(out, "last fault  {}\n            vCPU {}, {} s after power-on; cs {:#x}", Filtered(fault.what),
          fault.vcpu, Seconds{fault.uptime_nanoseconds}, fault.cs);
    for (usize i = 0; i < std::size(fault_registers); ++i) {
        const FaultRegister& each = fault_registers[i];
        print(out, "{}{} {:#x}", i % 4 == 2 ? std::string_view("\n            ") : std::string_view(" "),
              each.name, fault.*each.value);
    }
    out.write("\n");
}

void info(CommandContext& context) {
    if (!context.find_vm(context.arguments[0])) return;
    VmDetails vm;
    if (!context.management.details(context.vm.id, vm)) return context.fail("the VM is gone");
    GangSummary gang;
    const bool has_gang = context.management.gang_summary(context.vm.id, gang);
    Sink& out = context.out;
    if (context.json) {
        JsonWriter& writer = context.writer;
        writer.begin_object();
        write_summary(writer, vm.summary);
        writer.seconds("uptime_seconds", vm.uptime_nanoseconds);
        writer.number("resets", vm.resets);
        writer.text("reason", vm.reason);
        if (vm.fault) write_fault(writer, *vm.fault);
        if (has_gang) {
            writer.key("gang");
            writer.begin_object();
            writer.number("starts", gang.starts);
            writer.number("last_skew_nanoseconds", gang.last_nanoseconds);
            writer.number("mean_skew_nanoseconds", gang.mean_nanoseconds);
            writer.number("greatest_skew_nanoseconds", gang.greatest_nanoseconds);
            writer.end_object();
        }
        if (vm.config != nullptr) write_config(writer, *vm.config);
        writer.end_object();
        out.write("\n");
        return;
    }
    line(out, "name", Filtered(vm.summary.name));
    line(out, "id", vm.summary.id.raw());
    print(out, "state       {} ({})\n", name_of(vm.summary.state), flags_of(vm.summary.state));
    if (!vm.reason.empty()) line(out, "reason", Filtered(vm.reason));
    line(out, "vcpus", vm.summary.vcpus);
    line(out, "memory", ByteSize{vm.summary.memory_bytes});
    print(out, "cpu time    {} s\n", Seconds{vm.summary.cpu_nanoseconds});
    print(out, "uptime      {} s\n", Seconds{vm.uptime_nanoseconds});
    line(out, "resets", vm.resets);
    if (vm.fault) print_fault(out, *vm.fault);
    if (has_gang) {
        print(out, "gang skew   {} us last, {} us mean, {} us most, in {} starts\n",
              Microseconds{gang.last_nanoseconds}, Microseconds{gang.mean_nanoseconds},
              Microseconds{gang.greatest_nanoseconds}, gang.starts);
    }
    if (vm.config != nullptr) print_config(out, *vm.config);
}

void create(CommandContext& context) {
    CommandMemory& memory = context.memory;
    if (!context.arguments.empty()) {
        const auto size = context.management.read_module(context.arguments[0], memory.snippet);
        if (!size) return context.fail(size.error());
        memory.snippet_size = *size;
    } else if (context.calls == 0) {
        if (!context.json)
            context.out.write(
                "type a [vm.NAME] table as in the config file; a line with a single . ends it\n");
        context.wants_text = true;
        return;
    }
    if (memory.snippet_size > CommandMemory::max_snippet)
        return context.fail("the text is longer than 8 KiB");
    JsonWriter& writer = context.writer;
    AnswerLines problems(context);
    if (context.json) {
        writer.begin_object();
        writer.key("problems");
        writer.begin_array();
    }
    const auto created = context.management.create({memory.snippet, memory.snippet_size}, problems);
    if (!context.json) {
        if (!created) return context.fail(created.error());
        context.out.write("created\n");
        return;
    }
    writer.end_array();
    if (created) {
        writer.text("result", "created");
    } else {
        writer.text("error", created.error().text);
        context.failed = true;
        context.failure.append(created.error().text);
    }
    writer.end_object();
    context.out.write("\n");
}

void rename(CommandContext& context) {
    if (!context.find_vm(context.arguments[0])) return;
    const std::string_view name = context.arguments[1];
    if (auto valid = check_vm_name(name); !valid) return context.fail(valid.error());
    if (auto renamed = context.management.rename(context.vm.id, name); !renamed)
        return context.fail(renamed.error());
    FixedString<80> text;
    print(text, "renamed to {}", name);
    context.done(text);
}

void set(CommandContext& context) {
    if (!context.find_vm(context.arguments[0])) return;
    const std::string_view key = context.arguments[1];
    FixedString<CommandLine::max_length> value;
    for (usize i = 2; i < context.arguments.size(); ++i) {
        if (i > 2) value.append(" ");
        value.append(context.arguments[i]);
    }
    if (auto result = context.management.set(context.vm.id, key, value); !result)
        return context.fail(result.error());
    FixedString<120> text;
    print(text, "{} is now {}", Filtered(key), Filtered(value.view().substr(0, 80)));
    context.done(text);
}

constexpr Command rows[] = {
    {.name = "list",
     .usage = "list",
     .summary = "shows the VMs",
     .help = "One line for each VM: name, id, memory, vCPUs, state and the processor time used,\n"
             "in seconds. The state's letters are xl's: r running, b blocked (idle), p paused,\n"
             "s shut down, c crashed, d dying.\n",
     .example = "list",
     .run = list},
    {.name = "info",
     .usage = "info VM",
     .summary = "shows all about one VM",
     .help = "State, resources and configuration of one VM, given by name or id; for one that\n"
             "stopped by itself, the reason too.\n",
     .example = "info web",
     .run = info,
     .arguments = {ArgumentKind::vm},
     .required = 1},
    {.name = "create",
     .usage = "create [MODULE]",
     .summary = "makes a VM known, from a typed config or a module",
     .help = "Takes one [vm.NAME] table, as in bulkhead.toml: from the boot module of that name,\n"
             "or typed, up to a line with a single . (Ctrl-C drops it). The VM starts if its\n"
             "autostart says so. A VM of that name must be off; its definition is replaced.\n",
     .example = "create web.toml",
     .run = create,
     .arguments = {ArgumentKind::text}},
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
    {.name = "rename",
     .usage = "rename VM NAME",
     .summary = "gives a VM another name",
     .help = "At any time. A name has 1 to 31 of A-Z a-z 0-9 . _ - and is no number.\n",
     .example = "rename web web2",
     .run = rename,
     .arguments = {ArgumentKind::vm, ArgumentKind::text},
     .required = 2},
    {.name = "set",
     .usage = "set VM KEY VALUE",
     .summary = "changes a setting of a VM",
     .help = "Keys and values as in the config file. cpu.weight, cpu.max, cpu.gang, cpuset.cpus,\n"
             "on_reboot, on_crash and autostart can be changed at any time, the others while the\n"
             "VM is off. It holds until the machine is turned off.\n",
     .example = "set web cpu.max 50000 100000",
     .run = set,
     .arguments = {ArgumentKind::vm, ArgumentKind::key, ArgumentKind::rest},
     .required = 3},
};

}  // namespace

constinit const std::span<const Command> vm_commands = rows;

}  // namespace bulkhead
