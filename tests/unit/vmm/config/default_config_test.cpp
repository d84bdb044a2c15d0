#include "vmm/config/default_config.hpp"

#include <array>
#include <catch2/catch.hpp>
#include <string>

#include "tests/unit/vmm/loader/images.hpp"

using namespace bulkhead;

namespace {

struct Setup {
    std::array<VmConfig, 4> room{};
    Config config{room};
    DefaultConfig defaults{config};
    std::vector<u8> kernel = test::make_bzimage();
    std::vector<u8> other = std::vector<u8>(100, 0x55);

    std::string add_kernel(std::string_view name, std::string_view rest = {}) {
        return text(defaults.add(name, rest, kernel));
    }
    std::string add_other(std::string_view name, std::string_view rest = {}) {
        return text(defaults.add(name, rest, other));
    }
    static std::string text(const Result<>& result) {
        return result ? std::string() : std::string(result.error().text.view());
    }
    const VmConfig& vm(usize i) { return config.vms()[i]; }
};

}  // namespace

TEST_CASE("each kernel becomes a VM of its module's name, with default settings") {
    Setup setup;
    CHECK(setup.add_kernel("/boot/vmlinuz-6.1", "console=ttyS0 quiet").empty());
    CHECK(setup.add_kernel("xen").empty());
    REQUIRE(setup.config.vms().size() == 2);
    CHECK(setup.vm(0).name == "vmlinuz-6.1");
    CHECK(setup.vm(0).kernel == "/boot/vmlinuz-6.1");
    CHECK(setup.vm(0).cmdline == "console=ttyS0 quiet");
    CHECK(setup.vm(0).vcpus == 1);
    CHECK(setup.vm(0).memory_bytes == VmConfig::default_memory);
    CHECK(setup.vm(0).autostart);
    CHECK(setup.vm(1).name == "xen");
    CHECK(setup.vm(1).cmdline.empty());
    CHECK(setup.vm(1).initrd.empty());
}

TEST_CASE("what is no kernel belongs to the kernel before it: an initrd, then modules") {
    Setup setup;
    CHECK(setup.add_kernel("xen").empty());
    CHECK(setup.add_other("dom0-kernel").empty());
    CHECK(setup.add_other("ramdisk", "root=/dev/ram").empty());
    CHECK(setup.add_other("microcode").empty());
    CHECK(setup.add_kernel("linux").empty());
    CHECK(setup.add_other("initrd").empty());
    CHECK(setup.vm(0).initrd == "dom0-kernel");
    REQUIRE(setup.vm(0).module_count() == 2);
    CHECK(setup.vm(0).module(0) == "ramdisk root=/dev/ram");
    CHECK(setup.vm(0).module(1) == "microcode");
    CHECK(setup.vm(1).initrd == "initrd");
    CHECK(setup.vm(1).module_count() == 0);
}

TEST_CASE("names that are taken get a number, unusable ones another name") {
    Setup setup;
    CHECK(setup.add_kernel("linux").empty());
    CHECK(setup.add_kernel("/a/linux").empty());
    CHECK(setup.add_kernel("/b/linux").empty());
    CHECK(setup.vm(1).name == "linux-2");
    CHECK(setup.vm(2).name == "linux-3");
    Setup odd;
    CHECK(odd.add_kernel("my kernel").empty());
    CHECK(odd.vm(0).name == "my-kernel");
    CHECK(odd.add_kernel("42").empty());  // all digits is an id
    CHECK(odd.vm(1).name == "vm");
    CHECK(odd.add_kernel("dir/").empty());
    CHECK(odd.vm(2).name == "vm-2");
    CHECK(odd.add_kernel(std::string(100, 'x')).empty());
    CHECK(odd.vm(3).name == std::string(24, 'x'));
    for (const VmConfig& vm : odd.config.vms()) CHECK(check_vm_name(vm.name));
}

TEST_CASE("what cannot be used is refused with a reason") {
    Setup setup;
    CHECK(setup.add_kernel("").find("has no name") != std::string::npos);
    CHECK(setup.add_other("initrd").find("no kernel stands before it") != std::string::npos);
    CHECK(setup.config.vms().empty());
    for (int i = 0; i < 4; ++i) CHECK(setup.add_kernel("k").empty());
    CHECK(setup.add_kernel("k").find("one VM too many") != std::string::npos);
    CHECK(setup.config.vms().size() == 4);
}

TEST_CASE("a module too many is refused and the others stay") {
    Setup setup;
    CHECK(setup.add_kernel("k").empty());
    CHECK(setup.add_other("initrd").empty());
    for (usize i = 0; i < VmConfig::max_modules; ++i) CHECK(setup.add_other("m" + std::to_string(i)).empty());
    CHECK(setup.add_other("m16").find("one too many for VM k") != std::string::npos);
    CHECK(setup.vm(0).module_count() == VmConfig::max_modules);
}

TEST_CASE("after a kernel that found no room, its modules do not go to another VM") {
    Setup setup;
    for (int i = 0; i < 4; ++i) CHECK(setup.add_kernel("k").empty());
    CHECK_FALSE(setup.add_kernel("one-too-many").empty());
    CHECK_FALSE(setup.add_other("its-initrd").empty());
    CHECK(setup.vm(3).initrd.empty());
}

TEST_CASE("a name that does not fit is refused rather than cut to another file's") {
    Setup setup;
    const std::string longer(128, 'n');
    CHECK_FALSE(setup.add_kernel(longer).empty());
    CHECK(setup.config.vms().empty());
    CHECK(setup.add_kernel("k").empty());
    CHECK_FALSE(setup.add_other(longer).empty());
    CHECK(setup.vm(0).initrd.empty());
    const std::string words(2048, 'c');
    CHECK_FALSE(setup.add_kernel("l", words).empty());
}
