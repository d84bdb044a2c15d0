#include "vmm/console/top.hpp"

#include <algorithm>

#include "kernel/base/filtered.hpp"

namespace bulkhead {
namespace {

constexpr u64 second = 1'000'000'000;
// A terminal of 24 rows, with one left for the cursor.
constexpr unsigned screen_rows = 23;
constexpr unsigned cores_in_a_row = 6;
constexpr unsigned max_core_rows = 8;

void take_sample(CommandContext& context, TopSample& sample) {
    Management& management = context.management;
    sample.nanoseconds = management.nanoseconds();
    sample.vm_count = 0;
    while (sample.vm_count < std::size(sample.vms) && management.summary(sample.vm_count, context.vm)) {
        TopSample::Vm& vm = sample.vms[sample.vm_count++];
        vm = {.id = context.vm.id, .cpu_nanoseconds = context.vm.cpu_nanoseconds, .exits = 0};
        ExitStatistics& exits = context.memory.exits;
        exits = {};
        if (management.exit_statistics(vm.id, exits)) vm.exits = exits.total_count();
    }
    CoreSummary core;
    for (unsigned i = 0; i < std::size(sample.busy_nanoseconds) && management.core_summary(i, core); ++i)
        sample.busy_nanoseconds[i] = core.busy_nanoseconds;
}

// What a VM did from one sample to the other. A counter that went back was set to zero in between.
struct Activity {
    u64 cpu = 0;
    u64 exits = 0;
};
Activity activity_of(const CommandMemory& memory, usize index) {
    const TopSample::Vm& now = memory.now.vms[index];
    for (usize i = 0; i < memory.before.vm_count; ++i) {
        const TopSample::Vm& before = memory.before.vms[i];
        if (before.id != now.id) continue;
        return {.cpu = now.cpu_nanoseconds -
                       (now.cpu_nanoseconds < before.cpu_nanoseconds ? 0 : before.cpu_nanoseconds),
                .exits = now.exits - (now.exits < before.exits ? 0 : before.exits)};
    }
    return {.cpu = now.cpu_nanoseconds, .exits = now.exits};
}

u64 busy_permille(const CommandMemory& memory, unsigned core, u64 elapsed) {
    const u64 now = memory.now.busy_nanoseconds[core], before = memory.before.busy_nanoseconds[core];
    return std::min<u64>(permille(now < before ? now : now - before, elapsed), 1000);
}

u64 rate(u64 count, u64 elapsed) {
    if (elapsed == 0) return 0;
    return count > ~u64{0} / second ? count / std::max<u64>(elapsed / second, 1) : count * second / elapsed;
}

// The VMs' places in the sample, the busiest first; equals in the order of the list.
usize sort_by_use(const CommandMemory& memory, u8 (&order)[Config::max_vms]) {
    static_assert(Config::max_vms <= 256);
    for (usize i = 0; i < memory.now.vm_count; ++i) {
        const u64 cpu = activity_of(memory, i).cpu;
        usize at = i;
        for (; at > 0 && activity_of(memory, order[at - 1]).cpu < cpu; --at) order[at] = order[at - 1];
        order[at] = static_cast<u8>(i);
    }
    return memory.now.vm_count;
}

// Lines of a drawing in place: each is cleared to its end.
class Drawing {
  public:
    Drawing(Sink& out, bool in_place) : out_(out), in_place_(in_place) {
        if (in_place_) out_.write("\x1b[H");
    }
    void end_line() {
        out_.write(in_place_ ? "\x1b[K\n" : "\n");
        ++lines;
    }
    void end() {
        if (in_place_) out_.write("\x1b[J");
    }
    unsigned lines = 0;

