#include "kernel/bootinfo/multiboot2.hpp"

#include "kernel/bootinfo/boot_errors.hpp"

namespace bulkhead::multiboot2 {
namespace {

enum Tag : u32 {
    tag_end = 0,
    tag_command_line = 1,
    tag_loader_name = 2,
    tag_module = 3,
    tag_memory_map = 6,
    tag_framebuffer = 8,
    tag_elf_sections = 9,
    tag_rsdp_v1 = 14,
    tag_rsdp_v2 = 15,
};

constexpr u64 header_size = 8;  // of the information and of each tag

MemoryKind kind_of(u32 type) {
    switch (type) {
        case 1: return MemoryKind::usable;
        case 3: return MemoryKind::acpi_reclaimable;
        case 4: return MemoryKind::acpi_nvs;
        case 5: return MemoryKind::defective;
        default: return MemoryKind::reserved;
    }
}

Result<> keep_text(Bytes tag, BootInfo& info, std::string_view& text) {
    auto kept = info.keep(until_nul(tag.subspan(header_size)));
    if (!kept) return fail(boot_error::too_much_text, BootInfo::text_capacity);
    text = *kept;
    return {};
}

Result<> parse_memory_map(Bytes tag, BootInfo& info) {
    const u32 entry_size = read_at<u32>(tag, 8).value_or(0);
    if (entry_size < 20) return fail(boot_error::bad_memory_map, 0, "its size is wrong");
    usize index = 0;
    for (u64 at = 16; range_within(at, entry_size, tag.size()); at += entry_size, ++index) {
        const u64 start = *read_at<u64>(tag, at);
        const u64 length = *read_at<u64>(tag, at + 8);
        const u32 type = *read_at<u32>(tag, at + 16);
        if (auto added = info.memory.add(HostPhysical(start), length, kind_of(type)); !added) {
            return fail(boot_error::bad_memory_map, index, added.error().text.view());
        }
    }
    return {};
}

void parse_framebuffer(Bytes tag, Framebuffer& out) {
    const auto type = read_at<u8>(tag, 29);
    if (!type || *type > 2) return;
    out.kind = *type == 0   ? Framebuffer::Kind::indexed
               : *type == 1 ? Framebuffer::Kind::rgb
                            : Framebuffer::Kind::text;
    out.address = HostPhysical(read_at<u64>(tag, 8).value_or(0));
    out.pitch = read_at<u32>(tag, 16).value_or(0);
    out.width = read_at<u32>(tag, 20).value_or(0);
    out.height = read_at<u32>(tag, 24).value_or(0);
    out.bits_per_pixel = read_at<u8>(tag, 28).value_or(0);
    if (out.kind != Framebuffer::Kind::rgb) return;
    const auto masks = slice(tag, 32, 6);
    if (!masks) {
        out = {};
        return;
    }
    out.red = {(*masks)[0], (*masks)[1]};
    out.green = {(*masks)[2], (*masks)[3]};
    out.blue = {(*masks)[4], (*masks)[5]};
}

// The second root pointer, of ACPI 2.0 and later, goes before the first, whichever comes first.
void keep_rsdp(Bytes rsdp, BootInfo& info) {
    if (rsdp.size() > info.rsdp.capacity()) rsdp = rsdp.first(info.rsdp.capacity());
    if (rsdp.size() <= info.rsdp.size()) return;
    info.rsdp.clear();
    for (const u8 byte : rsdp) (void)info.rsdp.push_back(byte);
}

Result<> parse_tag(u32 type, Bytes tag, HostPhysical address, BootInfo& info) {
    switch (type) {
        case tag_command_line: return keep_text(tag, info, info.command_line);
        case tag_loader_name: return keep_text(tag, info, info.loader_name);
        case tag_module: {
            const auto start = read_at<u32>(tag, 8), end = read_at<u32>(tag, 12);
            if (!start || !end)
                return fail(boot_error::bad_information, address, "a module tag is too short");
            return info.add_module(*start, *end, tag.subspan(16));
        }
        case tag_memory_map: return parse_memory_map(tag, info);
        case tag_framebuffer: parse_framebuffer(tag, info.framebuffer); return {};
        case tag_elf_sections:
            info.elf_sections = {.address = address + 20,
                                 .count = read_at<u32>(tag, 8).value_or(0),
                                 .entry_size = read_at<u32>(tag, 12).value_or(0),
                                 .string_section = read_at<u32>(tag, 16).value_or(0)};
            // All of them lie within the tag, or there are none.
            if (tag.size() < 20 ||
                u64{info.elf_sections.count} * info.elf_sections.entry_size > tag.size() - 20) {
                info.elf_sections = {};
            }
            return {};
        case tag_rsdp_v1:
        case tag_rsdp_v2: keep_rsdp(tag.subspan(header_size), info); return {};
        default: return {};
    }
}

}  // namespace

Result<> parse(PhysicalReader& reader, HostPhysical address, BootInfo& info) {
    info.clear();
    const auto bad = [&](std::string_view why) { return fail(boot_error::bad_information, address, why); };
    if (address.raw() == 0 || !address.is_aligned(8)) return bad("its address is wrong");
    const auto header = reader.read(address, header_size);
    if (!header) return bad("it cannot be read");
    const u32 size = read_at<u32>(*header, 0).value_or(0);
    if (size < 2 * header_size || size > PhysicalReader::max_length) return bad("its size is wrong");
    const auto bytes = reader.read(address, size);
    if (!bytes) return bad("it cannot be read");

    info.protocol = BootInfo::Protocol::multiboot2;
    info.information = address;
    info.information_size = size;
    // Every round moves on by at least a tag's header.
    for (u64 at = header_size;;) {
        const auto type = read_at<u32>(*bytes, at);
        const auto tag_size = read_at<u32>(*bytes, at + 4);
        if (!type || !tag_size) return bad("the last tag is missing");
        if (*type == tag_end) break;
        const auto tag = slice(*bytes, at, *tag_size);
        if (*tag_size < header_size || !tag) return bad("a tag's size is wrong");
        if (auto parsed = parse_tag(*type, *tag, address + at, info); !parsed) return parsed;
        at += (u64{*tag_size} + 7) & ~u64{7};
    }
    if (info.memory.ranges().empty()) return fail(boot_error::no_memory_map);
    return {};
}

}  // namespace bulkhead::multiboot2
