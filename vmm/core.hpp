// What one physical core does for VMs: whose turn it is, and whose state is in its registers. Owned by that
// core; the managing core reaches it by HostServices::run_on. The exception is wake().
#pragma once

#include "kernel/base/fixed_vector.hpp"
#include "kernel/base/result.hpp"
#include "kernel/sched/run_queue.hpp"
#include "vmm/host_services.hpp"
#include "vmm/physical_machine.hpp"
#include "vmm/vm_slot.hpp"

namespace bulkhead {

class Core {
  public:
    Core(HostServices& host, const PhysicalMachine& machine, unsigned number);

    // The vCPU runs here from now on.
    [[nodiscard]] Result<> add(VcpuThread& thread);
    void set_weight(VcpuThread& thread, u32 weight) {
        (void)queue_.set_weight(*thread.runnable, weight, machine_.tsc());
    }
    // ... and no longer. Its state is in memory afterwards, the core in the kernel's address space.
    void remove(VcpuThread& thread);

    // Gives the next vCPU a turn, until `limit` (physical TSC) at the latest. False: none has anything to do
    // before next_turn().
    bool turn(u64 limit);
    [[nodiscard]] u64 next_turn() const { return next_turn_; }

    // Takes the processor's hands off whatever vCPU it holds.
    void unload();
    // Loads a vCPU that is in no queue, for a look at its registers; unload() afterwards.
    void load(VcpuThread& thread);

    // --- Any core ---

    [[nodiscard]] usize size() const { return threads_.size(); }  // changed by the managing core's wish only
    [[nodiscard]] bool runs(const VcpuThread& thread) const {
        return running_.load(std::memory_order_relaxed) == &thread;
    }
    // Since the first vCPU came here, in ticks.
    [[nodiscard]] u64 busy_ticks() const { return queue_.busy_ticks(machine_.tsc()); }
    [[nodiscard]] u64 idle_ticks() const { return queue_.idle_ticks(machine_.tsc()); }

  private:
    void enter(const VmSlot& slot) const { host_.enter_address_space(slot.compartment->root()); }
    void wake_sleepers(u64 now);
    [[nodiscard]] u64 next_wake() const;
    void run(VcpuThread& thread, u64 until);
    [[nodiscard]] bool has_core_to_itself(const VcpuThread& thread) const;
    [[nodiscard]] VcpuThread& thread_of(const Runnable& runnable) const;

    HostServices& host_;
    const PhysicalMachine& machine_;
    unsigned number_;
    RunQueue queue_;
    FixedVector<VcpuThread*, RunQueue::max_runnables> threads_;
    VcpuThread* loaded_ = nullptr;
    u64 next_turn_ = never;
    std::atomic<VcpuThread*> running_ = nullptr;
};

}  // namespace bulkhead
