#include "kernel/mem/isolation.hpp"

namespace bulkhead {

void format_value(Sink& sink, const Leak& leak) {
    if (leak.viewer == Leak::kernel) {
        sink.write("the kernel's");
    } else {
        print(sink, "VM {}'s", leak.viewer);
    }
    print(sink, " {} table maps memory of VM {}: {:#x} leads to {}+{:#x}",
          leak.nested ? std::string_view("nested") : std::string_view("host"), leak.owner,
          leak.mapping.address, leak.mapping.physical, leak.mapping.size);
}

usize IsolationAudit::first_behind(HostPhysical physical) const {
    usize low = 0;
    usize high = owned_.size();
    while (low < high) {
        const usize middle = low + (high - low) / 2;
        const PhysicalRange& range = owned_[middle].range;
        if (range.start + range.length <= physical) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

Result<> IsolationAudit::own(u16 owner, const PhysicalRange& range) {
    if (owner == Leak::kernel || range.length == 0 || range.start.raw() + range.length < range.start.raw())
        return fail("memory {}+{:#x} cannot be a VM's; report this", range.start, range.length);
    const usize at = first_behind(range.start);
    if (at < owned_.size() && owned_[at].range.overlaps(range)) {
        return fail("memory {}+{:#x} is given to VM {} and to VM {}; report this", range.start, range.length,
                    owned_[at].owner, owner);
    }
    if (!owned_.push_back({range, owner})) return fail("VMs have memory in too many pieces; report this");
    for (usize i = owned_.size() - 1; i > at; --i) owned_[i] = owned_[i - 1];
    owned_[at] = {range, owner};
    return {};
}

void IsolationAudit::look_at(const Mapping& mapping, u16 viewer, bool nested) {
    ++mappings_;
    const PhysicalRange seen{.start = mapping.physical, .length = mapping.size};
    for (usize i = first_behind(seen.start); i < owned_.size() && owned_[i].range.overlaps(seen); ++i) {
        if (owned_[i].owner == viewer) continue;
        ++leak_count_;
        (void)leaks_.push_back(
            {.viewer = viewer, .owner = owned_[i].owner, .nested = nested, .mapping = mapping});
    }
}

void IsolationAudit::inspect(const HostPageTable& table, u16 viewer) {
    ++tables_;
    table.visit([&](const Mapping& mapping) {
        look_at(mapping, viewer, false);
        return true;
    });
}

void IsolationAudit::inspect(const NestedPageTable& table, u16 viewer) {
    ++tables_;
    table.visit([&](const Mapping& mapping) {
        look_at(mapping, viewer, true);
        return true;
    });
}

}  // namespace bulkhead
