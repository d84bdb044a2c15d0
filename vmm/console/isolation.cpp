#include "vmm/console/isolation.hpp"

#include <algorithm>

#include "vmm/console/answer_lines.hpp"

namespace bulkhead {
namespace {

// `since` counts what should not be.
void tables(CommandContext& context) {
    TableCheck check;
    if (context.json) {
        context.writer.begin_object();
        context.writer.key("leaks");
        context.writer.begin_array();
    }
    AnswerLines lines(context, "LEAK: ");
    const auto checked = context.management.check_tables(check, lines);
    context.since = check.leaks;
    if (!checked) {
        ++context.since;
        lines.write(checked.error().text);
        lines.write("\n");
    }
    if (context.json) {
        context.writer.end_array();
        context.writer.number("tables", check.tables);
        context.writer.number("mappings", check.mappings);
        context.writer.number("leak_count", check.leaks);
        context.writer.key("viewers");
        context.writer.begin_array();
        return;
    }
    print(context.out, "{} page tables with {} mappings: {} lead to memory of another VM\n", check.tables,
          check.mappings, check.leaks);
}

bool has_memory(const Management& management, VmId vm) {
    VmMemorySummary memory;
    return management.vm_memory(vm, memory) && !memory.ranges.empty();
}

// Everyone's memory, from where the viewer is; `viewer` null: in the kernel's address space.
void reach(CommandContext& context, const VmSummary* viewer) {
    const std::string_view name = viewer != nullptr ? viewer->name.view() : std::string_view("the kernel");
    ReachCheck total, check;
    FixedString<200> failure;
    VmSummary owner;
    for (usize i = 0; context.management.summary(i, owner) && failure.empty(); ++i) {
        if ((viewer != nullptr && owner.id == viewer->id) || !has_memory(context.management, owner.id))
            continue;
        const auto id = viewer != nullptr ? std::optional(viewer->id) : std::nullopt;
        const auto checked = context.management.check_reach(id, owner.id, check);
        total.cores = std::max(total.cores, check.cores);
        total.loads += check.loads;
        if (!checked) {
            failure.append(checked.error().text);
        } else if (check.reached) {
            print(failure, "on core {} it can read memory of {} at {}", check.core, owner.name,
                  check.address);
        }
    }
    if (!failure.empty()) ++context.since;
    if (context.json) {
        JsonWriter& writer = context.writer;
        writer.begin_object();
        writer.text("viewer", name);
        writer.number("cores", total.cores);
        writer.number("loads", total.loads);
        writer.boolean("isolated", failure.empty());
        if (!failure.empty()) writer.text("problem", failure);
        writer.end_object();
        return;
    }
    print(context.out, "{} on {} core(s): {} loads from VMs' memory that is not its own: ", Filtered(name),
          total.cores, total.loads);
    if (failure.empty()) {
        context.out.write("each page-faulted\n");
    } else {
        print(context.out, "NOT ISOLATED: {}\n", Filtered(failure));
    }
}

}  // namespace

// position: 1 + the VM that is next.
void check_isolation(CommandContext& context) {
    if (context.calls == 0) {
        tables(context);
        reach(context, nullptr);
        return context.again();
    }
    if (context.management.summary(context.position++, context.vm)) {
        if (has_memory(context.management, context.vm.id)) reach(context, &context.vm);
        return context.again();
    }
    const bool isolated = context.since == 0;
    if (!isolated) {
        context.failed = true;
        context.failure = "VMs are not isolated";
    }
    if (context.json) {
        context.writer.end_array();
        context.writer.boolean("isolated", isolated);
        context.writer.end_object();
        context.out.write("\n");
        return;
    }
    context.out.write(isolated ? std::string_view("isolated: no VM's memory is in reach of another\n")
                               : std::string_view("NOT ISOLATED\n"));
}

}  // namespace bulkhead
