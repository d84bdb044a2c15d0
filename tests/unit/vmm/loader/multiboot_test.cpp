#include "vmm/loader/multiboot_guest.hpp"

#include <catch2/catch.hpp>
#include <map>

#include "tests/unit/vmm/loader/images.hpp"
#include "vmm/loader/boot_image.hpp"
#include "vmm/loader/multiboot_header.hpp"

using namespace bulkhead;
using test::make_tag;
using test::TestVm;

namespace {

constexpr u32 one_cpu[] = {0};

Result<StartState> load(TestVm& vm, const std::vector<u8>& image, BootImages images = {}) {
    images.kernel = image;
    return load_guest(vm.memory, images, test::make_machine(one_cpu));
}

std::string error1(const std::vector<u8>& image) {
    const auto header = parse_multiboot1_header(image);
    return header ? "" : std::string(header.error().text.view());
}

std::string error2(const std::vector<u8>& tags) {
    std::vector<u8> image(0x400);
    test::put_multiboot2(image, 0x40, tags);
    const auto header = parse_multiboot2_header(image);
    return header ? "" : std::string(header.error().text.view());
}

std::vector<u8> join(std::initializer_list<std::vector<u8>> tags) {
    std::vector<u8> all;
    for (const auto& tag : tags) all.insert(all.end(), tag.begin(), tag.end());
    return all;
}

template <class T>
std::string flat_error_with(usize offset, T value) {
    auto image = test::make_multiboot1_flat();
    test::put(image, offset, value);
    return error1(image);
}

// An ELF kernel with the header in its text.
std::vector<u8> make_multiboot1_elf(u32 flags = 3) {
    auto image = test::make_elf({.pvh_note = false});
    test::put_multiboot1(image, test::elf_text_at, flags);
    return image;
}

// The tags of Multiboot 2's information, by type; modules numbered by their order.
std::map<std::pair<u32, unsigned>, std::vector<u8>> read_info2(const TestVm& vm, u64 info) {
    std::map<std::pair<u32, unsigned>, std::vector<u8>> tags;
    const u32 total = vm.get<u32>(info);
    u64 at = info + 8;
    for (;;) {
        REQUIRE(at % 8 == 0);
        REQUIRE(at + 8 <= info + total);
        const u32 type = vm.get<u32>(at), size = vm.get<u32>(at + 4);
        REQUIRE(size >= 8);
        if (type == 0) {
            CHECK(size == 8);
            CHECK(at + 8 == info + total);
            return tags;
        }
        unsigned number = 0;
        while (tags.count({type, number}) != 0) ++number;
        tags[{type, number}] = vm.bytes(at + 8, size - 8);
        at = (at + size + 7) & ~u64{7};
    }
}

}  // namespace

TEST_CASE("a flat Multiboot 1 kernel is loaded by its address fields") {
    TestVm vm(16 * mib);
    const auto image = test::make_multiboot1_flat();
    const auto state = load(vm, image);
    REQUIRE(state);
    CHECK(state->mode == StartState::Mode::protected_flat);
    CHECK(state->rip == 0x100080);
    CHECK(state->gprs.rax == 0x2BADB002);
    CHECK(vm.bytes(0x100000, 0x3C0) == std::vector<u8>(image.begin() + 0x20, image.begin() + 0x3E0));
    CHECK(vm.bytes(0x1003C0, 0xC40) == std::vector<u8>(0xC40));
    CHECK(vm.get<u8>(0x101000) == 0xA5);
}

TEST_CASE("load_end_addr and bss_end_addr of zero mean the file's end and no bss") {
    auto image = test::make_multiboot1_flat();
    test::put<u32>(image, 0x54, 0);
    test::put<u32>(image, 0x58, 0);
    const auto header = parse_multiboot1_header(image);
    REQUIRE(header);
    REQUIRE(header->addresses);
    CHECK(header->addresses->load_end == 0x1003E0);
    CHECK(header->addresses->memory_end == 0x1003E0);
}

