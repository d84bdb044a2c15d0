// All VMs of the machine: their life from configuration to destruction, and whose turn it is on the core.
//
// A core is always in some address space: the kernel's own or a VM's compartment. The kernel's image, its
// data and this object are in all of them, so the manager goes from one to the other as it needs and stays in
// the last.
#pragma once

#include <cstring>
#include <optional>

#include "kernel/bootinfo/boot_info.hpp"
#include "kernel/log/logger.hpp"
#include "kernel/mem/compartment.hpp"
#include "kernel/mem/page_pool.hpp"
#include "kernel/mem/unit_allocator.hpp"
#include "vmm/config/config.hpp"
#include "vmm/console/console_ring.hpp"
#include "vmm/console/management.hpp"
#include "vmm/host_services.hpp"
#include "vmm/vm_builder.hpp"

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

    VmManager(HostServices& host, const PhysicalMachine& machine, BackendFactory& factory,
              UnitAllocator& units, Logger& log, std::span<const BootModule> modules)
        : host_(host), machine_(machine), factory_(factory), units_(units), log_(log), modules_(modules) {}
    VmManager(const VmManager&) = delete;
    VmManager& operator=(const VmManager&) = delete;

    void set_observer(VmObserver& observer) { observer_ = &observer; }

    // Registers every VM of `config`, which outlives the manager, and starts those that are to start by
    // themselves.
    void adopt(const Config& config);

    // Runs the next vCPU that has something to do, until `deadline` (physical TSC) at the latest. False: none
    // has.
    bool run_next(u64 deadline);
    // The physical TSC at which the next blocked vCPU wants to run; `never`.
    [[nodiscard]] u64 next_wake() const;

    // Management.
    HostInfo host() const override { return host_.info(); }
    usize vm_count() const override { return slot_count_; }
    bool summary(usize index, VmSummary& out) const override;
    bool details(VmId vm, VmDetails& out) const override;
    bool exit_statistics(VmId vm, ExitStatistics& out) const override;
    Result<> start(VmId vm) override;
    Result<> pause(VmId vm) override;
    Result<> unpause(VmId vm) override;
    Result<> reset(VmId vm) override;
    Result<> shutdown(VmId vm) override;
    Result<> destroy(VmId vm) override;
    bool read_log(u64 sequence, LogEntry& entry) override { return log_.read(sequence, entry); }
    Result<> reboot() override { return host_.reboot(); }
    Result<> poweroff() override { return host_.power_off(); }
    ConsoleRing* console(VmId vm) override;
    bool send_input(VmId vm, u8 byte) override;

  private:
    static constexpr usize console_ring_size = 64 * kib;

    struct VcpuSlot {
        bool blocked = false;
        u64 wake_at = never;
    };
    // Pages for a compartment's own tables: in the VM's arena.
    class CompartmentTables final : public PoolTableMemory {
      public:
        CompartmentTables(PagePool& pool, u64 window) : PoolTableMemory(pool, window) {}
        // Changed only while no core is in the compartment.
        void flush(u64, u64) override {}
    };
    // What the kernel itself keeps of a VM. `machine`, `ring` and all behind them are in the VM's
    // compartment.
    struct Slot {
        VmId id{};
        const VmConfig* config = nullptr;
        VmState state = VmState::off;
        FixedString<200> reason;
        u64 resets = 0;
        u64 powered_on_at = 0;
        u64 restart_at = 0;      // the TSC at which a VM that reset itself starts anew; 0: it has not
        unsigned next_vcpu = 0;  // whose turn it is within the VM

        FixedVector<UnitRun, 1 + max_ram_runs> memory;  // the arena's run first, then guest RAM
        std::optional<Compartment> compartment;
        PagePool table_pool;
        std::optional<CompartmentTables> tables;
        Arena arena;
        VirtualMachine* machine = nullptr;
        ConsoleRing* ring = nullptr;
        VcpuSlot vcpus[VirtualMachine::max_vcpus];
        unsigned vcpu_count = 0;
    };

    void serial_output(u16 vm, u8 character) override;
    void wake(u16 vm, unsigned vcpu) override;

    [[nodiscard]] Slot* find(VmId vm);
    [[nodiscard]] const Slot* find(VmId vm) const;
    [[nodiscard]] u8* at(HostPhysical physical) const {
        return reinterpret_cast<u8*>(host_.window() + physical.raw());
    }
    void clear(const PhysicalRange& range) const { std::memset(at(range.start), 0, range.length); }
    [[nodiscard]] Bytes bytes_of(const BootModule& module) const { return {at(module.start), module.size()}; }
    void enter(const Slot& slot) const;
    void enter_kernel() const;

    using Management::create;
    [[nodiscard]] Result<> make(Slot& slot);
    [[nodiscard]] Result<> allocate_memory(Slot& slot, const VmBlueprint& blueprint);
    [[nodiscard]] Result<> build_compartment(Slot& slot);
    [[nodiscard]] Result<> build_machine(Slot& slot, VmBlueprint& blueprint);
    [[nodiscard]] Result<> power_on(Slot& slot);
    void release(Slot& slot);
    void scrub_and_free(const Slot& slot, const UnitRun& unit);
    [[nodiscard]] const BootModule* find_module(std::string_view name) const;
    [[nodiscard]] Result<> collect_modules(const VmConfig& config,
                                           FixedVector<PhysicalRange, 20>& ranges) const;
    [[nodiscard]] Result<> collect_images(const VmConfig& config, BootImages& images);

    bool run_vcpu(Slot& slot, unsigned number, u64 deadline);
    void make_current(Slot& slot, Vcpu& vcpu);
    void drop_current();
    void after_stop(Slot& slot);
    void restart(Slot& slot);
    void report(const Slot& slot, std::string_view what);

    HostServices& host_;
    const PhysicalMachine& machine_;
    BackendFactory& factory_;
    UnitAllocator& units_;
    Logger& log_;
    std::span<const BootModule> modules_;
    VmObserver* observer_ = nullptr;

    Slot slots_[max_vms];
    usize slot_count_ = 0;
    GuestModule guest_modules_[VmConfig::max_modules];  // while a VM is loaded
    // The vCPU whose state is in this core's registers.
    Slot* current_slot_ = nullptr;
    Vcpu* current_vcpu_ = nullptr;
    usize next_slot_ = 0;  // whose turn it is
};

}  // namespace bulkhead
