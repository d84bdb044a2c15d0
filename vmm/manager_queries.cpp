// What the operator asks of VMs, cores and memory: nothing here changes the life of a VM.
#include <algorithm>

#include "vmm/inspection.hpp"
#include "vmm/manager.hpp"

namespace bulkhead {
namespace {

constexpr u64 nanoseconds_per_second = 1'000'000'000;

// By its exits or, where the last is long ago, by its turns on the core.
u64 used_ticks(const VcpuThread& thread, u64 now) {
    const u64 counted = thread.vcpu->statistics().total_ticks();
    return thread.runnable ? std::max(counted, thread.runnable->run_time(now)) : counted;
}

}  // namespace

bool VmManager::summary(usize index, VmSummary& out) const {
    if (index >= slot_count_) return false;
    const VmSlot& slot = slots_[index];
    out.id = slot.id;
    out.name = slot.config->name;
    out.state = slot.state;
    if (slot.state == VmState::off && plan_.vm(index).verdict == VmPlan::Verdict::refused)
        out.state = VmState::refused;
    out.vcpus = slot.config->vcpus;
    out.memory_bytes = slot.config->memory_bytes;
    out.cpu_nanoseconds = 0;
    out.sleep_counts = false;
    if (slot.machine == nullptr) return true;
    provisioner_.enter(slot);
    bool blocked = true;
    u64 ticks = 0;
    for (const VcpuThread& thread : slot.vcpus()) {
        blocked = blocked && thread.vcpu->activity() != Activity::active;
        ticks += used_ticks(thread, machine_.tsc());
        out.sleep_counts = out.sleep_counts || thread.vcpu->alone();
    }
    if (slot.state == VmState::running && blocked) out.state = VmState::blocked;
    out.cpu_nanoseconds = scale(ticks, nanoseconds_per_second, machine_.tsc_hz());
    return true;
}

bool VmManager::details(VmId vm, VmDetails& out) const {
    const VmSlot* slot = find(vm);
    if (slot == nullptr) return false;
    (void)summary(static_cast<usize>(slot - slots_), out.summary);
    out.config = slot->config;
    out.resets = slot->resets;
    out.reason = slot->reason;
    out.fault = slot->fault;
    out.uptime_nanoseconds = 0;
    if (slot->machine != nullptr && slot->state != VmState::off) {
        provisioner_.enter(*slot);
        out.uptime_nanoseconds =
            scale(slot->machine->clock().now(), nanoseconds_per_second, machine_.tsc_hz());
    }
    return true;
}

bool VmManager::exit_statistics(VmId vm, ExitStatistics& out) const {
    const VmSlot* slot = find(vm);
    if (slot == nullptr) return false;
    out = {};
    if (slot->machine == nullptr) return true;
    provisioner_.enter(*slot);
    for (const VcpuThread& thread : slot->vcpus()) out.add(thread.vcpu->statistics());
    return true;
}

void VmManager::watch_exits(VmId vm, u64 nanoseconds) {
    const VmSlot* slot = find(vm);
    if (slot == nullptr || slot->machine == nullptr) return;
    provisioner_.enter(*slot);
    const u64 until = machine_.tsc() + scale(nanoseconds, machine_.tsc_hz(), nanoseconds_per_second);
    for (const VcpuThread& thread : slot->vcpus()) thread.vcpu->watch(until);
}

usize VmManager::recent_exits(VmId vm, std::span<ExitRecord> out) const {
    const VmSlot* slot = find(vm);
    if (slot == nullptr || slot->machine == nullptr) return 0;
    provisioner_.enter(*slot);
    // Each vCPU has its part of the room.
    const usize most = std::max<usize>(1, out.size() / slot->vcpu_count);
    usize used = 0;
    for (const VcpuThread& thread : slot->vcpus())
        used += thread.vcpu->records().copy(out.subspan(used, std::min(most, out.size() - used)));
    return used;
}

bool VmManager::vcpu_summary(VmId vm, unsigned vcpu, VcpuSummary& out) const {
    const VmSlot* slot = find(vm);
    if (slot == nullptr || vcpu >= slot->config->vcpus) return false;
    out = {};
    out.number = vcpu;
    out.affinity = slot->config->cpus;
    if (slot->machine == nullptr) return true;
    const VcpuThread& thread = slot->threads[vcpu];
    provisioner_.enter(*slot);
    using State = VcpuSummary::State;
    const Activity activity = thread.vcpu->activity();
    out.affinity = thread.affinity;
    out.core = thread.home;
    if (slot->state != VmState::running) {
        out.state = State::paused;
    } else if (thread.vcpu->halted_for_good()) {
        out.state = State::halted_for_good;
    } else if (activity == Activity::wait_for_sipi) {
        out.state = State::waiting_for_sipi;
    } else if (activity != Activity::active) {
        out.state = State::blocked;
    } else {
        const Core& core = *cores_[thread.home];
        out.state = core.runs(thread) ? State::running : State::ready;
    }
    out.cpu_nanoseconds =
        scale(used_ticks(thread, machine_.tsc()), nanoseconds_per_second, machine_.tsc_hz());
    out.exits = thread.vcpu->statistics().total_count();
    return true;
}

// With the vCPU's state on this core, and back where it was.
template <class Look>
Result<> VmManager::look_at(VmId vm, unsigned vcpu, Look look) {
    auto found = find_vcpu(vm, vcpu);
    if (!found) return std::unexpected(found.error());
    VcpuThread& thread = **found;
    const bool attached = thread.core.load(std::memory_order_relaxed) != VcpuThread::no_core;
    if (auto detached = detach(thread); !detached) return detached;
    Core& here = *cores_[host_.this_core()];
    here.load(thread);
    Result<> looked = look(*thread.slot->machine, *thread.vcpu);
    here.unload();
    if (attached) {
        if (auto back = attach(thread); !back) return back;
    }
    return looked;
}

Result<> VmManager::registers(VmId vm, unsigned vcpu, VcpuRegisters& out) {
    return look_at(vm, vcpu, [&](VirtualMachine&, Vcpu& processor) -> Result<> {
        read_registers(processor, out);
        return {};
    });
}

void VmManager::note_fault(VmSlot& slot) {
    const unsigned number = slot.machine->stopped_by();
    if (number >= slot.vcpu_count) return;
    VcpuThread& thread = slot.threads[number];
    Core& here = *cores_[host_.this_core()];
    VcpuRegisters registers;
    here.load(thread);
    read_registers(*thread.vcpu, registers);
    here.unload();
    provisioner_.enter(slot);
    VmFault& fault = slot.fault.emplace();
    fault.what.append(slot.reason);
    fault.vcpu = number;
    fault.uptime_nanoseconds = scale(slot.machine->clock().now(), nanoseconds_per_second, machine_.tsc_hz());
    fault.cs = registers.segments[static_cast<unsigned>(SegmentName::cs)].selector;
    fault.rip = registers.rip;
    fault.rsp = registers.gprs[4];
    fault.rflags = registers.rflags;
    fault.cr0 = registers.cr0;
    fault.cr2 = registers.cr2;
    fault.cr3 = registers.cr3;
    fault.cr4 = registers.cr4;
    fault.efer = registers.efer;
}

Result<usize> VmManager::read_memory(VmId vm, unsigned vcpu, AddressKind kind, u64 address,
                                     MutableBytes out) {
    Result<usize> read = usize{0};
    auto looked = look_at(vm, vcpu, [&](VirtualMachine& machine, Vcpu& processor) -> Result<> {
        read = read_guest_memory(machine.memory(), processor, kind, address, out);
        return {};
    });
    if (!looked) return std::unexpected(looked.error());
    return read;
}

Result<> VmManager::screen(VmId vm, ScreenText& out) {
    const VmSlot* slot = find(vm);
    if (slot == nullptr) return fail("{}", no_such_vm);
    if (slot->machine == nullptr) return fail("{} is {}", slot->config->name, name_of(slot->state));
    provisioner_.enter(*slot);
    slot->machine->read_screen(out);
    return {};
}

bool VmManager::send_scan_codes(VmId vm, std::span<const u8> codes) {
    const VmSlot* slot = find(vm);
    if (slot == nullptr || slot->machine == nullptr) return false;
    provisioner_.enter(*slot);
    return slot->machine->press_keys(codes);
}

bool VmManager::core_summary(unsigned core, CoreSummary& out) const {
    if (core >= core_count_) return false;
    out = {};
    const CoreInfo info = host_.core_info(core);
    const Core& what = *cores_[core];
    out.number = core;
    out.apic_id = info.apic_id;
    out.online = info.online;
    out.reason = info.reason;
    out.vcpus = static_cast<unsigned>(what.size());
    // By the plan, or as long as the others that may use it are off.
    out.dedicated = plan_.use_of(core) == CoreUse::dedicated || (core != 0 && what.size() == 1);
    out.interrupts = info.interrupts;
    out.kicks = info.kicks;
    out.busy_nanoseconds = scale(what.busy_ticks(), nanoseconds_per_second, machine_.tsc_hz());
    out.idle_nanoseconds = scale(what.idle_ticks(), nanoseconds_per_second, machine_.tsc_hz());
    return true;
}

MemorySummary VmManager::memory() const {
    const UnitAllocator& units = provisioner_.units();
    return {.total_bytes = units.managed_units() * UnitAllocator::unit_size,
            .free_bytes = units.free_units() * UnitAllocator::unit_size,
            .largest_free_run_bytes = units.largest_free_run() * UnitAllocator::unit_size,
            .hypervisor_bytes = host_.own_memory()};
}

bool VmManager::vm_memory(VmId vm, VmMemorySummary& out) const {
    const VmSlot* slot = find(vm);
    if (slot == nullptr) return false;
    out = {};
    for (const UnitRun& run : slot->memory) {
        (out.ranges.empty() ? out.overhead_bytes : out.ram_bytes) += run.bytes();
        (void)out.ranges.push_back({.start = run.start, .length = run.bytes()});
    }
    out.overhead_used_bytes = slot->arena.used_bytes();
    return true;
}

bool VmManager::gang_summary(VmId vm, GangSummary& out) const {
    const VmSlot* slot = find(vm);
    if (slot == nullptr || !slot->gang.is_enabled()) return false;
    const Gang::Skew skew = slot->gang.skew();
    const auto nanoseconds = [&](u64 ticks) {
        return scale(ticks, nanoseconds_per_second, machine_.tsc_hz());
    };
    out = {.starts = skew.count,
           .last_nanoseconds = nanoseconds(skew.last),
           .mean_nanoseconds = skew.count == 0 ? 0 : nanoseconds(skew.sum / skew.count),
           .greatest_nanoseconds = nanoseconds(skew.max)};
    return true;
}

ConsoleRing* VmManager::console(VmId vm) {
    const VmSlot* slot = find(vm);
    if (slot == nullptr || slot->ring == nullptr) return nullptr;
    provisioner_.enter(*slot);
    return slot->ring;
}

bool VmManager::send_input(VmId vm, u8 byte) {
    VmSlot* slot = find(vm);
    if (slot == nullptr || slot->machine == nullptr) return false;
    provisioner_.enter(*slot);
    return slot->machine->serial_input(byte);
}

}  // namespace bulkhead
