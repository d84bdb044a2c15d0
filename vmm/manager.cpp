#include "vmm/manager.hpp"

#include <algorithm>

#include "kernel/log/log_lines.hpp"

namespace bulkhead {

VmManager::VmManager(HostServices& host, const PhysicalMachine& machine, BackendFactory& factory,
                     UnitAllocator& units, Logger& log, std::span<const BootModule> modules, Config& config,
                     toml::Document& document)
    : host_(host),
      machine_(machine),
      log_(log),
      config_(config),
      document_(document),
      provisioner_(host, machine, factory, units, log, modules),
      plan_(host, units, modules, memory_need_of),
      core_count_(std::min(host.core_count(), max_cores)) {
    for (unsigned i = 0; i < core_count_; ++i) cores_[i].emplace(host, machine, i);
}

VmSlot* VmManager::find(VmId vm) {
    for (usize i = 0; i < slot_count_; ++i) {
        if (slots_[i].id == vm) return &slots_[i];
    }
    return nullptr;
}

const VmSlot* VmManager::find(VmId vm) const {
    return const_cast<VmManager*>(this)->find(vm);
}

VmSlot* VmManager::find(std::string_view name) {
    for (usize i = 0; i < slot_count_; ++i) {
        if (slots_[i].config->name == name) return &slots_[i];
    }
    return nullptr;
}

Result<VcpuThread*> VmManager::find_vcpu(VmId vm, unsigned vcpu) {
    VmSlot* slot = find(vm);
    if (slot == nullptr) return fail("{}", no_such_vm);
    if (slot->machine == nullptr) return fail("{} is {}", slot->config->name, name_of(slot->state));
    if (vcpu >= slot->vcpu_count)
        return fail("{} has vCPUs 0 to {}", slot->config->name, slot->vcpu_count - 1);
    return &slot->threads[vcpu];
}

VmSlot& VmManager::add_slot(VmConfig& config) {
    VmSlot& slot = slots_[slot_count_];
    slot.id = VmId(static_cast<u16>(slot_count_++));
    slot.config = &config;
    return slot;
}

void VmManager::adopt() {
    for (VmConfig& vm : config_.vms()) {
        if (slot_count_ == max_vms) {
            log_.error("VM {} is one too many: at most {} are possible", vm.name, max_vms);
            break;
        }
        VmSlot& slot = add_slot(vm);
        if (vm.refused) {
            slot.state = VmState::refused;
            slot.reason = "its configuration is wrong: see dmesg";
        }
    }
    plan_.make(config_.vms());
    LogLines lines(log_, LogLevel::info);
    plan_.print(lines);
    for (usize i = 0; i < slot_count_; ++i) {
        VmSlot& slot = slots_[i];
        if (slot.state != VmState::off || !slot.config->autostart) continue;
        if (auto started = start(slot.id); !started)
            log_.error("VM {}: {}", slot.config->name, started.error().text);
    }
}

// --- Cores
// ------------------------------------------------------------------------------------------------------

void VmManager::settle(VmSlot& slot) {
    const VmPlan& plan = plan_.vm(index_of(slot));
    for (VcpuThread& thread : slot.vcpus()) {
        thread.home = plan.cores[thread.number];
        thread.affinity = slot.config->cpus;
    }
}

Result<> VmManager::attach(VcpuThread& thread) {
    Result<> added;
    WorkOf work([&] { added = cores_[thread.home]->add(thread); });
    if (auto ran = host_.run_on(thread.home, work); !ran) return ran;
    return added;
}

Result<> VmManager::detach(VcpuThread& thread) {
    const unsigned core = thread.core.load(std::memory_order_acquire);
    if (core == VcpuThread::no_core) return {};
    WorkOf work([&] { cores_[core]->remove(thread); });
    return host_.run_on(core, work);
}

Result<> VmManager::attach(VmSlot& slot) {
    for (VcpuThread& thread : slot.vcpus()) {
        if (auto attached = attach(thread); !attached) {
            (void)detach(slot);
            return attached;
        }
    }
    return {};
}

// A core that does not answer keeps what it has: the VM's memory may be in use for ever.
Result<> VmManager::detach(VmSlot& slot) {
    Result<> result;
    for (VcpuThread& thread : slot.vcpus()) {
        if (auto detached = detach(thread); !detached) result = detached;
    }
    return result;
}

Result<> VmManager::share_out(VmSlot& slot) {
    const CpuLimit& limit = slot.config->cpu_limit;
    const u64 hz = machine_.tsc_hz();
    Result<> done;
    if (limit.quota_us == CpuLimit::unlimited) {
        slot.bandwidth.set_unlimited();
    } else {
        done =
            slot.bandwidth.set(scale(limit.quota_us, hz, 1'000'000), scale(limit.period_us, hz, 1'000'000));
    }
    slot.gang.enable(slot.config->gang);
    for (VcpuThread& thread : slot.vcpus()) {
        // A weight is the VM's: vCPUs of one VM on one core share it.
        const unsigned sharers = std::max(1U, plan_.vcpus_on(thread.home, index_of(slot)));
        const u32 weight = std::max(1U, slot.config->cpu_weight / sharers);
        WorkOf work([&] { cores_[thread.home]->set_weight(thread, weight); });
        if (auto ran = host_.run_on(thread.home, work); !ran) done = ran;
        host_.kick(thread.home);
    }
    return done;
}

// To the cores that its cpuset now says.
Result<> VmManager::move(VmSlot& slot) {
    if (auto placed = plan_.place_cores(index_of(slot)); !placed) return placed;
    const bool running = slot.state == VmState::running && slot.restart_at == 0;
    if (auto detached = detach(slot); !detached) return detached;
    settle(slot);
    // How many of its vCPUs share a core may have changed.
    if (auto shared = share_out(slot); !shared) return shared;
    return running ? attach(slot) : Result<>();
}

Result<> VmManager::pin_vcpu(VmId vm, unsigned vcpu, const CpuSet& cores) {
    auto found = find_vcpu(vm, vcpu);
    if (!found) return std::unexpected(found.error());
    VcpuThread& thread = **found;
    VmSlot* slot = thread.slot;
    if (auto pinned = plan_.pin(index_of(*slot), vcpu, cores); !pinned) return pinned;
    const bool attached = thread.core.load(std::memory_order_relaxed) != VcpuThread::no_core;
    if (auto detached = detach(thread); !detached) return detached;
    thread.affinity = cores;
    thread.home = plan_.vm(index_of(*slot)).cores[vcpu];
    if (attached) {
        if (auto back = attach(thread); !back) return back;
    }
    return share_out(*slot);
}

bool VmManager::attend() {
    bool any = attend_to_lost_pages();
    for (usize i = 0; i < slot_count_; ++i) {
        VmSlot& slot = slots_[i];
        if (slot.stop_pending.load(std::memory_order_relaxed) &&
            slot.stop_pending.exchange(false, std::memory_order_acq_rel) && slot.state == VmState::running) {
            any = true;
            // If it was a machine check, that is noted before the VM is stopped.
            (void)attend_to_lost_pages();
            if (slot.state == VmState::running) after_stop(slot);
        }
        if (slot.restart_at != 0 && slot.state == VmState::running && machine_.tsc() >= slot.restart_at) {
            any = true;
            restart(slot);
        }
    }
    return any;
}

u64 VmManager::next_attention() const {
    u64 earliest = never;
    for (usize i = 0; i < slot_count_; ++i) {
        const VmSlot& slot = slots_[i];
        if (slot.state == VmState::running && slot.restart_at != 0)
            earliest = std::min(earliest, slot.restart_at);
    }
    return earliest;
}

// --- Surroundings: called by VMs, on the core that runs them
// ----------------------------------------------------

void VmManager::wake(u16 vm, unsigned vcpu) {
    VmSlot& slot = slots_[vm];
    if (vcpu < slot.vcpu_count) wake(slot.threads[vcpu]);
}

// The core looks at the flag before each turn it gives. A set flag means that a kick is on its way: so it is
// not set where none is needed, for a vCPU that wakes itself. One that runs another vCPU is interrupted, too:
// it is for its queue to say who goes on.
void VmManager::wake(VcpuThread& thread) {
    const unsigned here = host_.this_core();
    if (thread.core.load() == here && cores_[here]->runs(thread)) return;
    if (thread.signalled.exchange(true)) return;
    const unsigned core = thread.core.load();
    if (core != VcpuThread::no_core) host_.kick(core);
}

void VmManager::serial_output(u16 vm, u8 character) {
    VmSlot& slot = slots_[vm];
    if (slot.ring != nullptr) slot.ring->write({&character, 1}, machine_.tsc());
}

// --- The life of a VM
// ------------------------------------------------------------------------------------------

void VmManager::report(const VmSlot& slot, std::string_view what) {
    FixedString<300> text;
    print(text, "VM {} {}", slot.config->name, what);
    log_.info("{}", text);
    if (observer_ != nullptr) observer_->vm_changed(text);
}

// Of what a guest can do without end, each time or now and then.
void VmManager::report_again(VmSlot& slot, std::string_view what) {
    if (!slot.lines.take(machine_.tsc(), machine_.tsc_hz())) return;
    const u64 dropped = slot.lines.take_dropped();
    if (dropped == 0) return report(slot, what);
    FixedString<280> text;
    print(text, "{} ({} lines like this were left out)", what, dropped);
    report(slot, text);
}

// From any state in which it has a machine: it starts from the beginning.
Result<> VmManager::power_on(VmSlot& slot) {
    if (auto detached = detach(slot); !detached) return detached;
    const u64 begun = machine_.tsc();
    const auto start = provisioner_.power_on(slot);
    if (!start) return std::unexpected(start.error());
    Core& here = *cores_[host_.this_core()];
    for (VcpuThread& thread : slot.vcpus()) {
        here.load(thread);
        thread.vcpu->reset(thread.number == 0 ? &*start : nullptr);
    }
    here.unload();
    slot.restart_at = 0;
    slot.stop_pending.store(false, std::memory_order_relaxed);
    slot.powered_on_at = machine_.tsc();
    slot.power_on_ticks = slot.powered_on_at - begun;
    slot.reason.clear();
    if (auto shared = share_out(slot); !shared) return shared;
    if (auto attached = attach(slot); !attached) return attached;
    slot.state = VmState::running;
    return {};
}

void VmManager::release(VmSlot& slot) {
    // The processors let go of its hardware pages before they become somebody else's.
    if (auto detached = detach(slot); !detached) {
        log_.error("VM {}: its memory stays taken: {}", slot.config->name, detached.error().text);
        slot.state = VmState::dying;
        return;
    }
    cores_[host_.this_core()]->unload();
    provisioner_.release(slot);
    slot.state = VmState::off;
}

// The VM has stopped from within. What happens next is for its configuration to say.
void VmManager::after_stop(VmSlot& slot) {
    if (auto detached = detach(slot); !detached) {
        slot.state = VmState::crashed;
        slot.reason = detached.error().text;
        report(slot, slot.reason);
        return;
    }
    provisioner_.enter(slot);
    const StopReason why = slot.machine->stop_reason();
    slot.reason = slot.machine->stop_text();
    slot.machine->pause();
    note_fault(slot);
    FixedString<240> text;
    LifecycleAction action = LifecycleAction::preserve;
    if (why == StopReason::crashed) {
        slot.state = VmState::crashed;
        action = slot.config->on_crash;
        print(text, "crashed: {}", slot.reason);
    } else {
        slot.state = VmState::shut_down;
        if (why == StopReason::reset) action = slot.config->on_reboot;
        print(text, "stopped: {}", slot.reason);
    }
    if (action == LifecycleAction::restart && why == StopReason::reset) text = "resets itself";
    follow(slot, action, text);
}

void VmManager::follow(VmSlot& slot, LifecycleAction action, std::string_view text) {
    if (action == LifecycleAction::restart) {
        report_again(slot, text);
        slot.state = VmState::running;
        // A guest that does nothing but reset itself would have the host clear its memory without end: it
        // gets a tenth of this core's time for that.
        slot.restart_at = slot.powered_on_at + std::max(machine_.tsc_hz() / 1000, 9 * slot.power_on_ticks);
        return;
    }
    report(slot, text);
    if (action == LifecycleAction::destroy) (void)destroy(slot.id);
}

void VmManager::restart(VmSlot& slot) {
    ++slot.resets;
    auto powered = slot.memory_lost ? renew(slot) : Result<>();
    if (powered) powered = power_on(slot);
    if (!powered) {
        if (slot.machine == nullptr) {
            slot.state = VmState::off;
            slot.reason = powered.error().text;
            return report(slot, slot.reason);
        }
        slot.state = VmState::crashed;
        slot.reason = powered.error().text;
        report(slot, slot.reason);
    }
}

// What it needs of the machine, by its place in the plan.
Result<> VmManager::create(VmSlot& slot) {
    const VmPlan& plan = plan_.place(index_of(slot), *slot.config);
    if (plan.verdict != VmPlan::Verdict::accepted) {
        slot.reason = plan.reason;
        return fail("{}", plan.reason);
    }
    cores_[host_.this_core()]->unload();
    auto made = provisioner_.create(slot, *this);
    cores_[host_.this_core()]->unload();
    if (!made) {
        slot.reason = made.error().text;
        return made;
    }
    settle(slot);
    return {};
}

Result<> VmManager::start(VmId vm) {
    VmSlot* slot = find(vm);
    if (slot == nullptr) return fail("{}", no_such_vm);
    switch (slot->state) {
        case VmState::refused: return fail("{} is refused: {}", slot->config->name, slot->reason);
        case VmState::off:
            if (auto made = create(*slot); !made) return made;
            break;
        case VmState::shut_down:
        case VmState::crashed:
            // Lest it be destroyed because it cannot be started.
            if (auto detached = detach(*slot); !detached) return detached;
            if (auto made = slot->memory_lost ? renew(*slot) : Result<>(); !made) return made;
            break;
        default: return fail("{} is {} already", slot->config->name, name_of(slot->state));
    }
    if (auto powered = power_on(*slot); !powered) {
        release(*slot);
        slot->reason = powered.error().text;
        return powered;
    }
    slot->fault.reset();
    report(*slot, "started");
    return {};
}

Result<> VmManager::pause(VmId vm) {
    VmSlot* slot = find(vm);
    if (slot == nullptr) return fail("{}", no_such_vm);
    if (slot->state != VmState::running)
        return fail("{} is {}, not running", slot->config->name, name_of(slot->state));
    if (auto detached = detach(*slot); !detached) return detached;
    provisioner_.enter(*slot);
    slot->machine->pause();
    slot->state = VmState::paused;
    return {};
}

Result<> VmManager::unpause(VmId vm) {
    VmSlot* slot = find(vm);
    if (slot == nullptr) return fail("{}", no_such_vm);
    if (slot->state != VmState::paused)
        return fail("{} is {}, not paused", slot->config->name, name_of(slot->state));
    provisioner_.enter(*slot);
    slot->machine->resume();
    // Deadlines have moved with the clock.
    Core& here = *cores_[host_.this_core()];
    for (VcpuThread& thread : slot->vcpus()) {
        here.load(thread);
        thread.vcpu->refresh_tsc_offset();
    }
    here.unload();
    slot->state = VmState::running;
    return attach(*slot);
}

Result<> VmManager::reset(VmId vm) {
    VmSlot* slot = find(vm);
    if (slot == nullptr) return fail("{}", no_such_vm);
    if (slot->machine == nullptr)
        return fail("{} is {}; start it instead", slot->config->name, name_of(slot->state));
    if (slot->state == VmState::dying) return fail("{} is being destroyed", slot->config->name);
    if (auto made = slot->memory_lost ? renew(*slot) : Result<>(); !made) return made;
    if (auto powered = power_on(*slot); !powered) {
        slot->state = VmState::crashed;
        slot->reason = powered.error().text;
        return powered;
    }
    ++slot->resets;
    report(*slot, "was reset");
    return {};
}

Result<> VmManager::shutdown(VmId vm) {
    VmSlot* slot = find(vm);
    if (slot == nullptr) return fail("{}", no_such_vm);
    if (slot->state != VmState::running)
        return fail("{} is {}, not running", slot->config->name, name_of(slot->state));
    provisioner_.enter(*slot);
    const bool listens = slot->machine->press_power_button();
    wake(slot->threads[0]);
    if (!listens) {
        return fail("{} does not listen to its power button (no ACPI, or not yet); destroy it instead",
                    slot->config->name);
    }
    return {};
}

Result<> VmManager::destroy(VmId vm) {
    VmSlot* slot = find(vm);
    if (slot == nullptr) return fail("{}", no_such_vm);
    if (slot->machine == nullptr) return fail("{} is {} already", slot->config->name, name_of(slot->state));
    release(*slot);
    if (slot->state != VmState::off)
        return fail("{} cannot be destroyed: a core does not give it back", slot->config->name);
    slot->reason.clear();
    report(*slot, "was destroyed");
    return {};
}

}  // namespace bulkhead
