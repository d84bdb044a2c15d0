// Waking the other cores: INIT, start-up, and each core's own way from there to its work.
// Intel SDM Vol. 3A, 9.4.4 and 11.4.4 (June 2023 edition).

#include <cstring>

#include "arch/x86/cpu/control_flow.hpp"
#include "arch/x86/cpu/control_registers.hpp"
#include "arch/x86/cpu/descriptor_tables.hpp"
#include "arch/x86/cpu/intrinsics.hpp"
#include "arch/x86/cpu/memory_types.hpp"
#include "arch/x86/cpu/panic.hpp"
#include "arch/x86/cpu/speculation.hpp"
#include "arch/x86/cpu/stacks.hpp"
#include "boot/backends.hpp"
#include "boot/core_table.hpp"
#include "boot/cores.hpp"
#include "boot/kernel_space.hpp"
#include "drivers/vectors.hpp"
#include "kernel/base/deferred.hpp"

namespace bulkhead {

// core_entry.asm has both as numbers.
static_assert(max_cpus == 64 && sizeof(CpuStacks) == 56 * kib);

// By which a core finds its number in core_entry.asm.
extern "C" u32 core_apic_ids[max_cpus];
u32 core_apic_ids[max_cpus];

namespace {

extern "C" const u8 core_trampoline[], core_trampoline_end[];

Deferred<CorePlan> plan;
CoreMain main_function = nullptr;
u64 asleep = 0;

void wait_microseconds(u64 tsc_hz, u64 count) {
    const u64 start = cpu::read_tsc_ordered();
    const u64 ticks = scale(count, tsc_hz, 1'000'000);
    while (cpu::read_tsc_ordered() - start < ticks) cpu::pause();
}

void refuse_core(u32 number, std::string_view reason) {
    (*core_texts)[number].reason = reason;
    core_table[number].start.settle(false);
}

// The start-up code at its place in low memory; the page's number for the start-up interrupt.
[[nodiscard]] Result<u8> place_trampoline(Host& host) {
    const auto page = find_startup_page(host.boot.memory, host.boot.modules);
    if (!page)
        return fail("HV-E044: no free page below 640 KiB for the code that starts cores; one core only");
    PhysicalWindow window(0);
    const auto memory = window.open(*page, page_size);
    if (!memory)
        return fail("HV-E044: the page at {} for starting cores cannot be written; one core only", *page);
    std::memcpy(memory->data(), core_trampoline, static_cast<usize>(core_trampoline_end - core_trampoline));
    window.close();
    return static_cast<u8>(page->raw() / page_size);
}

template <class Function>
void for_each_called(Function function) {
    for (u32 i = 1; i < core_table_size; ++i) {
        if (core_table[i].start.state() == CoreStart::State::called) function(i, core_table[i]);
    }
}

[[nodiscard]] bool any_in(CoreStart::State state) {
    for (u32 i = 1; i < core_table_size; ++i) {
        if (core_table[i].start.state() == state) return true;
    }
    return false;
}

void wait_while_any_in(CoreStart::State state, u64 tsc_hz, u64 milliseconds) {
    const u64 start = cpu::read_tsc_ordered();
    const u64 ticks = scale(milliseconds, tsc_hz, 1000);
    while (any_in(state) && cpu::read_tsc_ordered() - start < ticks) cpu::pause();
}

void wake_called_cores(Host& host, u8 page) {
    drivers::LocalApic& apic = host.local_apic;
    const auto wanted = [](u32 number) { return (asleep & bit(number)) == 0; };
    for_each_called([&](u32 i, const CoreEntry& core) {
        if (wanted(i)) (void)apic.send_init(core.apic_id);
    });
    wait_microseconds(host.tsc.hz, 10'000);
    // The second one is for what lost the first; a core that runs takes none.
    for (unsigned round = 0; round < 2; ++round) {
        for_each_called([&](u32 i, const CoreEntry& core) {
            if (wanted(i)) (void)apic.send_startup(core.apic_id, page);
        });
        wait_microseconds(host.tsc.hz, 200);
    }
    constexpr u64 answer_milliseconds = 100, set_up_milliseconds = 1000;
    wait_while_any_in(CoreStart::State::called, host.tsc.hz, answer_milliseconds);
    for (u32 i = 1; i < core_table_size; ++i) {
        CoreEntry& core = core_table[i];
        if (core.start.state() != CoreStart::State::called || !core.start.give_up()) continue;
        (*core_texts)[i].reason = "HV-E040: no answer within 100 ms";
    }
    wait_while_any_in(CoreStart::State::answered, host.tsc.hz, set_up_milliseconds);
    for (u32 i = 1; i < core_table_size; ++i) {
        CoreEntry& core = core_table[i];
        if (core.start.state() != CoreStart::State::answered || !core.start.give_up()) continue;
        (*core_texts)[i].reason = "HV-E041: its set-up takes longer than a second";
    }
}

// Each core that is online must take an interrupt and do what it is asked to.
void call_on_cores() {
    class Nothing final : public CoreWork {
        void run() override {}
    };
    for (u32 i = 1; i < core_table_size; ++i) {
        if (!core_table[i].start.online()) continue;
        Nothing nothing;
        if (run_on_core(i, nothing)) continue;
        refuse_core(i, "HV-E047: it takes no interrupts");
    }
}

[[nodiscard]] Result<> set_up_this_core() {
    if (auto r = configure_core(); !r) return r;
    start_mitigations_on_this_core();
    enter_kernel_table();
    (void)adopt_memory_types();
    if (auto r = the_local_apic->enable_on_this_core(); !r) return r;
    the_local_apic->enable_timer(host_vector::timer);
    return start_virtualization_on_this_core();
}

// Here each core arrives from core_entry.asm, on its own stack, on the entry code's page tables.
extern "C" [[noreturn, gnu::used]] void core_entered(u32 number) {
    load_descriptor_tables(number);
    CoreEntry& core = core_table[number];
    if (!core.start.answer()) cpu::stop();  // too late
    core_data(number).apic_id = core.apic_id;
    core_data(number).acpi_id = core.acpi_id;
    const auto done = set_up_this_core();
    if (!done) (*core_texts)[number].set_up_error = done.error();
    if (!core.start.finish(done.has_value()) || !done) cpu::stop();
    enter_shadow_stack();
    main_function(number);
    panic("HV-E010: the main function of core {} has returned", number);
}

}  // namespace

void leave_cores_asleep(u64 mask) {
    asleep = mask;
}

void start_cores(Host& host, CoreMain core_main) {
    main_function = core_main;
    begin_core_table(host);
    record_memory_types();
    plan_cores(host.acpi.processors, host.local_apic.id(), host.local_apic.x2apic(), host.options.max_cpus,
               plan.emplace());
    core_table_size = static_cast<u32>(plan->cores.size());
    for (u32& id : core_apic_ids) id = ~u32{0};
    for (u32 i = 0; i < core_table_size; ++i) {
        core_table[i].apic_id = plan->cores[i].apic_id;
        core_table[i].acpi_id = plan->cores[i].acpi_id;
    }
    core_table[0].start.settle(true);
    if (plan->left_out + host.acpi.processors_left_out != 0) {
        host.log.warning("HV-E042: the machine has {} more processors than the {} that can be used",
                         plan->left_out + host.acpi.processors_left_out, CorePlan::max_cores);
    }

    Result<u8> page = core_table_size > 1 ? place_trampoline(host) : Result<u8>(u8{0});
    if (!page) host.log.error("{}", page.error().text);
    for (u32 i = 1; i < core_table_size; ++i) {
        if (!plan->cores[i].refusal.empty()) {
            refuse_core(i, plan->cores[i].refusal);
        } else if (!page) {
            refuse_core(i, page.error().text.view());
        } else if (auto prepared = prepare_virtualization_of(i); !prepared) {
            refuse_core(i, prepared.error().text.view());
        } else {
            core_apic_ids[i] = core_table[i].apic_id;
            core_table[i].start.call();
        }
    }
    if (page && any_in(CoreStart::State::called)) wake_called_cores(host, *page);
    call_on_cores();

    for (u32 i = 0; i < core_table_size; ++i) {
        const CoreEntry& core = core_table[i];
        CoreTexts& texts = (*core_texts)[i];
        if (core.start.state() == CoreStart::State::failed) texts.reason = texts.set_up_error.text.view();
        if (core.start.online()) {
            host.log.info("core {}: APIC ID {}, online", i, core.apic_id);
        } else if (plan->cores[i].refusal.empty()) {
            host.log.error("core {}: APIC ID {}, offline: {}", i, core.apic_id, texts.reason);
        } else {
            host.log.info("core {}: APIC ID {}, offline: {}", i, core.apic_id, texts.reason);
        }
    }
}

}  // namespace bulkhead
