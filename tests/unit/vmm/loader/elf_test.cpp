#include "vmm/loader/elf.hpp"

#include <catch2/catch.hpp>

#include "tests/unit/vmm/loader/images.hpp"
#include "vmm/loader/boot_image.hpp"
#include "vmm/loader/pvh.hpp"

using namespace bulkhead;
using test::ElfOptions;
using test::TestVm;

namespace {

constexpr u32 one_cpu[] = {0};

std::string parse_error(const std::vector<u8>& image) {
    const auto parsed = ElfImage::parse(image);
    return parsed ? "" : std::string(parsed.error().text.view());
}

template <class T>
std::string error_with(usize offset, T value) {
    auto image = test::make_elf();
    test::put(image, offset, value);
    return parse_error(image);
}

Result<StartState> load_elf(TestVm& vm, const std::vector<u8>& image, BootImages images = {}) {
    images.kernel = image;
    images.protocol = BootProtocol::pvh;
    return load_guest(vm.memory, images, test::make_machine(one_cpu));
}

}  // namespace

TEST_CASE("ELF segments are loaded at their physical addresses and cleared behind the file's part") {
    for (const bool wide : {true, false}) {
        TestVm vm(16 * mib);
        const ElfOptions options{.wide = wide, .virtual_base = wide ? 0xFFFFFFFF80200000 : 0xC0200000};
        const auto image = test::make_elf(options);
        const auto state = load_elf(vm, image);
        REQUIRE(state);
        CHECK(vm.bytes(0x200000, test::elf_text_size) ==
              std::vector<u8>(image.begin() + test::elf_text_at, image.end()));
        CHECK(vm.bytes(0x200000 + test::elf_text_size, test::elf_memory_size - test::elf_text_size) ==
              std::vector<u8>(test::elf_memory_size - test::elf_text_size));
        CHECK(vm.get<u8>(0x200000 + test::elf_memory_size) == 0xA5);
    }
}

TEST_CASE("the entry point is translated by the segment that holds it") {
    auto image = test::make_elf();
    CHECK(ElfImage::parse(image)->physical_entry() == 0x200010U);
    image = test::make_elf({.entry = 0x200040});
    CHECK(ElfImage::parse(image)->physical_entry() == 0x200040U);
    image = test::make_elf({.entry = 0x300000});
    const auto lost = ElfImage::parse(image)->physical_entry();
    REQUIRE_FALSE(lost);
    CHECK(test::contains(lost.error().text, "e_entry"));
}

TEST_CASE("an error in an ELF file names the field") {
    CHECK(test::contains(error_with<u8>(0, 0), "7F"));
    CHECK(test::contains(error_with<u8>(4, 3), "EI_CLASS"));
    CHECK(test::contains(error_with<u8>(5, 2), "EI_DATA"));
    CHECK(test::contains(error_with<u8>(6, 0), "EI_VERSION"));
    CHECK(test::contains(error_with<u16>(16, 1), "e_type"));
    CHECK(test::contains(error_with<u16>(18, 40), "e_machine"));
    CHECK(test::contains(error_with<u32>(20, 2), "e_version"));
    CHECK(test::contains(error_with<u16>(52, 52), "e_ehsize"));
    CHECK(test::contains(error_with<u16>(54, 32), "e_phentsize"));
    CHECK(test::contains(error_with<u16>(56, 0), "e_phnum"));
    CHECK(test::contains(error_with<u16>(56, 0xFFFF), "e_phnum"));
    CHECK(test::contains(error_with<u64>(32, 0x1000), "e_phoff"));
    CHECK(test::contains(error_with<u64>(32, ~u64{0} - 8), "e_phoff"));
    CHECK(test::contains(error_with<u64>(72, 0x1000), "p_offset"));
    CHECK(test::contains(error_with<u64>(72, ~u64{0}), "p_offset"));
    CHECK(test::contains(error_with<u64>(96, ~u64{0}), "p_filesz"));
    CHECK(test::contains(error_with<u64>(104, 1), "p_memsz"));
    CHECK(test::contains(error_with<u64>(104, ~u64{0}), "p_paddr"));
    CHECK(test::contains(error_with<u64>(88, ~u64{0} - 0x100), "p_paddr"));
}

