#include "vmm/loader/bzimage.hpp"

#include <catch2/catch.hpp>

#include "tests/unit/vmm/loader/images.hpp"
#include "vmm/loader/boot_image.hpp"
#include "vmm/loader/layout.hpp"

using namespace bulkhead;
using test::TestVm;

namespace {

constexpr u64 zero_page = 0x7000;
constexpr u32 one_cpu[] = {0};

std::string error_of(const std::vector<u8>& image, u64 ram = 16 * mib, std::string_view cmdline = {}) {
    TestVm vm(ram);
    const auto result =
        load_guest(vm.memory, {.kernel = image, .cmdline = cmdline, .protocol = BootProtocol::linux_boot},
                   test::make_machine(one_cpu));
    return result ? "" : std::string(result.error().text.view());
}

template <class T>
std::string error_with(usize offset, T value) {
    auto image = test::make_bzimage();
    test::put(image, offset, value);
    return error_of(image);
}

// Follows the page tables of a start in long mode; nothing where an entry is not present.
std::optional<u64> translate(const TestVm& vm, u64 cr3, u64 address) {
    const u64 pml4e = vm.get<u64>(cr3 + 8 * (address >> 39 & 511));
    if ((pml4e & 1) == 0) return std::nullopt;
    const u64 pdpte = vm.get<u64>((pml4e & ~0xFFFULL) + 8 * (address >> 30 & 511));
    if ((pdpte & 1) == 0) return std::nullopt;
    const u64 pde = vm.get<u64>((pdpte & ~0xFFFULL) + 8 * (address >> 21 & 511));
    if ((pde & 1) == 0) return std::nullopt;
    CHECK((pde & 0x80) != 0);
    return (pde & ~(large_page_size - 1)) + address % large_page_size;
}

}  // namespace

TEST_CASE("a 64-bit kernel starts at its 64-bit entry with an identity map and a zero page") {
    TestVm vm(16 * mib);
    const auto image = test::make_bzimage();
    const std::vector<u8> initrd(0x12345, 0x5A);
    const BootImages images{.kernel = image, .cmdline = "console=ttyS0 quiet", .initrd = initrd};
    const auto state = load_guest(vm.memory, images, test::make_machine(one_cpu));
    REQUIRE(state);
    CHECK(state->mode == StartState::Mode::long_mode);
    CHECK(state->rip == 0x400200);
    CHECK(state->gprs.rsi == zero_page);
    CHECK(state->segment(SegmentName::cs).selector == 0x10);
    CHECK(state->segment(SegmentName::ds).selector == 0x18);
    CHECK((state->rflags & 0x200) == 0);

    CHECK(vm.bytes(0x400000, 0x1000) == std::vector<u8>(image.begin() + test::bzimage_code_at, image.end()));
    CHECK(vm.bytes(0x401000, 0xFF000) == std::vector<u8>(0xFF000));  // up to init_size

    for (const u64 address : {u64{0}, u64{0x7000}, u64{0x400200}, u64{0xC0000000}, u64{0xFFFFFFFF}}) {
        CHECK(translate(vm, state->cr3, address) == address);
    }
    CHECK_FALSE(translate(vm, state->cr3, 4 * gib).has_value());
    CHECK_FALSE(translate(vm, state->cr3, u64{1} << 39).has_value());
    for (usize i = 0; i < 6; ++i) {
        CHECK(vm.get<u64>(state->gdtr.base + 8 * i) == make_boot_gdt(state->mode)[i]);
    }
}

TEST_CASE("the zero page carries the header, the screen, memory map, command line, initrd and RSDP") {
    TestVm vm(16 * mib);
    const auto image = test::make_bzimage();
    const std::vector<u8> initrd(0x12345, 0x5A);
    const BootImages images{.kernel = image, .cmdline = "console=ttyS0 quiet", .initrd = initrd};
    REQUIRE(load_guest(vm.memory, images, test::make_machine(one_cpu)));

    CHECK(vm.get<u8>(zero_page + 0x1EF) == 0);  // the sentinel: not copied
    CHECK(vm.get<u16>(zero_page + 0x206) == 0x20F);
    CHECK(vm.get<u32>(zero_page + 0x202) == 0x53726448);
    CHECK(vm.get<u8>(zero_page + 0x210) == 0xFF);
    CHECK(vm.get<u32>(zero_page + 0x214) == 0x400000);
    CHECK(vm.get<u64>(zero_page + 0x250) == 0);
    CHECK(vm.get<u64>(zero_page + 0x70) == platform::rsdp);
    CHECK(vm.text(vm.get<u32>(zero_page + 0x228)) == "console=ttyS0 quiet");

    const u64 place = vm.get<u32>(zero_page + 0x218);
    CHECK(vm.get<u32>(zero_page + 0x21C) == initrd.size());
    CHECK(place % page_size == 0);
    CHECK(place + 0x13000 == 16 * mib - 64 * kib);  // as high as the ACPI zone lets it
    CHECK(vm.bytes(place, initrd.size()) == initrd);

    CHECK(vm.get<u8>(zero_page + 0x06) == 3);
    CHECK(vm.get<u8>(zero_page + 0x07) == 80);
    CHECK(vm.get<u8>(zero_page + 0x0E) == 25);
    CHECK(vm.get<u8>(zero_page + 0x0F) == 1);
    CHECK(vm.get<u16>(zero_page + 0x10) == 16);

    const auto map = GuestMemoryMap::build(vm.memory);
    REQUIRE(map);
    REQUIRE(vm.get<u8>(zero_page + 0x1E8) == map->entries().size());
    for (usize i = 0; i < map->entries().size(); ++i) {
        const u64 at = zero_page + 0x2D0 + 20 * i;
        CHECK(vm.get<u64>(at) == map->entries()[i].start);
        CHECK(vm.get<u64>(at + 8) == map->entries()[i].length);
        CHECK(vm.get<u32>(at + 16) == static_cast<u32>(map->entries()[i].kind));
    }
    CHECK(vm.get<u8>(zero_page + 0x1E9) == 0);  // no EDD
}

