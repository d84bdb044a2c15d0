#include "arch/x86/cpu/stacks.hpp"

namespace bulkhead {

// In .bss; the linker script keeps them at the start of it.
[[gnu::section(".bss..stacks")]] CpuStacks cpu_stacks[max_cpus];

std::optional<StackPlace> find_stack(u64 address) {
    const u64 base = reinterpret_cast<u64>(cpu_stacks);
    if (address < base || address - base >= sizeof(cpu_stacks)) return std::nullopt;

    struct Part {
        u64 offset;  // of the guard page
        u64 end;
        std::string_view name;
    };
    static constexpr Part parts[] = {
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
