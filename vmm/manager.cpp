#include "vmm/manager.hpp"

#include <algorithm>

#include "kernel/mem/layout.hpp"

namespace bulkhead {
namespace {

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

}  // namespace

// --- Address spaces
// -----------------------------------------------------------------------------------------

void VmManager::enter(const Slot& slot) const {
    host_.enter_address_space(slot.compartment->root());
}

void VmManager::enter_kernel() const {
    host_.enter_address_space(host_.kernel_table().root());
}

VmManager::Slot* VmManager::find(VmId vm) {
    for (usize i = 0; i < slot_count_; ++i) {
        if (slots_[i].id == vm) return &slots_[i];
    }
    return nullptr;
}

const VmManager::Slot* VmManager::find(VmId vm) const {
    return const_cast<VmManager*>(this)->find(vm);
}

// --- Creation and destruction
// -------------------------------------------------------------------------------

void VmManager::adopt(const Config& config) {
    for (const VmConfig& vm : config.vms()) {
        if (slot_count_ == max_vms) {
            log_.error("VM {} is one too many: at most {} are possible", vm.name, max_vms);
            return;
        }
        Slot& slot = slots_[slot_count_];
        slot.id = VmId(static_cast<u16>(slot_count_++));
        slot.config = &vm;
        if (vm.refused) {
            slot.state = VmState::refused;
            slot.reason = "its configuration is wrong: see dmesg";
        }
    }
    for (usize i = 0; i < slot_count_; ++i) {
        Slot& slot = slots_[i];
        if (slot.state != VmState::off || !slot.config->autostart) continue;
        if (auto started = start(slot.id); !started)
            log_.error("VM {}: {}", slot.config->name, started.error().text);
    }
}

const BootModule* VmManager::find_module(std::string_view name) const {
    for (const BootModule& module : modules_) {
        if (module.name == name) return &module;
    }
    return nullptr;
}

namespace {

std::string_view first_word(std::string_view text) {
    return text.substr(0, text.find(' '));
}

std::string_view after_first_word(std::string_view text) {
    const usize space = text.find(' ');
    if (space == std::string_view::npos) return {};
    text.remove_prefix(space);
    while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
    return text;
}

Error missing(std::string_view key, std::string_view name) {
    return fail("{} \"{}\" is not among the boot modules; add it to the GRUB entry", key, name).error();
}

}  // namespace

Result<> VmManager::collect_modules(const VmConfig& config, FixedVector<PhysicalRange, 20>& ranges) const {
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
        if (auto added = add("module", first_word(config.module(i))); !added) return added;
    }
    return {};
}

Result<> VmManager::collect_images(const VmConfig& config, BootImages& images) {
    images = {};
    images.kernel = bytes_of(*find_module(config.kernel));
    images.cmdline = config.cmdline;
    images.protocol = config.boot;
    if (!config.initrd.empty()) images.initrd = bytes_of(*find_module(config.initrd));
    for (usize i = 0; i < config.module_count(); ++i) {
        const std::string_view name = first_word(config.module(i));
        guest_modules_[i] = {.name = name,
                             .bytes = bytes_of(*find_module(name)),
                             .cmdline = after_first_word(config.module(i))};
    }
    images.modules = {guest_modules_, config.module_count()};
    return {};
}

Result<> VmManager::make(Slot& slot) {
    VmBlueprint blueprint{.number = slot.id.raw(),
                          .vcpus = slot.config->vcpus,
                          .memory = units_for(slot.config->memory_bytes) * large_page_size};
    if (blueprint.vcpus > VirtualMachine::max_vcpus) {
        return fail("vcpus = {} is out of range; a VM has 1 to {}", blueprint.vcpus,
                    VirtualMachine::max_vcpus);
    }
    // Making a VM takes the processor's hands off whatever vCPU it holds.
    drop_current();
    auto made = allocate_memory(slot, blueprint);
    if (made) made = build_compartment(slot);
    if (made) made = build_machine(slot, blueprint);
    if (!made) release(slot);
    return made;
}

Result<> VmManager::allocate_memory(Slot& slot, const VmBlueprint& blueprint) {
    const u64 arena_bytes =
        arena_bytes_for(blueprint) + console_ring_size + (table_pages_for(blueprint.memory) + 1) * page_size;
    const u64 wanted = units_for(arena_bytes) + units_for(blueprint.memory);
    auto arena = units_.allocate({.units = units_for(arena_bytes)});
    if (!arena) {
        return fail("out of memory: it needs {} MiB, {} MiB are free; give it less, or destroy another VM",
                    wanted * 2, units_.free_units() * 2);
    }
    (void)slot.memory.push_back((*arena)[0]);
    auto ram = units_.allocate({.units = units_for(blueprint.memory), .max_runs = max_ram_runs});
    if (!ram) {
        return fail("out of memory: it needs {} MiB, {} MiB are free; give it less, or destroy another VM",
                    wanted * 2, units_.free_units() * 2 + 2 * slot.memory[0].units);
    }
    for (const UnitRun& run : *ram) (void)slot.memory.push_back(run);
    return {};
}

