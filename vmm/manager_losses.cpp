// What the hardware has lost. Memory: the VM that has it stops, and nobody gets it again. A core: the VMs
// that run there stop.
#include "vmm/manager.hpp"

namespace bulkhead {

// Called by the vCPU that the machine check struck.
bool VmManager::survives_machine_check(u16 vm) {
    const bool survives = host_.survive_machine_check();
    // The guest would only touch it again before core 0 has stopped it.
    for (const UnitRun& run : slots_[vm].memory) {
        if (host_.lost_memory_in(run.start, run.bytes())) return false;
    }
    return survives;
}

bool VmManager::attend_to_lost_pages() {
    bool any = false;
    while (const auto lost = host_.take_lost_page()) {
        any = true;
        lose_page(*lost);
    }
    return any;
}

void VmManager::lose_page(const LostPage& lost) {
    VmSlot* owner = nullptr;
    for (usize i = 0; i < slot_count_; ++i) {
        const VmMemory& memory = slots_[i].memory;
        for (const UnitRun& run : memory) {
            if (lost.page < run.start || lost.page >= run.end()) continue;
            // In the first run are the hypervisor's own tables and models of the VM: they cannot be trusted
            // even to stop it.
            if (&run == memory.begin()) return host_.own_page_lost(lost);
            owner = &slots_[i];
        }
    }
    // A memory scrubber may find the same page again.
    if (provisioner_.units().is_retired(lost.page)) return;
    if (!provisioner_.retire(lost.page)) return host_.own_page_lost(lost);
    if (owner == nullptr) {
        log_.error(
            "HV-E015: free memory at {} has an uncorrectable error (bank {}, status {:#x}); 2 MiB are out of "
            "use, have the machine examined",
            lost.page, lost.bank, lost.status);
        return;
    }
    log_.error(
        "HV-E015: VM {}: its memory at {} has an uncorrectable error (bank {}, status {:#x}); the VM is "
        "stopped and 2 MiB are out of use, have the machine examined",
        owner->config->name, lost.page, lost.bank, lost.status);
    owner->memory_lost = true;
    if (owner->state != VmState::running && owner->state != VmState::paused) return;
    FixedString<200> reason;
    print(reason, "its memory at {} has an uncorrectable error (bank {}, status {:#x})", lost.page, lost.bank,
          lost.status);
    crash(*owner, reason);
}

// From outside: whatever the VM is doing, and without a look at its memory.
void VmManager::crash(VmSlot& slot, std::string_view reason) {
    const bool ran = slot.state == VmState::running;
    slot.state = VmState::crashed;
    slot.reason = reason;
    slot.restart_at = 0;
    FixedString<240> text;
    print(text, "crashed: {}", slot.reason);
    provisioner_.enter(slot);
    // Should a core not give its vCPU back now, the vCPU finds the VM stopped when it goes on. Until then
    // nothing else can be done to the VM.
    slot.machine->give_up(reason);
    if (auto detached = detach(slot); !detached) return report(slot, text);
    slot.stop_pending.store(false, std::memory_order_relaxed);
    provisioner_.enter(slot);
    if (ran) slot.machine->pause();
    follow(slot, slot.config->on_crash, text);
}

void VmManager::lose_core(unsigned core) {
    for (usize i = 0; i < slot_count_; ++i) {
        VmSlot& slot = slots_[i];
        if (slot.state != VmState::running && slot.state != VmState::paused) continue;
        bool concerned = false;
        for (const VcpuThread& thread : slot.vcpus()) concerned = concerned || thread.core.load() == core;
        if (!concerned) continue;
        FixedString<200> reason;
        print(reason, "core {}, on which it runs, does not answer", core);
        crash(slot, reason);
    }
}

Result<> VmManager::renew(VmSlot& slot) {
    release(slot);
    if (slot.state != VmState::off)
        return fail("{} cannot give back its memory: a core does not answer", slot.config->name);
    return create(slot);
}

}  // namespace bulkhead
