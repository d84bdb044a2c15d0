// What belongs to one core. GS points to the running core's CoreData; subsystems keep their own part in a
// PerCpu<T>, so that nobody has to know them all.
#pragma once

#include <cstddef>

#include "kernel/base/types.hpp"
#include "vmm/mitigations.hpp"

namespace bulkhead {

constexpr u32 max_cpus = 64;

// The public part. The assembly reads `index` at gs:8 and counts in `barriers` at gs:24.
struct CoreData {
    CoreData* self = nullptr;
    u32 index = 0;                     // 0: the core that booted; below max_cpus
    u32 apic_id = 0;                   // as in the local APIC: 8 bits in xAPIC mode, 32 in x2APIC mode
    u32 acpi_id = 0;                   // the processor's UID in the MADT
    u64 barriers[barrier_count] = {};  // how often each was issued here
};
static_assert(offsetof(CoreData, index) == 8 && offsetof(CoreData, barriers) == 24);

[[nodiscard]] inline u32 cpu_index() {
    u32 index;
    asm volatile("movl %%gs:8, %0" : "=r"(index));
    return index;
}

[[nodiscard]] inline CoreData& this_core() {
    CoreData* self;
    asm volatile("movq %%gs:0, %0" : "=r"(self));
    return *self;
}

// A T for each core, each on cache lines of its own. Only constant-initialised types: nothing runs before
// main.
template <class T>
class PerCpu {
  public:
    // Of the running core. The caller stays on it: nothing migrates code between cores.
    [[nodiscard]] T& operator*() { return slots_[cpu_index()].value; }
    [[nodiscard]] T* operator->() { return &slots_[cpu_index()].value; }
    // Of the core with index `index` < max_cpus.
    [[nodiscard]] T& of(u32 index) { return slots_[index].value; }

  private:
    struct alignas(64) Slot {
        T value{};
    };
    Slot slots_[max_cpus] = {};
};

}  // namespace bulkhead
