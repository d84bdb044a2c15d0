// Who gets what of the machine: decided for all VMs before the first of them starts, kept up to date as VMs
// are made and removed, and shown to the operator.
//
// Cores. A VM with a cpuset has vCPU i on the i-th core of the set, round robin. The vCPUs of a VM without
// one go to online cores that no VM names, the least loaded first, core 0 (which serves the console) last of
// those that are equal; to the least loaded named core only where every online core is named. A vCPU alone on
// its core has it for itself; core 0 is never dedicated. Every VM that can run has its cores, whether it is
// to start by itself or not: those that do are placed first.
//
// Memory. The VMs that start by themselves are tried in order on the real allocator, which is then put back
// as it was: what is planned is what starting them in that order yields. A VM that does not fit beside those
// before it is not started (`no_memory`), and may be later; one that does not fit the empty machine is
// refused.
//
// The object is some 30 KiB and belongs into static storage. Used on one core.
#pragma once

#include <span>

#include "kernel/bootinfo/boot_info.hpp"
#include "kernel/mem/unit_allocator.hpp"
#include "vmm/config/config.hpp"
#include "vmm/host_services.hpp"
#include "vmm/virtual_machine.hpp"
#include "vmm/vm_builder.hpp"

namespace bulkhead {

// What a VM takes of the machine's memory, in units of 2 MiB.
struct MemoryNeed {
    u64 overhead_units = 0;  // its arena: in one piece
    u64 ram_units = 0;       // in max_ram_runs pieces at the most
    [[nodiscard]] constexpr u64 units() const { return overhead_units + ram_units; }
};

// The arena's run first, then guest RAM.
using VmMemory = FixedVector<UnitRun, 1 + max_ram_runs>;

// All or nothing. The error says what is needed and what there is.
[[nodiscard]] Result<VmMemory> take_memory(UnitAllocator& units, const MemoryNeed& need);

struct VmPlan {
    enum class Verdict : u8 {
        unused,     // there is no such VM
        accepted,   // it can start
        no_memory,  // not now: others have the memory
        refused,    // never, as it is configured
    };
    static constexpr u16 no_core = 0xFFFF;

    const VmConfig* config = nullptr;
    Verdict verdict = Verdict::unused;
    FixedString<200> reason;  // why not, and what to do
    MemoryNeed need;
    VmMemory memory;  // where it is planned; empty if it does not start by itself
    unsigned vcpus = 0;
    u16 cores[VirtualMachine::max_vcpus] = {};  // of each vCPU; no_core unless placed
    [[nodiscard]] bool placed() const { return vcpus != 0 && cores[0] != no_core; }
};
[[nodiscard]] std::string_view name_of(VmPlan::Verdict verdict);

enum class CoreUse : u8 {
    offline,
    free,       // no vCPU, and nobody names it
    reserved,   // no vCPU, but a VM names it
    dedicated,  // to one vCPU: no host tick
    shared,     // by vCPUs, or by one and the console
};
[[nodiscard]] std::string_view name_of(CoreUse use);

class PartitionPlan {
  public:
    static constexpr usize max_vms = Config::max_vms;
    static constexpr unsigned max_cores = CpuSet::max_cpus;
    using NeedOf = MemoryNeed (*)(const VmConfig&);

    // `need_of` is called for configurations whose vcpus and memory_bytes are in range.
    PartitionPlan(const HostServices& host, UnitAllocator& units, std::span<const BootModule> modules,
                  NeedOf need_of);
    PartitionPlan(const PartitionPlan&) = delete;
    PartitionPlan& operator=(const PartitionPlan&) = delete;

    // Comes first. Forgets what was, and plans for these VMs, whose place here is their place in the plan. No
    // VM has memory yet. Configurations are looked at again later: they outlive the plan, or are forgotten
    // first.
    void make(std::span<const VmConfig> vms);

    // Plans for one VM, new at `index` or changed and without memory, with the others as they are; the
    // memory that is free now is what there is. index < max_vms.
    const VmPlan& place(usize index, const VmConfig& config);
    // Its cores anew after its cpuset changed; nothing changes when that cannot be.
    [[nodiscard]] Result<> place_cores(usize index);
    // One vCPU to the least loaded core of `cores`, whatever the cpuset says.
    [[nodiscard]] Result<> pin(usize index, unsigned vcpu, const CpuSet& cores);
    void forget(usize index);

    [[nodiscard]] const VmPlan& vm(usize index) const { return vms_[index]; }
    [[nodiscard]] unsigned core_count() const { return core_count_; }
    [[nodiscard]] CoreUse use_of(unsigned core) const;
    [[nodiscard]] unsigned vcpus_on(unsigned core) const { return core < max_cores ? load_[core] : 0; }
    // How many of a VM's vCPUs are on a core.
    [[nodiscard]] unsigned vcpus_on(unsigned core, usize index) const;

    // Tables for the operator, none of the lines longer than 100 characters.
    void print(Sink& sink) const;

  private:
    [[nodiscard]] Result<> check(const VmConfig& config) const;
    [[nodiscard]] Result<> check_cores(const CpuSet& set) const;
    [[nodiscard]] Result<> check_modules(const VmConfig& config) const;
    [[nodiscard]] const BootModule* find_module(std::string_view name) const;
    void begin(VmPlan& vm, const VmConfig& config);
    void refuse(VmPlan& vm, VmPlan::Verdict verdict, const Error& error);
    void count_names(const CpuSet& set, int change);
    void put(VmPlan& vm, unsigned vcpu, unsigned core);
    void take_off_cores(VmPlan& vm);
    void put_on_cores(VmPlan& vm);
    [[nodiscard]] unsigned best_core(const CpuSet* among) const;

    void print_cores(Sink& sink) const;
    void print_vms(Sink& sink) const;
    void print_memory(Sink& sink) const;
    void print_modules(Sink& sink) const;
    void print_problems(Sink& sink) const;

    const HostServices& host_;
    UnitAllocator& units_;
    std::span<const BootModule> modules_;
    NeedOf need_of_;
    unsigned core_count_ = 0;
    u64 left_units_ = 0;  // free when all that is planned has its memory
    CpuSet online_;
    u16 load_[max_cores] = {};   // vCPUs on it
    u16 named_[max_cores] = {};  // placed VMs whose cpuset has it
    VmPlan vms_[max_vms];
    CpuSet counted_[max_vms];  // what each VM has added to named_
};

}  // namespace bulkhead
