// The proof, at run time, that VMs are out of each other's reach: by their page tables, and by trying.
#include "vmm/manager.hpp"

namespace bulkhead {
namespace {

// A compartment's tables: its own, and those of the kernel that it shares, which are seen elsewhere.
class SharedTables final : public TableMemory {
  public:
    SharedTables(const PagePool& own_pages, TableMemory& own, TableMemory& kernel)
        : own_pages_(own_pages), own_(own), kernel_(kernel) {}
    Result<HostPhysical> allocate() override { return fail("only for reading"); }
    void free(HostPhysical) override {}
    u64* access(HostPhysical table) override {
        return own_pages_.contains(table) ? own_.access(table) : kernel_.access(table);
    }
    void flush(u64, u64) override {}

  private:
    const PagePool& own_pages_;
    TableMemory& own_;
    TableMemory& kernel_;
};

}  // namespace

Result<> VmManager::check_tables(TableCheck& out, Sink& leaks) {
    IsolationAudit& audit = audit_.emplace();
    const std::span<const VmSlot> slots(slots_, slot_count_);
    for (const VmSlot& slot : slots) {
        for (const UnitRun& run : slot.memory) {
            const PhysicalRange range{.start = run.start, .length = run.bytes()};
            if (auto owned = audit.own(slot.id.raw(), range); !owned) return owned;
        }
    }
    provisioner_.enter_kernel();
    audit.inspect(host_.kernel_table(), Leak::kernel);
    for (const VmSlot& slot : slots) {
        if (!slot.compartment) continue;
        provisioner_.enter(slot);
        const HostPageTable& own = slot.compartment->table();
        SharedTables tables(slot.table_pool, own.memory(), host_.kernel_table().memory());
        audit.inspect(HostPageTable(own.format(), tables, own.root()), slot.id.raw());
        if (slot.machine != nullptr && slot.machine->nested_table())
            audit.inspect(*slot.machine->nested_table(), slot.id.raw());
    }
    provisioner_.enter_kernel();
    out = {.tables = audit.tables(), .mappings = audit.mappings(), .leaks = audit.leaks()};
    for (const Leak& leak : audit.shown()) print(leaks, "{}\n", leak);
    return {};
}

Result<> VmManager::check_reach(std::optional<VmId> viewer, VmId owner, ReachCheck& out) {
    out = {};
    const VmSlot* const theirs = find(owner);
    const VmSlot* const from = viewer ? find(*viewer) : nullptr;
    if (theirs == nullptr || (viewer && from == nullptr)) return fail("there is no such VM");
    for (const VmSlot* slot : {theirs, from}) {
        if (slot != nullptr && !slot->compartment)
            return fail("{} is {}", slot->config->name, name_of(slot->state));
    }
    if (theirs == from) return fail("{} may read its own memory", theirs->config->name);
    CpuSet cores;
    if (from == nullptr) {
        for (unsigned core = 0; core < core_count_; ++core) {
            if (host_.core_info(core).online) cores.add(core);
        }
    } else {
        for (const VcpuThread& thread : from->vcpus()) cores.add(thread.home);
    }
    for (unsigned core = 0; core < core_count_ && !out.reached; ++core) {
        if (!cores.contains(core)) continue;
        if (auto tried = try_reach(from, *theirs, core, out); !tried) return tried;
        ++out.cores;
    }
    return {};
}

// What the core has in its registers is not touched: it enters its vCPU's address space before it goes on.
Result<> VmManager::try_reach(const VmSlot* viewer, const VmSlot& owner, unsigned core, ReachCheck& out) {
    const HostPhysical kernel = host_.kernel_table().root();
    bool sees_its_own = true;
    WorkOf work([&] {
        host_.enter_address_space(viewer == nullptr ? kernel : viewer->compartment->root());
        // Else the failures of the others would prove nothing.
        sees_its_own = viewer == nullptr || !host_.page_faults(viewer->memory[0].start);
        for (const UnitRun& run : owner.memory) {
            const PhysicalRange range{.start = run.start, .length = run.bytes()};
            const auto reachable = first_reachable(range, [&](HostPhysical address) {
                ++out.loads;
                return host_.page_faults(address);
            });
            if (!reachable) continue;
            out.reached = true;
            out.core = core;
            out.address = *reachable;
            break;
        }
        host_.enter_address_space(kernel);
    });
    if (auto ran = host_.run_on(core, work); !ran) return ran;
    if (!sees_its_own) return fail("core {} cannot read {}'s own memory for it", core, viewer->config->name);
    return {};
}

}  // namespace bulkhead
