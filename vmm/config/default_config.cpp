#include "vmm/config/default_config.hpp"

#include "vmm/loader/boot_image.hpp"

namespace bulkhead {
namespace {

// The last part of a path, of characters that a VM's name may have.
FixedString<31> name_from(std::string_view module) {
    if (const usize slash = module.rfind('/'); slash != std::string_view::npos)
        module.remove_prefix(slash + 1);
    FixedString<31> name;
    for (const char c : module) {
        if (name.size() == 24) break;  // leaves room for a number
        const bool usable = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                            c == '.' || c == '_' || c == '-';
        const char shown = usable ? c : '-';
        name.append({&shown, 1});
    }
    if (!check_vm_name(name)) name = "vm";
    return name;
}

bool is_taken(const Config& config, std::string_view name) {
    for (const VmConfig& vm : config.vms()) {
        if (vm.name == name) return true;
    }
    return false;
}

}  // namespace

Result<> DefaultConfig::add(std::string_view name, std::string_view rest, Bytes content) {
    if (name.empty())
        return fail("a boot module has no name; give it one in the GRUB entry, behind the file");
    // Cut off, it would be another module's name.
    if (name.size() > decltype(VmConfig::kernel)::capacity()) {
        return fail(
            "module \"{}...\": its name is longer than {} characters; give it a shorter one in the GRUB "
            "entry",
            name.substr(0, 32), decltype(VmConfig::kernel)::capacity());
    }
    if (!recognise_image(content)) {
        if (last_ == nullptr) return fail("module \"{}\" is no kernel, and no kernel stands before it", name);
        if (last_->initrd.empty()) {
            last_->initrd = name;
            return {};
        }
        FixedString<256> module(name);
        if (!rest.empty()) print(module, " {}", rest);
        if (module.truncated())
            return fail("module \"{}\": its command line is too long for VM {}", name, last_->name);
        if (!last_->add_module(module))
            return fail("module \"{}\" is one too many for VM {}", name, last_->name);
        return {};
    }
    if (rest.size() > decltype(VmConfig::cmdline)::capacity()) {
        last_ = nullptr;
        return fail("kernel \"{}\": its command line is longer than {} characters", name,
                    decltype(VmConfig::cmdline)::capacity());
    }
    FixedString<31> vm_name = name_from(name);
    const FixedString<31> base = vm_name;
    for (unsigned number = 2; is_taken(config_, vm_name); ++number) {
        vm_name.clear();
        print(vm_name, "{}-{}", base, number);
    }
    last_ = config_.add();
    if (last_ == nullptr)
        return fail("module \"{}\" is one VM too many; at most {} are possible", name, Config::max_vms);
    last_->name = vm_name;
    last_->kernel = name;
    last_->cmdline.clear();
    last_->cmdline.append(rest);
    return {};
}

}  // namespace bulkhead
