// Commands that show where the time goes.
#include "kernel/base/filtered.hpp"
#include "vmm/console/commands.hpp"
#include "vmm/console/top.hpp"

namespace bulkhead {
namespace {

constexpr usize reason_count = static_cast<usize>(ExitReason::count);

// The reasons that occurred, most frequent first; equals in the order of the enumeration.
usize sort_reasons(const ExitStatistics& statistics, u8 (&order)[reason_count]) {
    usize used = 0;
    for (usize reason = 0; reason < reason_count; ++reason) {
        if (statistics.entries[reason].count == 0) continue;
        usize at = used++;
        for (; at > 0 && statistics.entries[order[at - 1]].count < statistics.entries[reason].count; --at) {
            order[at] = order[at - 1];
        }
        order[at] = static_cast<u8>(reason);
    }
    return used;
}

void write_host_caused(JsonWriter& writer, const ExitStatistics& statistics) {
    writer.key("host_caused");
    writer.begin_object();
    for (usize i = 0; i < std::size(statistics.host_caused); ++i)
        writer.number(name_of(static_cast<HostCause>(i)), statistics.host_caused[i]);
    writer.end_object();
}

void exits_json(CommandContext& context, const ExitStatistics& statistics, std::span<const u8> order) {
    JsonWriter& writer = context.writer;
    writer.begin_object();
    writer.text("name", context.vm.name);
    writer.number("total", statistics.total_count());
    writer.number("guest_cycles", statistics.guest_ticks);
    if (context.since != 0) writer.seconds("difference_seconds", context.since);
    write_host_caused(writer, statistics);
    writer.key("exits");
    writer.begin_array();
    for (const u8 reason : order) {
        const ExitStatistics::Entry& entry = statistics.entries[reason];
        writer.begin_object();
        writer.text("reason", name_of(static_cast<ExitReason>(reason)));
        writer.number("count", entry.count);
        writer.number("cycles", entry.ticks);
        writer.end_object();
    }
    writer.end_array();
    writer.end_object();
    context.out.write("\n");
}

void print_row(Sink& out, std::string_view name, u64 count, u64 total, u64 ticks) {
    const u64 share = permille(count, total);
    print(out, "{:26} {:>14} {:>5}.{} {:>12}\n", name, count, share / 10, share % 10,
          count == 0 ? 0 : ticks / count);
}

ExitBaseline& baseline_of(CommandMemory& memory, VmId vm) {
    for (ExitBaseline& each : memory.baselines) {
        if (each.used && each.vm == vm) return each;
    }
    ExitBaseline& fresh = memory.baselines[memory.next_baseline++ % std::size(memory.baselines)];
    fresh.used = false;
    fresh.vm = vm;
    return fresh;
}

// Makes `statistics` what came since `before`, and `before` what `statistics` were. A VM that was started
// anew meanwhile counts from zero.
void subtract(ExitStatistics& statistics, ExitStatistics& before) {
    bool restarted = statistics.guest_ticks < before.guest_ticks;
    for (usize i = 0; i < std::size(statistics.host_caused); ++i)
        restarted = restarted || statistics.host_caused[i] < before.host_caused[i];
    for (usize i = 0; i < reason_count; ++i)
        restarted = restarted || statistics.entries[i].count < before.entries[i].count;
    const auto exchange = [&](u64& now, u64& then) {
        const u64 all = now;
        if (!restarted) now -= now < then ? now : then;
        then = all;
    };
    exchange(statistics.guest_ticks, before.guest_ticks);
    for (usize i = 0; i < std::size(statistics.host_caused); ++i)
        exchange(statistics.host_caused[i], before.host_caused[i]);
    for (usize i = 0; i < reason_count; ++i) {
        exchange(statistics.entries[i].count, before.entries[i].count);
        exchange(statistics.entries[i].ticks, before.entries[i].ticks);
    }
}

u64 guest_time(CommandContext& context) {
    VmDetails details;
    return context.management.details(context.vm.id, details) ? details.uptime_nanoseconds : 0;
}

// Tenths of an exit a second.
u64 exit_rate(u64 count, u64 nanoseconds) {
    constexpr u64 tenths_of_second = 10'000'000'000;
    return nanoseconds == 0 ? 0 : scale(count, tenths_of_second, nanoseconds);
}

void write_record(JsonWriter& writer, const ExitRecord& record) {
    FixedString<48> bytes;
    for (usize i = 0; i < record.size; ++i) print(bytes, "{:02x}", record.bytes[i]);
    writer.begin_object();
    writer.number("vcpu", record.vcpu);
    writer.text("reason", name_of(record.reason));
    writer.number("code", record.code);
    FixedString<24> address;
    print(address, "{:#x}", record.address);
    writer.text("address", address);
    writer.text("bytes", bytes);
    writer.end_object();
}

void print_record(Sink& out, const ExitRecord& record) {
    print(out, "{:>4} {:26} {:016x} ", record.vcpu, name_of(record.reason), record.address);
    for (usize i = 0; i < record.size; ++i) print(out, " {:02x}", record.bytes[i]);
    out.write("\n");
}

// What a VM's exits cost it now: how many a second of each reason, and the instructions behind the last ones.
// since: the guest's time at the first call.
void budget(CommandContext& context) {
    constexpr u64 watched = 1'000'000'000;
    CommandMemory& memory = context.memory;
    Sink& out = context.out;
    ExitStatistics& statistics = memory.exits;
    statistics = {};
    if (!context.management.exit_statistics(context.vm.id, statistics))
        return context.fail("the VM has no exits: it is off");
    if (context.calls == 0) {
        memory.exits_before = statistics;
        context.since = guest_time(context);
        context.management.watch_exits(context.vm.id, watched);
        return context.again(context.management.nanoseconds() + watched);
    }
    subtract(statistics, memory.exits_before);
    const u64 now = guest_time(context);
    // It may have been started anew meanwhile.
    const u64 elapsed = now < context.since ? now : now - context.since;
    u8 order[reason_count];
    const usize used = sort_reasons(statistics, order);
    const usize count = context.management.recent_exits(context.vm.id, memory.last_exits);
    const u64 host_caused = statistics.total_host_caused();
    if (context.json) {
        JsonWriter& writer = context.writer;
        writer.begin_object();
        writer.text("name", context.vm.name);
        writer.seconds("watched_seconds", elapsed);
        writer.number("total", statistics.total_count());
        write_host_caused(writer, statistics);
        writer.key("rates");
        writer.begin_array();
        for (usize i = 0; i < used; ++i) {
            writer.begin_object();
            writer.text("reason", name_of(static_cast<ExitReason>(order[i])));
            writer.number("count", statistics.entries[order[i]].count);
            writer.tenths("per_second", exit_rate(statistics.entries[order[i]].count, elapsed));
            writer.end_object();
        }
        writer.end_array();
        writer.key("last");
        writer.begin_array();
        for (usize i = 0; i < count; ++i) write_record(writer, memory.last_exits[i]);
        writer.end_array();
        writer.end_object();
        return out.write("\n");
    }
    out.write("REASON                        A SECOND\n");
    for (usize i = 0; i < used; ++i) {
        print_column(out, name_of(static_cast<ExitReason>(order[i])), 26);
        print_right(out, Tenths{exit_rate(statistics.entries[order[i]].count, elapsed)}, 11);
        out.write("\n");
    }
    print_column(out, "all", 26);
    print_right(out, Tenths{exit_rate(statistics.total_count(), elapsed)}, 11);
    print(out, "\nin {} s of the guest's time; {} caused by the host\n", Seconds{elapsed}, host_caused);
    if (count == 0) return;
    out.write("VCPU THE LAST EXITS             ADDRESS           INSTRUCTION, AND WHAT FOLLOWS IT\n");
    for (usize i = 0; i < count; ++i) print_record(out, memory.last_exits[i]);
}

// since: with --diff, how long ago the last look was.
void exits(CommandContext& context) {
    if (!context.find_vm(context.arguments[0])) return;
    if (context.has_option("--budget")) return budget(context);
    ExitStatistics& statistics = context.memory.exits;
    statistics = {};
    if (!context.management.exit_statistics(context.vm.id, statistics))
        return context.fail("the VM has no exits: it is off");
    const u64 now = context.management.nanoseconds();
    ExitBaseline& baseline = baseline_of(context.memory, context.vm.id);
    const bool difference = context.has_option("--diff") && baseline.used;
    if (difference) {
        context.since = now - baseline.nanoseconds;
        subtract(statistics, baseline.statistics);
    } else {
        baseline.statistics = statistics;
    }
    baseline.used = true;
    baseline.nanoseconds = now;
    u8 order[reason_count];
    const usize used = sort_reasons(statistics, order);
    if (context.json) return exits_json(context, statistics, {order, used});
    const u64 total = statistics.total_count();
    u64 ticks = 0;
    context.out.write("REASON                              COUNT SHARE %  MEAN CYCLES\n");
    for (usize i = 0; i < used; ++i) {
        const ExitStatistics::Entry& entry = statistics.entries[order[i]];
        print_row(context.out, name_of(static_cast<ExitReason>(order[i])), entry.count, total, entry.ticks);
        ticks += entry.ticks;
    }
    print_row(context.out, "all", total, total, ticks);
    print(context.out, "caused by the host: {} (tick {}, kick {}, device {})\n",
          statistics.total_host_caused(), statistics.host_caused[0], statistics.host_caused[1],
          statistics.host_caused[2]);
    print(context.out, "in the guest: {} % of the cycles\n",
          Tenths{permille(statistics.guest_ticks, statistics.total_ticks())});
    if (difference) print(context.out, "in the last {} s\n", Seconds{context.since});
    if (context.has_option("--diff") && !difference)
        context.out.write(
            "(since its power-on; exits --diff from now on shows what came since the last call)\n");
}

// --- Memory and cores ---

// position: the VM that is next.
void mem(CommandContext& context) {
    Sink& out = context.out;
    JsonWriter& writer = context.writer;
    const usize width = name_width(context.management);
    if (context.calls == 0) {
        const MemorySummary memory = context.management.memory();
        if (context.json) {
            writer.begin_object();
            writer.number("total_bytes", memory.total_bytes);
            writer.number("free_bytes", memory.free_bytes);
            writer.number("largest_free_run_bytes", memory.largest_free_run_bytes);
            writer.number("hypervisor_bytes", memory.hypervisor_bytes);
            writer.key("vms");
            writer.begin_array();
        } else {
            print(out, "{} for VMs, {} of it free (largest run {}); {} for the hypervisor\n",
                  ByteSize{memory.total_bytes}, ByteSize{memory.free_bytes},
                  ByteSize{memory.largest_free_run_bytes}, ByteSize{memory.hypervisor_bytes});
            print_column(out, "NAME", width);
            out.write("     RAM OVERHEAD  OF IT USED RANGES OF MACHINE MEMORY\n");
        }
    }
    for (usize rows = 0; context.management.summary(context.position, context.vm); ++context.position) {
        VmMemorySummary vm;
        if (!context.management.vm_memory(context.vm.id, vm) || vm.ranges.empty()) continue;
        if (rows++ == 8) return context.again();
        if (context.json) {
            writer.begin_object();
            writer.text("vm", context.vm.name);
            writer.number("id", context.vm.id.raw());
            writer.number("ram_bytes", vm.ram_bytes);
            writer.number("overhead_bytes", vm.overhead_bytes);
            writer.number("overhead_used_bytes", vm.overhead_used_bytes);
            writer.key("ranges");
            writer.begin_array();
            for (const PhysicalRange& range : vm.ranges) {
                writer.begin_object();
                writer.printed("start", range.start);
                writer.number("bytes", range.length);
                writer.end_object();
            }
            writer.end_array();
            writer.end_object();
            continue;
        }
        print_column(out, context.vm.name, width);
        print_right(out, ByteSize{vm.ram_bytes}, 8);
        print_right(out, ByteSize{vm.overhead_bytes}, 9);
        print_right(out, ByteSize{vm.overhead_used_bytes}, 12);
        bool first = true;
        for (const PhysicalRange& range : vm.ranges) {
            if (!first) print_column(out, "", width + 29);
            print(out, " {:#x}-{:#x}\n", range.start.raw(), range.start.raw() + range.length - 1);
            first = false;
        }
    }
    if (!context.json) return;
    writer.end_array();
    writer.end_object();
    out.write("\n");
}

// position: the core that is next.
void cpus(CommandContext& context) {
    Sink& out = context.out;
    JsonWriter& writer = context.writer;
    if (context.calls == 0) {
        if (context.json) {
            writer.begin_array();
        } else {
            out.write(
                "CORE APIC ID STATE     VCPUS  BUSY %      BUSY S      IDLE S   INTERRUPTS        KICKS\n");
        }
    }
    CoreSummary core;
    for (usize rows = 0; context.management.core_summary(static_cast<unsigned>(context.position), core);
         ++rows) {
        if (rows == 16) return context.again();
        ++context.position;
        const u64 busy = permille(core.busy_nanoseconds, core.busy_nanoseconds + core.idle_nanoseconds);
        if (context.json) {
            writer.begin_object();
            writer.number("core", core.number);
            writer.number("apic_id", core.apic_id);
            writer.boolean("online", core.online);
            if (!core.online) writer.text("reason", core.reason);
            writer.boolean("dedicated", core.dedicated);
            writer.number("vcpus", core.vcpus);
            writer.seconds("busy_seconds", core.busy_nanoseconds);
            writer.seconds("idle_seconds", core.idle_nanoseconds);
            writer.number("interrupts", core.interrupts);
            writer.number("kicks", core.kicks);
            writer.end_object();
            continue;
        }
        print(out, "{:>4} {:>7} ", core.number, core.apic_id);
        if (!core.online) {
            print(out, "offline: {}\n", Filtered(core.reason));
            continue;
        }
        print(out, "{:9} {:>5} ", core.dedicated ? std::string_view("dedicated") : std::string_view("shared"),
              core.vcpus);
        print_right(out, Tenths{busy}, 7);
        print_right(out, Seconds{core.busy_nanoseconds}, 12);
        print_right(out, Seconds{core.idle_nanoseconds}, 12);
        print(out, " {:>12} {:>12}\n", core.interrupts, core.kicks);
    }
    if (!context.json) return;
    writer.end_array();
    out.write("\n");
}

constexpr Command rows[] = {
    {.name = "exits",
     .usage = "exits VM [--diff | --budget]",
     .summary = "counts a VM's exits by reason",
     .help = "How often each reason took the VM off the processor, its share of all exits, and\n"
             "how many cycles one took on average until the guest ran again. --diff: since the\n"
             "last call of exits for that VM.\n"
             "--budget: watches it for a second, and prints how many of each there are in a\n"
             "second of the guest's time, and of the last ones the instruction that caused them\n"
             "(or that was next).\n"
             "Caused by the host are those that the guest asked for neither by an instruction nor\n"
             "by a timer or interrupt of its own: ticks (its turn was over), kicks (by another\n"
             "core: a command, the scheduler), devices (of the machine).\n"
             "What a vCPU alone on its core sleeps in HLT counts as time in the guest.\n",
     .example = "exits web --budget",
     .run = exits,
     .arguments = {ArgumentKind::vm},
     .required = 1,
     .options = {"--diff", "--budget"}},
    {.name = "top",
     .usage = "top [SECONDS] [--once]",
     .summary = "shows live what cores and VMs are doing",
     .help = "Cores and VMs, the busiest first, drawn anew every SECONDS (2); any key ends it.\n"
             "100 % are one core. <=: a vCPU that has its core to itself sleeps there unseen, and\n"
             "that counts as used (sleep_counts). --once, and --json, watch for as long and print once.\n",
     .example = "top --once",
     .run = run_top,
     .arguments = {ArgumentKind::text},
     .options = {"--once"}},
    {.name = "mem",
     .usage = "mem",
     .summary = "shows who has the machine's memory",
     .help = "What VMs may have, what is free, and each VM's RAM, its overhead (tables, device\n"
             "models, rings) and ranges of machine memory, that of the overhead first.\n",
     .example = "mem",
     .run = mem},
    {.name = "cpus",
     .usage = "cpus",
     .summary = "shows the machine's cores",
     .help = "Each core's number, APIC id, whether one vCPU has it for itself (dedicated) or\n"
             "several share it, busy and idle seconds, interrupts, and kicks by other cores; or\n"
             "why it is offline.\n",
     .example = "cpus",
     .run = cpus},
};

}  // namespace

constinit const std::span<const Command> statistics_commands = rows;

}  // namespace bulkhead
