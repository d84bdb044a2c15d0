#include "vmm/partition_plan.hpp"

#include "kernel/base/filtered.hpp"

namespace bulkhead {

static_assert(VmConfig::max_vcpus == VirtualMachine::max_vcpus);

namespace {

// "core 3", "cores 3-5,8": at most so much that a reason has room for the rest.
void name_cores(Sink& sink, const CpuSet& set) {
    FixedString<60> list;
    bulkhead::print(list, "{}", set);
    print(sink, "{}{}{}", set.count() == 1 ? std::string_view("core ") : std::string_view("cores "), list,
          list.truncated() ? std::string_view("...") : std::string_view());
}

}  // namespace

std::string_view name_of(VmPlan::Verdict verdict) {
    switch (verdict) {
        case VmPlan::Verdict::unused: break;
        case VmPlan::Verdict::accepted: return "accepted";
        case VmPlan::Verdict::no_memory: return "no memory";
        case VmPlan::Verdict::refused: return "refused";
    }
    return "unused";
}

std::string_view name_of(CoreUse use) {
    switch (use) {
        case CoreUse::offline: break;
        case CoreUse::free: return "free";
        case CoreUse::reserved: return "reserved";
        case CoreUse::dedicated: return "dedicated";
        case CoreUse::shared: return "shared";
    }
    return "offline";
}

Result<VmMemory> take_memory(UnitAllocator& units, const MemoryNeed& need) {
    const u64 free = units.free_units();
    VmMemory memory;
    auto overhead = units.allocate({.units = need.overhead_units});
    if (overhead) {
        (void)memory.push_back((*overhead)[0]);
        auto ram = units.allocate({.units = need.ram_units, .max_runs = max_ram_runs});
        if (ram) {
            for (const UnitRun& run : *ram) (void)memory.push_back(run);
            return memory;
        }
        (void)units.free(memory);
    }
    if (need.units() > free) {
        return fail("out of memory: it needs {} MiB, {} MiB are free; give it less, or destroy another VM",
                    need.units() * 2, free * 2);
    }
    return fail(
        "out of memory: it needs {} MiB in {} pieces at most; {} MiB are free, but in smaller pieces; "
        "give it less, or destroy another VM",
        need.units() * 2, 1 + max_ram_runs, free * 2);
}

PartitionPlan::PartitionPlan(const HostServices& host, UnitAllocator& units,
                             std::span<const BootModule> modules, NeedOf need_of)
    : host_(host), units_(units), modules_(modules), need_of_(need_of) {}

// --- What can be seen from one VM alone -------------------------------------------------------------------

const BootModule* PartitionPlan::find_module(std::string_view name) const {
    for (const BootModule& module : modules_) {
        if (module.name == name) return &module;
    }
    return nullptr;
}

Result<> PartitionPlan::check_modules(const VmConfig& config) const {
    const auto present = [&](std::string_view key, std::string_view name) -> Result<> {
        if (find_module(name) != nullptr) return {};
        return fail("{} \"{}\" is not among the boot modules; add it to the GRUB entry", key, Filtered(name));
    };
    if (config.kernel.empty()) return fail("it has no kernel; set kernel = \"NAME OF A MODULE\"");
    if (auto found = present("kernel", config.kernel); !found) return found;
    if (!config.initrd.empty()) {
        if (auto found = present("initrd", config.initrd); !found) return found;
    }
    for (usize i = 0; i < config.module_count(); ++i) {
        if (auto found = present("module", config.module_name(i)); !found) return found;
    }
    return {};
}

Result<> PartitionPlan::check_cores(const CpuSet& set) const {
    CpuSet absent;
    CpuSet offline;
    for (unsigned core = 0; core < max_cores; ++core) {
        if (!set.contains(core) || online_.contains(core)) continue;
        if (core < core_count_) {
            offline.add(core);
        } else {
            absent.add(core);
        }
    }
    if (absent.empty() && offline.empty()) return {};
    Error error;
    if (!absent.empty()) {
        name_cores(error.text, absent);
        bulkhead::print(error.text, " {} not exist: this machine has ",
                        absent.count() == 1 ? std::string_view("does") : std::string_view("do"));
        if (core_count_ == 1) {
            error.text.write("core 0 only");
        } else {
            bulkhead::print(error.text, "cores 0-{}", core_count_ - 1);
        }
    } else {
        unsigned first = 0;
        while (!offline.contains(first)) ++first;
        name_cores(error.text, offline);
        bulkhead::print(error.text, " {} offline: ",
                        offline.count() == 1 ? std::string_view("is") : std::string_view("are"));
        FixedString<80> why;
        why.append(host_.core_info(first).reason);
        error.text.write(why.empty() ? std::string_view("it did not start") : why.view());
    }
    error.text.write("; change cpuset.cpus");
    return std::unexpected(error);
}

Result<> PartitionPlan::check(const VmConfig& config) const {
    if (config.refused) return fail("its configuration is wrong: see dmesg");
    if (config.vcpus == 0 || config.vcpus > VirtualMachine::max_vcpus) {
        return fail("vcpus = {} is out of range; a VM has 1 to {}", config.vcpus, VirtualMachine::max_vcpus);
    }
    if (config.memory_bytes < VmConfig::min_memory || config.memory_bytes > VmConfig::max_memory) {
        return fail("memory.max is {} bytes; give 2M to {}G", config.memory_bytes,
                    VmConfig::max_memory / gib);
    }
    if (auto modules = check_modules(config); !modules) return modules;
    if (auto cores = check_cores(config.cpus); !cores) return cores;
    if (online_.empty()) return fail("no core is online; report the machine");
    return {};
}

// --- Cores ------------------------------------------------------------------------------------------------

void PartitionPlan::count_names(const CpuSet& set, int change) {
    for (unsigned core = 0; core < core_count_; ++core) {
        if (set.contains(core)) named_[core] = static_cast<u16>(named_[core] + change);
    }
}

// The least loaded online core: of a set if there is one, else of those that nobody names, else of all.
unsigned PartitionPlan::best_core(const CpuSet* among) const {
    unsigned best = max_cores;
    bool best_named = false;
    // Core 0 comes last, so that of equals it is not taken.
    for (unsigned i = 1; i <= core_count_; ++i) {
        const unsigned core = i == core_count_ ? 0 : i;
        if (!online_.contains(core) || (among != nullptr && !among->contains(core))) continue;
        const bool named = among == nullptr && named_[core] != 0;
        const bool better =
            best == max_cores || (best_named && !named) || (best_named == named && load_[core] < load_[best]);
        if (!better) continue;
        best = core;
        best_named = named;
    }
    return best;
}

void PartitionPlan::put(VmPlan& vm, unsigned vcpu, unsigned core) {
    if (vm.cores[vcpu] != VmPlan::no_core) --load_[vm.cores[vcpu]];
    vm.cores[vcpu] = static_cast<u16>(core);
    ++load_[core];
}

void PartitionPlan::take_off_cores(VmPlan& vm) {
    for (u16& core : vm.cores) {
        if (core != VmPlan::no_core) --load_[core];
        core = VmPlan::no_core;
    }
    CpuSet& counted = counted_[&vm - vms_];
    count_names(counted, -1);
    counted = {};
}

// The names of the VM's cores count already.
void PartitionPlan::put_on_cores(VmPlan& vm) {
    const CpuSet& set = vm.config->cpus;
    unsigned next = max_cores;
    for (unsigned vcpu = 0; vcpu < vm.vcpus; ++vcpu) {
        if (set.empty()) {
            put(vm, vcpu, best_core(nullptr));
            continue;
        }
        do next = next + 1 < core_count_ ? next + 1 : 0;
        while (!set.contains(next));
        put(vm, vcpu, next);
    }
}

Result<> PartitionPlan::place_cores(usize index) {
    if (index >= max_vms || vms_[index].config == nullptr) return fail("there is no such VM");
    VmPlan& vm = vms_[index];
    if (vm.vcpus == 0) return fail("the VM is refused");
    if (auto checked = check_cores(vm.config->cpus); !checked) return checked;
    take_off_cores(vm);
    counted_[index] = vm.config->cpus;
    count_names(counted_[index], 1);
    put_on_cores(vm);
    return {};
}

Result<> PartitionPlan::pin(usize index, unsigned vcpu, const CpuSet& cores) {
    if (index >= max_vms || vcpu >= vms_[index].vcpus || !vms_[index].placed())
        return fail("there is no such vCPU");
    if (cores.empty()) return fail("no cores are given; write a list such as \"1-2,4\"");
    if (auto checked = check_cores(cores); !checked) return checked;
    // It does not stand in its own way.
    VmPlan& vm = vms_[index];
    const unsigned before = vm.cores[vcpu];
    --load_[before];
    const unsigned best = best_core(&cores);
    ++load_[before];
    // Where it may stay, it stays.
    const bool as_good = cores.contains(before) && load_[before] - 1U <= load_[best];
    if (!as_good) put(vm, vcpu, best);
    return {};
}

CoreUse PartitionPlan::use_of(unsigned core) const {
    if (!online_.contains(core)) return CoreUse::offline;
    if (load_[core] == 0) return named_[core] == 0 ? CoreUse::free : CoreUse::reserved;
    return load_[core] == 1 && core != 0 ? CoreUse::dedicated : CoreUse::shared;
}

unsigned PartitionPlan::vcpus_on(unsigned core, usize index) const {
    unsigned count = 0;
    if (index >= max_vms) return 0;
    for (unsigned vcpu = 0; vcpu < vms_[index].vcpus; ++vcpu) {
        if (vms_[index].cores[vcpu] == core) ++count;
    }
    return count;
}

// --- The whole --------------------------------------------------------------------------------------------

void PartitionPlan::begin(VmPlan& vm, const VmConfig& config) {
    vm = {};
    for (u16& core : vm.cores) core = VmPlan::no_core;
    vm.config = &config;
    if (auto checked = check(config); !checked) {
        refuse(vm, VmPlan::Verdict::refused, checked.error());
        return;
    }
    vm.need = need_of_(config);
    if (vm.need.units() > units_.managed_units()) {
        refuse(vm, VmPlan::Verdict::refused,
               fail("it needs {} MiB ({} MiB and overhead), the machine has {} MiB for VMs; lower memory.max",
                    vm.need.units() * 2, vm.need.ram_units * 2, units_.managed_units() * 2)
                   .error());
        return;
    }
    // Only of an empty machine can it be said for good that its memory lies in too many pieces.
    if (units_.free_units() == units_.managed_units()) {
        auto memory = take_memory(units_, vm.need);
        if (!memory) return refuse(vm, VmPlan::Verdict::refused, memory.error());
        (void)units_.free(*memory);
    }
    vm.verdict = VmPlan::Verdict::accepted;
    vm.vcpus = config.vcpus;
    CpuSet& counted = counted_[&vm - vms_];
    counted = config.cpus;
    count_names(counted, 1);
}

void PartitionPlan::refuse(VmPlan& vm, VmPlan::Verdict verdict, const Error& error) {
    vm.verdict = verdict;
    vm.reason = error.text;
}

void PartitionPlan::make(std::span<const VmConfig> vms) {
    core_count_ = host_.core_count() < max_cores ? host_.core_count() : max_cores;
    online_ = {};
    for (unsigned core = 0; core < max_cores; ++core) {
        load_[core] = 0;
        named_[core] = 0;
        if (core < core_count_ && host_.core_info(core).online) online_.add(core);
    }
    for (usize i = 0; i < max_vms; ++i) {
        vms_[i] = {};
        counted_[i] = {};
    }
    const usize count = vms.size() < max_vms ? vms.size() : max_vms;
    for (usize i = 0; i < count; ++i) begin(vms_[i], vms[i]);

    // Nothing is moved once it is placed: first those whose cores are named, then those that start at once.
    for (unsigned round = 0; round < 3; ++round) {
        for (VmPlan& vm : vms_) {
            if (vm.vcpus == 0) continue;
            const unsigned turn = !vm.config->cpus.empty() ? 0 : vm.config->autostart ? 1 : 2;
            if (turn == round) put_on_cores(vm);
        }
    }
    for (VmPlan& vm : vms_) {
        if (vm.verdict != VmPlan::Verdict::accepted || !vm.config->autostart) continue;
        if (auto memory = take_memory(units_, vm.need)) {
            vm.memory = *memory;
        } else {
            refuse(vm, VmPlan::Verdict::no_memory, memory.error());
        }
    }
    left_units_ = units_.free_units();
    for (const VmPlan& vm : vms_) (void)units_.free(vm.memory);
}

const VmPlan& PartitionPlan::place(usize index, const VmConfig& config) {
    VmPlan& vm = vms_[index];
    forget(index);
    begin(vm, config);
    left_units_ = units_.free_units();
    if (vm.vcpus == 0) return vm;
    put_on_cores(vm);
    if (auto memory = take_memory(units_, vm.need)) {
        if (config.autostart) {
            vm.memory = *memory;
            left_units_ = units_.free_units();
        }
        (void)units_.free(*memory);
    } else {
        refuse(vm, VmPlan::Verdict::no_memory, memory.error());
    }
    return vm;
}

void PartitionPlan::forget(usize index) {
    if (index >= max_vms || vms_[index].config == nullptr) return;
    take_off_cores(vms_[index]);
    vms_[index] = {};
}

}  // namespace bulkhead
