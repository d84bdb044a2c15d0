#include "arch/x86/cpu/stacks.hpp"

namespace bulkhead {

// In .bss; the linker script keeps them at the start of it.
[[gnu::section(".bss..stacks")]] CpuStacks cpu_stacks[max_cpus];
[[gnu::section(".bss..stacks.first")]] FirstStack first_stack;

u64 main_stack_top(u32 cpu) {
    if (cpu == 0) return reinterpret_cast<u64>(first_stack.main) + sizeof(first_stack.main);
    return reinterpret_cast<u64>(cpu_stacks[cpu].main) + sizeof(cpu_stacks[cpu].main);
}

std::optional<StackPlace> find_stack(u64 address) {
    if (const u64 first = reinterpret_cast<u64>(&first_stack); address - first < sizeof(FirstStack)) {
        return StackPlace{.cpu = 0,
                          .name = "main",
                          .guard = address - first < sizeof(first_stack.guard),
                          .top = main_stack_top(0)};
    }
    const u64 base = reinterpret_cast<u64>(cpu_stacks);
    if (address < base || address - base >= sizeof(cpu_stacks)) return std::nullopt;

    struct Part {
        u64 offset;  // of the guard page
        u64 end;
        std::string_view name;
    };
    static constexpr Part parts[] = {
        {offsetof(CpuStacks, guard_shadow), offsetof(CpuStacks, guard_double_fault), "shadow"},
        {offsetof(CpuStacks, guard_double_fault), offsetof(CpuStacks, guard_nmi), "double fault"},
        {offsetof(CpuStacks, guard_nmi), offsetof(CpuStacks, guard_machine_check), "NMI"},
        {offsetof(CpuStacks, guard_machine_check), offsetof(CpuStacks, guard_main), "machine check"},
        {offsetof(CpuStacks, guard_main), sizeof(CpuStacks), "main"},
    };
    const u64 cpu = (address - base) / sizeof(CpuStacks);
    const u64 offset = (address - base) % sizeof(CpuStacks);
    for (const Part& part : parts) {
        if (offset < part.end) {
            return StackPlace{.cpu = static_cast<u32>(cpu),
                              .name = part.name,
                              .guard = offset - part.offset < page_size,
                              .top = base + cpu * sizeof(CpuStacks) + part.end};
        }
    }
    return std::nullopt;
}

}  // namespace bulkhead
