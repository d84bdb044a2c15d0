// All VMs of the machine: their life from configuration to destruction, and the cores they run on.
//
// Core 0 manages: everything here is for it alone, except run_core() and what VMs call (Surroundings). Before
// it touches a VM's state it takes the VM's vCPUs off their cores. What it reads while they run are counters
// and flags made for that.
//
// A core is always in some address space: the kernel's own or a VM's compartment. The kernel's image, its
// data and this object are in all of them, so the manager goes from one to the other as it needs and stays in
// the last.
#pragma once

#include <optional>

#include "kernel/log/logger.hpp"
#include "kernel/mem/isolation.hpp"
#include "vmm/config/config.hpp"
#include "vmm/console/management.hpp"
#include "vmm/core.hpp"
#include "vmm/host_services.hpp"
#include "vmm/provisioner.hpp"

namespace bulkhead {

// Told what happens to VMs, in words for the operator.
class VmObserver {
  public:
    virtual void vm_changed(std::string_view text) = 0;

  protected:
    ~VmObserver() = default;
};

class VmManager final : public Management, private Surroundings {
  public:
    static constexpr usize max_vms = Config::max_vms;
    static constexpr unsigned max_cores = 64;

    // `config` gets the VMs that are made later, too; `document` is working memory. Both outlive the manager.
    VmManager(HostServices& host, const PhysicalMachine& machine, BackendFactory& factory,
              UnitAllocator& units, Logger& log, std::span<const BootModule> modules, Config& config,
              toml::Document& document);
    VmManager(const VmManager&) = delete;
    VmManager& operator=(const VmManager&) = delete;

    void set_observer(VmObserver& observer) { observer_ = &observer; }

    // For tests: see Provisioner.
    void set_fault(AllocationFault* fault) { provisioner_.set_fault(fault); }

    // Registers every VM of the configuration, and starts those that are to start by themselves.
    void adopt();

    // Attends to VMs that stopped from within, or are due to start anew. True if there was one.
    bool attend();
    // The physical TSC at which attend() wants to be called; `never`. A stopped VM kicks core 0 besides.
    [[nodiscard]] u64 next_attention() const;

    // On that core: gives its next vCPU a turn, until `limit` (physical TSC) at the latest. False: none has
    // anything to do before next_turn() of the core.
    bool run_core(unsigned core, u64 limit) { return cores_[core]->turn(limit); }
    [[nodiscard]] u64 next_turn(unsigned core) const { return cores_[core]->next_turn(); }

    // Whether any vCPU belongs to that core. Any core.
    [[nodiscard]] bool has_vcpus(unsigned core) const { return cores_[core]->size() != 0; }
    // The core answers no more: VMs that have a vCPU there are stopped.
    void lose_core(unsigned core);

