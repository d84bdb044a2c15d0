#include "arch/x86/cpu/descriptor_tables.hpp"

#include "arch/x86/cpu/intrinsics.hpp"
#include "arch/x86/cpu/stacks.hpp"
#include "arch/x86/regs/msr.hpp"

extern "C" const bulkhead::u8 trap_stubs[];

namespace bulkhead {
namespace {

// A 64-bit TSS; only its stack pointers are used. The I/O map lies past the limit: ring 3 does not exist.
struct [[gnu::packed]] TaskState {
    u32 reserved0;
    u64 rsp[3];
    u64 reserved1;
    u64 ist[7];
    u64 reserved2;
    u16 reserved3;
    u16 io_map;
};
static_assert(sizeof(TaskState) == 104);

struct [[gnu::packed]] Gate {
    u16 offset_low;
    u16 selector;
    u8 ist;
    u8 type;
    u16 offset_middle;
    u32 offset_high;
    u32 reserved;
};
static_assert(sizeof(Gate) == 16);

constexpr u64 code_descriptor = 0x00AF'9B00'0000'FFFF;  // L, present, accessed, ring 0
constexpr u64 data_descriptor = 0x00CF'9300'0000'FFFF;
constexpr u8 interrupt_gate = 0x8E;
constexpr u8 available_tss = 0x89;

constexpr u16 first_tss_selector = 0x18;
constexpr u64 trap_stub_size = 16;

// Null, code, data, then two entries for each core's TSS.
alignas(64) u64 gdt[3 + 2 * max_cpus] = {0, code_descriptor, data_descriptor};
alignas(64) Gate idt[256];
PerCpu<TaskState> task_states;
PerCpu<CoreData> cores;

[[nodiscard]] u64 end_of(u8 (&stack)[page_size]) {
    return reinterpret_cast<u64>(stack) + page_size;
}

void fill_idt() {
    for (u32 vector = 0; vector < 256; ++vector) {
        const u64 handler = reinterpret_cast<u64>(trap_stubs) + vector * trap_stub_size;
        u8 ist = ist_none;
        if (vector == 2) ist = ist_nmi;
        if (vector == 8) ist = ist_double_fault;
        if (vector == 18) ist = ist_machine_check;
        idt[vector] = {.offset_low = static_cast<u16>(handler),
                       .selector = code_selector,
                       .ist = ist,
                       .type = interrupt_gate,
                       .offset_middle = static_cast<u16>(handler >> 16),
                       .offset_high = static_cast<u32>(handler >> 32),
                       .reserved = 0};
    }
}

void fill_task_state(u32 cpu) {
    TaskState& tss = task_states.of(cpu);
    CpuStacks& stacks = cpu_stacks[cpu];
    tss = {};
    tss.rsp[0] = main_stack_top(cpu);
    tss.ist[ist_double_fault - 1] = end_of(stacks.double_fault);
    tss.ist[ist_nmi - 1] = end_of(stacks.nmi);
    tss.ist[ist_machine_check - 1] = end_of(stacks.machine_check);
    tss.io_map = sizeof(TaskState);

    const u64 base = reinterpret_cast<u64>(&tss);
    u64& low = gdt[(first_tss_selector >> 3) + 2 * cpu];
    low = (sizeof(TaskState) - 1) | (base & 0xFF'FFFF) << 16 | u64{available_tss} << 40 |
          (base >> 24 & 0xFF) << 56;
    (&low)[1] = base >> 32;
}

}  // namespace

u16 tss_selector(u32 cpu) {
    return static_cast<u16>(first_tss_selector + 16 * cpu);
}
HostVirtual tss_address(u32 cpu) {
    return HostVirtual(reinterpret_cast<u64>(&task_states.of(cpu)));
}
HostVirtual gdt_address() {
    return HostVirtual(reinterpret_cast<u64>(gdt));
}
HostVirtual idt_address() {
    return HostVirtual(reinterpret_cast<u64>(idt));
}
HostVirtual core_data_address(u32 cpu) {
    return HostVirtual(reinterpret_cast<u64>(&cores.of(cpu)));
}
CoreData& core_data(u32 cpu) {
    return cores.of(cpu);
}

void load_descriptor_tables(u32 cpu) {
    if (cpu == 0) fill_idt();
    fill_task_state(cpu);

    cpu::load_gdt({sizeof(gdt) - 1, gdt_address().raw()});
    // CS by a far return; the data segments carry no meaning in 64-bit mode but must be loadable.
    asm volatile(
        "pushq %[code]\n\t"
        "leaq 1f(%%rip), %%rax\n\t"
        "pushq %%rax\n\t"
        "lretq\n\t"
        "1: movl %[data], %%ds\n\t"
        "movl %[data], %%es\n\t"
        "movl %[data], %%ss\n\t"
        "movl %[null], %%fs\n\t"
        "movl %[null], %%gs\n\t"
        :
        : [code] "i"(code_selector), [data] "r"(u32{data_selector}), [null] "r"(0)
        : "rax", "memory");
    cpu::load_ldt(0);
    cpu::load_task_register(tss_selector(cpu));
    cpu::load_idt({sizeof(idt) - 1, idt_address().raw()});

    CoreData& core = cores.of(cpu);
    core.self = &core;
    core.index = cpu;
    cpu::write_msr(msr::fs_base, 0);
    cpu::write_msr(msr::gs_base, core_data_address(cpu).raw());
    cpu::write_msr(msr::kernel_gs_base, 0);
}

}  // namespace bulkhead