TEST_CASE("a kernel without a 64-bit entry starts at its 32-bit one") {
    TestVm vm(16 * mib);
    auto image = test::make_bzimage();
    test::put<u16>(image, 0x236, 0);
    const auto state = load_guest(vm.memory, {.kernel = image}, test::make_machine(one_cpu));
    REQUIRE(state);
    CHECK(state->mode == StartState::Mode::protected_flat);
    CHECK(state->rip == 0x400000);
    CHECK(state->gprs.rsi == zero_page);
    CHECK(state->gprs.rbx == 0);
    CHECK(state->gprs.rbp == 0);
    CHECK(state->gprs.rdi == 0);
    CHECK(vm.get<u64>(state->gdtr.base + 16) == 0x00CF9B000000FFFF);
}

TEST_CASE("before protocol 2.12 the 64-bit flag is padding, before 2.10 the kernel goes to 1 MiB") {
    TestVm vm(16 * mib);
    auto image = test::make_bzimage(0x20B);
    auto state = load_guest(vm.memory, {.kernel = image}, test::make_machine(one_cpu));
    REQUIRE(state);
    CHECK(state->mode == StartState::Mode::protected_flat);
    CHECK(vm.get<u64>(zero_page + 0x70) == 0);  // acpi_rsdp_addr came with 2.14
    image = test::make_bzimage(0x206);
    image[0x201] = 0x3A;  // the header ends behind cmdline_size
    state = load_guest(vm.memory, {.kernel = image}, test::make_machine(one_cpu));
    REQUIRE(state);
    CHECK(state->rip == 0x100000);
    CHECK(vm.get<u64>(zero_page + 0x258) == 0);  // what follows the header is not copied
}

TEST_CASE("a relocatable kernel that prefers memory the VM lacks goes to the lowest aligned place") {
    auto image = test::make_bzimage();
    test::put<u64>(image, 0x258, 0x40000000);
    TestVm vm(16 * mib);
    const auto state = load_guest(vm.memory, {.kernel = image}, test::make_machine(one_cpu));
    REQUIRE(state);
    CHECK(state->rip == 0x200200);
    CHECK(vm.get<u32>(zero_page + 0x214) == 0x200000);
    test::put<u8>(image, 0x234, 0);
    CHECK(test::contains(error_of(image), "pref_address"));
    CHECK(test::contains(error_of(image), "more memory"));
}

TEST_CASE("the initrd respects the kernel's limit and the kernel's memory") {
    auto image = test::make_bzimage();
    const std::vector<u8> initrd(mib, 0x77);
    const auto initrd_address = [&](u64 ram) -> u64 {
        TestVm vm(ram);
        const auto state =
            load_guest(vm.memory, {.kernel = image, .initrd = initrd}, test::make_machine(one_cpu));
        if (!state) return 0;
        const u64 place = vm.get<u32>(zero_page + 0x218);
        CHECK(vm.bytes(place, initrd.size()) == initrd);
        return place;
    };
    CHECK(initrd_address(16 * mib) == 15 * mib - 64 * kib);
    test::put<u32>(image, 0x22C, 8 * mib - 1);
    CHECK(initrd_address(16 * mib) == 7 * mib);
    test::put<u32>(image, 0x22C, 5 * mib - 1);
    CHECK(initrd_address(16 * mib) == 3 * mib);  // below the kernel at 4 to 5 MiB
    test::put<u32>(image, 0x22C, 0xFFFFF);
    CHECK(initrd_address(16 * mib) == 0);
    test::put<u32>(image, 0x22C, 0xFFFFFFFF);
    CHECK(initrd_address(16 * mib) == 15 * mib - 64 * kib);
    CHECK(initrd_address(6 * mib) == 3 * mib);
}

