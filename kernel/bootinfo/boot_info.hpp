// What the boot loader said, in words that both Multiboot versions share. Everything is copied; nothing
// points into memory that the loader owns, but for the modules themselves.
#pragma once

#include <optional>
#include <string_view>

#include "kernel/base/bytes.hpp"
#include "kernel/base/fixed_vector.hpp"
#include "kernel/base/result.hpp"
#include "kernel/bootinfo/memory_map.hpp"

namespace bulkhead {

struct BootModule {
    HostPhysical start{};
    HostPhysical end{};     // one past the last byte
    std::string_view name;  // the first word of its string; may be empty
    std::string_view rest;  // what follows, spaces around it removed

    [[nodiscard]] constexpr u64 size() const { return end - start; }
};

struct Framebuffer {
    enum class Kind : u8 { none, indexed, rgb, text };
    struct Channel {
        u8 position = 0;  // of its lowest bit
        u8 width = 0;     // in bits
    };
    Kind kind = Kind::none;
    HostPhysical address{};
    u32 pitch = 0;   // bytes a line
    u32 width = 0;   // pixels, or characters
    u32 height = 0;  // likewise
    u8 bits_per_pixel = 0;
    Channel red, green, blue;  // rgb only
};

// The image's ELF section headers, as the loader placed them.
struct ElfSections {
    HostPhysical address{};
    u32 count = 0;
    u32 entry_size = 0;
    u32 string_section = 0;
};

// About 28 KiB: belongs into static storage. Its string views point into itself, so it stays where it is.
struct BootInfo {
    static constexpr usize max_modules = 64;
    static constexpr usize text_capacity = 16 * kib;

    enum class Protocol : u8 { none, multiboot1, multiboot2 };

    BootInfo() = default;
    BootInfo(const BootInfo&) = delete;
    BootInfo& operator=(const BootInfo&) = delete;

    Protocol protocol = Protocol::none;
    std::string_view command_line;
    std::string_view loader_name;
    MemoryMap memory;
    FixedVector<BootModule, max_modules> modules;
    Framebuffer framebuffer;
    ElfSections elf_sections;
    // The ACPI root pointer, if the loader passed a copy: 20 or 36 bytes, unchecked.
    FixedVector<u8, 36> rsdp;
    HostPhysical information{};  // where the loader's own structure is, for reservation
    u64 information_size = 0;    // at least; Multiboot 1's pieces lie elsewhere in part

    void clear();

    // For the parsers: a copy of `text`, or nothing when text_capacity is used up.
    [[nodiscard]] std::optional<std::string_view> keep(Bytes text);
    // Appends a module whose string is `text`.
    [[nodiscard]] Result<> add_module(u64 start, u64 end, Bytes text);

  private:
    char text_[text_capacity] = {};
    usize text_used_ = 0;
};

// What cannot be true of a machine that may go on: no usable memory; a module outside usable RAM, over the
// kernel image at [image_start, image_end), or over another module.
[[nodiscard]] Result<> check(const BootInfo& info, HostPhysical image_start, HostPhysical image_end);

// The bytes up to the first NUL, or all.
[[nodiscard]] Bytes until_nul(Bytes bytes);

}  // namespace bulkhead
