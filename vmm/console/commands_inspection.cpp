// Commands that look into VMs: vCPUs, registers, memory.
#include <algorithm>

#include "kernel/base/filtered.hpp"
#include "vmm/console/commands.hpp"
#include "vmm/console/number.hpp"

namespace bulkhead {
namespace {

constexpr usize rows_a_call = 16;
constexpr unsigned max_vcpu = 255;

// position: the VM in the list; end: the vCPU that is next.
void vcpu_list(CommandContext& context) {
    Sink& out = context.out;
    const bool one = !context.arguments.empty();
    const usize width = name_width(context.management);
    if (context.calls == 0) {
        if (one && !context.find_vm(context.arguments[0])) return;
        if (context.json) {
            context.writer.begin_array();
        } else {
            print_column(out, "NAME", width);
            out.write("   ID VCPU CORE STATE               TIME        EXITS AFFINITY\n");
        }
    }
    usize rows = 0;
    for (; one ? context.position == 0 && context.refresh_vm()
               : context.management.summary(context.position, context.vm);
         ++context.position, context.end = 0) {
        const VmSummary& vm = context.vm;
        VcpuSummary vcpu;
        for (; context.management.vcpu_summary(vm.id, static_cast<unsigned>(context.end), vcpu);
             ++context.end) {
            if (rows++ == rows_a_call) return context.again();
            if (context.json) {
                JsonWriter& writer = context.writer;
                writer.begin_object();
                writer.text("vm", vm.name);
                writer.number("id", vm.id.raw());
                writer.number("vcpu", vcpu.number);
                writer.text("state", name_of(vcpu.state));
                writer.key("core");
                if (vcpu.core == VcpuSummary::no_core) {
                    writer.null();
                } else {
                    writer.number(vcpu.core);
                }
                writer.printed("affinity", vcpu.affinity);
                writer.seconds("cpu_seconds", vcpu.cpu_nanoseconds);
                writer.number("exits", vcpu.exits);
                writer.end_object();
                continue;
            }
            print_column(out, vm.name, width);
            print(out, "{:>5} {:>4} ", vm.id.raw(), vcpu.number);
            if (vcpu.core == VcpuSummary::no_core) {
                out.write("   -");
            } else {
                print(out, "{:>4}", vcpu.core);
            }
            print(out, " {:16} ", name_of(vcpu.state));
            print_right(out, Seconds{vcpu.cpu_nanoseconds}, 7);
            print(out, " {:>12} {}\n", vcpu.exits, vcpu.affinity);
        }
    }
    if (!context.json) return;
    context.writer.end_array();
    out.write("\n");
}

void vcpu_pin(CommandContext& context) {
    if (!context.find_vm(context.arguments[0])) return;
    const bool all = context.arguments[1] == "all";
    u64 vcpu = 0;
    if (!all && !context.number("vCPU", context.arguments[1], 0, max_vcpu, vcpu)) return;
    CpuSet cores;
    if (context.arguments[2] == "all") {
        CoreSummary core;
        for (unsigned i = 0; context.management.core_summary(i, core); ++i) {
            if (core.online) cores.add(i);
        }
    } else {
        const auto parsed = parse_cpu_list(context.arguments[2]);
        if (!parsed) return context.fail(parsed.error());
        cores = *parsed;
    }
    VcpuSummary summary;
    do {
        if (all && !context.management.vcpu_summary(context.vm.id, static_cast<unsigned>(vcpu), summary))
            break;
        const auto pinned = context.management.pin_vcpu(context.vm.id, static_cast<unsigned>(vcpu), cores);
        if (!pinned) return context.fail(pinned.error());
    } while (all && ++vcpu <= max_vcpu);
    FixedString<160> text;
    if (all) {
        if (vcpu == 0) return context.fail("the VM has no vCPUs: it is off");
        text.append("all vCPUs run");
    } else {
        print(text, "vCPU {} runs", vcpu);
    }
    print(text, " on {}", cores);
    context.done(text);
}

// --- Registers ---

constexpr std::string_view gpr_names[] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                          "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
constexpr std::string_view segment_names[] = {"es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr"};

struct SpecialRegister {
    std::string_view name;
    u64 VcpuRegisters::*value;
};
constexpr SpecialRegister special_registers[] = {
    {"rip", &VcpuRegisters::rip}, {"rflags", &VcpuRegisters::rflags}, {"efer", &VcpuRegisters::efer},
    {"cr0", &VcpuRegisters::cr0}, {"cr2", &VcpuRegisters::cr2},       {"cr3", &VcpuRegisters::cr3},
    {"cr4", &VcpuRegisters::cr4}, {"cr8", &VcpuRegisters::cr8},       {"xcr0", &VcpuRegisters::xcr0},
    {"dr6", &VcpuRegisters::dr6}, {"dr7", &VcpuRegisters::dr7},
};
constexpr std::string_view debug_names[] = {"dr0", "dr1", "dr2", "dr3"};

// Calls visit(name, value) for each register of 64 bits.
template <class Visitor>
void for_each_register(const VcpuRegisters& registers, const Visitor& visit) {
    for (usize i = 0; i < std::size(gpr_names); ++i) visit(gpr_names[i], registers.gprs[i]);
    for (const SpecialRegister& each : special_registers) visit(each.name, registers.*each.value);
    for (usize i = 0; i < std::size(debug_names); ++i) visit(debug_names[i], registers.debug[i]);
}

void write_table(JsonWriter& writer, std::string_view name, const DescriptorTable& table) {
    writer.key(name);
    writer.begin_object();
    writer.printed("base", Hex{table.base});
    writer.number("limit", table.limit);
    writer.end_object();
}

void registers_json(CommandContext& context, const VcpuRegisters& registers, u64 vcpu) {
    JsonWriter& writer = context.writer;
    writer.begin_object();
    writer.text("vm", context.vm.name);
    writer.number("vcpu", vcpu);
    writer.text("last_exit", registers.last_exit);
    writer.printed("last_code", Hex{registers.last_code});
    for_each_register(registers, [&](std::string_view name, u64 value) { writer.printed(name, Hex{value}); });
    writer.key("segments");
    writer.begin_object();
    for (usize i = 0; i < std::size(segment_names); ++i) {
        const Segment& segment = registers.segments[i];
        writer.key(segment_names[i]);
        writer.begin_object();
        writer.number("selector", segment.selector);
        writer.printed("base", Hex{segment.base});
        writer.number("limit", segment.limit);
        writer.number("access", segment.access);
        writer.boolean("usable", !segment.unusable);
        writer.end_object();
    }
    writer.end_object();
    write_table(writer, "gdtr", registers.gdtr);
    write_table(writer, "idtr", registers.idtr);
    writer.end_object();
    context.out.write("\n");
}

void regs(CommandContext& context) {
    if (!context.find_vm(context.arguments[0])) return;
    u64 vcpu = 0;
    if (context.arguments.size() > 1 && !context.number("vCPU", context.arguments[1], 0, max_vcpu, vcpu))
        return;
    VcpuRegisters& registers = context.memory.registers;
    registers = {};
    if (auto read = context.management.registers(context.vm.id, static_cast<unsigned>(vcpu), registers);
        !read)
        return context.fail(read.error());
    if (context.json) return registers_json(context, registers, vcpu);
    Sink& out = context.out;
    print(out, "{} vCPU {}, last exit: {} (code {:#x})\n", Filtered(context.vm.name), vcpu,
          Filtered(registers.last_exit), registers.last_code);
    unsigned column = 0;
    for_each_register(registers, [&](std::string_view name, u64 value) {
        print(out, "{:6} {:016x}{}", name, value,
              ++column % 3 == 0 ? std::string_view("\n") : std::string_view("  "));
    });
    if (column % 3 != 0) out.write("\n");
    out.write("        sel              base    limit access\n");
    for (usize i = 0; i < std::size(segment_names); ++i) {
        const Segment& segment = registers.segments[i];
        print(out, "{:6} {:04x}  {:016x} {:08x}   {:04x}{}\n", segment_names[i], segment.selector,
              segment.base, segment.limit, segment.access,
              segment.unusable ? std::string_view(" unusable") : std::string_view());
    }
    print(out, "gdtr         {:016x}     {:04x}\n", registers.gdtr.base, registers.gdtr.limit);
    print(out, "idtr         {:016x}     {:04x}\n", registers.idtr.base, registers.idtr.limit);
}

// --- Memory ---

constexpr u64 max_dump = 64 * kib;
constexpr usize dump_chunk = 256;

// An address: a number, or the name of a register of 64 bits.
bool parse_address(CommandContext& context, u64 vcpu, u64& address) {
    const std::string_view word = context.arguments[1];
    if (const auto number = parse_number(word)) {
        address = *number;
        return true;
    }
    VcpuRegisters& registers = context.memory.registers;
    registers = {};
    bool known = false;
    for_each_register(registers, [&](std::string_view name, u64) { known = known || name == word; });
    if (!known) {
        FixedString<120> text;
        print(text, "\"{}\" is no address: give a number such as 0x1000, or a register such as rip",
              Filtered(word.substr(0, 40)));
        context.fail(text);
        return false;
    }
    if (auto read = context.management.registers(context.vm.id, static_cast<unsigned>(vcpu), registers);
        !read) {
        context.fail(read.error());
        return false;
    }
    for_each_register(registers, [&](std::string_view name, u64 value) {
        if (name == word) address = value;
    });
    return true;
}

// A row of at most 16 bytes, in units of `unit` bytes, which are little-endian.
void print_memory_row(Sink& out, u64 address, Bytes bytes, u64 unit) {
    print(out, "{:016x} ", address);
    for (usize i = 0; i < 16; i += unit) {
        if (unit > 1 || i % 4 == 0) out.write(" ");
        for (usize j = unit; j-- > 0;) {
            if (i + j < bytes.size()) {
                print(out, "{:02x}", bytes[i + j]);
            } else {
                out.write("  ");
            }
        }
    }
    out.write("  |");
    for (const u8 byte : bytes) {
        const char c = byte >= 0x20 && byte < 0x7F ? static_cast<char>(byte) : '.';
        out.write({&c, 1});
    }
    out.write("|\n");
}

// position: the address; end: how many bytes are left; since: the vCPU.
void examine(CommandContext& context) {
    u64 unit = 1;
    const bool physical = context.has_option("--physical");
    if (!context.option_number("--unit=", 1, 8, unit)) return;
    if ((unit & (unit - 1)) != 0) return context.fail("--unit is 1, 2, 4 or 8");
    if (context.calls == 0) {
        if (!context.find_vm(context.arguments[0])) return;
        if (!context.option_number("--vcpu=", 0, max_vcpu, context.since)) return;
        if (!parse_address(context, context.since, context.position)) return;
        u64 count = 64 / unit;
        if (context.arguments.size() > 2 &&
            !context.number("the count", context.arguments[2], 1, max_dump / unit, count))
            return;
        context.end = count * unit;
    }
    u8 bytes[dump_chunk];
    const u64 to_the_top = ~context.position;  // one less than there are up to 2^64
    const usize wanted = std::min<u64>(std::min<u64>(context.end, dump_chunk),
                                       to_the_top == ~u64{0} ? ~u64{0} : to_the_top + 1);
    const auto read = context.management.read_memory(
        context.vm.id, static_cast<unsigned>(context.since),
        physical ? Management::AddressKind::physical : Management::AddressKind::linear, context.position,
        {bytes, wanted});
    if (!read && context.calls == 0) return context.fail(read.error());
    const usize count = read ? std::min(*read, wanted) : 0;
    JsonWriter& writer = context.writer;
    if (context.json) {
        if (context.calls == 0) {
            writer.begin_object();
            writer.text("vm", context.vm.name);
            writer.number("vcpu", context.since);
            writer.text("kind", physical ? "physical" : "linear");
            writer.key("memory");
            writer.begin_array();
        }
        if (count > 0) {
            writer.begin_object();
            writer.printed("address", Hex{context.position});
            FixedString<2 * dump_chunk> text;
            for (usize i = 0; i < count; ++i) print(text, "{:02x}", bytes[i]);
            writer.text("bytes", text);
            writer.end_object();
        }
    } else {
        for (usize i = 0; i < count; i += 16) {
            print_memory_row(context.out, context.position + i, {bytes + i, std::min<usize>(16, count - i)},
                             unit);
        }
    }
    context.end -= count;
    const bool at_the_top = context.position + count < context.position || context.position + count == 0;
    context.position += count;
    if (context.end > 0 && count == wanted && count > 0 && !at_the_top) return context.again();
    if (context.json) {
        writer.end_array();
        writer.key("unreadable_from");
        if (context.end > 0) {
            writer.printed_value(Hex{context.position});
        } else {
            writer.null();
        }
        writer.end_object();
        context.out.write("\n");
    } else if (context.end > 0) {
        print(context.out, "{:016x}  {}\n", context.position,
              at_the_top ? std::string_view("here the addresses end")
                         : std::string_view("from here on nothing can be read"));
    }
}

constexpr Command rows[] = {
    {.name = "vcpu-list",
     .usage = "vcpu-list [VM]",
     .summary = "shows the vCPUs of one VM, or of all",
     .help = "Each vCPU's state, the core it runs on, processor time in seconds, exits, and the\n"
             "cores it may run on.\n",
     .example = "vcpu-list web",
     .run = vcpu_list,
     .arguments = {ArgumentKind::vm}},
    {.name = "vcpu-pin",
     .usage = "vcpu-pin VM VCPU CORES",
     .summary = "says on which cores a vCPU may run",
     .help = "VCPU is a number or all; CORES is a list such as 0-2,4, or all.\n",
     .example = "vcpu-pin web 1 2-3",
     .run = vcpu_pin,
     .arguments = {ArgumentKind::vm, ArgumentKind::text, ArgumentKind::text},
     .required = 3},
    {.name = "regs",
     .usage = "regs VM [VCPU]",
     .summary = "shows a vCPU's registers",
     .help = "As of its last exit; pause the VM for a consistent picture. VCPU is 0 unless given.\n",
     .example = "regs web 1",
     .run = regs,
     .arguments = {ArgumentKind::vm, ArgumentKind::text},
     .required = 1},
    {.name = "x",
     .usage = "x VM ADDRESS [COUNT] [--physical] [--vcpu N] [--unit N]",
     .summary = "examines a VM's memory",
     .help = "COUNT units (64 bytes unless given) of 1, 2, 4 or 8 bytes, little-endian. ADDRESS is\n"
             "a number or a register, such as rip; linear, as vCPU N (0) sees it through its page\n"
             "tables, or with --physical that of the VM's memory.\n",
     .example = "x web 0x1000 16 --unit 8",
     .run = examine,
     .arguments = {ArgumentKind::vm, ArgumentKind::text, ArgumentKind::text},
     .required = 2,
     .options = {"--physical", "--vcpu=", "--unit="}},
};

}  // namespace

constinit const std::span<const Command> inspection_commands = rows;

}  // namespace bulkhead
