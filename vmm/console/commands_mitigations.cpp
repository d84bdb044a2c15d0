// The command that shows what is done against speculation.
#include "vmm/console/commands.hpp"

namespace bulkhead {
namespace {

template <class Visit>
void for_each_barrier_in_use(const Mitigations& mitigations, const Visit& visit) {
    for (usize i = 0; i < barrier_count; ++i) {
        const auto barrier = static_cast<Barrier>(i);
        if (mitigations.uses(barrier)) visit(barrier);
    }
}

void print_json(CommandContext& context, const HazardReports& hazards, const Mitigations& mitigations) {
    JsonWriter& writer = context.writer;
    writer.begin_object();
    writer.key("hazards");
    writer.begin_array();
    for (const HazardReport& report : hazards) {
        writer.begin_object();
        writer.text("hazard", report.hazard);
        writer.text("state", name_of(report.state));
        writer.text("measure", report.measure);
        writer.end_object();
    }
    writer.end_array();
    writer.number("host_spec_ctrl", mitigations.host_spec_ctrl);
    writer.number("guest_spec_ctrl", mitigations.guest_spec_ctrl);
    writer.boolean("automatic_ibrs", mitigations.automatic_ibrs);
    writer.key("cores");
    writer.begin_array();
    CoreSummary core;
    for (unsigned i = 0; context.management.core_summary(i, core); ++i) {
        writer.begin_object();
        writer.number("core", i);
        for_each_barrier_in_use(mitigations, [&](Barrier barrier) {
            writer.number(name_of(barrier), context.management.barriers_issued(i, barrier));
        });
        writer.end_object();
    }
    writer.end_array();
    writer.end_object();
    context.out.write("\n");
}

void mitigations(CommandContext& context) {
    const SpeculationFacts facts = context.management.speculation_facts();
    const HazardReports hazards = report_hazards(facts);
    const Mitigations decided = context.management.mitigations();
    if (context.json) return print_json(context, hazards, decided);
    print(context.out, "HAZARD                      STATE        MEASURE\n");
    for (const HazardReport& report : hazards) {
        print_column(context.out, report.hazard, 27);
        print_column(context.out, name_of(report.state), 12);
        print(context.out, "{}\n", report.measure);
    }
    print(context.out, "SPEC_CTRL {:#x} in the host, {:#x} in guests{}\n", decided.host_spec_ctrl,
          decided.guest_spec_ctrl, decided.automatic_ibrs ? "; automatic IBRS" : "");
    if (decided.barriers == 0) {
        context.out.write("the processor has no barriers that have to be issued\n");
        return;
    }
    CoreSummary core;
    for (unsigned i = 0; context.management.core_summary(i, core); ++i) {
        print(context.out, "core {}:", i);
        std::string_view comma = " ";
        for_each_barrier_in_use(decided, [&](Barrier barrier) {
            print(context.out, "{}{} {}", comma, name_of(barrier),
                  context.management.barriers_issued(i, barrier));
            comma = ", ";
        });
        context.out.write("\n");
    }
}

constexpr Command rows[] = {
    {.name = "mitigations",
     .usage = "mitigations",
     .summary = "shows what is done against attacks by speculation",
     .help = "Each known hazard of speculative execution, whether this processor has it, and what is\n"
             "done about it; then how often each core has issued each barrier.\n",
     .example = "mitigations",
     .run = mitigations},
};

}  // namespace

constinit const std::span<const Command> mitigation_commands = rows;

}  // namespace bulkhead