TEST_CASE("Multiboot 1 information has sizes, map, command line, modules and loader name") {
    TestVm vm(16 * mib);
    const std::vector<u8> first(5000, 0x11), second(3, 0x22), initrd(10, 0x33);
    const GuestModule modules[] = {{.name = "first", .bytes = first, .cmdline = "first x=1"},
                                   {.name = "second", .bytes = second, .cmdline = {}}};
    const auto state =
        load(vm, make_multiboot1_elf(), {.cmdline = "kernel arg", .initrd = initrd, .modules = modules});
    REQUIRE(state);
    CHECK(state->rip == 0x200010);
    const u64 info = state->gprs.rbx;
    const u32 flags = vm.get<u32>(info);
    CHECK(flags == (1U << 0 | 1U << 2 | 1U << 3 | 1U << 6 | 1U << 9));
    CHECK(vm.get<u32>(info + 4) == 639);
    CHECK(vm.get<u32>(info + 8) == 15 * 1024 - 64);
    CHECK(vm.text(vm.get<u32>(info + 16)) == "kernel arg");
    CHECK_FALSE(vm.text(vm.get<u32>(info + 64)).empty());

    REQUIRE(vm.get<u32>(info + 20) == 3);
    const u64 list = vm.get<u32>(info + 24);
    const std::vector<std::pair<std::vector<u8>, std::string>> expected = {
        {initrd, "initrd"}, {first, "first x=1"}, {second, "second"}};
    u64 last_end = 0x202000;
    for (usize i = 0; i < expected.size(); ++i) {
        const u64 start = vm.get<u32>(list + 16 * i), end = vm.get<u32>(list + 16 * i + 4);
        CHECK(start % page_size == 0);
        CHECK(start >= last_end);
        CHECK(vm.bytes(start, end - start) == expected[i].first);
        CHECK(vm.text(vm.get<u32>(list + 16 * i + 8)) == expected[i].second);
        CHECK(vm.get<u32>(list + 16 * i + 12) == 0);
        last_end = end;
    }

    const auto map = GuestMemoryMap::build(vm.memory);
    const u32 length = vm.get<u32>(info + 44);
    REQUIRE(length == 24 * map->entries().size());
    for (usize i = 0; i < map->entries().size(); ++i) {
        const u64 at = vm.get<u32>(info + 48) + 24 * i;
        CHECK(vm.get<u32>(at) == 20);
        CHECK(vm.get<u64>(at + 4) == map->entries()[i].start);
        CHECK(vm.get<u64>(at + 12) == map->entries()[i].length);
        CHECK(vm.get<u32>(at + 20) == static_cast<u32>(map->entries()[i].kind));
    }
}

TEST_CASE("a Multiboot 1 kernel that asks for a video mode is told of the text screen") {
    TestVm vm(16 * mib);
    for (const u32 mode_type : {0U, 1U}) {
        auto image = make_multiboot1_elf(7);
        test::put<u32>(image, test::elf_text_at + 32, mode_type);
        const auto state = load(vm, image);
        REQUIRE(state);
        const u64 info = state->gprs.rbx;
        CHECK((vm.get<u32>(info) & 1U << 12) != 0);
        CHECK(vm.get<u64>(info + 88) == 0xB8000);
        CHECK(vm.get<u32>(info + 96) == 160);
        CHECK(vm.get<u32>(info + 100) == 80);
        CHECK(vm.get<u32>(info + 104) == 25);
        CHECK(vm.get<u8>(info + 108) == 16);
        CHECK(vm.get<u8>(info + 109) == 2);
    }
    auto image = make_multiboot1_elf(7);
    test::put<u32>(image, test::elf_text_at + 32, 2);
    CHECK(test::contains(error1(image), "mode_type"));
}

TEST_CASE("an error in a Multiboot 1 header names the field") {
    std::vector<u8> image(0x100);
    CHECK(test::contains(error1(image), "no Multiboot 1 header"));
    CHECK(test::contains(error1({}), "no Multiboot 1 header"));
    test::put_multiboot1(image, 0x20, 0x8);
    CHECK(test::contains(error1(image), "flags"));
    CHECK(test::contains(flat_error_with<u32>(0x4C, 0xFFFFF), "load_addr"));
    CHECK(test::contains(flat_error_with<u32>(0x4C, 0x100041), "load_addr"));
    CHECK(test::contains(flat_error_with<u32>(0x50, 0xFFFFFFFF), "load_addr"));
    CHECK(test::contains(flat_error_with<u32>(0x54, 0x100000), "load_end_addr"));
    CHECK(test::contains(flat_error_with<u32>(0x54, 0x1003E1), "load_end_addr"));
    CHECK(test::contains(flat_error_with<u32>(0x58, 0x1003BF), "bss_end_addr"));
    CHECK(test::contains(flat_error_with<u32>(0x5C, 0xFFFFF), "entry_addr"));
    CHECK(test::contains(flat_error_with<u32>(0x5C, 0x1003C0), "entry_addr"));
    auto cut = test::make_multiboot1_flat();
    cut.resize(0x5F);
    CHECK(test::contains(error1(cut), "address fields"));
}

