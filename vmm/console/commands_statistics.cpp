// Commands that show where the time goes.
#include <utility>

#include "vmm/console/commands.hpp"

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

void exits_json(CommandContext& context, const ExitStatistics& statistics, std::span<const u8> order,
                std::string_view name) {
    JsonWriter writer(context.out);
    writer.begin_object();
    writer.text("name", name);
    writer.number("total", statistics.total_count());
    writer.number("guest_cycles", statistics.guest_ticks);
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

// Tenths of a percent, rounded down. Of huge numbers the low digits do not matter.
u64 permille(u64 part, u64 whole) {
    if (whole == 0) return 0;
    constexpr u64 huge = ~u64{0} / 1000;
    return part <= huge ? part * 1000 / whole : part / (whole / 1000);
}

void print_row(Sink& out, std::string_view name, u64 count, u64 total, u64 ticks) {
    const u64 share = permille(count, total);
    print(out, "{:26} {:>14} {:>5}.{} {:>12}\n", name, count, share / 10, share % 10,
          count == 0 ? 0 : ticks / count);
}

void exits(CommandContext& context) {
    VmSummary vm;
    if (!context.find_vm(context.arguments[0], vm)) return;
    ExitStatistics statistics;
    if (!context.management.exit_statistics(vm.id, statistics))
        return context.fail("the VM has no exits: it is off");
    u8 order[reason_count];
    const usize used = sort_reasons(statistics, order);
    if (context.json) return exits_json(context, statistics, {order, used}, vm.name);
    const u64 total = statistics.total_count();
    u64 ticks = 0;
    context.out.write("REASON                              COUNT SHARE %  MEAN CYCLES\n");
    for (usize i = 0; i < used; ++i) {
        const ExitStatistics::Entry& entry = statistics.entries[order[i]];
        print_row(context.out, name_of(static_cast<ExitReason>(order[i])), entry.count, total, entry.ticks);
        ticks += entry.ticks;
    }
    print_row(context.out, "all", total, total, ticks);
    const u64 in_guest = permille(statistics.guest_ticks, statistics.total_ticks());
    print(context.out, "in the guest: {}.{} % of the cycles\n", in_guest / 10, in_guest % 10);
}

constexpr Command rows[] = {
    {.name = "exits",
     .usage = "exits VM [--json]",
     .summary = "counts a VM's exits by reason",
     .help = "How often each reason took the VM off the processor, its share of all exits, and\n"
             "how many cycles one took on average until the guest ran again.\n",
     .example = "exits web",
     .run = exits,
     .arguments = {ArgumentKind::vm},
     .required = 1,
     .options = {"--json"}},
};

}  // namespace

constinit const std::span<const Command> statistics_commands = rows;

}  // namespace bulkhead
