#include "kernel/bootinfo/boot_info.hpp"

#include "kernel/bootinfo/boot_errors.hpp"

namespace bulkhead {
namespace {

std::string_view trim(std::string_view text) {
    while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
    while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
    return text;
}

[[nodiscard]] bool overlap(HostPhysical a_start, HostPhysical a_end, HostPhysical b_start,
                           HostPhysical b_end) {
    return a_start < b_end && b_start < a_end;
}

}  // namespace

Bytes until_nul(Bytes bytes) {
    usize length = 0;
    while (length < bytes.size() && bytes[length] != 0) ++length;
    return bytes.first(length);
}

void BootInfo::clear() {
    protocol = Protocol::none;
    command_line = {};
    loader_name = {};
    memory.clear();
    modules.clear();
    framebuffer = {};
    elf_sections = {};
    rsdp.clear();
    information = {};
    information_size = 0;
    text_used_ = 0;
}

std::optional<std::string_view> BootInfo::keep(Bytes text) {
    if (text.size() > text_capacity - text_used_) return std::nullopt;
    char* copy = text_ + text_used_;
    if (!text.empty()) std::memcpy(copy, text.data(), text.size());
    text_used_ += text.size();
    return std::string_view(copy, text.size());
}

Result<> BootInfo::add_module(u64 start, u64 end, Bytes text) {
    if (end < start) {
        return fail(boot_error::bad_module, modules.size(), HostPhysical(start), HostPhysical(end),
                    "it ends before it begins");
    }
    auto kept = keep(until_nul(text));
    if (!kept) return fail(boot_error::too_much_text, text_capacity);
    const std::string_view words = trim(*kept);
    const usize space = words.find(' ');
    BootModule module{
        .start = HostPhysical(start), .end = HostPhysical(end), .name = words.substr(0, space), .rest = {}};
    if (space != std::string_view::npos) module.rest = trim(words.substr(space));
    if (!modules.push_back(module)) return fail(boot_error::too_many_modules, max_modules);
    return {};
}

Result<> check(const BootInfo& info, HostPhysical image_start, HostPhysical image_end) {
    if (info.memory.usable_bytes() == 0) return fail(boot_error::no_memory_map);
    const auto bad = [&](usize i, std::string_view why) {
        return fail(boot_error::bad_module, i, info.modules[i].start, info.modules[i].end, why);
    };
    for (usize i = 0; i < info.modules.size(); ++i) {
        const BootModule& module = info.modules[i];
        if (module.size() == 0) continue;  // an empty file is nowhere
        if (!info.memory.is_usable(module.start, module.size())) return bad(i, "it is not in usable memory");
        if (overlap(module.start, module.end, image_start, image_end))
            return bad(i, "it overlaps the hypervisor");
        for (usize k = 0; k < i; ++k) {
            const BootModule& other = info.modules[k];
            if (other.size() != 0 && overlap(module.start, module.end, other.start, other.end)) {
                return bad(i, "it overlaps another module");
            }
        }
    }
    return {};
}

}  // namespace bulkhead