// The arena's run: a page for the table pool's books, the pool, then what the arena gives out.
Result<> VmManager::build_compartment(Slot& slot) {
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
    slot.tables.emplace(slot.table_pool, host_.window());
    auto compartment =
        Compartment::create(host_.kernel_table(), *slot.tables, slot.memory, modules, host_.max_page_level());
    if (auto unmapped = host_.unmap(arena); !unmapped) return unmapped;
    if (!compartment) return std::unexpected(compartment.error());
    slot.compartment = *compartment;

    const u64 used = (1 + table_pages) * page_size;
    return slot.arena.add(
        {.base = at(arena.start + used), .physical = arena.start + used, .length = arena.length - used});
}

Result<> VmManager::build_machine(Slot& slot, VmBlueprint& blueprint) {
    enter(slot);
    auto storage = slot.arena.allocate(console_ring_size, page_size);
    if (!storage) return std::unexpected(storage.error());
    auto ring = slot.arena.create<ConsoleRing>(MutableBytes(*storage, console_ring_size));
    if (!ring) return std::unexpected(ring.error());
    slot.ring = *ring;
    blueprint.ram = std::span<const UnitRun>(slot.memory.begin() + 1, slot.memory.size() - 1);
    blueprint.window = host_.window();
    auto machine = build_virtual_machine(slot.arena, blueprint, machine_, factory_, *this);
    if (!machine) return std::unexpected(machine.error());
    slot.machine = *machine;
    slot.vcpu_count = blueprint.vcpus;
    return {};
}

Result<> VmManager::power_on(Slot& slot) {
    enter(slot);
    if (current_slot_ == &slot) drop_current();
    BootImages images;
    if (auto collected = collect_images(*slot.config, images); !collected) return collected;
    const auto start = slot.machine->power_on(images);
    if (!start) return std::unexpected(start.error());
    for (Vcpu* vcpu : slot.machine->vcpus()) {
        make_current(slot, *vcpu);
        vcpu->reset(vcpu->number() == 0 ? &*start : nullptr);
    }
    for (VcpuSlot& vcpu : slot.vcpus) vcpu = {};
    slot.restart_at = 0;
    slot.powered_on_at = machine_.tsc();
    slot.reason.clear();
    slot.state = VmState::running;
    return {};
}

// Everything a VM ever held goes back, scrubbed.
void VmManager::release(Slot& slot) {
    // The processor lets go of its hardware pages before they become somebody else's.
    if (current_slot_ == &slot) drop_current();
    enter_kernel();
    for (const UnitRun& run : slot.memory) {
        // Unit by unit, so that mapping it takes few tables.
        for (u64 i = 0; i < run.units; ++i) scrub_and_free(slot, {run.start + i * large_page_size, 1});
    }
    slot.memory.clear();
    slot.compartment.reset();
    slot.tables.reset();
    slot.table_pool = PagePool();
    slot.arena.clear();
    slot.machine = nullptr;
    slot.ring = nullptr;
    slot.vcpu_count = 0;
    slot.restart_at = 0;
}