TEST_CASE(
    "Multiboot headers are looked for in the first 8192 and 32768 bytes only, aligned, with checksums") {
    std::vector<u8> image(0x10000);
    CHECK_FALSE(has_multiboot1_header(image));
    test::put_multiboot1(image, 8192 - 12, 0);
    CHECK(has_multiboot1_header(image));
    image.assign(0x10000, 0);
    test::put_multiboot1(image, 8192 - 8, 0);
    CHECK_FALSE(has_multiboot1_header(image));
    image.assign(0x10000, 0);
    test::put_multiboot1(image, 0x42, 0);
    CHECK_FALSE(has_multiboot1_header(image));
    test::put_multiboot1(image, 0x80, 0);
    image[0x88] ^= 1;
    CHECK_FALSE(has_multiboot1_header(image));

    image.assign(0x10000, 0);
    test::put_multiboot2(image, 32768 - 24, {});
    CHECK(has_multiboot2_header(image));
    CHECK(parse_multiboot2_header(image));
    image.assign(0x10000, 0);
    test::put_multiboot2(image, 32768 - 16, {});
    CHECK(has_multiboot2_header(image));
    CHECK_FALSE(parse_multiboot2_header(image));  // its tags pass the limit
    image.assign(0x10000, 0);
    test::put_multiboot2(image, 0x44, {});
    CHECK_FALSE(has_multiboot2_header(image));
}

TEST_CASE("a Multiboot 2 kernel gets all the information there is, in tags") {
    TestVm vm(16 * mib);
    const std::vector<u8> module(100, 0x44);
    const GuestModule modules[] = {{.name = "m", .bytes = module, .cmdline = "m --flag"}};
    auto image = test::make_elf({.pvh_note = false});
    test::put_multiboot2(image, test::elf_text_at,
                         join({make_tag(1, 0, {1, 2, 3, 4, 6, 8, 14, 15}), make_tag(4, 0, {3}),
                               make_tag(5, 0, {80, 25, 0}), make_tag(6, 0, {})}));
    const auto state = load(vm, image, {.cmdline = "a b", .modules = modules});
    REQUIRE(state);
    CHECK(state->gprs.rax == 0x36D76289);
    CHECK(state->rip == 0x200010);
    auto tags = read_info2(vm, state->gprs.rbx);
    CHECK(tags.at({1, 0}) == std::vector<u8>{'a', ' ', 'b', 0});
    CHECK(tags.count({2, 0}) == 1);
    const auto& mod = tags.at({3, 0});
    const u32 start = *read_at<u32>(mod, 0), end = *read_at<u32>(mod, 4);
    CHECK(start % page_size == 0);
    CHECK(vm.bytes(start, end - start) == module);
    CHECK(std::string(mod.begin() + 8, mod.end() - 1) == "m --flag");
    CHECK(*read_at<u32>(tags.at({4, 0}), 0) == 639);
    CHECK(*read_at<u32>(tags.at({4, 0}), 4) == 15 * 1024 - 64);
    const auto map = GuestMemoryMap::build(vm.memory);
    CHECK(tags.at({6, 0}).size() == 8 + 24 * map->entries().size());
    CHECK(*read_at<u32>(tags.at({6, 0}), 0) == 24);
    CHECK(*read_at<u64>(tags.at({6, 0}), 8 + 24 * 3) == 0x100000);
    CHECK(*read_at<u64>(tags.at({8, 0}), 0) == 0xB8000);
    CHECK(tags.at({8, 0})[21] == 2);
    CHECK(tags.at({15, 0}) == vm.bytes(platform::rsdp, 36));
    CHECK(tags.at({14, 0}) == vm.bytes(platform::rsdp, 20));
    CHECK(test::sum(tags.at({15, 0})) == 0);
    CHECK(*read_at<u32>(tags.at({21, 0}), 0) == 0x200000);
}