  private:
    Sink& out_;
    bool in_place_;
};

void draw_cores(CommandContext& context, Drawing& drawing, u64 elapsed) {
    CoreSummary core;
    unsigned number = 0;
    bool open = false;
    for (; context.management.core_summary(number, core); ++number) {
        if (context.whole_screen && number == cores_in_a_row * max_core_rows) break;
        if (number % cores_in_a_row == 0) {
            if (open) drawing.end_line();
            context.out.write(number == 0 ? "cores " : "      ");
            open = true;
        }
        print(context.out, "{:>3}: ", core.number);
        if (core.online) {
            print_right(context.out, Tenths{busy_permille(context.memory, number, elapsed)}, 5);
        } else {
            context.out.write("  off");
        }
        context.out.write("  ");
    }
    if (open) drawing.end_line();
}

void draw(CommandContext& context, u64 elapsed) {
    CommandMemory& memory = context.memory;
    Sink& out = context.out;
    Drawing drawing(out, context.whole_screen);
    const HostInfo host = context.management.host();
    const MemorySummary all = context.management.memory();
    print(out, "Bulkhead {}, {}, up {} s; {} VMs; memory {} free of {}", host.version, host.backend,
          memory.now.nanoseconds / second, memory.now.vm_count, ByteSize{all.free_bytes},
          ByteSize{all.total_bytes != 0 ? all.total_bytes : host.memory_bytes});
    drawing.end_line();
    draw_cores(context, drawing, elapsed);
    const usize width = name_width(context.management);
    print_column(out, "NAME", width);
    out.write("   ID  MEMORY VCPUS STATE             CPU %    TIME  EXITS/S");
    drawing.end_line();
    u8 order[Config::max_vms];
    const usize count = sort_by_use(memory, order);
    for (usize i = 0; i < count; ++i) {
        if (context.whole_screen && drawing.lines + 1 == screen_rows && i + 1 < count) {
            print(out, "... and {} more", count - i);
            drawing.end_line();
            break;
        }
        VmSummary& vm = context.vm;
        if (!context.management.summary(order[i], vm)) continue;
        const Activity activity = activity_of(memory, order[i]);
        print_column(out, vm.name, width);
        print(out, "{:>5} ", vm.id.raw());
        print_right(out, ByteSize{vm.memory_bytes}, 7);
        print(out, " {:>5} {} {:9}", vm.vcpus, flags_of(vm.state), name_of(vm.state));
        out.write(vm.sleep_counts ? "<=" : "  ");
        print_right(out, Tenths{permille(activity.cpu, elapsed)}, 5);
        print_right(out, Seconds{vm.cpu_nanoseconds}, 8);
        print(out, " {:>8}", rate(activity.exits, elapsed));
        drawing.end_line();
    }
    drawing.end();
}

void write_json(CommandContext& context, u64 elapsed) {
    CommandMemory& memory = context.memory;
    JsonWriter& writer = context.writer;
    writer.begin_object();
    writer.seconds("uptime_seconds", memory.now.nanoseconds);
    writer.seconds("watched_seconds", elapsed);
    writer.key("cores");
    writer.begin_array();
    CoreSummary core;
    for (unsigned i = 0;
         i < std::size(memory.now.busy_nanoseconds) && context.management.core_summary(i, core); ++i) {
        writer.begin_object();
        writer.number("core", core.number);
        writer.boolean("online", core.online);
        writer.tenths("busy_percent", busy_permille(memory, i, elapsed));
        writer.end_object();
    }
    writer.end_array();
    writer.key("vms");
    writer.begin_array();
    u8 order[Config::max_vms];
    const usize count = sort_by_use(memory, order);
    for (usize i = 0; i < count; ++i) {
        VmSummary& vm = context.vm;
        if (!context.management.summary(order[i], vm)) continue;
        const Activity activity = activity_of(memory, order[i]);
        writer.begin_object();
        writer.number("id", vm.id.raw());
        writer.text("vm", vm.name);
        writer.text("state", name_of(vm.state));
        writer.tenths("cpu_percent", permille(activity.cpu, elapsed));
        writer.boolean("sleep_counts", vm.sleep_counts);
        writer.seconds("cpu_seconds", vm.cpu_nanoseconds);
        writer.number("exits_per_second", rate(activity.exits, elapsed));
        writer.end_object();
    }
    writer.end_array();
    writer.end_object();
    context.out.write("\n");
}

}  // namespace

// position: the interval in nanoseconds.
void run_top(CommandContext& context) {
    CommandMemory& memory = context.memory;
    if (context.calls == 0) {
        context.position = 2;
        if (!context.arguments.empty() &&
            !context.number("the number of seconds", context.arguments[0], 1, 3600, context.position))
            return;
        context.position *= second;
        context.live = context.whole_screen = !context.json && !context.has_option("--once");
        take_sample(context, memory.before);
        if (context.live) {
            // Something to look at until the first interval is over: shares since the machine was started.
            context.out.write("\x1b[2J");
            memory.now = memory.before;
            memory.before.vm_count = 0;
            std::fill(std::begin(memory.before.busy_nanoseconds), std::end(memory.before.busy_nanoseconds),
                      0);
            draw(context, std::max<u64>(memory.now.nanoseconds, 1));
            memory.before = memory.now;
        }
        return context.again(memory.before.nanoseconds + context.position);
    }
    take_sample(context, memory.now);
    const u64 elapsed = std::max<u64>(memory.now.nanoseconds - memory.before.nanoseconds, 1);
    if (context.json) return write_json(context, elapsed);
    draw(context, elapsed);
    if (!context.live) return;
    memory.before = memory.now;
    context.again(memory.now.nanoseconds + context.position);
}

}  // namespace bulkhead