    // Management.
    HostInfo host() const override { return host_.info(); }
    u64 nanoseconds() const override { return nanoseconds_at(machine_.tsc()); }
    u64 nanoseconds_at(u64 tsc) const override { return scale(tsc, 1'000'000'000, machine_.tsc_hz()); }
    usize vm_count() const override { return slot_count_; }
    bool summary(usize index, VmSummary& out) const override;
    bool details(VmId vm, VmDetails& out) const override;
    bool exit_statistics(VmId vm, ExitStatistics& out) const override;
    void watch_exits(VmId vm, u64 nanoseconds) override;
    usize recent_exits(VmId vm, std::span<ExitRecord> out) const override;
    Result<> start(VmId vm) override;
    Result<> pause(VmId vm) override;
    Result<> unpause(VmId vm) override;
    Result<> reset(VmId vm) override;
    Result<> shutdown(VmId vm) override;
    Result<> destroy(VmId vm) override;
    Result<> create(std::string_view snippet, Sink& problems) override;
    Result<usize> read_module(std::string_view name, std::span<char> out) override;
    Result<> rename(VmId vm, std::string_view name) override;
    Result<> set(VmId vm, std::string_view key, std::string_view value) override;
    bool vcpu_summary(VmId vm, unsigned vcpu, VcpuSummary& out) const override;
    Result<> pin_vcpu(VmId vm, unsigned vcpu, const CpuSet& cores) override;
    Result<> registers(VmId vm, unsigned vcpu, VcpuRegisters& out) override;
    Result<usize> read_memory(VmId vm, unsigned vcpu, AddressKind kind, u64 address,
                              MutableBytes out) override;
    Result<> screen(VmId vm, ScreenText& out) override;
    bool send_scan_codes(VmId vm, std::span<const u8> codes) override;
    bool core_summary(unsigned core, CoreSummary& out) const override;
    MemorySummary memory() const override;
    bool vm_memory(VmId vm, VmMemorySummary& out) const override;
    Result<> check_tables(TableCheck& out, Sink& leaks) override;
    Result<> check_reach(std::optional<VmId> viewer, VmId owner, ReachCheck& out) override;
    bool gang_summary(VmId vm, GangSummary& out) const override;
    void print_plan(Sink& sink) const override { plan_.print(sink); }
    Integrity integrity() const override {
        Integrity now = host_.integrity();
        now.free_units = provisioner_.units().free_units();
        return now;
    }
    SpeculationFacts speculation_facts() const override { return host_.speculation_facts(); }
    Mitigations mitigations() const override { return host_.mitigations(); }
    u64 barriers_issued(unsigned core, Barrier barrier) const override {
        return host_.barriers_issued(core, barrier);
    }
    bool read_log(u64 sequence, LogEntry& entry) override { return log_.read(sequence, entry); }
    Result<> reboot() override { return host_.reboot(); }
    Result<> poweroff() override { return host_.power_off(); }
    ConsoleRing* console(VmId vm) override;
    bool send_input(VmId vm, u8 byte) override;

  private:
    static constexpr std::string_view no_such_vm = "there is no such VM";

    void serial_output(u16 vm, u8 character) override;
    void wake(u16 vm, unsigned vcpu) override;
    HostCause waiting_interrupt() const override { return host_.waiting_interrupt(); }
    bool survives_machine_check(u16 vm) override;
    // Makes a vCPU look at its local APIC, wherever it is. Any core.
    void wake(VcpuThread& thread);

    [[nodiscard]] VmSlot* find(VmId vm);
    [[nodiscard]] const VmSlot* find(VmId vm) const;
    [[nodiscard]] VmSlot* find(std::string_view name);
    // Of a VM that is created; else the error says what is missing.
    [[nodiscard]] Result<VcpuThread*> find_vcpu(VmId vm, unsigned vcpu);
    // With the vCPU's state on this core, and back where it was: Result<> look(VirtualMachine&, Vcpu&).
    template <class Look>
    [[nodiscard]] Result<> look_at(VmId vm, unsigned vcpu, Look look);
    [[nodiscard]] VmSlot& add_slot(VmConfig& config);

    [[nodiscard]] usize index_of(const VmSlot& slot) const { return static_cast<usize>(&slot - slots_); }
    // Its vCPUs belong where the plan says.
    void settle(VmSlot& slot);
    [[nodiscard]] Result<> move(VmSlot& slot);
    // On that core, in the slot's address space or the kernel's (null).
    [[nodiscard]] Result<> try_reach(const VmSlot* viewer, const VmSlot& owner, unsigned core,
                                     ReachCheck& out);
    // Gives its vCPUs their parts of its weight and cap, now or when they are next attached.
    [[nodiscard]] Result<> share_out(VmSlot& slot);
    // Puts its vCPUs to work on their cores, and takes them off; afterwards nobody runs or holds any of them.
    [[nodiscard]] Result<> attach(VmSlot& slot);
    [[nodiscard]] Result<> detach(VmSlot& slot);
    [[nodiscard]] Result<> attach(VcpuThread& thread);
    [[nodiscard]] Result<> detach(VcpuThread& thread);

    [[nodiscard]] Result<> power_on(VmSlot& slot);
    void after_stop(VmSlot& slot);
    // What becomes of a VM that crashed or stopped, by its configuration. `text`: how that is announced.
    void follow(VmSlot& slot, LifecycleAction action, std::string_view text);
    // Pages that the hardware has lost. True if there was one.
    bool attend_to_lost_pages();
    void lose_page(const LostPage& lost);
    void crash(VmSlot& slot, std::string_view reason);
    // Gives back what it holds, and gets it anew from other memory.
    [[nodiscard]] Result<> renew(VmSlot& slot);
    [[nodiscard]] Result<> create(VmSlot& slot);
    // If it stopped by a fault: keeps where. The VM is entered, and its vCPUs are taken off their cores.
    void note_fault(VmSlot& slot);
    void restart(VmSlot& slot);
    void release(VmSlot& slot);
    void report(const VmSlot& slot, std::string_view what);
    void report_again(VmSlot& slot, std::string_view what);

    HostServices& host_;
    const PhysicalMachine& machine_;
    Logger& log_;
    Config& config_;
    toml::Document& document_;
    Provisioner provisioner_;
    PartitionPlan plan_;
    VmObserver* observer_ = nullptr;

    VmSlot slots_[max_vms];
    usize slot_count_ = 0;
    std::optional<Core> cores_[max_cores];
    unsigned core_count_ = 0;
    std::optional<IsolationAudit> audit_;  // working memory
    // Too large for the stack: what is asked for and what was before.
    VmConfig wanted_, previous_;
};

}  // namespace bulkhead
