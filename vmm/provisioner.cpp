#include "vmm/provisioner.hpp"

#include <algorithm>

#include "kernel/mem/layout.hpp"

namespace bulkhead {
namespace {

constexpr u64 console_ring_size = 64 * kib;
constexpr u64 console_ring_lines = 1024;  // of which it knows when they began

u64 units_for(u64 bytes) {
    return (bytes + large_page_size - 1) / large_page_size;
}

// A run that covers the whole 2 MiB units of `run`, as a range.
PhysicalRange range_of(const UnitRun& run) {
    return {.start = run.start, .length = run.bytes()};
}

PhysicalRange pages_of(const BootModule& module) {
    const HostPhysical start = module.start.align_down(page_size);
    return {.start = start, .length = module.end.align_up(page_size) - start};
}

// Pages for a compartment's host page tables: one a GiB of memory, some for the upper levels, two a module.
u64 table_pages_for(u64 memory) {
    return 64 + memory / gib * 2;
}

VmBlueprint blueprint_of(const VmConfig& config) {
    return {.vcpus = config.vcpus, .memory = units_for(config.memory_bytes) * large_page_size};
}

}  // namespace

MemoryNeed memory_need_of(const VmConfig& config) {
    const VmBlueprint blueprint = blueprint_of(config);
    const u64 arena = arena_bytes_for(blueprint) + console_ring_size +
                      console_ring_lines * sizeof(LineStamp) +
                      (table_pages_for(blueprint.memory) + 1) * page_size;
    return {.overhead_units = units_for(arena), .ram_units = units_for(blueprint.memory)};
}

// --- Modules
// ----------------------------------------------------------------------------------------------------

const BootModule* Provisioner::find_module(std::string_view name) const {
    for (const BootModule& module : modules_) {
        if (module.name == name) return &module;
    }
    return nullptr;
}

namespace {

Error missing(std::string_view key, std::string_view name) {
    return fail("{} \"{}\" is not among the boot modules; add it to the GRUB entry", key, name).error();
}

}  // namespace

Result<> Provisioner::collect_modules(const VmConfig& config, FixedVector<PhysicalRange, 20>& ranges) const {
    const auto add = [&](std::string_view key, std::string_view name) -> Result<> {
        const BootModule* module = find_module(name);
        if (module == nullptr) return std::unexpected(missing(key, name));
        PhysicalRange range = pages_of(*module);
        // The same module twice, or a page that two of them share, is mapped once: what overlaps is joined.
        for (usize i = 0; i < ranges.size();) {
            if (!ranges[i].overlaps(range)) {
                ++i;
                continue;
            }
            const HostPhysical end = std::max(range.start + range.length, ranges[i].start + ranges[i].length);
            range.start = std::min(range.start, ranges[i].start);
            range.length = end - range.start;
            ranges.erase(i);
        }
        if (range.length != 0 && !ranges.push_back(range)) return fail("too many modules for one VM");
        return {};
    };
    if (config.kernel.empty()) return fail("it has no kernel; set kernel = \"NAME OF A MODULE\"");
    if (auto added = add("kernel", config.kernel); !added) return added;
    if (!config.initrd.empty()) {
        if (auto added = add("initrd", config.initrd); !added) return added;
    }
    for (usize i = 0; i < config.module_count(); ++i) {
        if (auto added = add("module", config.module_name(i)); !added) return added;
    }
    return {};
}

void Provisioner::collect_images(const VmConfig& config, BootImages& images) {
    images = {};
    images.kernel = bytes_of(*find_module(config.kernel));
    images.cmdline = config.cmdline;
    images.protocol = config.boot;
    if (!config.initrd.empty()) images.initrd = bytes_of(*find_module(config.initrd));
    for (usize i = 0; i < config.module_count(); ++i) {
        const std::string_view name = config.module_name(i);
        guest_modules_[i] = {
            .name = name, .bytes = bytes_of(*find_module(name)), .cmdline = config.module_arguments(i)};
    }
    images.modules = {guest_modules_, config.module_count()};
}

// --- Creation
// ---------------------------------------------------------------------------------------------------

Result<> Provisioner::create(VmSlot& slot, Surroundings& surroundings) {
    VmBlueprint blueprint = blueprint_of(*slot.config);
    blueprint.number = slot.id.raw();
    auto memory = take_memory(units_, memory_need_of(*slot.config));
    if (!memory) return std::unexpected(memory.error());
    slot.memory = *memory;
    slot.arena.set_fault(fault_);
    auto made = build_compartment(slot);
    if (made) made = build_machine(slot, blueprint, surroundings);
    if (!made) release(slot);
    return made;
}

Result<usize> Provisioner::read_module(const BootModule& module, std::span<char> out) const {
    if (module.size() > out.size())
        return fail("module {} has {} bytes; at most {} are read", module.name, module.size(), out.size());
    const PhysicalRange pages = pages_of(module);
    enter_kernel();
    if (auto mapped = host_.map(pages, read_only); !mapped) return std::unexpected(mapped.error());
    std::memcpy(out.data(), at(module.start), module.size());
    if (auto unmapped = host_.unmap(pages); !unmapped) return std::unexpected(unmapped.error());
    return module.size();
}

// The arena's run: a page for the table pool's books, the pool, then what the arena gives out.
Result<> Provisioner::build_compartment(VmSlot& slot) {
    FixedVector<PhysicalRange, 20> modules;
    if (auto collected = collect_modules(*slot.config, modules); !collected) return collected;

    const PhysicalRange arena = range_of(slot.memory[0]);
    u64 memory = 0;
    for (const UnitRun& run : slot.memory) memory += run.bytes();
    const u64 table_pages = table_pages_for(memory);

    enter_kernel();
    if (auto mapped = host_.map(arena, read_write); !mapped) return mapped;
    clear(arena);
    const std::span<u64> books(reinterpret_cast<u64*>(at(arena.start)), page_size / sizeof(u64));
    slot.table_pool = PagePool(arena.start + page_size, table_pages, books);
    slot.tables.emplace(slot.table_pool, host_.window(), fault_);
    auto compartment =
        Compartment::create(host_.kernel_table(), *slot.tables, slot.memory, modules, host_.max_page_level());
    if (auto unmapped = host_.unmap(arena); !unmapped) return unmapped;
    if (!compartment) return std::unexpected(compartment.error());
    slot.compartment = *compartment;

    const u64 used = (1 + table_pages) * page_size;
    return slot.arena.add(
        {.base = at(arena.start + used), .physical = arena.start + used, .length = arena.length - used});
}

Result<> Provisioner::build_machine(VmSlot& slot, VmBlueprint& blueprint, Surroundings& surroundings) {
    enter(slot);
    auto storage = slot.arena.allocate(console_ring_size, page_size);
    if (!storage) return std::unexpected(storage.error());
    auto stamps = slot.arena.create_array<LineStamp>(console_ring_lines);
    if (!stamps) return std::unexpected(stamps.error());
    auto ring = slot.arena.create<ConsoleRing>(MutableBytes(*storage, console_ring_size), *stamps);
    if (!ring) return std::unexpected(ring.error());
    slot.ring = *ring;
    blueprint.ram = std::span<const UnitRun>(slot.memory.begin() + 1, slot.memory.size() - 1);
    blueprint.window = host_.window();
    auto machine = build_virtual_machine(slot.arena, blueprint, machine_, factory_, surroundings);
    if (!machine) return std::unexpected(machine.error());
    slot.machine = *machine;
    slot.vcpu_count = blueprint.vcpus;
    for (VcpuThread& thread : slot.vcpus()) {
        thread.number = static_cast<unsigned>(&thread - slot.threads);
        thread.slot = &slot;
        thread.vcpu = slot.machine->vcpus()[thread.number];
        thread.signalled.store(false, std::memory_order_relaxed);
        thread.runnable.emplace(u32{slot.id.raw()} * 16 + thread.number, slot.config->cpu_weight,
                                &slot.bandwidth, &slot.gang);
    }
    return {};
}

Result<StartState> Provisioner::power_on(VmSlot& slot) {
    enter(slot);
    BootImages images;
    collect_images(*slot.config, images);
    return slot.machine->power_on(images);
}

// --- Destruction
// ------------------------------------------------------------------------------------------------

void Provisioner::release(VmSlot& slot) {
    enter_kernel();
    for (const UnitRun& run : slot.memory) {
        // Unit by unit, so that mapping it takes few tables.
        for (u64 i = 0; i < run.units; ++i) {
            const HostPhysical unit = run.start + i * large_page_size;
            // Part of a retired one would bring a machine check when it is touched.
            if (units_.in_use(unit)) scrub_and_free(slot, {unit, 1});
        }
    }
    slot.memory.clear();
    slot.memory_lost = false;
    slot.compartment.reset();
    slot.tables.reset();
    slot.table_pool = PagePool();
    slot.arena.clear();
    slot.machine = nullptr;
    slot.ring = nullptr;
    for (VcpuThread& thread : slot.vcpus()) {
        thread.vcpu = nullptr;
        thread.runnable.reset();
    }
    slot.vcpu_count = 0;
    slot.restart_at = 0;
    slot.stop_pending.store(false, std::memory_order_relaxed);
}

// What cannot be scrubbed stays allocated: nobody else may see what is in it.
void Provisioner::scrub_and_free(const VmSlot& slot, const UnitRun& unit) {
    const PhysicalRange range = range_of(unit);
    auto done = host_.map(range, read_write);
    if (done) {
        clear(range);
        done = host_.unmap(range);
    }
    if (done) done = units_.free(unit);
    if (!done)
        log_.error("VM {}: {} of its memory is lost: {}", slot.config->name, unit.start, done.error().text);
}

}  // namespace bulkhead
