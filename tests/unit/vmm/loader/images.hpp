// Kernels made for the tests: each as the format's document describes it, with a body of recognisable bytes.
#pragma once

#include <vector>

#include "tests/unit/vmm/loader/test_vm.hpp"

namespace bulkhead::test {

constexpr usize bzimage_setup_sectors = 2;
constexpr usize bzimage_code_at = (1 + bzimage_setup_sectors) * 512;

// Protocol 2.15, relocatable, 64-bit entry, like a recent Linux but small: prefers 4 MiB, needs 1 MiB.
inline std::vector<u8> make_bzimage(u16 version = 0x20F, usize code_size = 0x1000) {
    std::vector<u8> image(bzimage_code_at + code_size);
    image[0x1EF] = 0xFF;  // the sentinel: may not reach the zero page
    put<u8>(image, 0x1F1, bzimage_setup_sectors);
    put<u32>(image, 0x1F4, static_cast<u32>(code_size / 16));
    put<u16>(image, 0x1FA, 0xFFFF);
    put<u16>(image, 0x1FE, 0xAA55);
    put<u16>(image, 0x200, 0x6AEB);
    put<u32>(image, 0x202, 0x53726448);
    put<u16>(image, 0x206, version);
    put<u8>(image, 0x211, 1);
    put<u32>(image, 0x214, 0x100000);
    put<u32>(image, 0x22C, 0x7FFFFFFF);
    put<u32>(image, 0x230, 0x200000);
    put<u8>(image, 0x234, 1);
    put<u16>(image, 0x236, 1);
    put<u32>(image, 0x238, 2047);
    put<u64>(image, 0x258, 0x400000);
    put<u32>(image, 0x260, 0x100000);
    for (usize i = 0; i < code_size; ++i) image[bzimage_code_at + i] = static_cast<u8>(i * 7 + 1);
    return image;
}

struct ElfOptions {
    bool wide = true;
    u64 physical = 0x200000;
    u64 virtual_base = 0xFFFFFFFF80200000;
    u64 entry = 0xFFFFFFFF80200010;
    bool pvh_note = true;
    u32 pvh_entry = 0x200020;
    bool wide_note = false;  // the note's descriptor has 8 bytes
};
constexpr usize elf_text_at = 0x200, elf_text_size = 0x300, elf_memory_size = 0x2000, elf_note_at = 0x180;

// One PT_LOAD of elf_text_size bytes in the file and elf_memory_size in memory, and a PT_NOTE.
inline std::vector<u8> make_elf(const ElfOptions& options = {}) {
    std::vector<u8> image(elf_text_at + elf_text_size);
    const u8 ident[7] = {0x7F, 'E', 'L', 'F', static_cast<u8>(options.wide ? 2 : 1), 1, 1};
    std::memcpy(image.data(), ident, sizeof(ident));
    put<u16>(image, 16, 2);
    put<u16>(image, 18, options.wide ? 62 : 3);
    put<u32>(image, 20, 1);
    const usize note_size = 12 + 4 + (options.wide_note ? 8 : 4);
    if (options.wide) {
        put<u64>(image, 24, options.entry);
        put<u64>(image, 32, 64);
        put<u16>(image, 52, 64);
        put<u16>(image, 54, 56);
        put<u16>(image, 56, 2);
        put<u32>(image, 64, 1);
        put<u64>(image, 72, elf_text_at);
        put<u64>(image, 80, options.virtual_base);
        put<u64>(image, 88, options.physical);
        put<u64>(image, 96, elf_text_size);
        put<u64>(image, 104, elf_memory_size);
        put<u32>(image, 120, 4);
        put<u64>(image, 128, elf_note_at);
        put<u64>(image, 152, options.pvh_note ? note_size : 0);
        put<u64>(image, 168, 4);
    } else {
        put<u32>(image, 24, static_cast<u32>(options.entry));
        put<u32>(image, 28, 52);
        put<u16>(image, 40, 52);
        put<u16>(image, 42, 32);
        put<u16>(image, 44, 2);
        put<u32>(image, 52, 1);
        put<u32>(image, 56, elf_text_at);
        put<u32>(image, 60, static_cast<u32>(options.virtual_base));
        put<u32>(image, 64, static_cast<u32>(options.physical));
        put<u32>(image, 68, elf_text_size);
        put<u32>(image, 72, elf_memory_size);
        put<u32>(image, 84, 4);
        put<u32>(image, 88, elf_note_at);
        put<u32>(image, 100, static_cast<u32>(options.pvh_note ? note_size : 0));
        put<u32>(image, 112, 4);
    }
    put<u32>(image, elf_note_at, 4);
    put<u32>(image, elf_note_at + 4, options.wide_note ? 8 : 4);
    put<u32>(image, elf_note_at + 8, 18);
    std::memcpy(image.data() + elf_note_at + 12, "Xen", 4);
    if (options.wide_note) {
        put<u64>(image, elf_note_at + 16, options.pvh_entry);
    } else {
        put<u32>(image, elf_note_at + 16, options.pvh_entry);
    }
    for (usize i = 0; i < elf_text_size; ++i) image[elf_text_at + i] = static_cast<u8>(i * 5 + 3);
    return image;
}

// A Multiboot 1 header; the address fields follow flags if bit 16 is set.
inline void put_multiboot1(std::vector<u8>& image, usize at, u32 flags) {
    put<u32>(image, at, 0x1BADB002);
    put<u32>(image, at + 4, flags);
    put<u32>(image, at + 8, 0U - 0x1BADB002U - flags);
}

// A flat binary with Multiboot 1 address fields: header at 40h, loaded to 1 MiB from file offset 20h on.
inline std::vector<u8> make_multiboot1_flat() {
    std::vector<u8> image(0x400);
    for (usize i = 0; i < image.size(); ++i) image[i] = static_cast<u8>(i * 3 + 2);
    put_multiboot1(image, 0x40, 0x10003);
    put<u32>(image, 0x4C, 0x100020);
    put<u32>(image, 0x50, 0x100000);
    put<u32>(image, 0x54, 0x1003C0);
    put<u32>(image, 0x58, 0x101000);
    put<u32>(image, 0x5C, 0x100080);
    return image;
}

// A Multiboot 2 header of the given tags, each already padded to 8 bytes, with the end tag added.
inline void put_multiboot2(std::vector<u8>& image, usize at, const std::vector<u8>& tags,
                           u32 architecture = 0) {
    const u32 length = static_cast<u32>(16 + tags.size() + 8);
    put<u32>(image, at, 0xE85250D6);
    put<u32>(image, at + 4, architecture);
    put<u32>(image, at + 8, length);
    put<u32>(image, at + 12, 0U - 0xE85250D6U - architecture - length);
    if (image.size() < at + length) image.resize(at + length);
    if (!tags.empty()) std::memcpy(image.data() + at + 16, tags.data(), tags.size());
    put<u32>(image, at + 16 + tags.size(), 0);
    put<u32>(image, at + 20 + tags.size(), 8);
}

inline std::vector<u8> make_tag(u16 type, u16 flags, const std::vector<u32>& words) {
    std::vector<u8> tag;
    put<u16>(tag, 0, type);
    put<u16>(tag, 2, flags);
    put<u32>(tag, 4, static_cast<u32>(8 + 4 * words.size()));
    for (const u32 word : words) put<u32>(tag, tag.size(), word);
    tag.resize((tag.size() + 7) / 8 * 8);
    return tag;
}

}  // namespace bulkhead::test
