// What the hypervisor itself keeps of a VM: what it was made from, what it holds of the machine, and its
// vCPUs as the cores' schedulers see them. Slots are mapped in every compartment; `machine`, `ring` and all
// behind them are in the VM's own.
#pragma once

#include <atomic>
#include <optional>

#include "kernel/log/line_budget.hpp"
#include "kernel/mem/compartment.hpp"
#include "kernel/mem/page_pool.hpp"
#include "kernel/mem/unit_allocator.hpp"
#include "kernel/sched/runnable.hpp"
#include "vmm/config/config.hpp"
#include "vmm/console/console_ring.hpp"
#include "vmm/console/management.hpp"
#include "vmm/partition_plan.hpp"
#include "vmm/vm_builder.hpp"

namespace bulkhead {

struct VmSlot;

// One vCPU. It belongs to the core in whose queue it is; the managing core takes it out before it touches
// more than what is marked "any core".
struct VcpuThread {
    static constexpr unsigned no_core = ~0U;

    VmSlot* slot = nullptr;
    unsigned number = 0;
    Vcpu* vcpu = nullptr;
    std::optional<Runnable> runnable;  // for as long as the VM is created
    CpuSet affinity;                   // the cores it may run on; empty: any
    unsigned home = 0;                 // the core it was given

    bool blocked = false;
    bool finished = false;  // the VM has stopped: nothing wakes it
    u64 wake_at = never;    // while blocked

    // --- Any core ---
    std::atomic<bool> signalled = false;   // it is to look at its local APIC
    std::atomic<unsigned> core = no_core;  // in whose queue it is
};

// Pages for a compartment's own tables: in the VM's arena.
class CompartmentTables final : public PoolTableMemory {
  public:
    CompartmentTables(PagePool& pool, u64 window, AllocationFault* fault)
        : PoolTableMemory(pool, window), fault_(fault) {}
    Result<HostPhysical> allocate() override {
        if (fault_ != nullptr && fault_->strikes()) return fail("the page is kept back, for a test");
        return PoolTableMemory::allocate();
    }
    // Changed only while no core is in the compartment.
    void flush(u64, u64) override {}

  private:
    AllocationFault* fault_;
};

struct VmSlot {
    VmId id{};
    VmConfig* config = nullptr;
    VmState state = VmState::off;
    FixedString<200> reason;
    std::optional<VmFault> fault;  // the last since it was started
    u64 resets = 0;
    u64 powered_on_at = 0;
    u64 power_on_ticks = 0;  // how long that took
    u64 restart_at = 0;      // the TSC at which a VM that reset itself starts anew; 0: it has not
    std::atomic<bool> stop_pending = false;  // it stopped from within; set by any core
    LineBudget lines;                        // of the log, for what the guest does again and again

    VmMemory memory;
    bool memory_lost = false;  // the hardware has lost part of it: it is not to be used again
    std::optional<Compartment> compartment;
    PagePool table_pool;
    std::optional<CompartmentTables> tables;
    Arena arena;
    VirtualMachine* machine = nullptr;
    ConsoleRing* ring = nullptr;
    Bandwidth bandwidth;
    Gang gang{false};
    VcpuThread threads[VirtualMachine::max_vcpus];
    unsigned vcpu_count = 0;

    [[nodiscard]] std::span<VcpuThread> vcpus() { return {threads, vcpu_count}; }
    [[nodiscard]] std::span<const VcpuThread> vcpus() const { return {threads, vcpu_count}; }
};

}  // namespace bulkhead
