// Makes a virtual machine out of an arena and guest RAM: the nested page table, the processors, the wiring.
#pragma once

#include <span>

#include "kernel/base/result.hpp"
#include "kernel/mem/arena.hpp"
#include "kernel/mem/layout.hpp"
#include "kernel/mem/page_table.hpp"
#include "kernel/mem/unit_allocator.hpp"
#include "vmm/backend_factory.hpp"
#include "vmm/virtual_machine.hpp"

namespace bulkhead {

struct VmBlueprint {
    u16 number = 0;      // below 64; different for each VM
    unsigned vcpus = 1;  // 1..VirtualMachine::max_vcpus
    u64 memory = 0;      // bytes of guest RAM: what `ram` holds
    std::span<const UnitRun> ram{};
    u64 window = arena_window;  // RAM and arena are mapped here + their physical address
};

// Guest RAM comes in so many contiguous pieces at the most.
constexpr usize max_ram_runs = 4;
// Smallest guest RAM: the first MiB with its holes, and room for a kernel.
constexpr u64 min_guest_memory = 2 * mib;

// Memory for the nested page table: pages of the arena, never given back one by one.
class ArenaTableMemory final : public TableMemory {
  public:
    ArenaTableMemory(Arena& arena, u64 window) : arena_(arena), window_(window) {}
    Result<HostPhysical> allocate() override;
    void free(HostPhysical) override {}
    u64* access(HostPhysical table) override { return reinterpret_cast<u64*>(window_ + table.raw()); }
    void flush(u64, u64) override {}

  private:
    Arena& arena_;
    u64 window_;
};

// Everything is made in `arena`, which is mapped here, as is `ram`, at the blueprint's window. The VM is not
// powered on yet.
[[nodiscard]] Result<VirtualMachine*> build_virtual_machine(Arena& arena, const VmBlueprint& blueprint,
                                                            const PhysicalMachine& machine,
                                                            BackendFactory& factory,
                                                            Surroundings& surroundings);

// Bytes of arena that a VM of this size needs, tables included.
[[nodiscard]] u64 arena_bytes_for(const VmBlueprint& blueprint);

}  // namespace bulkhead