TEST_CASE("a flat Multiboot 2 kernel is loaded by its address tag, from the file's start if it says so") {
    for (const u32 load : {0x100000U, 0xFFFFFFFFU}) {
        std::vector<u8> image(0x400);
        for (usize i = 0; i < image.size(); ++i) image[i] = static_cast<u8>(i * 11 + 1);
        test::put_multiboot2(
            image, 0x40, join({make_tag(2, 0, {0x100040, load, 0, 0x100800}), make_tag(3, 0, {0x100100})}));
        TestVm vm(16 * mib);
        const auto state = load_guest(vm.memory, {.kernel = image}, test::make_machine(one_cpu));
        REQUIRE(state);
        CHECK(state->rip == 0x100100);
        CHECK(vm.bytes(0x100000, 0x400) == image);
        CHECK(vm.bytes(0x100400, 0x400) == std::vector<u8>(0x400));
    }
}

TEST_CASE("the entry address tag overrides the ELF file's entry") {
    TestVm vm(16 * mib);
    auto image = test::make_elf({.pvh_note = false});
    test::put_multiboot2(image, test::elf_text_at, make_tag(3, 0, {0x200100}));
    const auto state = load(vm, image);
    REQUIRE(state);
    CHECK(state->rip == 0x200100);
    test::put_multiboot2(image, test::elf_text_at, make_tag(3, 0, {0x300100}));
    const auto outside = load(vm, image);
    REQUIRE_FALSE(outside);
    CHECK(test::contains(outside.error().text, "entry"));
}

TEST_CASE("Multiboot 2 tags that ask for what there is not are refused unless optional") {
    CHECK(error2({}) == "");
    CHECK(error2(join({make_tag(7, 0, {}), make_tag(9, 0, {0x100000}), make_tag(10, 1, {0, 0, 0, 0})})) ==
          "");
    CHECK(test::contains(error2(make_tag(1, 0, {1, 9})), "ELF sections"));
    CHECK(error2(make_tag(1, 1, {9, 99})) == "");
    CHECK(error2(make_tag(1, 0, {5, 7, 10, 12, 17})) == "");  // known, and absent on this machine
    CHECK(test::contains(error2(make_tag(1, 0, {22})), "tag 22"));
    CHECK(test::contains(error2(make_tag(11, 0, {})), "tag 11"));
    CHECK(error2(make_tag(11, 1, {})) == "");
    CHECK(test::contains(error2(make_tag(4, 0, {1})), "console"));
    CHECK(error2(make_tag(4, 0, {3})) == "");
    CHECK(error2(make_tag(4, 0, {0})) == "");
    CHECK(test::contains(error2(make_tag(2, 0, {0x100040, 0x100000, 0, 0})), "entry address"));
}

TEST_CASE("an error in a Multiboot 2 header names the field") {
    std::vector<u8> image(0x400);
    test::put_multiboot2(image, 0x40, {}, 4);
    CHECK(test::contains(parse_multiboot2_header(image).error().text, "architecture"));
    CHECK(test::contains(error2(make_tag(2, 0, {1, 2})), "address tag"));
    CHECK(test::contains(error2(make_tag(3, 0, {})), "entry address tag"));
    CHECK(test::contains(error2(make_tag(4, 0, {})), "console tag"));
    auto bad_size = make_tag(6, 0, {});
    test::put<u32>(bad_size, 4, 4);
    CHECK(test::contains(error2(bad_size), "size"));
    test::put<u32>(bad_size, 4, 0xFFFFFFFF);
    CHECK(test::contains(error2(bad_size), "size"));
    // A length that leaves no room for the end tag.
    image.assign(0x400, 0);
    test::put<u32>(image, 0x40, 0xE85250D6);
    test::put<u32>(image, 0x48, 16);
    test::put<u32>(image, 0x4C, 0U - 0xE85250D6U - 16);
    CHECK(test::contains(parse_multiboot2_header(image).error().text, "end tag"));
    test::put<u32>(image, 0x48, 0xFFFFFFF0);
    test::put<u32>(image, 0x4C, 0U - 0xE85250D6U + 16);
    CHECK(test::contains(parse_multiboot2_header(image).error().text, "header_length"));
}

