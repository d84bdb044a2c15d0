// Every core's stacks: one to run on, and three that the IST puts under the exceptions which may strike when
// the stack in use cannot be trusted. Below each lies a page that is never mapped. Each has a shadow stack
// (control_flow.hpp), whether the processor uses it or not.
#pragma once

#include <optional>
#include <string_view>

#include "arch/x86/cpu/per_cpu.hpp"
#include "kernel/base/types.hpp"

namespace bulkhead {

// Numbers of the entries in the interrupt stack table; 0 means "stay on the stack in use".
enum : u8 { ist_none = 0, ist_double_fault = 1, ist_nmi = 2, ist_machine_check = 3 };
constexpr unsigned ist_count = 3;

struct alignas(page_size) CpuStacks {
    u8 guard_shadow[page_size];
    u8 shadow[page_size];
    u8 shadow_of_ists[page_size];  // in three parts, with no hole between: scripts/stack_use.py says they fit
    u8 guard_double_fault[page_size];
    u8 double_fault[page_size];
    u8 guard_nmi[page_size];
    u8 nmi[page_size];
    u8 guard_machine_check[page_size];
    u8 machine_check[page_size];
    u8 guard_main[page_size];
    u8 main[4 * page_size];

    // The highest quadword of a shadow stack, where its token lies. 8 bytes a call, 24 an interrupt, which no
    // cache line divides.
    [[nodiscard]] u64 shadow_top() const { return reinterpret_cast<u64>(shadow) + sizeof(shadow) - 8; }
    [[nodiscard]] u64 shadow_top_of_ist(unsigned ist) const {
        constexpr u64 part = page_size / ist_count & ~u64{31};
        return reinterpret_cast<u64>(shadow_of_ists) + ist * part - 8;
    }
};
static_assert(sizeof(CpuStacks) == 56 * kib, "core_entry.asm finds a core's stack by this size");

extern "C" CpuStacks cpu_stacks[max_cpus];

// Core 0 manages and serves the console, which goes deeper: its main stack is this one. How deep either goes,
// scripts/stack_use.py computes; no more than half of each is used.
struct alignas(page_size) FirstStack {
    u8 guard[page_size];
    u8 main[10 * page_size];
};
static_assert(sizeof(FirstStack) == 44 * kib, "linker.ld places its end by this size");

extern "C" FirstStack first_stack;

// The end of the main stack of core `cpu`, where it begins.
[[nodiscard]] u64 main_stack_top(u32 cpu);

// What lies at an address among the stacks.
struct StackPlace {
    u32 cpu = 0;
    std::string_view name;  // "shadow", "main", "double fault", "NMI", "machine check"
    bool guard = false;     // in the guard page below that stack
    u64 top = 0;
};
[[nodiscard]] std::optional<StackPlace> find_stack(u64 address);

// Offsets in CpuStacks of the guard pages, for whoever maps the stacks.
constexpr u64 stack_guard_offsets[] = {
    offsetof(CpuStacks, guard_shadow), offsetof(CpuStacks, guard_double_fault),
    offsetof(CpuStacks, guard_nmi), offsetof(CpuStacks, guard_machine_check),
    offsetof(CpuStacks, guard_main)};

}  // namespace bulkhead
