// What VMs are made from: configurations that come, change and are renamed while the machine runs.
#include <algorithm>

#include "vmm/manager.hpp"

namespace bulkhead {

Result<> VmManager::create(std::string_view snippet, Sink& problems) {
    VmConfig& wanted = wanted_;
    if (const unsigned count = parse_vm_snippet(snippet, document_, config_, wanted, problems); count != 0)
        return fail("{} problem{}; nothing was created", count, count == 1 ? "" : "s");
    VmSlot* slot = find(wanted.name);
    if (slot != nullptr && slot->state != VmState::off && slot->state != VmState::refused)
        return fail("{} is {}; destroy it first", wanted.name, name_of(slot->state));
    if (slot == nullptr) {
        VmConfig* made = slot_count_ < max_vms ? config_.add() : nullptr;
        if (made == nullptr) return fail("there are {} VMs, and no more are possible", slot_count_);
        slot = &add_slot(*made);
    }
    *slot->config = wanted;
    slot->state = VmState::off;
    slot->reason.clear();
    report(*slot, "was created");
    return wanted.autostart ? start(slot->id) : Result<>();
}

Result<usize> VmManager::read_module(std::string_view name, std::span<char> out) {
    const BootModule* module = provisioner_.find_module(name);
    if (module == nullptr) return fail("there is no boot module \"{}\"", name);
    cores_[host_.this_core()]->unload();
    return provisioner_.read_module(*module, out);
}

Result<> VmManager::rename(VmId vm, std::string_view name) {
    VmSlot* slot = find(vm);
    if (slot == nullptr) return fail("{}", no_such_vm);
    if (auto checked = check_vm_name(name); !checked) return checked;
    if (const VmSlot* other = find(name); other != nullptr && other != slot)
        return fail("another VM has the name {}", name);
    FixedString<31> before = slot->config->name;
    slot->config->name = name;
    FixedString<80> text;
    print(text, "was called {}", before);
    report(*slot, text);
    return {};
}

Result<> VmManager::set(VmId vm, std::string_view key, std::string_view value) {
    VmSlot* slot = find(vm);
    if (slot == nullptr) return fail("{}", no_such_vm);
    static constexpr std::string_view live[] = {"cpu.weight", "cpu.max",  "cpu.gang", "cpuset.cpus",
                                                "on_reboot",  "on_crash", "autostart"};
    const bool any_time = std::find(std::begin(live), std::end(live), key) != std::end(live);
    wanted_ = *slot->config;
    if (auto updated = update_vm(wanted_, key, value, document_, config_); !updated) return updated;
    if (!any_time && slot->machine != nullptr)
        return fail("{} can be set while {} is off; destroy it first", key, slot->config->name);
    previous_ = *slot->config;
    *slot->config = wanted_;
    if (slot->machine == nullptr || !key.starts_with("cpu")) return {};
    auto applied = key == "cpuset.cpus" ? move(*slot) : share_out(*slot);
    if (!applied) *slot->config = previous_;
    return applied;
}

}  // namespace bulkhead