TEST_CASE("Multiboot kernels that do not fit the VM are refused with the reason") {
    TestVm vm(16 * mib);
    const auto error = [&](const std::vector<u8>& image, BootImages images = {}) {
        const auto state = load(vm, image, images);
        return state ? std::string() : std::string(state.error().text.view());
    };
    auto flat = test::make_multiboot1_flat();
    test::put<u32>(flat, 0x58, 0x2000000);
    CHECK(test::contains(error(flat), "more memory"));
    flat = test::make_multiboot1_flat();
    for (const usize at : {0x4C, 0x50, 0x54, 0x58, 0x5C}) {
        test::put<u32>(flat, at, *read_at<u32>(flat, at) - 0x80000);
    }
    CHECK(test::contains(error(flat), "below 1 MiB"));
    std::vector<u8> not_elf(0x100);
    test::put_multiboot1(not_elf, 0, 0);
    CHECK(test::contains(error(not_elf), "neither ELF"));
    const std::vector<u8> big(14 * mib);
    const GuestModule modules[] = {{.name = "big one", .bytes = big, .cmdline = {}}};
    CHECK(test::contains(error(make_multiboot1_elf(), {.modules = modules}), "big one"));
    // Up to the end of RAM, and so over the ACPI tables there.
    const std::vector<u8> to_the_brim(16 * mib - 0x202000);
    const GuestModule brim[] = {{.name = "brim", .bytes = to_the_brim, .cmdline = {}}};
    CHECK(test::contains(error(make_multiboot1_elf(), {.modules = brim}), "brim"));
    const std::string text(66000, 'x');
    CHECK(test::contains(error(make_multiboot1_elf(), {.cmdline = text}), "command lines"));
}

TEST_CASE("Multiboot files of every shorter length, and with any header byte changed, stay inside the VM") {
    auto second = test::make_elf({.pvh_note = false});
    test::put_multiboot2(second, test::elf_text_at,
                         join({make_tag(1, 0, {1, 6}), make_tag(2, 0, {0x200200, 0x200000, 0, 0x203000}),
                               make_tag(3, 0, {0x200300})}));
    const auto first = test::make_multiboot1_flat();
    TestVm vm(4 * mib);
    const auto attempt = [&](Bytes bytes, BootProtocol protocol) {
        const test::ExactCopy copy(bytes);
        const auto state =
            load_guest(vm.memory, {.kernel = copy.view(), .protocol = protocol}, test::make_machine(one_cpu));
        if (!state) {
            REQUIRE_FALSE(state.error().text.empty());
        } else {
            REQUIRE(vm.memory.at(GuestPhysical(state->rip), 1) != nullptr);
        }
    };
    for (const auto& [image, protocol, begin, end] :
         {std::tuple{first, BootProtocol::multiboot1, usize{0x40}, usize{0x60}},
          std::tuple{second, BootProtocol::multiboot2, usize{0x200}, usize{0x260}},
          std::tuple{make_multiboot1_elf(), BootProtocol::multiboot1, usize{0}, usize{0x210}}}) {
        for (usize length = 0; length < image.size(); ++length) {
            attempt(Bytes(image).first(length), protocol);
        }
        for (usize offset = begin; offset < end; ++offset) {
            for (const unsigned value : {0x00U, 0x01U, 0x7FU, 0x80U, 0xFFU}) {
                auto changed = image;
                changed[offset] = static_cast<u8>(value);
                attempt(changed, protocol);
            }
        }
    }
    // With the checksum put right again, the change gets past the search.
    for (usize offset = 4; offset < 12; ++offset) {
        for (const unsigned value : {0x01U, 0x40U, 0x7FU, 0x80U, 0xFFU}) {
            auto changed = second;
            changed[0x200 + offset] = static_cast<u8>(value);
            const u32 sum =
                *read_at<u32>(changed, 0x200) + *read_at<u32>(changed, 0x204) + *read_at<u32>(changed, 0x208);
            test::put<u32>(changed, 0x20C, 0U - sum);
            attempt(changed, BootProtocol::multiboot2);
        }
    }
}
