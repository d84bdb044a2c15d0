// Gives a VM what it needs of the machine and takes it back: memory, a compartment, the machine built inside
// it, its boot images. On the managing core only, while no core runs the VM.
#pragma once

#include <cstring>
#include <span>

#include "kernel/bootinfo/boot_info.hpp"
#include "kernel/log/logger.hpp"
#include "kernel/mem/unit_allocator.hpp"
#include "vmm/backend_factory.hpp"
#include "vmm/host_services.hpp"
#include "vmm/vm_slot.hpp"

namespace bulkhead {

// What a VM takes of the machine's memory.
[[nodiscard]] MemoryNeed memory_need_of(const VmConfig& config);

class Provisioner {
  public:
    Provisioner(HostServices& host, const PhysicalMachine& machine, BackendFactory& factory,
                UnitAllocator& units, Logger& log, std::span<const BootModule> modules)
        : host_(host), machine_(machine), factory_(factory), units_(units), log_(log), modules_(modules) {}

    // All or nothing. The core holds no vCPU's state.
    [[nodiscard]] Result<> create(VmSlot& slot, Surroundings& surroundings);
    // Everything the VM ever held goes back, scrubbed.
    void release(VmSlot& slot);
    // Clears the guest's memory, resets its chips and loads its images; what its first processor starts with.
    [[nodiscard]] Result<StartState> power_on(VmSlot& slot);

    void enter(const VmSlot& slot) const { host_.enter_address_space(slot.compartment->root()); }
    void enter_kernel() const { host_.enter_address_space(host_.kernel_table().root()); }

    // For tests: strikes at an allocation in the arena of a VM that is created, or of a page for its tables.
    void set_fault(AllocationFault* fault) { fault_ = fault; }

    [[nodiscard]] const UnitAllocator& units() const { return units_; }
    // The 2 MiB around that address are not to be given to anybody any more. False: nobody could get them
    // anyway.
    [[nodiscard]] bool retire(HostPhysical address) {
        return units_.retire(address.align_down(large_page_size));
    }
    [[nodiscard]] const BootModule* find_module(std::string_view name) const;
    // The content of a module, copied out; fails when `out` is too small.
    [[nodiscard]] Result<usize> read_module(const BootModule& module, std::span<char> out) const;

  private:
    [[nodiscard]] u8* at(HostPhysical physical) const {
        return reinterpret_cast<u8*>(host_.window() + physical.raw());
    }
    void clear(const PhysicalRange& range) const { std::memset(at(range.start), 0, range.length); }
    [[nodiscard]] Bytes bytes_of(const BootModule& module) const { return {at(module.start), module.size()}; }

    [[nodiscard]] Result<> build_compartment(VmSlot& slot);
    [[nodiscard]] Result<> build_machine(VmSlot& slot, VmBlueprint& blueprint, Surroundings& surroundings);
    void scrub_and_free(const VmSlot& slot, const UnitRun& unit);
    [[nodiscard]] Result<> collect_modules(const VmConfig& config,
                                           FixedVector<PhysicalRange, 20>& ranges) const;
    void collect_images(const VmConfig& config, BootImages& images);

    HostServices& host_;
    const PhysicalMachine& machine_;
    BackendFactory& factory_;
    UnitAllocator& units_;
    Logger& log_;
    std::span<const BootModule> modules_;
    AllocationFault* fault_ = nullptr;
    GuestModule guest_modules_[VmConfig::max_modules];  // while a VM is loaded
};

}  // namespace bulkhead
