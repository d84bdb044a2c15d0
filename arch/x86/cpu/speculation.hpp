// What vmm/mitigations.hpp decides, done on this machine.
#pragma once

#include "vmm/guest_switch.hpp"
#include "vmm/mitigations.hpp"

namespace bulkhead {

// Sets the running core's IA32_SPEC_CTRL and EFER. The first core to call it decides for all: before the
// other cores are started, with traps at work.
void start_mitigations_on_this_core();

[[nodiscard]] const SpeculationFacts& speculation_facts();
[[nodiscard]] const Mitigations& mitigations();

// Before a guest runs on this core.
void flush_for_guest(const GuestSwitch::Flush& flush);

// Of core `cpu` < max_cpus.
[[nodiscard]] u64 barrier_count_of(u32 cpu, Barrier barrier);

}  // namespace bulkhead
