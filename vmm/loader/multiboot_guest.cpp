#include "vmm/loader/multiboot_guest.hpp"

#include "vmm/loader/byte_writer.hpp"
#include "vmm/loader/elf.hpp"
#include "vmm/loader/layout.hpp"
#include "vmm/loader/module_list.hpp"
#include "vmm/loader/multiboot_header.hpp"

namespace bulkhead {
namespace {

constexpr u32 bootloader_magic1 = 0x2BADB002, bootloader_magic2 = 0x36D76289;
constexpr std::string_view loader_name = "Bulkhead";

// The text screen as both specifications describe a framebuffer: EGA text is type 2.
constexpr u32 text_columns = 80, text_lines = 25, text_pitch = 2 * text_columns;
constexpr u8 text_bits = 16, framebuffer_ega_text = 2;

struct LoadedKernel {
    LoadedRange range;
    u64 entry = 0;
};

u32 lower_kib() {
    return platform::ebda / kib;
}
u32 upper_kib(const GuestMemoryMap& map) {
    return static_cast<u32>((map.main_end() - platform::high_memory) / kib);
}

[[gnu::noinline]] Result<LoadedRange> load_by_addresses(const LoadContext& context,
                                                        const MultibootAddresses& addresses) {
    const u64 in_file = addresses.load_end - addresses.load_start;
    const u64 in_memory = addresses.memory_end - addresses.load_start;
    const GuestPhysical place(addresses.load_start);
    if (addresses.load_start < platform::high_memory) {
        return fail("Multiboot load_addr {:#x} is below 1 MiB, where boot data lies; link the kernel higher",
                    addresses.load_start);
    }
    if (!context.map.is_ram(addresses.load_start, in_memory) ||
        !context.memory.write(place, context.images.kernel.subspan(addresses.file_offset, in_file)) ||
        !context.memory.fill(place + in_file, in_memory - in_file, 0)) {
        return fail(
            "Multiboot kernel from {:#x} to {:#x} is not in the VM's RAM, which ends at {:#x}; give the VM "
            "more memory",
            addresses.load_start, addresses.memory_end, context.map.main_end());
    }
    return LoadedRange{addresses.load_start, addresses.memory_end};
}

[[gnu::noinline]] Result<LoadedKernel> load_elf(const LoadContext& context, const MultibootHeader& header) {
    const Result<ElfImage> image = ElfImage::parse(context.images.kernel);
    if (!image) return std::unexpected(image.error());
    const Result<u64> entry = header.entry ? Result<u64>(*header.entry) : image->physical_entry();
    if (!entry) return std::unexpected(entry.error());
    const Result<LoadedRange> range = image->load_into(context.memory, context.map);
    if (!range) return std::unexpected(range.error());
    return LoadedKernel{*range, *entry};
}

[[gnu::noinline]] Result<LoadedKernel> load_kernel(const LoadContext& context,
                                                   const MultibootHeader& header) {
    LoadedKernel kernel;
    if (header.addresses) {
        const Result<LoadedRange> range = load_by_addresses(context, *header.addresses);
        if (!range) return std::unexpected(range.error());
        kernel = {*range, header.entry.value_or(0)};
    } else {
        if (!ElfImage::recognise(context.images.kernel)) {
            return fail("Multiboot kernel is neither ELF nor has address fields in its header");
        }
        const Result<LoadedKernel> loaded = load_elf(context, header);
        if (!loaded) return std::unexpected(loaded.error());
        kernel = *loaded;
    }
    if (kernel.entry < kernel.range.start || kernel.entry >= kernel.range.end ||
        kernel.entry >= platform::mmio_hole_end) {
        return fail("Multiboot kernel's entry {:#x} is not in what is loaded, {:#x} to {:#x}", kernel.entry,
                    kernel.range.start, kernel.range.end);
    }
    return kernel;
}

// Multiboot 1, 3.3: a structure of fixed layout, then what it points to.
[[gnu::noinline]] void put_info1(ByteWriter& out, const LoadContext& context, const MultibootHeader& header,
                                 const ModuleList& modules) {
    constexpr usize fixed_size = 120, module_entry_size = 16;
    constexpr u32 has_memory = bit<u32>(0), has_cmdline = bit<u32>(2), has_modules = bit<u32>(3),
                  has_map = bit<u32>(6), has_loader_name = bit<u32>(9), has_framebuffer = bit<u32>(12);
    const u32 base = static_cast<u32>(layout::info.raw());
    const auto here = [&] { return static_cast<u32>(base + out.position()); };

    out.zeros(fixed_size);
    u32 flags = has_memory | has_cmdline | has_modules | has_map | has_loader_name;
    out.put_at(4, lower_kib());
    out.put_at(8, upper_kib(context.map));

    out.put_at(16, here());
    out.c_string(context.images.cmdline);
    out.put_at(64, here());
    out.c_string(loader_name);

    out.align(alignof(u32));
    out.put_at(20, static_cast<u32>(modules.size()));
    out.put_at(24, here());
    const usize module_table = out.position();
    out.zeros(modules.size() * module_entry_size);
    for (usize i = 0; i < modules.size(); ++i) {
        const usize entry = module_table + i * module_entry_size;
        out.put_at(entry, static_cast<u32>(modules[i].start));
        out.put_at(entry + 4, static_cast<u32>(modules[i].start + modules[i].size));
        out.put_at(entry + 8, here());
        out.c_string(modules[i].cmdline);
    }

    out.align(alignof(u32));
    const usize map_start = out.position();
    out.put_at(48, here());
    for (const MemoryMapEntry& entry : context.map.entries()) {
        out.put<u32>(20);  // the size of what follows
        out.put(entry.start);
        out.put(entry.length);
        out.put(entry.kind);
    }
    out.put_at(44, static_cast<u32>(out.position() - map_start));

    if (header.wants_framebuffer && context.machine.vga) {
        flags |= has_framebuffer;
        out.put_at<u64>(88, platform::vga_text);
        out.put_at(96, text_pitch);
        out.put_at(100, text_columns);
        out.put_at(104, text_lines);
        out.put_at(108, text_bits);
        out.put_at(109, framebuffer_ega_text);
    }
    out.put_at(0, flags);
}

// One tag of Multiboot 2's information: type, size (known when the tag is done), contents, padding.
class Tag {
  public:
    Tag(ByteWriter& out, u32 type) : out_(out), start_(out.position()) {
        out.put(type);
        out.put<u32>(0);
    }
    Tag(const Tag&) = delete;
    Tag& operator=(const Tag&) = delete;
    ~Tag() {
        out_.put_at(start_ + 4, static_cast<u32>(out_.position() - start_));
        out_.align(8);
    }

