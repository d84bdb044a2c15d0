#include "vmm/loader/multiboot_header.hpp"

#include <array>

namespace bulkhead {
namespace {

// --- Multiboot 1 ------------------------------------------------------------------------------------------

constexpr u32 magic1 = 0x1BADB002;
constexpr usize search1 = 8192, alignment1 = 4;
constexpr u32 flag_page_align = bit<u32>(0), flag_memory_info = bit<u32>(1), flag_video = bit<u32>(2),
              flag_addresses = bit<u32>(16);
constexpr u32 mandatory_flags = 0xFFFF;
constexpr u32 known_flags = flag_page_align | flag_memory_info | flag_video;

struct Header1 {
    u32 magic, flags, checksum;
};
struct Addresses1 {
    u32 header, load, load_end, bss_end, entry;
};
constexpr usize addresses_offset = 12, mode_type_offset = 32;

// --- Multiboot 2 ------------------------------------------------------------------------------------------

constexpr u32 magic2 = 0xE85250D6;
constexpr usize search2 = 32768, alignment2 = 8;
constexpr u32 architecture_i386 = 0;

struct Header2 {
    u32 magic, architecture, length, checksum;
};
struct TagHeader {
    u16 type, flags;
    u32 size;
};
constexpr u16 optional_tag = 1;
enum TagType : u16 {
    tag_end = 0,
    tag_information_request = 1,
    tag_address = 2,
    tag_entry = 3,
    tag_console = 4,
    tag_framebuffer = 5,
    tag_module_align = 6,
    tag_efi_boot_services = 7,
    tag_efi32_entry = 8,
    tag_efi64_entry = 9,
    tag_relocatable = 10,
};
// Information tags up to this type are in the specification. Those of them that a PC without EFI, VBE, APM or
// network boot does not have are left out of the information without complaint.
constexpr u32 last_known_information = 21;
constexpr u32 information_elf_sections = 9;

template <class Header>
std::optional<u64> find_header(Bytes file, u32 magic, usize search, usize alignment) {
    const Bytes area = file.first(file.size() < search ? file.size() : search);
    for (u64 offset = 0; range_within(offset, sizeof(Header), area.size()); offset += alignment) {
        const auto words = read_at<std::array<u32, sizeof(Header) / sizeof(u32)>>(area, offset);
        if (!words || (*words)[0] != magic) continue;
        u32 sum = 0;
        for (const u32 word : *words) sum += word;
        if (sum == 0) return offset;
    }
    return std::nullopt;
}

// `load` may be ~0: from the file's beginning, however far that is before the header (Multiboot 2 only).
[[gnu::noinline]] Result<MultibootAddresses> check_addresses(Bytes file, u64 header_offset, u32 header,
                                                             u32 load, u32 load_end, u32 bss_end) {
    MultibootAddresses result;
    if (load == ~u32{0}) {
        if (header < header_offset) {
            return fail("Multiboot header_addr {:#x} is less than the header's place in the file, {:#x}",
                        header, header_offset);
        }
        load = static_cast<u32>(header - header_offset);
    }
    if (load > header || header - load > header_offset) {
        return fail(
            "Multiboot load_addr {:#x} does not go with header_addr {:#x} and the header at {:#x} in the "
            "file",
            load, header, header_offset);
    }
    result.file_offset = header_offset - (header - load);
    result.load_start = load;
    const u64 rest_of_file = file.size() - result.file_offset;
    result.load_end = load_end == 0 ? load + rest_of_file : load_end;
    if (result.load_end <= load) {
        return fail("Multiboot load_end_addr {:#x} is not above load_addr {:#x}", load_end, load);
    }
    if (result.load_end - load > rest_of_file) {
        return fail(
            "Multiboot load_end_addr {:#x} asks for {:#x} bytes, and the file has {:#x}; copy it anew",
            load_end, result.load_end - load, rest_of_file);
    }
    result.memory_end = bss_end == 0 ? result.load_end : bss_end;
    if (result.memory_end < result.load_end) {
        return fail("Multiboot bss_end_addr {:#x} is below load_end_addr {:#x}", bss_end, result.load_end);
    }
    return result;
}

std::unexpected<Error> cut_off(std::string_view what) {
    return fail("Multiboot {} cut off by the end of the file; copy it anew", what);
}

[[gnu::noinline]] Result<> check_entry(u64 entry, const MultibootAddresses& addresses) {
    if (entry >= addresses.load_start && entry < addresses.load_end) return {};
    return fail("Multiboot entry_addr {:#x} is not in the loaded file ({:#x} to {:#x})", entry,
                addresses.load_start, addresses.load_end);
}

// The tag list of a Multiboot 2 header, one tag a call.
class TagReader {
  public:
    TagReader(Bytes file, MultibootHeader& header) : file_(file), header_(header) {}

