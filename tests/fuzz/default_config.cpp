// VMs made of boot modules without a config: names and words are the boot loader's.
#include "vmm/config/default_config.hpp"

#include "tests/fuzz/fuzz.hpp"
#include "tests/unit/vmm/loader/images.hpp"

using namespace bulkhead;

void fuzz_one(fuzz::Input& in) {
    static VmConfig room[3];
    static const std::vector<u8> kernel = test::make_bzimage();
    Config config(room);
    DefaultConfig defaults(config);
    for (unsigned i = 0; i < 24 && !in.empty(); ++i) {
        const u8 shape = in.byte();
        const std::string_view name = in.text(in.byte() % 160);
        const std::string_view rest = in.text((shape & 2) != 0 ? in.value<u16>() % 2500 : in.byte() % 16);
        const Bytes content = (shape & 1) != 0 ? Bytes(kernel) : in.take(in.byte());
        if (const auto added = defaults.add(name, rest, content); !added) MUST(!added.error().text.empty());
    }
    for (usize i = 0; i < config.vms().size(); ++i) {
        const VmConfig& vm = config.vms()[i];
        MUST(check_vm_name(vm.name));
        for (usize j = 0; j < i; ++j) MUST(config.vms()[j].name.view() != vm.name.view());
        for (usize j = 0; j < vm.module_count(); ++j) MUST(!vm.module(j).empty());
        MUST(!vm.kernel.truncated());
    }
}
