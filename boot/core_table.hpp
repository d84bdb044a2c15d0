// What is kept of each core; shared by the start-up (core_start.cpp) and the running (cores.cpp).
#pragma once

#include <array>
#include <atomic>

#include "arch/x86/cpu/per_cpu.hpp"
#include "boot/cores.hpp"
#include "kernel/base/deferred.hpp"
#include "kernel/smp/core_mailbox.hpp"
#include "kernel/smp/core_plan.hpp"
#include "kernel/smp/core_start.hpp"
#include "kernel/smp/core_watch.hpp"

namespace bulkhead {

struct alignas(64) CoreEntry {
    u32 apic_id = 0;
    u32 acpi_id = 0;
    CoreStart start;

    // A kick is sent and not taken yet: another would say nothing new.
    std::atomic<bool> kick_pending{false};
    // Likewise an NMI that stands in for it.
    std::atomic<bool> nmi_pending{false};
    CoreMailbox<CoreWork> mailbox;
    std::atomic<u64> heartbeat{0};
    std::atomic<CoreActivity> activity{CoreActivity::working};
    CoreWatch watch;            // core 0's
    bool silent = false;        // likewise: nothing is asked of it
    bool where_wanted = false;  // likewise: an NMI is to tell where it is
    CoreWatch watch_of_first;   // its own, of core 0
    u64 next_watch_of_first = 0;
    bool kick_was_pending = false;  // core 0's: when it last looked

    std::atomic<u64> kicks_sent{0}, kicks_merged{0}, nmis_sent{0};
    u64 kicks_taken = 0, requests = 0;  // its own
};

// Apart, lest their initial values fill the image file.
struct CoreTexts {
    FixedString<120> reason;  // why it is offline
    Error set_up_error;       // written by the core itself, before its state says that it has failed
};

static_assert(CorePlan::max_cores == max_cpus);
extern CoreEntry core_table[max_cpus];
extern Deferred<std::array<CoreTexts, max_cpus>> core_texts;
extern u32 core_table_size;  // the last to be set
extern drivers::LocalApic* the_local_apic;

// The kick's interrupt handler, and what a panic asks of the table.
void begin_core_table(Host& host);

}  // namespace bulkhead