    [[nodiscard]] [[gnu::noinline]] Result<> take(u16 type, bool optional, Bytes body) {
        switch (type) {
            case tag_information_request: return optional ? Result<>{} : take_request(body);
            case tag_address: return take_addresses(body);
            case tag_entry: return take_entry(body);
            case tag_console: return take_console(body);
            case tag_framebuffer: header_.wants_framebuffer = true; return {};
            case tag_module_align:
            case tag_efi_boot_services:
            case tag_efi32_entry:
            case tag_efi64_entry:
            case tag_relocatable: return {};
            default: break;
        }
        if (optional) return {};
        return fail("Multiboot 2 header tag {} is not known, and not optional", type);
    }

  private:
    [[gnu::noinline]] Result<> take_request(Bytes body) {
        for (usize at = 0; at + sizeof(u32) <= body.size(); at += sizeof(u32)) {
            const u32 wanted = read_at<u32>(body, at).value_or(0);
            if (wanted == information_elf_sections) {
                return fail("Multiboot 2 information request: tag 9 (ELF sections) is not supplied");
            }
            if (wanted > last_known_information) {
                return fail("Multiboot 2 information request: tag {} is not known", wanted);
            }
        }
        return {};
    }
    [[gnu::noinline]] Result<> take_addresses(Bytes body) {
        const auto fields = read_at<std::array<u32, 4>>(body, 0);
        if (!fields) return fail("Multiboot 2 address tag has {} bytes, not 16", body.size());
        const auto checked =
            check_addresses(file_, header_.offset, (*fields)[0], (*fields)[1], (*fields)[2], (*fields)[3]);
        if (!checked) return std::unexpected(checked.error());
        header_.addresses = *checked;
        return {};
    }
    [[gnu::noinline]] Result<> take_entry(Bytes body) {
        const auto entry = read_at<u32>(body, 0);
        if (!entry) return fail("Multiboot 2 entry address tag has {} bytes, not 4", body.size());
        header_.entry = *entry;
        return {};
    }
    [[gnu::noinline]] Result<> take_console(Bytes body) {
        constexpr u32 required = bit<u32>(0), ega_text = bit<u32>(1);
        const auto flags = read_at<u32>(body, 0);
        if (!flags) return fail("Multiboot 2 console tag has {} bytes, not 4", body.size());
        if ((*flags & required) != 0 && (*flags & ega_text) == 0) {
            return fail("Multiboot 2 console_flags {:#x}: the kernel wants a console other than EGA text",
                        *flags);
        }
        return {};
    }

