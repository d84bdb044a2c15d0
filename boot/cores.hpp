// The physical cores: starting them, and what one asks of another.
//
// A core that runs is always in one of three places: in a guest or halted, where a kick brings it back; or in
// host code with interrupts disabled, for a bounded time, at the end of which it looks at its requests. So
// whatever is asked of it happens soon, outside any guest, with interrupts disabled.
#pragma once

#include "boot/host.hpp"
#include "vmm/host_services.hpp"

namespace bulkhead {

// What the code a core runs looks like. It does not return.
using CoreMain = void (*)(unsigned core);

// Wakes every processor that ACPI lists and the options allow, all at once, and has each run `core_main` in
// the kernel's address space, with interrupts disabled, with its timer and virtualisation extension on. A
// core that does not answer within 100 ms, or whose set-up fails, is offline with its reason. One line in the
// log for each core. On core 0, once, after start_virtualization().
void start_cores(Host& host, CoreMain core_main);

// Cores have the numbers 0 .. core_count() - 1, those included that did not start; 0 booted.
[[nodiscard]] unsigned core_count();
[[nodiscard]] unsigned online_core_count();
[[nodiscard]] bool core_online(unsigned core);
[[nodiscard]] CoreInfo core_info(unsigned core);

// See HostServices. A core that does not take the kick's interrupt is sent an NMI after a while, which a
// guest cannot keep from it. (In Bochs, whose VT-x takes no interrupt as an exit while the guest has IF = 0,
// that is the only way to a guest that spins so.)
void kick_core(unsigned core);
[[nodiscard]] HostCause waiting_interrupt();
[[nodiscard]] Result<> run_on_core(unsigned core, CoreWork& work);

// Does what core 0 has asked of this core, if anything; true if it did something. Each core's loop calls it
// with interrupts disabled, before it enters a guest or halts, and again after every kick: what was asked for
// after the call is announced by an interrupt, which is still pending then.
bool serve_core_requests();

enum class CoreActivity : u8 {
    working,  // host code, which ends soon
    waiting,  // in a guest, or halted: only an interrupt brings it back
};
// The running core's sign of life, at each change.
void note_activity(CoreActivity activity);

// For core 0's loop, at any rate: sends an NMI to cores in a guest that leave a kick unanswered; names cores
// that have made no progress for a second in the log, once, and says when they go on; where they are, as an
// NMI finds them, comes a moment later. Nothing is asked of them meanwhile. A bit is set for each that has
// been silent for 5 seconds, once.
[[nodiscard]] u64 watch_cores(Logger& log);
// For the other cores' loops, at any rate: a panic if core 0 has made no progress for 20 seconds, once its
// loop has begun.
void watch_first_core();

struct CoreCounters {
    u64 kicks_sent = 0;    // to this core
    u64 kicks_merged = 0;  // not sent, as one was under way
    u64 kicks_taken = 0;
    u64 nmis_sent = 0;  // instead of kicks that it did not take
    u64 requests = 0;
};
[[nodiscard]] CoreCounters core_counters(unsigned core);

// For tests of what becomes of a core that does not start: cores with their bit set are sent no start-up
// interrupt. Before start_cores().
void leave_cores_asleep(u64 mask);

}  // namespace bulkhead
