#include "vmm/loader/boot_image.hpp"

#include <array>
#include <catch2/catch.hpp>

#include "tests/unit/vmm/loader/images.hpp"

using namespace bulkhead;
using test::TestVm;

namespace {
constexpr u32 one_cpu[] = {0};

std::string recognise_error(const std::vector<u8>& file) {
    const auto result = recognise_image(file);
    return result ? "" : std::string(result.error().text.view());
}
}  // namespace

TEST_CASE("images are recognised by what they say of themselves, in the documented order") {
    CHECK(recognise_image(test::make_bzimage()) == BootProtocol::linux_boot);
    CHECK(recognise_image(test::make_elf()) == BootProtocol::pvh);
    CHECK(recognise_image(test::make_multiboot1_flat()) == BootProtocol::multiboot1);

    auto all = test::make_elf();
    test::put_multiboot1(all, test::elf_text_at, 3);
    CHECK(recognise_image(all) == BootProtocol::multiboot1);
    test::put_multiboot2(all, test::elf_text_at + 0x40, {});
    CHECK(recognise_image(all) == BootProtocol::multiboot2);
    auto bzimage = test::make_bzimage();
    test::put_multiboot1(bzimage, 0x800, 0);
    CHECK(recognise_image(bzimage) == BootProtocol::linux_boot);
}

TEST_CASE("what cannot be booted is refused with what to do about it") {
    CHECK(test::contains(recognise_error({}), "not a bzImage"));
    CHECK(test::contains(recognise_error(std::vector<u8>(0x10000)), "firmware"));
    CHECK(test::contains(recognise_error({0x1F, 0x8B, 8, 0}), "gzip"));
    CHECK(test::contains(recognise_error(test::make_elf({.pvh_note = false})), "PVH note"));
    CHECK(test::contains(recognise_error({0x7F, 'E', 'L', 'F'}), "ELF header"));
    TestVm vm(16 * mib);
    const auto empty = load_guest(vm.memory, {}, test::make_machine(one_cpu));
    REQUIRE_FALSE(empty);
    CHECK(test::contains(empty.error().text, "empty"));
}

TEST_CASE("a forced protocol is used, or refused where the image does not have it") {
    TestVm vm(16 * mib);
    auto both = test::make_elf();
    test::put_multiboot1(both, test::elf_text_at, 3);
    const auto with = [&](BootProtocol protocol) {
        return load_guest(vm.memory, {.kernel = both, .protocol = protocol}, test::make_machine(one_cpu));
    };
    CHECK(with(BootProtocol::automatic)->gprs.rax == 0x2BADB002);
    CHECK(with(BootProtocol::multiboot1)->gprs.rax == 0x2BADB002);
    CHECK(with(BootProtocol::pvh)->rip == 0x200020);
    CHECK_FALSE(with(BootProtocol::multiboot2));
    CHECK_FALSE(with(BootProtocol::linux_boot));
    for (const auto protocol : {BootProtocol::automatic, BootProtocol::linux_boot, BootProtocol::multiboot1,
                                BootProtocol::multiboot2, BootProtocol::pvh, BootProtocol::firmware}) {
        CHECK((name_of(protocol) == "auto") == (protocol == BootProtocol::automatic));
    }
}

TEST_CASE("a firmware ROM ends at 4 GiB, is seen under 1 MiB too, and finds RAM untouched") {
    TestVm vm(16 * mib);
    const auto start = [&](usize size) {
        const std::vector<u8> rom(size, 0x90);
        return load_guest(vm.memory, {.kernel = rom, .protocol = BootProtocol::firmware},
                          test::make_machine(one_cpu));
    };
    auto state = start(256 * kib);
    REQUIRE(state);
    CHECK(state->mode == StartState::Mode::reset_vector);
    REQUIRE(state->firmware);
    CHECK(state->firmware->address == GuestPhysical(0xFFFC0000));
    CHECK(state->firmware->alias == GuestPhysical(0xE0000));
    CHECK(state->firmware->alias_length == 0x20000);
    state = start(64 * kib);
    REQUIRE(state);
    CHECK(state->firmware->address == GuestPhysical(0xFFFF0000));
    CHECK(state->firmware->alias == GuestPhysical(0xF0000));
    CHECK(start(16 * mib));
    CHECK_FALSE(start(16 * mib + 4096));
    CHECK_FALSE(start(32 * kib));
    CHECK_FALSE(start(64 * kib + 1));
    CHECK(vm.bytes(0, 0x1000) == std::vector<u8>(0x1000, 0xA5));
    CHECK(vm.bytes(platform::rsdp, 0x20000) == std::vector<u8>(0x20000, 0xA5));
}

TEST_CASE("every direct boot finds ACPI, MP table and BIOS data") {
    for (const auto& image : {test::make_bzimage(), test::make_elf(), test::make_multiboot1_flat()}) {
        TestVm vm(16 * mib);
        REQUIRE(load_guest(vm.memory, {.kernel = image}, test::make_machine(one_cpu)));
        CHECK(vm.bytes(platform::rsdp, 8) == std::vector<u8>{'R', 'S', 'D', ' ', 'P', 'T', 'R', ' '});
        CHECK(vm.bytes(platform::mp_table, 4) == std::vector<u8>{'_', 'M', 'P', '_'});
        CHECK(vm.get<u16>(0x413) == 639);
    }
}

TEST_CASE("loading again after the guest has run gives the same machine") {
    TestVm vm(16 * mib);
    const auto image = test::make_bzimage();
    const auto load = [&] {
        const auto state =
            load_guest(vm.memory, {.kernel = image, .cmdline = "x"}, test::make_machine(one_cpu));
        REQUIRE(state);
        return std::array{vm.bytes(0x7000, 0x1000), vm.bytes(0x9000, 0x6000), vm.bytes(0x400000, mib),
                          vm.bytes(16 * mib - 64 * kib, 64 * kib)};
    };
    const auto first = load();
    REQUIRE(vm.memory.fill(GuestPhysical(0), 0xA0000, 0xEE));
    REQUIRE(vm.memory.fill(GuestPhysical(0x100000), 15 * mib, 0xEE));
    CHECK(load() == first);
}

TEST_CASE("a machine without processors, or with two of the same APIC ID, is refused") {
    TestVm vm(16 * mib);
    const auto image = test::make_bzimage();
    const auto none = load_guest(vm.memory, {.kernel = image}, test::make_machine({}));
    REQUIRE_FALSE(none);
    CHECK(test::contains(none.error().text, "no processors"));
    const u32 twice[] = {0, 1, 0};
    const auto same = load_guest(vm.memory, {.kernel = image}, test::make_machine(twice));
    REQUIRE_FALSE(same);
    CHECK(test::contains(same.error().text, "APIC ID"));
}

TEST_CASE("without RAM nothing is loaded") {
    GuestMemory memory;
    const auto image = test::make_bzimage();
    CHECK_FALSE(load_guest(memory, {.kernel = image}, test::make_machine(one_cpu)));
}
