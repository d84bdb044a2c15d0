#include "vmm/loader/bzimage.hpp"

#include <array>

#include "vmm/loader/byte_writer.hpp"
#include "vmm/loader/layout.hpp"

namespace bulkhead {
namespace {

// Offsets into the file and, the same, into the zero page: the setup header (boot.rst, "The Real-Mode Kernel
// Header").
namespace field {
constexpr usize setup_sects = 0x1F1, syssize = 0x1F4, boot_flag = 0x1FE, jump = 0x200, magic = 0x202,
                version = 0x206, type_of_loader = 0x210, loadflags = 0x211, code32_start = 0x214,
                ramdisk_image = 0x218, ramdisk_size = 0x21C, heap_end_ptr = 0x224, ext_loader_ver = 0x226,
                cmd_line_ptr = 0x228, initrd_addr_max = 0x22C, kernel_alignment = 0x230,
                relocatable_kernel = 0x234, xloadflags = 0x236, cmdline_size = 0x238,
                hardware_subarch = 0x23C, setup_data = 0x250, pref_address = 0x258, init_size = 0x260;
}
// Offsets into the zero page outside the setup header (zero-page.rst).
namespace zero_page {
constexpr usize size = page_size;
constexpr usize video_mode = 0x06, video_columns = 0x07, video_ega_bx = 0x0A, video_lines = 0x0E,
                video_is_vga = 0x0F, video_points = 0x10, acpi_rsdp = 0x70, alt_mem_k = 0x1E0,
                map_count = 0x1E8, header = 0x1F1, header_limit = 0x290, map = 0x2D0;
constexpr usize max_map_entries = 128;
}  // namespace zero_page

constexpr u32 header_magic = 0x53726448;  // "HdrS"
constexpr u16 oldest_version = 0x206, version_with_init_size = 0x20A, version_with_xloadflags = 0x20C,
              version_with_rsdp = 0x20E;
constexpr usize sector = 512, paragraph = 16;
constexpr u8 default_setup_sectors = 4;
constexpr u8 loaded_high = bit<u8>(0), quiet = bit<u8>(5);
constexpr u16 kernel_64 = bit<u16>(0);
constexpr u8 undefined_loader = 0xFF;
constexpr u32 default_command_line_limit = 255;
constexpr u64 entry_64_offset = 0x200;

template <class T>
T header_field(Bytes file, usize offset) {
    return read_at<T>(file, offset).value_or(T{});
}

// Fields that exist since protocol 2.10; what older ones imply.
[[gnu::noinline]] Result<> parse_placement(Bytes file, LinuxImage& image) {
    image.relocatable = header_field<u8>(file, field::relocatable_kernel) != 0;
    image.alignment = header_field<u32>(file, field::kernel_alignment);
    if (image.relocatable && !is_power_of_two(image.alignment)) {
        return fail("bzImage kernel_alignment is {:#x}, not a power of two; the file is corrupt",
                    image.alignment);
    }
    if (image.alignment < page_size) image.alignment = page_size;
    image.preferred_address = platform::high_memory;
    image.memory_size = image.payload_size;
    if (image.version < version_with_init_size) return {};
    image.preferred_address = header_field<u64>(file, field::pref_address);
    if (image.preferred_address < platform::high_memory ||
        image.preferred_address >= platform::mmio_hole_end) {
        return fail("bzImage pref_address is {:#x}, not between 1 MiB and 4 GiB; the file is corrupt",
                    image.preferred_address);
    }
    const u32 init_size = header_field<u32>(file, field::init_size);
    if (init_size == 0) return fail("bzImage init_size is 0; the file is corrupt");
    if (init_size > image.memory_size) image.memory_size = init_size;
    return {};
}

Result<u64> choose_address(const LinuxImage& image, const GuestMemoryMap& map) {
    if (map.is_ram(image.preferred_address, image.memory_size)) return image.preferred_address;
    if (image.relocatable) {
        const u64 lowest = (map.main_start() + image.alignment - 1) & ~(image.alignment - 1);
        if (map.is_ram(lowest, image.memory_size)) return lowest;
    }
    return fail(
        "bzImage needs {} KiB of RAM at {:#x} (pref_address, init_size), and RAM ends at {:#x}; give the "
        "VM more memory",
        image.memory_size / kib, image.preferred_address, map.main_end());
}

struct Placement {
    u64 kernel = 0;
    u64 initrd = 0;
};

[[gnu::noinline]] Result<Placement> place(const LoadContext& context, const LinuxImage& image) {
    const Result<u64> kernel = choose_address(image, context.map);
    if (!kernel) return std::unexpected(kernel.error());
    Placement result{.kernel = *kernel};
    const Bytes payload = context.images.kernel.subspan(image.payload_offset, image.payload_size);
    if (!context.memory.write(GuestPhysical(*kernel), payload) ||
        !context.memory.fill(GuestPhysical(*kernel + payload.size()), image.memory_size - payload.size(),
                             0)) {
        return fail("bzImage does not fit at {:#x}", *kernel);
    }
    const Bytes initrd = context.images.initrd;
    if (initrd.empty()) return result;
    const std::optional<u64> initrd_place =
        context.map.place_high(initrd.size(), image.initrd_limit, *kernel, *kernel + image.memory_size);
    if (!initrd_place || !context.memory.write(GuestPhysical(*initrd_place), initrd)) {
        return fail("no room for the initrd of {} KiB below {:#x} beside the kernel; give the VM more memory",
                    initrd.size() / kib, image.initrd_limit);
    }
    result.initrd = *initrd_place;
    return result;
}

[[gnu::noinline]] Result<> write_command_line(const LoadContext& context, const LinuxImage& image) {
    const std::string_view text = context.images.cmdline;
    const u64 limit = image.command_line_limit < layout::cmdline_size - 1 ? image.command_line_limit
                                                                          : layout::cmdline_size - 1;
    if (text.size() > limit) {
        return fail("command line of {} characters; this kernel takes {} (cmdline_size): shorten it",
                    text.size(), limit);
    }
    u8* const at = context.memory.at(layout::cmdline, text.size() + 1);
    if (at == nullptr) return fail("the VM has no RAM at {} for the command line", layout::cmdline);
    ByteWriter({at, text.size() + 1}).c_string(text);
    return {};
}

[[gnu::noinline]] Result<> write_zero_page(const LoadContext& context, const LinuxImage& image,
                                           const Placement& placement) {
    u8* const at = context.memory.at(layout::boot_params, zero_page::size);
    if (at == nullptr) return fail("the VM has no RAM at {} for the zero page", layout::boot_params);
    std::memset(at, 0, zero_page::size);
    const auto set = [page = MutableBytes{at, zero_page::size}]<class T>(usize offset, T value) {
        (void)write_at(page, offset, value);
    };

    // parse() has checked that header_end lies in the file and below header_limit.
    std::memcpy(at + zero_page::header, context.images.kernel.data() + field::setup_sects,
                image.header_end - field::setup_sects);
    set(field::type_of_loader, undefined_loader);
    set(field::loadflags, static_cast<u8>(at[field::loadflags] & (loaded_high | quiet)));
    set(field::code32_start, static_cast<u32>(placement.kernel));
    set(field::ramdisk_image, static_cast<u32>(placement.initrd));
    set(field::ramdisk_size, static_cast<u32>(context.images.initrd.size()));
    set(field::heap_end_ptr, u16{0});
    set(field::ext_loader_ver, u16{0});  // and ext_loader_type
    set(field::cmd_line_ptr, static_cast<u32>(layout::cmdline.raw()));
    if (image.header_end > field::hardware_subarch) set(field::hardware_subarch, u32{0});  // an ordinary PC
    if (image.header_end > field::setup_data) set(field::setup_data, u64{0});

    if (context.machine.vga) {
        set(zero_page::video_mode, u8{3});
        set(zero_page::video_columns, u8{80});
        set(zero_page::video_ega_bx, u16{3});
        set(zero_page::video_lines, u8{25});
        set(zero_page::video_is_vga, u8{1});
        set(zero_page::video_points, u16{16});
    }
    if (image.version >= version_with_rsdp) set(zero_page::acpi_rsdp, u64{platform::rsdp});
    set(zero_page::alt_mem_k, static_cast<u32>((context.map.main_end() - platform::high_memory) / kib));

    ByteWriter map({at + zero_page::map, zero_page::max_map_entries * 20});
    for (const MemoryMapEntry& entry : context.map.entries()) {
        map.put(entry.start);
        map.put(entry.length);
        map.put(entry.kind);
    }
    if (!map.ok()) return fail("the memory map has too many entries for the zero page");
    set(zero_page::map_count, static_cast<u8>(context.map.entries().size()));
    return {};
}

// Puts everything into RAM; returns where the kernel is.
// Kept out of line, like the others so marked, to bound the stack: each Error in flight takes some 230 bytes.
[[gnu::noinline]] Result<u64> prepare(const LoadContext& context, const LinuxImage& image) {
    if (!context.images.modules.empty()) {
        return fail("a bzImage takes an initrd, but no modules; remove them or name one as initrd");
    }
    const Result<Placement> placement = place(context, image);
    if (!placement) return std::unexpected(placement.error());
    const auto mode = image.entry_64bit ? StartState::Mode::long_mode : StartState::Mode::protected_flat;
    Result<> done = write_command_line(context, image);
    if (done) done = write_zero_page(context, image, *placement);
    if (done) done = write_boot_gdt(context.memory, mode);
    if (done && image.entry_64bit) done = write_identity_tables(context.memory);
    if (!done) return std::unexpected(done.error());
    return placement->kernel;
}

// Entry states: boot.rst, "32-bit Boot Protocol" and "64-bit Boot Protocol".
[[gnu::noinline]] void set_start(const LinuxImage& image, u64 kernel, StartState& state) {
    if (image.entry_64bit) {
        state = make_long_start(kernel + entry_64_offset, layout::page_tables, layout::gdt);
    } else {
        state = make_protected_start(static_cast<u32>(kernel), layout::gdt);
    }
    state.gprs.rsi = layout::boot_params.raw();
    state.gprs.rsp = layout::stack_top.raw();
}

}  // namespace

bool LinuxImage::recognise(Bytes file) {
    return read_at<u16>(file, field::boot_flag) == u16{0xAA55} &&
           read_at<u32>(file, field::magic) == header_magic;
}

Result<LinuxImage> LinuxImage::parse(Bytes file) {
    if (!recognise(file)) {
        return fail("not a bzImage: no AA55h at 1FEh (boot_flag) or no \"HdrS\" at 202h (header)");
    }
    const auto version = read_at<u16>(file, field::version);
    if (!version || file.size() <= field::cmdline_size + sizeof(u32)) {
        return fail("bzImage setup header cut off: the file has {} bytes; copy it anew", file.size());
    }
    LinuxImage image;
    image.version = *version;
    if (image.version < oldest_version) {
        return fail("bzImage boot protocol is {}.{} (version); 2.06 (Linux 2.6.22) is the oldest supported",
                    image.version >> 8, image.version & 0xFF);
    }
    // The header ends where the short jump at its front leads (boot.rst, "jump").
    const auto jump = read_at<std::array<u8, 2>>(file, field::jump);
    image.header_end = static_cast<u32>(field::magic + (jump ? (*jump)[1] : 0U));
    const usize least_header_end = image.version >= version_with_init_size
                                       ? field::init_size + sizeof(u32)
                                       : field::cmdline_size + sizeof(u32);
    if (!jump || (*jump)[0] != 0xEB || image.header_end < least_header_end ||
        image.header_end > zero_page::header_limit) {
        return fail(
            "bzImage jump ends the setup header at {:#x}, not between {:#x} and {:#x}; the file is "
            "corrupt",
            image.header_end, least_header_end, zero_page::header_limit);
    }
    if (image.header_end > file.size()) {
        return fail("bzImage setup header cut off: the file has {} bytes; copy it anew", file.size());
    }
    if ((header_field<u8>(file, field::loadflags) & loaded_high) == 0) {
        return fail("bzImage loadflags lacks LOADED_HIGH: a zImage, which is not supported; build a bzImage");
    }
    const u8 setup_sectors = header_field<u8>(file, field::setup_sects);
    image.payload_offset = sector * (1 + u64{setup_sectors == 0 ? default_setup_sectors : setup_sectors});
    const u64 code_size = u64{header_field<u32>(file, field::syssize)} * paragraph;
    if (code_size == 0) return fail("bzImage syssize is 0; the file is corrupt");
    // The last paragraph may be incomplete; a signature may follow, which is not loaded.
    if (image.payload_offset >= file.size() ||
        code_size - (paragraph - 1) > file.size() - image.payload_offset) {
        return fail("bzImage cut off: {} bytes, but setup_sects and syssize tell of {}; copy it anew",
                    file.size(), image.payload_offset + code_size);
    }
    const u64 in_file = file.size() - image.payload_offset;
    image.payload_size = code_size < in_file ? code_size : in_file;
    if (const Result<> placed = parse_placement(file, image); !placed) {
        return std::unexpected(placed.error());
    }
    if (image.version >= version_with_xloadflags) {
        image.entry_64bit = (header_field<u16>(file, field::xloadflags) & kernel_64) != 0;
    }
    if (image.entry_64bit && image.payload_size <= entry_64_offset) {
        return fail(
            "bzImage has {} bytes of code (syssize), and its 64-bit entry at 200h (xloadflags); the file "
            "is corrupt",
            image.payload_size);
    }
    const u32 initrd_max = header_field<u32>(file, field::initrd_addr_max);
    image.initrd_limit = u64{initrd_max} + 1;
    const u32 limit = header_field<u32>(file, field::cmdline_size);
    image.command_line_limit = limit != 0 ? limit : default_command_line_limit;
    return image;
}

Result<> load_linux(const LoadContext& context, StartState& state) {
    const Result<LinuxImage> image = LinuxImage::parse(context.images.kernel);
    if (!image) return std::unexpected(image.error());
    const Result<u64> kernel = prepare(context, *image);
    if (!kernel) return std::unexpected(kernel.error());
    set_start(*image, *kernel, state);
    return {};
}

}  // namespace bulkhead
