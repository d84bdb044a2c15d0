#include "boot/cores.hpp"

#include "arch/x86/cpu/intrinsics.hpp"
#include "arch/x86/cpu/panic.hpp"
#include "arch/x86/cpu/traps.hpp"
#include "boot/core_table.hpp"
#include "drivers/vectors.hpp"
#include "kernel/log/log_lines.hpp"

namespace bulkhead {

CoreEntry core_table[max_cpus];
Deferred<std::array<CoreTexts, max_cpus>> core_texts;
u32 core_table_size = 0;
drivers::LocalApic* the_local_apic = nullptr;

namespace {

// What is silent when it is looked at falls silent up to a look before, and is told up to a look late: so it
// is within a second.
constexpr u64 looks_per_second = 10;
// Silent for so long, a core is given up, and the VMs on it; core 0, which may clear gigabytes meanwhile, has
// more time.
constexpr u64 lost_seconds = 5, first_core_seconds = 20;

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

// An NMI ends the guest's turn like any interrupt: it exits, whatever the guest's IF, interrupt shadow and
// its own NMIs block. One that comes while the core is in host code is in vain. So whoever wants something
// sends the next when that one was taken and nothing came of it.
bool on_nmi() {
    CoreEntry& core = core_table[cpu_index()];
    return core.nmi_pending.exchange(false, std::memory_order_seq_cst);
}

// At most one is under way: two could be taken one after the other, and the second would be nobody's.
void kick_by_nmi(CoreEntry& entry) {
    if (entry.nmi_pending.exchange(true, std::memory_order_seq_cst)) return;
    entry.nmis_sent.fetch_add(1, std::memory_order_relaxed);
    if (!the_local_apic->send_nmi(entry.apic_id)) entry.nmi_pending.store(false, std::memory_order_seq_cst);
}

// How long a kick is waited for before an NMI is sent, in parts of a second.
constexpr u64 nmi_parts = 100;

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
    set_nmi_handler(on_nmi);
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
    return {.apic_id = entry.apic_id,
            .online = entry.start.online(),
            .reason = (*core_texts)[core].reason,
            .interrupts = trap_counters(core).interrupts,
            .kicks = entry.kicks_taken};
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

HostCause waiting_interrupt() {
    if (core_table[cpu_index()].kick_pending.load(std::memory_order_relaxed)) return HostCause::kick;
    return the_local_apic->requested(host_vector::timer) ? HostCause::tick : HostCause::device;
}

Result<> run_on_core(unsigned core, CoreWork& work) {
    if (core == cpu_index()) {
        work.run();
        return {};
    }
    if (!core_online(core)) return fail("core {} is offline: {}", core, core_info(core).reason);
    CoreEntry& entry = core_table[core];
    if (entry.silent) return fail("HV-E043: core {} is silent", core);
    if (!entry.mailbox.post(work)) return fail("core {} is at work on another request", core);
    const u64 start = cpu::read_tsc_ordered();
    u64 next_nmi = start + tsc_hz / nmi_parts;
    for (;;) {
        kick_core(core);
        for (unsigned i = 0; i < 1000; ++i) {
            if (entry.mailbox.take_result()) return {};
            cpu::pause();
        }
        const u64 now = cpu::read_tsc_ordered();
        if (now >= next_nmi && entry.activity.load(std::memory_order_relaxed) == CoreActivity::waiting) {
            kick_by_nmi(entry);
            next_nmi = now + tsc_hz / nmi_parts;
        }
        // What has begun ends: only the core's answer is waited for with a limit.
        if (now - start > tsc_hz && entry.mailbox.withdraw())
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

namespace {

// The NMI that was sent when it fell silent has been taken long ago, or is not taken at all.
void tell_where(u32 number, const CoreEntry& core, Logger& log) {
    const NmiPlace place = nmi_place(number);
    if (core.nmi_pending.load(std::memory_order_acquire) || place.rip == 0) {
        log.error("HV-E043: core {} takes no NMI, either", number);
        return;
    }
    log.error("HV-E043: core {} is at:", number);
    LogLines lines(log, LogLevel::error, "HV-E043:");
    print_backtrace(lines, place.rip, place.rbp);
}

}  // namespace

u64 watch_cores(Logger& log) {
    const u64 now = cpu::read_tsc();
    if (now < next_watch) return 0;
    next_watch = now + tsc_hz / looks_per_second;
    u64 lost = 0;
    for (u32 i = 0; i < core_table_size; ++i) {
        CoreEntry& core = core_table[i];
        if (i == cpu_index() || !core.start.online()) continue;
        const bool working = core.activity.load(std::memory_order_acquire) == CoreActivity::working;
        const bool kicked = core.kick_pending.load(std::memory_order_relaxed);
        // Since the last look: what takes its interrupts has taken it long ago.
        if (kicked && core.kick_was_pending && !working) kick_by_nmi(core);
        core.kick_was_pending = kicked;
        const CoreSign sign{.heartbeat = core.heartbeat.load(std::memory_order_relaxed),
                            .accountable = working || kicked};
        if (core.where_wanted) {
            core.where_wanted = false;
            tell_where(i, core, log);
        }
        switch (core.watch.look(now, sign, tsc_hz - 2 * tsc_hz / looks_per_second, lost_seconds * tsc_hz)) {
            case CoreWatch::Verdict::fine: break;
            case CoreWatch::Verdict::silent:
                log.error("HV-E043: core {} (APIC ID {}) has been silent for a second {}", i, core.apic_id,
                          working ? "in the hypervisor" : "though it was sent an interrupt");
                core.silent = core.where_wanted = true;
                kick_by_nmi(core);
                break;
            case CoreWatch::Verdict::lost: lost |= bit(i); break;
            case CoreWatch::Verdict::recovered:
                core.silent = core.where_wanted = false;
                log.warning("core {} goes on", i);
                break;
        }
    }
    return lost;
}

void watch_first_core() {
    CoreEntry& here = core_table[cpu_index()];
    const u64 now = cpu::read_tsc();
    if (now < here.next_watch_of_first) return;
    here.next_watch_of_first = now + tsc_hz / looks_per_second;
    const u64 heartbeat = core_table[0].heartbeat.load(std::memory_order_relaxed);
    // It always has its timer armed, so it is always accountable once its loop has begun.
    const CoreSign sign{.heartbeat = heartbeat, .accountable = heartbeat != 0};
    if (here.watch_of_first.look(now, sign, first_core_seconds * tsc_hz) == CoreWatch::Verdict::silent)
        panic("HV-E048: core 0 has made no progress for {} seconds; report this", first_core_seconds);
}

CoreCounters core_counters(unsigned core) {
    if (core >= core_table_size) return {};
    const CoreEntry& entry = core_table[core];
    return {.kicks_sent = entry.kicks_sent.load(std::memory_order_relaxed),
            .kicks_merged = entry.kicks_merged.load(std::memory_order_relaxed),
            .kicks_taken = entry.kicks_taken,
            .nmis_sent = entry.nmis_sent.load(std::memory_order_relaxed),
            .requests = entry.requests};
}

}  // namespace bulkhead