// What cannot be scrubbed stays allocated: nobody else may see what is in it.
void VmManager::scrub_and_free(const Slot& slot, const UnitRun& unit) {
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

// --- Running
// ------------------------------------------------------------------------------------------------

void VmManager::make_current(Slot& slot, Vcpu& vcpu) {
    if (current_vcpu_ == &vcpu && current_slot_ == &slot) {
        enter(slot);
        return;
    }
    drop_current();
    enter(slot);
    vcpu.backend().load();
    current_slot_ = &slot;
    current_vcpu_ = &vcpu;
}

void VmManager::drop_current() {
    if (current_vcpu_ == nullptr) return;
    enter(*current_slot_);
    current_vcpu_->backend().save();
    current_slot_ = nullptr;
    current_vcpu_ = nullptr;
}

bool VmManager::run_next(u64 deadline) {
    const u64 now = machine_.tsc();
    for (usize tried = 0; tried < slot_count_; ++tried) {
        const usize index = (next_slot_ + tried) % slot_count_;
        Slot& slot = slots_[index];
        if (slot.state != VmState::running) continue;
        if (slot.restart_at != 0) {
            if (now < slot.restart_at) continue;
            restart(slot);
            return true;
        }
        for (unsigned i = 0; i < slot.vcpu_count; ++i) {
            const unsigned number = (slot.next_vcpu + i) % slot.vcpu_count;
            const VcpuSlot& vcpu = slot.vcpus[number];
            if (vcpu.blocked && vcpu.wake_at > now) continue;
            // VMs take turns, however many vCPUs each has.
            slot.next_vcpu = number + 1;
            next_slot_ = (index + 1) % slot_count_;
            return run_vcpu(slot, number, deadline);
        }
    }
    return false;
}

bool VmManager::run_vcpu(Slot& slot, unsigned number, u64 deadline) {
    enter(slot);
    Vcpu& vcpu = *slot.machine->vcpus()[number];
    make_current(slot, vcpu);
    VcpuSlot& state = slot.vcpus[number];
    state.blocked = false;
    switch (vcpu.run(deadline)) {
        case Vcpu::RunResult::yielded: break;
        case Vcpu::RunResult::blocked:
            state.blocked = true;
            state.wake_at = vcpu.wake_deadline();
            break;
        case Vcpu::RunResult::stopped: after_stop(slot); break;
    }
    return true;
}

u64 VmManager::next_wake() const {
    u64 earliest = never;
    for (usize i = 0; i < slot_count_; ++i) {
        const Slot& slot = slots_[i];
        if (slot.state != VmState::running) continue;
        if (slot.restart_at != 0) {
            earliest = std::min(earliest, slot.restart_at);
            continue;
        }
        for (unsigned v = 0; v < slot.vcpu_count; ++v) {
            earliest = std::min(earliest, slot.vcpus[v].blocked ? slot.vcpus[v].wake_at : 0);
        }
    }
    return earliest;
}

void VmManager::wake(u16 vm, unsigned vcpu) {
    Slot& slot = slots_[vm];
    if (vcpu < slot.vcpu_count) slot.vcpus[vcpu].wake_at = 0;
}

void VmManager::report(const Slot& slot, std::string_view what) {
    FixedString<300> text;
    print(text, "VM {} {}", slot.config->name, what);
    log_.info("{}", text);
    if (observer_ != nullptr) observer_->vm_changed(text);
}

// The VM has stopped from within. What happens next is for its configuration to say.
void VmManager::after_stop(Slot& slot) {
    const StopReason why = slot.machine->stop_reason();
    slot.reason = slot.machine->stop_text();
    slot.machine->pause();
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
    if (action == LifecycleAction::restart) {
        report(slot, why == StopReason::reset ? std::string_view("resets itself") : text.view());
        slot.state = VmState::running;
        // A guest that does nothing but reset itself would have the host clear its memory without end.
        slot.restart_at = slot.powered_on_at + machine_.tsc_hz();
        return;
    }
    report(slot, text);
    if (action == LifecycleAction::destroy) (void)destroy(slot.id);
}

void VmManager::restart(Slot& slot) {
    ++slot.resets;
    if (auto powered = power_on(slot); !powered) {
        slot.state = VmState::crashed;
        slot.reason = powered.error().text;
        report(slot, slot.reason);
    }
}

// --- Surroundings: called by the VM that runs
// ---------------------------------------------------------------

void VmManager::serial_output(u16 vm, u8 character) {
    Slot& slot = slots_[vm];
    if (slot.ring != nullptr) slot.ring->write({&character, 1});
}

// --- Management
// ---------------------------------------------------------------------------------------------

bool VmManager::summary(usize index, VmSummary& out) const {
    if (index >= slot_count_) return false;
    const Slot& slot = slots_[index];
    out.id = slot.id;
    out.name = slot.config->name;
    out.state = slot.state;
    out.vcpus = slot.config->vcpus;
    out.memory_bytes = slot.config->memory_bytes;
    out.cpu_nanoseconds = 0;
    if (slot.machine == nullptr) return true;
    enter(slot);
    if (slot.state == VmState::running) {
        bool blocked = true;
        for (unsigned v = 0; v < slot.vcpu_count; ++v) {
            blocked = blocked && slot.machine->vcpus()[v]->activity() != Activity::active;
        }
        if (blocked) out.state = VmState::blocked;
    }
    u64 ticks = 0;
    for (const Vcpu* vcpu : slot.machine->vcpus()) ticks += vcpu->statistics().total_ticks();
    out.cpu_nanoseconds = scale(ticks, 1'000'000'000, machine_.tsc_hz());
    return true;
}

bool VmManager::details(VmId vm, VmDetails& out) const {
    const Slot* slot = find(vm);
    if (slot == nullptr) return false;
    (void)summary(static_cast<usize>(slot - slots_), out.summary);
    out.config = slot->config;
    out.resets = slot->resets;
    out.reason = slot->reason;
    out.uptime_nanoseconds = 0;
    if (slot->machine != nullptr && slot->state != VmState::off) {
        enter(*slot);
        out.uptime_nanoseconds = scale(slot->machine->clock().now(), 1'000'000'000, machine_.tsc_hz());
    }
    return true;
}

bool VmManager::exit_statistics(VmId vm, ExitStatistics& out) const {
    const Slot* slot = find(vm);
    if (slot == nullptr) return false;
    out = {};
    if (slot->machine == nullptr) return true;
    enter(*slot);
    for (const Vcpu* vcpu : slot->machine->vcpus()) out.add(vcpu->statistics());
    return true;
}

Result<> VmManager::start(VmId vm) {
    Slot* slot = find(vm);
    if (slot == nullptr) return fail("there is no such VM");
    switch (slot->state) {
        case VmState::refused: return fail("{} is refused: {}", slot->config->name, slot->reason);
        case VmState::off:
            if (auto created = make(*slot); !created) {
                slot->reason = created.error().text;
                return created;
            }
            break;
        case VmState::shut_down:
        case VmState::crashed: break;
        default: return fail("{} is {} already", slot->config->name, name_of(slot->state));
    }
    if (auto powered = power_on(*slot); !powered) {
        release(*slot);
        slot->state = VmState::off;
        slot->reason = powered.error().text;
        return powered;
    }
    report(*slot, "started");
    return {};
}

Result<> VmManager::pause(VmId vm) {
    Slot* slot = find(vm);
    if (slot == nullptr) return fail("there is no such VM");
    if (slot->state != VmState::running)
        return fail("{} is {}, not running", slot->config->name, name_of(slot->state));
    enter(*slot);
    slot->machine->pause();
    slot->state = VmState::paused;
    return {};
}

Result<> VmManager::unpause(VmId vm) {
    Slot* slot = find(vm);
    if (slot == nullptr) return fail("there is no such VM");
    if (slot->state != VmState::paused)
        return fail("{} is {}, not paused", slot->config->name, name_of(slot->state));
    enter(*slot);
    slot->state = VmState::running;
    // Deadlines have moved with the clock.
    for (VcpuSlot& vcpu : slot->vcpus) vcpu.wake_at = 0;
    slot->machine->resume();
    for (Vcpu* vcpu : slot->machine->vcpus()) {
        make_current(*slot, *vcpu);
        vcpu->refresh_tsc_offset();
    }
    return {};
}

Result<> VmManager::reset(VmId vm) {
    Slot* slot = find(vm);
    if (slot == nullptr) return fail("there is no such VM");
    if (slot->machine == nullptr)
        return fail("{} is {}; start it instead", slot->config->name, name_of(slot->state));
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
    Slot* slot = find(vm);
    if (slot == nullptr) return fail("there is no such VM");
    if (slot->state != VmState::running)
        return fail("{} is {}, not running", slot->config->name, name_of(slot->state));
    enter(*slot);
    slot->vcpus[0].wake_at = 0;
    if (!slot->machine->press_power_button()) {
        return fail("{} does not listen to its power button (no ACPI, or not yet); destroy it instead",
                    slot->config->name);
    }
    return {};
}

Result<> VmManager::destroy(VmId vm) {
    Slot* slot = find(vm);
    if (slot == nullptr) return fail("there is no such VM");
    if (slot->machine == nullptr) return fail("{} is {} already", slot->config->name, name_of(slot->state));
    release(*slot);
    slot->state = VmState::off;
    slot->reason.clear();
    report(*slot, "was destroyed");
    return {};
}

ConsoleRing* VmManager::console(VmId vm) {
    Slot* slot = find(vm);
    if (slot == nullptr || slot->ring == nullptr) return nullptr;
    enter(*slot);
    return slot->ring;
}

bool VmManager::send_input(VmId vm, u8 byte) {
    Slot* slot = find(vm);
    if (slot == nullptr || slot->machine == nullptr) return false;
    enter(*slot);
    if (!slot->machine->serial_input(byte)) return false;
    slot->vcpus[0].wake_at = 0;  // to look at the chip's timers anew
    return true;
}

}  // namespace bulkhead
