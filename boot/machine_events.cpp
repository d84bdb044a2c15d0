#include "boot/machine_events.hpp"

#include "arch/x86/cpu/intrinsics.hpp"
#include "arch/x86/cpu/machine_check.hpp"
#include "arch/x86/cpu/per_cpu.hpp"
#include "boot/cores.hpp"
#include "drivers/vectors.hpp"

namespace bulkhead {
namespace {

struct Seen {
    u64 unexpected = 0, spurious = 0, nmis = 0;
    u8 last_unexpected = 0;
};

Seen seen;
bool begun = false;
u64 next_look = 0;

[[nodiscard]] Seen count_all() {
    Seen sum;
    for (unsigned core = 0; core < core_count(); ++core) {
        const TrapCounters counters = trap_counters(core);
        sum.unexpected += counters.unexpected_interrupts;
        sum.spurious += counters.spurious_interrupts;
        sum.nmis += counters.unclaimed_nmis;
        if (counters.unexpected_interrupts != 0) sum.last_unexpected = counters.last_unexpected;
    }
    return sum;
}

void tell_interrupts(Logger& log) {
    const Seen now = count_all();
    if (begun && now.unexpected != seen.unexpected)
        log.warning("HV-E028: {} unexpected interrupt(s), the last of vector {:#x}; report this machine",
                    now.unexpected - seen.unexpected, now.last_unexpected);
    if (begun && now.spurious != seen.spurious)
        log.info("{} spurious interrupt(s) of a local APIC", now.spurious - seen.spurious);
    if (begun && now.nmis != seen.nmis)
        log.warning("HV-E029: {} NMI(s) of unknown reason; the machine may have a hardware error",
                    now.nmis - seen.nmis);
    // What came while the interrupt controllers were being started is of no interest.
    seen = now;
    begun = true;
}

}  // namespace

void watch_machine(Host& host) {
    const u64 now = cpu::read_tsc();
    if (now < next_look) return;
    next_look = now + host.tsc.hz;
    tell_interrupts(host.log);
    if (const CorrectedErrors errors = poll_corrected_errors(); errors.count != 0)
        host.log.warning(
            "HV-E014: {} corrected machine check(s), the last in bank {} with status {:#x}; have the "
            "machine examined if that goes on",
            errors.count, errors.bank, errors.status);
}

}  // namespace bulkhead
