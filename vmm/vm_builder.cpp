#include "vmm/vm_builder.hpp"

#include <algorithm>

#include "arch/x86/regs/control.hpp"
#include "vmm/platform.hpp"

namespace bulkhead {
namespace {

// Offset in guest RAM, taken as one piece, of a guest-physical address: RAM above the hole continues where
// RAM below it ends.
struct RamMap {
    std::span<const UnitRun> runs;
    u64 window = 0;

    // The run's part that starts at `offset`, at most `length` bytes of it.
    struct Piece {
        HostPhysical physical{};
        u64 length = 0;
    };
    [[nodiscard]] Piece at(u64 offset, u64 length) const {
        for (const UnitRun& run : runs) {
            if (offset < run.bytes()) return {run.start + offset, std::min(length, run.bytes() - offset)};
            offset -= run.bytes();
        }
        return {};
    }
};

struct Region {
    u64 guest = 0;
    u64 length = 0;
    u64 offset = 0;  // in RAM
    bool writable = true;
};

// Gives the guest a region of RAM: in its nested page table and in the hypervisor's view of its memory.
Result<> map_region(NestedPageTable& nested, GuestMemory& memory, const RamMap& ram, const Region& region,
                    unsigned max_level) {
    u64 done = 0;
    while (done < region.length) {
        const RamMap::Piece piece = ram.at(region.offset + done, region.length - done);
        if (piece.length == 0) return fail("guest memory is shorter than its map; report this");
        const GuestPhysical guest(region.guest + done);
        const PageAttributes attributes{.permissions = region.writable ? read_write_execute : read_execute};
        if (auto mapped = nested.map(guest, piece.physical, piece.length, attributes, max_level); !mapped)
            return mapped;
        if (auto added = memory.add({.start = guest,
                                     .length = piece.length,
                                     .host = reinterpret_cast<u8*>(ram.window + piece.physical.raw()),
                                     .writable = region.writable});
            !added) {
            return added;
        }
        done += piece.length;
    }
    return {};
}

Result<> map_memory(NestedPageTable& nested, VirtualMachine& vm, const VmBlueprint& blueprint,
                    unsigned max_level) {
    const RamMap ram{.runs = blueprint.ram, .window = blueprint.window};
    const u64 low_end = std::min(blueprint.memory, platform::mmio_hole);
    for (const platform::RamPiece& piece : platform::ram_pieces(blueprint.memory)) {
        if (piece.length == 0) continue;
        const Region region{.guest = piece.start,
                            .length = piece.length,
                            .offset = piece.start < platform::mmio_hole
                                          ? piece.start
                                          : low_end + (piece.start - platform::mmio_hole_end),
                            .writable = piece.guest_writable};
        if (auto mapped = map_region(nested, vm.memory(), ram, region, max_level); !mapped) return mapped;
    }
    // The text buffer is plain memory: what the guest writes there exits nowhere.
    constexpr u64 text_length = platform::vga_window + platform::vga_window_size - platform::vga_text;
    const Region text{.guest = platform::vga_text, .length = text_length, .offset = platform::vga_text};
    if (auto mapped = map_region(nested, vm.memory(), ram, text, max_level); !mapped) return mapped;
    vm.set_text_buffer({vm.memory().at(GuestPhysical(platform::vga_text), text_length), text_length});
    return {};
}

Result<> add_vcpu(Arena& arena, VirtualMachine& vm, const VmBlueprint& blueprint, unsigned number,
                  const PhysicalMachine& machine, BackendFactory& factory, HostPhysical nested_root) {
    auto cpuid = arena.create<CpuidPolicy>();
    if (!cpuid) return std::unexpected(cpuid.error());
    CpuidParameters parameters;
    parameters.vcpus = blueprint.vcpus;
    parameters.vcpu = number;
    parameters.tsc_hz = machine.tsc_hz();
    // The timer runs at the TSC's pace, and leaf 15h says so.
    parameters.timer_hz = 0;
    if (auto built = (*cpuid)->build(machine, parameters); !built) return built;

    auto page = arena.allocate_pages(1);
    if (!page) return std::unexpected(page.error());
    auto apic = arena.create<LocalApic>(page->base, vm.clock(), vm.interrupts(),
                                        LocalApic::Parameters{.id = number,
                                                              .bootstrap = number == 0,
                                                              .x2apic = (*cpuid)->x2apic(),
                                                              .tsc_deadline = (*cpuid)->tsc_deadline(),
                                                              .physical_bits = (*cpuid)->physical_bits(),
                                                              .assist = factory.apic_assist()});
    if (!apic) return std::unexpected(apic.error());
    auto backend = factory.create(arena, {.nested_root = nested_root,
                                          .apic_page = *page,
                                          .vm_number = blueprint.number,
                                          .vcpu_number = static_cast<u16>(number),
                                          .xcr0_supported = (*cpuid)->xcr0_mask(),
                                          .cr4_mask = (*cpuid)->cr4_mask(),
                                          .rdtscp = (*cpuid)->rdtscp() || (*cpuid)->rdpid(),
                                          .invpcid = (*cpuid)->invpcid(),
                                          .memory = &vm.memory(),
                                          .x2apic = (*cpuid)->x2apic()});
    if (!backend) return std::unexpected(backend.error());
    auto vcpu = arena.create<Vcpu>(vm, number, **backend, **apic, **cpuid);
    if (!vcpu) return std::unexpected(vcpu.error());
    return vm.add_vcpu(**vcpu, **apic);
}

}  // namespace

Result<HostPhysical> ArenaTableMemory::allocate() {
    auto page = arena_.allocate_pages(1);
    if (!page) return std::unexpected(page.error());
    return page->physical;
}

u64 arena_bytes_for(const VmBlueprint& blueprint) {
    // A page of tables per GiB when it is mapped in 2 MiB pages, host and nested; some for the split first 2
    // MiB and the upper levels; the chips; and per vCPU its model, its hardware pages and an instruction's
    // worth of slack.
    const u64 tables = 2 * (blueprint.memory / gib + 16) * page_size;
    return tables + 256 * kib + blueprint.vcpus * 64 * kib;
}

Result<VirtualMachine*> build_virtual_machine(Arena& arena, const VmBlueprint& blueprint,
                                              const PhysicalMachine& machine, BackendFactory& factory,
                                              Surroundings& surroundings) {
    if (blueprint.vcpus == 0 || blueprint.vcpus > VirtualMachine::max_vcpus) {
        return fail("{} vCPUs are out of range; a VM has 1 to {}", blueprint.vcpus,
                    VirtualMachine::max_vcpus);
    }
    if (blueprint.memory < min_guest_memory) {
        return fail("{} bytes of memory are too few; a VM has at least {}", blueprint.memory,
                    min_guest_memory);
    }
    auto vm = arena.create<VirtualMachine>(machine, surroundings,
                                           VirtualMachine::Parameters{.number = blueprint.number,
                                                                      .vcpus = blueprint.vcpus,
                                                                      .memory = blueprint.memory,
                                                                      .assist = factory.apic_assist()});
    if (!vm) return std::unexpected(vm.error());
    auto memory = arena.create<ArenaTableMemory>(arena, blueprint.window);
    if (!memory) return std::unexpected(memory.error());
    auto root = NestedPageTable::make_root(factory.nested_format(), **memory);
    if (!root) return std::unexpected(root.error());
    NestedPageTable nested(factory.nested_format(), **memory, *root);
    if (auto mapped = map_memory(nested, **vm, blueprint, factory.nested_max_level()); !mapped) {
        return std::unexpected(mapped.error());
    }
    if (auto mapped = factory.map_apic_access(nested, arena); !mapped) return std::unexpected(mapped.error());
    (*vm)->set_nested_table(nested);
    for (unsigned i = 0; i < blueprint.vcpus; ++i) {
        if (auto added = add_vcpu(arena, **vm, blueprint, i, machine, factory, *root); !added) {
            return std::unexpected(added.error());
        }
    }
    if (auto wired = (*vm)->wire(); !wired) return std::unexpected(wired.error());
    return *vm;
}

}  // namespace bulkhead