TEST_CASE("a command line as long as the kernel takes is passed, one longer is refused") {
    const std::string longest(2047, 'x');
    TestVm vm(16 * mib);
    const auto image = test::make_bzimage();
    REQUIRE(load_guest(vm.memory, {.kernel = image, .cmdline = longest}, test::make_machine(one_cpu)));
    CHECK(vm.text(layout::cmdline.raw()) == longest);
    const std::string error = error_of(image, 16 * mib, longest + "x");
    CHECK(test::contains(error, "2048"));
    CHECK(test::contains(error, "cmdline_size"));
    auto boundless = test::make_bzimage();
    test::put<u32>(boundless, 0x238, 0xFFFFFFFF);
    CHECK(error_of(boundless, 16 * mib, std::string(65535, 'x')) == "");
    CHECK(error_of(boundless, 16 * mib, std::string(65536, 'x')) != "");
}

TEST_CASE("an error in a bzImage names the field") {
    CHECK(test::contains(error_with<u16>(0x1FE, 0), "boot_flag"));
    CHECK(test::contains(error_with<u32>(0x202, 0), "HdrS"));
    CHECK(test::contains(error_with<u16>(0x206, 0x205), "version"));
    CHECK(test::contains(error_with<u8>(0x200, 0xE9), "jump"));
    CHECK(test::contains(error_with<u8>(0x201, 0x10), "jump"));
    CHECK(test::contains(error_with<u8>(0x201, 0x8F), "jump"));
    CHECK(test::contains(error_with<u8>(0x211, 0), "LOADED_HIGH"));
    CHECK(test::contains(error_with<u32>(0x1F4, 0), "syssize"));
    CHECK(test::contains(error_with<u32>(0x1F4, 0x101), "syssize"));
    CHECK(test::contains(error_with<u32>(0x1F4, 0xFFFFFFFF), "syssize"));
    CHECK(test::contains(error_with<u8>(0x1F1, 200), "setup_sects"));
    CHECK(test::contains(error_with<u32>(0x230, 0), "kernel_alignment"));
    CHECK(test::contains(error_with<u32>(0x230, 0x300000), "kernel_alignment"));
    CHECK(test::contains(error_with<u64>(0x258, 0), "pref_address"));
    CHECK(test::contains(error_with<u64>(0x258, ~u64{0}), "pref_address"));
    CHECK(test::contains(error_with<u32>(0x260, 0), "init_size"));
    CHECK(test::contains(error_with<u32>(0x260, 0xFFFFFFFF), "init_size"));
    CHECK(test::contains(error_of(test::make_bzimage(0x20F, 0x200)), "xloadflags"));
}

TEST_CASE("modules beside a bzImage are refused") {
    TestVm vm(16 * mib);
    const auto image = test::make_bzimage();
    const GuestModule modules[] = {{.name = "disk", .bytes = image, .cmdline = {}}};
    const auto result =
        load_guest(vm.memory, {.kernel = image, .modules = modules}, test::make_machine(one_cpu));
    REQUIRE_FALSE(result);
    CHECK(test::contains(result.error().text, "initrd"));
}

TEST_CASE("the last paragraph may be incomplete, and what follows the code is not loaded") {
    auto image = test::make_bzimage();
    image.resize(image.size() - 15);
    CHECK(error_of(image) == "");
    image.resize(image.size() - 1);
    CHECK(test::contains(error_of(image), "cut off"));
    image = test::make_bzimage();
    image.insert(image.end(), 1000, 0xEE);
    TestVm vm(16 * mib);
    REQUIRE(load_guest(vm.memory, {.kernel = image}, test::make_machine(one_cpu)));
    CHECK(vm.get<u8>(0x401000) == 0);
}

TEST_CASE("a bzImage of every shorter length is refused without a stray access") {
    const auto image = test::make_bzimage();
    for (usize length = 0; length + 15 < image.size(); ++length) {
        const test::ExactCopy cut(Bytes(image).first(length));
        const auto parsed = LinuxImage::parse(cut.view());
        REQUIRE_FALSE(parsed);
        REQUIRE_FALSE(parsed.error().text.truncated());
    }
}

TEST_CASE("no byte of the setup header, whatever its value, leads outside the VM") {
    const auto image = test::make_bzimage();
    TestVm vm(8 * mib);
    unsigned accepted = 0;
    for (usize offset = 0x1F1; offset < 0x290; ++offset) {
        for (const unsigned value : {0x00U, 0x01U, 0x7FU, 0x80U, 0xFEU, 0xFFU}) {
            auto changed = image;
            changed[offset] = static_cast<u8>(value);
            const test::ExactCopy copy(changed);
            const auto state = load_guest(vm.memory, {.kernel = copy.view()}, test::make_machine(one_cpu));
            if (!state) {
                REQUIRE_FALSE(state.error().text.empty());
                continue;
            }
            ++accepted;
            REQUIRE(vm.memory.at(GuestPhysical(state->rip), 1) != nullptr);
            REQUIRE(state->rip >= 0x100000);
        }
    }
    CHECK(accepted > 100);
}