TEST_CASE("two segments in the same memory are refused") {
    auto image = test::make_elf();
    std::memcpy(image.data() + 120, image.data() + 64, 56);
    CHECK(test::contains(parse_error(image), "share memory"));
}

TEST_CASE("segments outside RAM, below 1 MiB or absent are refused when loading") {
    TestVm vm(16 * mib);
    const auto error = [&](const std::vector<u8>& image) {
        const auto state = load_elf(vm, image);
        return state ? std::string() : std::string(state.error().text.view());
    };
    CHECK(test::contains(error(test::make_elf({.physical = 0x10000})), "below 1 MiB"));
    CHECK(test::contains(error(test::make_elf({.physical = 0x2000000})), "more memory"));
    CHECK(test::contains(error(test::make_elf({.physical = 16 * mib - 0x11000})), "more memory"));
    CHECK(test::contains(error(test::make_elf({.physical = 0xFEE00000})), "more memory"));
    auto no_load = test::make_elf();
    test::put<u32>(no_load, 64, 0);
    CHECK(test::contains(error(no_load), "PT_LOAD"));
}

TEST_CASE("the PVH note is found in 32- and 64-bit files, with 4- and 8-byte entries") {
    for (const bool wide : {true, false}) {
        for (const bool wide_note : {true, false}) {
            const auto image =
                test::make_elf({.wide = wide, .virtual_base = 0xC0200000, .wide_note = wide_note});
            const auto parsed = ElfImage::parse(image);
            REQUIRE(parsed);
            CHECK(find_pvh_entry(*parsed) == 0x200020U);
            CHECK_FALSE(parsed->find_note("Xen", 17).has_value());
            CHECK_FALSE(parsed->find_note("Xe", 18).has_value());
            CHECK_FALSE(parsed->find_note("GNU", 18).has_value());
        }
    }
    CHECK_FALSE(find_pvh_entry(*ElfImage::parse(test::make_elf({.pvh_note = false}))).has_value());
}

TEST_CASE("a note is found behind others, and notes whose sizes lie end the search") {
    auto image = test::make_elf();
    // A note "GNU" with 3 bytes of descriptor, then the Xen note.
    std::vector<u8> notes;
    test::put<u32>(notes, 0, 4);
    test::put<u32>(notes, 4, 3);
    test::put<u32>(notes, 8, 18);
    notes.insert(notes.end(), {'G', 'N', 'U', 0, 1, 2, 3, 0});
    notes.insert(notes.end(), image.begin() + test::elf_note_at, image.begin() + test::elf_note_at + 20);
    REQUIRE(test::elf_note_at + notes.size() <= test::elf_text_at);
    std::memcpy(image.data() + test::elf_note_at, notes.data(), notes.size());
    test::put<u64>(image, 152, notes.size());
    CHECK(find_pvh_entry(*ElfImage::parse(image)) == 0x200020U);
    for (const usize at : {test::elf_note_at, test::elf_note_at + 4}) {
        for (const u32 size : {5U, 0x1000U, 0xFFFFFFFFU, 0xFFFFFFFCU, 0x7FFFFFFFU}) {
            auto changed = image;
            test::put<u32>(changed, at, size);
            const test::ExactCopy copy(changed);
            (void)find_pvh_entry(*ElfImage::parse(copy.view()));
        }
    }
}

