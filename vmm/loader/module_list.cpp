#include "vmm/loader/module_list.hpp"

#include "vmm/platform.hpp"

namespace bulkhead {

usize count_modules(const BootImages& images) {
    return images.modules.size() + (images.initrd.empty() ? 0 : 1);
}

Result<> place_modules(const LoadContext& context, const LoadedRange& kernel, ModuleList& modules) {
    const usize count = count_modules(context.images);
    if (count > max_modules) return fail("{} modules; at most {} are supported", count, max_modules);
    const usize initrds = count - context.images.modules.size();
    u64 next = kernel.end;
    for (usize i = 0; i < count; ++i) {
        const GuestModule module = i < initrds ? GuestModule{"initrd", context.images.initrd, "initrd"}
                                               : context.images.modules[i - initrds];
        next = (next + page_size - 1) & ~(page_size - 1);
        const u64 size = module.bytes.size();
        if ((size != 0 && !context.map.is_ram(next, size)) || next + size > platform::mmio_hole_end ||
            !context.memory.write(GuestPhysical(next), module.bytes)) {
            return fail(
                "no room for module \"{}\" of {} KiB behind the kernel, at {:#x}; give the VM more memory",
                module.name, size / kib, next);
        }
        const std::string_view text = module.cmdline.empty() ? module.name : module.cmdline;
        (void)modules.push_back({next, size, text});
        next += size;
    }
    return {};
}

}  // namespace bulkhead
