#include "kernel/bootinfo/multiboot1.hpp"

#include "kernel/bootinfo/boot_errors.hpp"

namespace bulkhead::multiboot1 {
namespace {

// Which fields of the structure are valid: bits of its first word.
constexpr unsigned has_command_line = 2, has_modules = 3, has_elf_sections = 5, has_memory_map = 6,
                   has_loader_name = 9, has_framebuffer = 12;

constexpr u64 structure_size = 118;  // as GRUB has it: 116 in the specification, see parse_framebuffer()
constexpr u64 longest_text = 4 * kib;
constexpr u64 longest_memory_map = 64 * kib;

// Offsets in the structure.
constexpr u64 at_flags = 0, at_command_line = 16, at_module_count = 20, at_modules = 24, at_elf_count = 28,
              at_elf_entry_size = 32, at_elf_address = 36, at_elf_strings = 40, at_map_length = 44,
              at_map_address = 48, at_loader_name = 64, at_framebuffer = 88;

struct Module {
    u32 start, end, text, reserved;
};

// The structure, copied: the reader's bytes do not outlast the next read.
struct Structure {
    u8 bytes[structure_size];
    template <class T>
    [[nodiscard]] T get(u64 offset) const {
        return read_at<T>(bytes, offset).value_or(T{});
    }
    [[nodiscard]] bool has(unsigned flag) const { return has_bit(get<u32>(at_flags), flag); }
};

MemoryKind kind_of(u32 type) {
    switch (type) {
        case 1: return MemoryKind::usable;
        case 3: return MemoryKind::acpi_reclaimable;
        case 4: return MemoryKind::acpi_nvs;
        case 5: return MemoryKind::defective;
        default: return MemoryKind::reserved;
    }
}

// A NUL-terminated string. Its length is unknown, and readable memory may end soon behind it: the longest
// part that can be read is found first.
Bytes read_text(PhysicalReader& reader, u32 address) {
    if (address == 0) return {};
    u64 length = 0;
    for (u64 more = longest_text; more > 0; more /= 2) {
        if (length + more <= longest_text && reader.read(HostPhysical(address), length + more))
            length += more;
    }
    const auto bytes = reader.read(HostPhysical(address), length);
    return bytes ? until_nul(*bytes) : Bytes{};
}

Result<> keep_text(PhysicalReader& reader, u32 address, BootInfo& info, std::string_view& text) {
    auto kept = info.keep(read_text(reader, address));
    if (!kept) return fail(boot_error::too_much_text, BootInfo::text_capacity);
    text = *kept;
    return {};
}

Result<> parse_memory_map(PhysicalReader& reader, const Structure& structure, BootInfo& info) {
    const u32 length = structure.get<u32>(at_map_length);
    const HostPhysical address(structure.get<u32>(at_map_address));
    const auto map = length <= longest_memory_map ? reader.read(address, length) : std::nullopt;
    if (!map) return fail(boot_error::bad_information, address, "the memory map cannot be read");
    usize index = 0;
    // Each entry begins with the size of what follows it. The last may be followed by fewer bytes than an
    // entry has.
    for (u64 at = 0; at + 24 <= length; ++index) {
        const u32 size = *read_at<u32>(*map, at);
        if (size < 20 || size > length - at - 4)
            return fail(boot_error::bad_memory_map, index, "its size is wrong");
        const u64 start = *read_at<u64>(*map, at + 4);
        const u64 bytes = *read_at<u64>(*map, at + 12);
        const u32 type = *read_at<u32>(*map, at + 20);
        if (auto added = info.memory.add(HostPhysical(start), bytes, kind_of(type)); !added) {
            return fail(boot_error::bad_memory_map, index, added.error().text.view());
        }
        at += u64{size} + 4;
    }
    return {};
}

Result<> parse_modules(PhysicalReader& reader, const Structure& structure, BootInfo& info) {
    const u32 count = structure.get<u32>(at_module_count);
    const HostPhysical address(structure.get<u32>(at_modules));
    if (count > BootInfo::max_modules) return fail(boot_error::too_many_modules, BootInfo::max_modules);
    for (u32 i = 0; i < count; ++i) {
        const auto bytes = reader.read(address + i * sizeof(Module), sizeof(Module));
        const auto module = bytes ? read_at<Module>(*bytes, 0) : std::nullopt;
        if (!module) return fail(boot_error::bad_information, address, "the module list cannot be read");
        if (auto added = info.add_module(module->start, module->end, read_text(reader, module->text));
            !added) {
            return added;
        }
    }
    return {};
}

void parse_framebuffer(const Structure& structure, Framebuffer& out) {
    constexpr u64 at = at_framebuffer;
    const u8 type = structure.get<u8>(at + 21);
    if (type > 2) return;
    out.kind = type == 0   ? Framebuffer::Kind::indexed
               : type == 1 ? Framebuffer::Kind::rgb
                           : Framebuffer::Kind::text;
    out.address = HostPhysical(structure.get<u64>(at));
    out.pitch = structure.get<u32>(at + 8);
    out.width = structure.get<u32>(at + 12);
    out.height = structure.get<u32>(at + 16);
    out.bits_per_pixel = structure.get<u8>(at + 20);
    if (out.kind != Framebuffer::Kind::rgb) return;
    // The specification puts the colours at offset 110. GRUB's structure has a union with a 32-bit member
    // there, which its compiler aligns: 112, and zeros before.
    const u64 specified = at + 22, aligned = at + 24;
    const u64 colours = structure.get<u16>(specified) == 0 ? aligned : specified;
    const auto channel = [&](u64 index) {
        return Framebuffer::Channel{structure.get<u8>(colours + 2 * index),
                                    structure.get<u8>(colours + 2 * index + 1)};
    };
    out.red = channel(0);
    out.green = channel(1);
    out.blue = channel(2);
}

}  // namespace

Result<> parse(PhysicalReader& reader, HostPhysical address, BootInfo& info) {
    info.clear();
    Structure structure{};
    const auto bytes = reader.read(address, structure_size);
    if (!bytes || address.raw() == 0) return fail(boot_error::bad_information, address, "it cannot be read");
    std::memcpy(structure.bytes, bytes->data(), structure_size);
    info.protocol = BootInfo::Protocol::multiboot1;
    info.information = address;
    info.information_size = structure_size;

    if (!structure.has(has_memory_map)) return fail(boot_error::no_memory_map);
    if (auto parsed = parse_memory_map(reader, structure, info); !parsed) return parsed;
    if (structure.has(has_command_line)) {
        auto kept = keep_text(reader, structure.get<u32>(at_command_line), info, info.command_line);
        if (!kept) return kept;
    }
    if (structure.has(has_loader_name)) {
        auto kept = keep_text(reader, structure.get<u32>(at_loader_name), info, info.loader_name);
        if (!kept) return kept;
    }
    if (structure.has(has_modules)) {
        if (auto parsed = parse_modules(reader, structure, info); !parsed) return parsed;
    }
    if (structure.has(has_elf_sections)) {
        info.elf_sections = {.address = HostPhysical(structure.get<u32>(at_elf_address)),
                             .count = structure.get<u32>(at_elf_count),
                             .entry_size = structure.get<u32>(at_elf_entry_size),
                             .string_section = structure.get<u32>(at_elf_strings)};
    }
    if (structure.has(has_framebuffer)) parse_framebuffer(structure, info.framebuffer);
    return {};
}

}  // namespace bulkhead::multiboot1
