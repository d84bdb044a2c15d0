#include "boot/cores.hpp"

#include "arch/x86/cpu/intrinsics.hpp"
#include "arch/x86/cpu/panic.hpp"
#include "arch/x86/cpu/traps.hpp"
#include "boot/core_table.hpp"
#include "drivers/vectors.hpp"

namespace bulkhead {

CoreEntry core_table[max_cpus];
Deferred<std::array<CoreTexts, max_cpus>> core_texts;
u32 core_table_size = 0;
drivers::LocalApic* the_local_apic = nullptr;

namespace {

u64 tsc_hz = 0;
u64 next_watch = 0;

void on_kick(void*) {
    CoreEntry& core = core_table[cpu_index()];
    ++core.kicks_taken;
    // First the flag: what is posted from here on sends a kick of its own; what was posted before is seen by
    // the look at the mailbox that follows every interrupt.
    core.kick_pending.store(false, std::memory_order_seq_cst);
    the_local_apic->end_of_interrupt();
}

void freeze_other_cores() {
    for (u32 i = 0; i < core_table_size; ++i) {
        if (i != cpu_index() && core_table[i].start.online())
            (void)the_local_apic->send_nmi(core_table[i].apic_id);
    }
}

}  // namespace

void begin_core_table(Host& host) {
    core_texts.emplace();
    the_local_apic = &host.local_apic;
    tsc_hz = host.tsc.hz;
    set_interrupt_handler(host_vector::reschedule, on_kick, nullptr);
    panic_settings.core_runs = [](u32 cpu) { return core_online(cpu); };
    panic_settings.freeze_others = freeze_other_cores;
}

unsigned core_count() {
    return core_table_size;
}

unsigned online_core_count() {
    unsigned count = 0;
    for (u32 i = 0; i < core_table_size; ++i) count += core_table[i].start.online() ? 1 : 0;
    return count;
}

bool core_online(unsigned core) {
    return core < core_table_size && core_table[core].start.online();
}

CoreInfo core_info(unsigned core) {
    if (core >= core_table_size)
        return {.apic_id = 0, .online = false, .reason = "the machine has no such core"};
    const CoreEntry& entry = core_table[core];
    return {.apic_id = entry.apic_id, .online = entry.start.online(), .reason = (*core_texts)[core].reason};
}

void kick_core(unsigned core) {
    // This core, too: the interrupt stays pending and ends the turn of the vCPU that runs here, which may be
    // waiting for the one that was woken.
    if (!core_online(core)) return;
    CoreEntry& entry = core_table[core];
    // An exchange and not a load: it orders what the caller wrote before what the core reads when it takes
    // the interrupt, whoever sent that.
    if (entry.kick_pending.exchange(true, std::memory_order_seq_cst)) {
        entry.kicks_merged.fetch_add(1, std::memory_order_relaxed);
        return;
    }
    entry.kicks_sent.fetch_add(1, std::memory_order_relaxed);
    if (!the_local_apic->send(entry.apic_id, host_vector::reschedule))
        entry.kick_pending.store(false, std::memory_order_seq_cst);
}

Result<> run_on_core(unsigned core, CoreWork& work) {
    if (core == cpu_index()) {
        work.run();
        return {};
    }
    if (!core_online(core)) return fail("core {} is offline: {}", core, core_info(core).reason);
    CoreEntry& entry = core_table[core];
    if (!entry.mailbox.post(work)) return fail("core {} is at work on another request", core);
    const u64 start = cpu::read_tsc_ordered();
    for (;;) {
        kick_core(core);
        for (unsigned i = 0; i < 1000; ++i) {
            if (entry.mailbox.take_result()) return {};
            cpu::pause();
        }
        // What has begun ends: only the core's answer is waited for with a limit.
        if (cpu::read_tsc_ordered() - start > tsc_hz && entry.mailbox.withdraw())
            return fail("HV-E043: core {} does not answer within a second", core);
    }
}

bool serve_core_requests() {
    CoreEntry& core = core_table[cpu_index()];
    if (!core.mailbox.serve()) return false;
    ++core.requests;
    return true;
}

void note_activity(CoreActivity activity) {
    CoreEntry& core = core_table[cpu_index()];
    // The activity last: who sees the core at work sees that it has just begun.
    core.heartbeat.store(core.heartbeat.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    core.activity.store(activity, std::memory_order_release);
}

void watch_cores(Logger& log) {
    const u64 now = cpu::read_tsc();
    if (now < next_watch) return;
    next_watch = now + tsc_hz / 10;
    for (u32 i = 0; i < core_table_size; ++i) {
        CoreEntry& core = core_table[i];
        if (i == cpu_index() || !core.start.online()) continue;
        const bool working = core.activity.load(std::memory_order_acquire) == CoreActivity::working;
        const CoreSign sign{.heartbeat = core.heartbeat.load(std::memory_order_relaxed),
                            .accountable = working || core.kick_pending.load(std::memory_order_relaxed)};
        switch (core.watch.look(now, sign, tsc_hz)) {
            case CoreWatch::Verdict::fine: break;
            case CoreWatch::Verdict::silent:
                log.error("HV-E043: core {} (APIC ID {}) has been silent for a second {}", i, core.apic_id,
                          working ? "in the hypervisor" : "though it was sent an interrupt");
                break;
            case CoreWatch::Verdict::recovered: log.warning("core {} goes on", i); break;
        }
    }
}

CoreCounters core_counters(unsigned core) {
    if (core >= core_table_size) return {};
    const CoreEntry& entry = core_table[core];
    return {.kicks_sent = entry.kicks_sent.load(std::memory_order_relaxed),
            .kicks_merged = entry.kicks_merged.load(std::memory_order_relaxed),
            .kicks_taken = entry.kicks_taken,
            .requests = entry.requests};
}

}  // namespace bulkhead