    Bytes file_;
    MultibootHeader& header_;
};

}  // namespace

bool has_multiboot1_header(Bytes file) {
    return find_header<Header1>(file, magic1, search1, alignment1).has_value();
}

bool has_multiboot2_header(Bytes file) {
    return find_header<Header2>(file, magic2, search2, alignment2).has_value();
}

Result<MultibootHeader> parse_multiboot1_header(Bytes file) {
    const std::optional<u64> offset = find_header<Header1>(file, magic1, search1, alignment1);
    if (!offset) {
        return fail("no Multiboot 1 header (1BADB002h and its checksum) in the first 8192 bytes");
    }
    MultibootHeader header{.version = 1, .offset = *offset};
    const Bytes rest = file.first(file.size() < search1 ? file.size() : search1).subspan(*offset);
    const u32 flags = read_at<Header1>(rest, 0).value_or(Header1{}).flags;
    if (const u32 unknown = flags & mandatory_flags & ~known_flags; unknown != 0) {
        return fail("Multiboot header flags {:#x}: bits {:#x} are not known", flags, unknown);
    }
    if ((flags & flag_addresses) != 0) {
        const auto fields = read_at<Addresses1>(rest, addresses_offset);
        if (!fields) return cut_off("address fields");
        if (fields->load == ~u32{0}) return fail("Multiboot load_addr is {:#x}", fields->load);
        const auto addresses =
            check_addresses(file, *offset, fields->header, fields->load, fields->load_end, fields->bss_end);
        if (!addresses) return std::unexpected(addresses.error());
        if (const Result<> entry = check_entry(fields->entry, *addresses); !entry) {
            return std::unexpected(entry.error());
        }
        header.addresses = *addresses;
        header.entry = fields->entry;
    }
    if ((flags & flag_video) != 0) {
        const auto mode_type = read_at<u32>(rest, mode_type_offset);
        if (!mode_type) return cut_off("graphics fields");
        if (*mode_type > 1) {
            return fail("Multiboot mode_type is {}, not 0 (graphics) or 1 (EGA text)", *mode_type);
        }
        header.wants_framebuffer = true;
    }
    return header;
}

Result<MultibootHeader> parse_multiboot2_header(Bytes file) {
    const std::optional<u64> offset = find_header<Header2>(file, magic2, search2, alignment2);
    if (!offset) {
        return fail("no Multiboot 2 header (E85250D6h and its checksum) in the first 32768 bytes");
    }
    MultibootHeader header{.version = 2, .offset = *offset};
    const Bytes area = file.first(file.size() < search2 ? file.size() : search2);
    const Header2 fixed = read_at<Header2>(area, *offset).value_or(Header2{});
    if (fixed.architecture != architecture_i386) {
        return fail("Multiboot 2 header architecture is {}, not 0 (i386)", fixed.architecture);
    }
    if (fixed.length < sizeof(Header2) || !range_within(*offset, fixed.length, area.size())) {
        return fail("Multiboot 2 header_length {:#x} at {:#x} passes the file's end or its first 32768 bytes",
                    fixed.length, *offset);
    }
    const Bytes tags = area.subspan(*offset, fixed.length);
    TagReader reader(file, header);
    u64 at = sizeof(Header2);
    for (;;) {
        const auto tag = read_at<TagHeader>(tags, at);
        if (!tag) return fail("Multiboot 2 header has no end tag within header_length {:#x}", fixed.length);
        if (tag->size < sizeof(TagHeader) || !range_within(at, tag->size, tags.size())) {
            return fail("Multiboot 2 header tag {}: size {:#x} passes header_length {:#x}", tag->type,
                        tag->size, fixed.length);
        }
        if (tag->type == tag_end) break;
        const Result<> taken =
            reader.take(tag->type, (tag->flags & optional_tag) != 0,
                        tags.subspan(at + sizeof(TagHeader), tag->size - sizeof(TagHeader)));
        if (!taken) return std::unexpected(taken.error());
        at = (at + tag->size + alignment2 - 1) & ~u64{alignment2 - 1};
    }
    if (header.addresses && !header.entry) {
        return fail("Multiboot 2 header has an address tag without an entry address tag");
    }
    if (header.addresses) {
        if (const Result<> entry = check_entry(*header.entry, *header.addresses); !entry) {
            return std::unexpected(entry.error());
        }
    }
    return header;
}

}  // namespace bulkhead