  private:
    ByteWriter& out_;
    usize start_;
};

void put_text_tag(ByteWriter& out, u32 type, std::string_view text) {
    const Tag tag(out, type);
    out.c_string(text);
}

// Multiboot 2, 3.6.
[[gnu::noinline]] void put_info2(ByteWriter& out, const LoadContext& context, const LoadedRange& kernel,
                                 const ModuleList& modules) {
    constexpr u32 cmdline = 1, boot_loader_name = 2, module = 3, basic_memory = 4, memory_map = 6,
                  framebuffer = 8, acpi_old = 14, acpi_new = 15, load_base = 21;
    constexpr usize rsdp_size = 36, rsdp_first_part = 20;

    out.zeros(8);  // total size, reserved
    put_text_tag(out, cmdline, context.images.cmdline);
    put_text_tag(out, boot_loader_name, loader_name);
    for (const PlacedModule& it : modules) {
        const Tag tag(out, module);
        out.put(static_cast<u32>(it.start));
        out.put(static_cast<u32>(it.start + it.size));
        out.c_string(it.cmdline);
    }
    {
        const Tag tag(out, basic_memory);
        out.put(lower_kib());
        out.put(upper_kib(context.map));
    }
    {
        const Tag tag(out, memory_map);
        out.put<u32>(24);  // size of an entry
        out.put<u32>(0);   // its version
        for (const MemoryMapEntry& entry : context.map.entries()) {
            out.put(entry.start);
            out.put(entry.length);
            out.put(entry.kind);
            out.put<u32>(0);
        }
    }
    if (context.machine.vga) {
        const Tag tag(out, framebuffer);
        out.put<u64>(platform::vga_text);
        out.put(text_pitch);
        out.put(text_columns);
        out.put(text_lines);
        out.put(text_bits);
        out.put(framebuffer_ega_text);
        out.put<u16>(0);
    }
    std::array<u8, rsdp_size> rsdp{};
    if (context.memory.read(GuestPhysical(platform::rsdp), rsdp)) {
        {
            const Tag tag(out, acpi_old);
            out.bytes(Bytes(rsdp).first(rsdp_first_part));
        }
        const Tag tag(out, acpi_new);
        out.bytes(rsdp);
    }
    {
        const Tag tag(out, load_base);
        out.put(static_cast<u32>(kernel.start));
    }
    out.put<u32>(0);  // end
    out.put<u32>(8);
    out.put_at(0, static_cast<u32>(out.position()));
}

[[gnu::noinline]] Result<> write_info(const LoadContext& context, const MultibootHeader& header,
                                      const LoadedRange& kernel) {
    ModuleList modules;
    if (const Result<> placed = place_modules(context, kernel, modules); !placed) return placed;
    u8* const place = context.memory.at(layout::info, layout::info_size);
    if (place == nullptr) return fail("the VM has no RAM at {} for the boot information", layout::info);
    ByteWriter out({place, layout::info_size});
    if (header.version == 1) {
        put_info1(out, context, header, modules);
    } else {
        put_info2(out, context, kernel, modules);
    }
    if (!out.ok()) {
        return fail("command lines of kernel and modules take more than {} KiB; shorten them",
                    layout::info_size / kib);
    }
    return {};
}

// Puts everything into RAM; returns the entry point.
// Kept out of line, like the others so marked, to bound the stack: each Error in flight takes some 230 bytes.
[[gnu::noinline]] Result<u64> prepare(const LoadContext& context, const MultibootHeader& header) {
    const Result<LoadedKernel> kernel = load_kernel(context, header);
    if (!kernel) return std::unexpected(kernel.error());
    Result<> done = write_info(context, header, kernel->range);
    if (done) done = write_boot_gdt(context.memory, StartState::Mode::protected_flat);
    if (!done) return std::unexpected(done.error());
    return kernel->entry;
}

Result<> load(const LoadContext& context, const Result<MultibootHeader>& header, u32 magic,
              StartState& state) {
    if (!header) return std::unexpected(header.error());
    const Result<u64> entry = prepare(context, *header);
    if (!entry) return std::unexpected(entry.error());
    state = make_protected_start(static_cast<u32>(*entry), layout::gdt);
    state.gprs.rax = magic;
    state.gprs.rbx = layout::info.raw();
    state.gprs.rsp = layout::stack_top.raw();
    return {};
}

}  // namespace

Result<> load_multiboot1(const LoadContext& context, StartState& state) {
    return load(context, parse_multiboot1_header(context.images.kernel), bootloader_magic1, state);
}

Result<> load_multiboot2(const LoadContext& context, StartState& state) {
    return load(context, parse_multiboot2_header(context.images.kernel), bootloader_magic2, state);
}

}  // namespace bulkhead
