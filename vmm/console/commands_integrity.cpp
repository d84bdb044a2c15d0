// The command that shows whether the hypervisor is as it was.
#include "vmm/console/commands.hpp"

namespace bulkhead {
namespace {

void integrity(CommandContext& context) {
    const Integrity now = context.management.integrity();
    if (context.json) {
        JsonWriter& writer = context.writer;
        writer.begin_object();
        writer.number("text_checksum", now.text_checksum);
        writer.number("table_checksum", now.table_checksum);
        writer.number("free_pages", now.free_pages);
        writer.number("free_units", now.free_units);
        writer.end_object();
        context.out.write("\n");
        return;
    }
    print(context.out, "text and constants  {:016x}\n", now.text_checksum);
    print(context.out, "page tables         {:016x}\n", now.table_checksum);
    print(context.out, "free pages          {}\n", now.free_pages);
    print(context.out, "free 2 MiB units    {}\n", now.free_units);
}

constexpr Command rows[] = {
    {.name = "integrity",
     .usage = "integrity",
     .summary = "checksums of the hypervisor and what it has free",
     .help = "Checksums of the hypervisor's text and constants and of its page tables, and how much\n"
             "memory is free. The first never changes; the others are the same again once the\n"
             "same VMs are on.\n",
     .example = "integrity",
     .run = integrity},
};

}  // namespace

constinit const std::span<const Command> integrity_commands = rows;

}  // namespace bulkhead