TEST_CASE("a PVH kernel gets start info with map, command line, modules and RSDP") {
    TestVm vm(16 * mib);
    const std::vector<u8> initrd(5000, 0x11), extra(100, 0x22);
    const GuestModule modules[] = {{.name = "extra", .bytes = extra, .cmdline = "extra a=b"}};
    const auto image = test::make_elf();
    const auto state =
        load_elf(vm, image, {.cmdline = "root=/dev/vda", .initrd = initrd, .modules = modules});
    REQUIRE(state);
    CHECK(state->mode == StartState::Mode::protected_flat);
    CHECK(state->rip == 0x200020);
    CHECK(state->segment(SegmentName::tr).limit == 0x67);
    const u64 info = state->gprs.rbx;
    CHECK(vm.get<u32>(info) == 0x336EC578);
    CHECK(vm.get<u32>(info + 4) == 1);
    CHECK(vm.get<u32>(info + 8) == 0);
    REQUIRE(vm.get<u32>(info + 12) == 2);
    CHECK(vm.text(vm.get<u64>(info + 24)) == "root=/dev/vda");
    CHECK(vm.get<u64>(info + 32) == platform::rsdp);

    const u64 list = vm.get<u64>(info + 16);
    const u64 first = vm.get<u64>(list), second = vm.get<u64>(list + 32);
    CHECK(first == 0x202000);  // the page behind the kernel
    CHECK(vm.bytes(first, vm.get<u64>(list + 8)) == initrd);
    CHECK(second == 0x204000);
    CHECK(vm.bytes(second, vm.get<u64>(list + 40)) == extra);
    CHECK(vm.text(vm.get<u64>(list + 48)) == "extra a=b");

    const auto map = GuestMemoryMap::build(vm.memory);
    REQUIRE(vm.get<u32>(info + 48) == map->entries().size());
    for (usize i = 0; i < map->entries().size(); ++i) {
        const u64 at = vm.get<u64>(info + 40) + 24 * i;
        CHECK(vm.get<u64>(at) == map->entries()[i].start);
        CHECK(vm.get<u64>(at + 8) == map->entries()[i].length);
        CHECK(vm.get<u32>(at + 16) == static_cast<u32>(map->entries()[i].kind));
        CHECK(vm.get<u32>(at + 20) == 0);
    }
}

TEST_CASE("a PVH kernel without modules has none listed") {
    TestVm vm(16 * mib);
    const auto state = load_elf(vm, test::make_elf());
    REQUIRE(state);
    CHECK(vm.get<u32>(state->gprs.rbx + 12) == 0);
    CHECK(vm.get<u64>(state->gprs.rbx + 16) == 0);
    CHECK(vm.text(vm.get<u64>(state->gprs.rbx + 24)) == "");
}

TEST_CASE("PVH entry, text and modules that do not fit are refused with the reason") {
    TestVm vm(16 * mib);
    const auto error = [&](const std::vector<u8>& image, BootImages images) {
        const auto state = load_elf(vm, image, images);
        return state ? std::string() : std::string(state.error().text.view());
    };
    CHECK(test::contains(error(test::make_elf({.pvh_entry = 0x100000}), {}), "PVH entry"));
    CHECK(test::contains(error(test::make_elf({.pvh_note = false}), {}), "XEN_ELFNOTE_PHYS32_ENTRY"));
    const std::string text(70000, 'x');
    CHECK(test::contains(error(test::make_elf(), {.cmdline = text}), "command lines"));
    const std::vector<u8> big(15 * mib);
    CHECK(test::contains(error(test::make_elf(), {.initrd = big}), "initrd"));
    const std::vector<GuestModule> many(17, GuestModule{.name = "m", .bytes = {}, .cmdline = {}});
    CHECK(test::contains(error(test::make_elf(), {.modules = many}), "17 modules"));
}

TEST_CASE("an ELF file of every shorter length is refused without a stray access") {
    for (const bool wide : {true, false}) {
        const auto image = test::make_elf({.wide = wide, .virtual_base = 0xC0200000});
        for (usize length = 0; length < image.size(); ++length) {
            const test::ExactCopy cut(Bytes(image).first(length));
            const auto parsed = ElfImage::parse(cut.view());
            REQUIRE_FALSE(parsed);
            REQUIRE_FALSE(parsed.error().text.truncated());
        }
    }
}

TEST_CASE("no byte of the ELF headers or notes, whatever its value, leads outside the VM") {
    for (const bool wide : {true, false}) {
        const auto image = test::make_elf({.wide = wide, .virtual_base = 0xC0200000});
        TestVm vm(4 * mib);
        for (usize offset = 0; offset < test::elf_text_at; ++offset) {
            for (const unsigned value : {0x00U, 0x01U, 0x7FU, 0x80U, 0xFEU, 0xFFU}) {
                auto changed = image;
                changed[offset] = static_cast<u8>(value);
                const test::ExactCopy copy(changed);
                const auto state =
                    load_guest(vm.memory, {.kernel = copy.view(), .protocol = BootProtocol::pvh},
                               test::make_machine(one_cpu));
                if (!state) {
                    REQUIRE_FALSE(state.error().text.empty());
                } else {
                    REQUIRE(vm.memory.at(GuestPhysical(state->rip), 1) != nullptr);
                }
            }
        }
    }
}
