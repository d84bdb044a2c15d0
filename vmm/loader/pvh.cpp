#include "vmm/loader/pvh.hpp"

#include "vmm/loader/byte_writer.hpp"
#include "vmm/loader/layout.hpp"
#include "vmm/loader/module_list.hpp"

namespace bulkhead {
namespace {

constexpr u32 note_physical_entry = 18;
constexpr u32 start_info_magic = 0x336EC578, start_info_version = 1;
constexpr usize start_info_size = 56, module_entry_size = 32, map_entry_size = 24;

[[gnu::noinline]] Result<> write_start_info(const LoadContext& context, const ModuleList& modules) {
    const u64 base = layout::info.raw();
    u8* const place = context.memory.at(layout::info, layout::info_size);
    if (place == nullptr) return fail("the VM has no RAM at {} for the start info", layout::info);
    const auto map_entries = context.map.entries();
    const u64 module_table = base + start_info_size;
    const u64 memory_map = module_table + modules.size() * module_entry_size;
    const u64 command_line = memory_map + map_entries.size() * map_entry_size;

    ByteWriter out({place, layout::info_size});
    out.put(start_info_magic);
    out.put(start_info_version);
    out.put<u32>(0);  // flags
    out.put(static_cast<u32>(modules.size()));
    out.put<u64>(modules.empty() ? 0 : module_table);
    out.put(command_line);
    out.put(u64{platform::rsdp});
    out.put(memory_map);
    out.put(static_cast<u32>(map_entries.size()));
    out.put<u32>(0);
    u64 text = command_line + context.images.cmdline.size() + 1;
    for (const PlacedModule& module : modules) {
        out.put(module.start);
        out.put(module.size);
        out.put(text);
        out.put<u64>(0);
        text += module.cmdline.size() + 1;
    }
    for (const MemoryMapEntry& entry : map_entries) {
        out.put(entry.start);
        out.put(entry.length);
        out.put(entry.kind);
        out.put<u32>(0);
    }
    out.c_string(context.images.cmdline);
    for (const PlacedModule& module : modules) out.c_string(module.cmdline);
    if (!out.ok()) {
        return fail("command lines of kernel and modules take more than {} KiB; shorten them",
                    layout::info_size / kib);
    }
    return {};
}

[[gnu::noinline]] Result<> place_modules_and_info(const LoadContext& context, const LoadedRange& kernel) {
    ModuleList modules;
    const Result<> placed = place_modules(context, kernel, modules);
    if (!placed) return placed;
    return write_start_info(context, modules);
}

[[gnu::noinline]] Result<LoadedRange> load_kernel(const LoadContext& context, u64& entry) {
    const Result<ElfImage> image = ElfImage::parse(context.images.kernel);
    if (!image) return std::unexpected(image.error());
    const std::optional<u64> found = find_pvh_entry(*image);
    if (!found) {
        return fail(
            "ELF kernel without a PVH entry (note XEN_ELFNOTE_PHYS32_ENTRY); choose another protocol");
    }
    entry = *found;
    return image->load_into(context.memory, context.map);
}

// Puts everything into RAM; returns the entry point.
// Kept out of line, like the others so marked, to bound the stack: each Error in flight takes some 230 bytes.
[[gnu::noinline]] Result<u64> prepare(const LoadContext& context) {
    u64 entry = 0;
    const Result<LoadedRange> kernel = load_kernel(context, entry);
    if (!kernel) return std::unexpected(kernel.error());
    if (entry < kernel->start || entry >= kernel->end || entry >= platform::mmio_hole_end) {
        return fail("PVH entry {:#x} is not in the loaded kernel ({:#x} to {:#x}); the file is corrupt",
                    entry, kernel->start, kernel->end);
    }
    Result<> done = place_modules_and_info(context, *kernel);
    if (done) done = write_boot_gdt(context.memory, StartState::Mode::protected_flat);
    if (!done) return std::unexpected(done.error());
    return entry;
}

}  // namespace

std::optional<u64> find_pvh_entry(const ElfImage& image) {
    const std::optional<Bytes> note = image.find_note("Xen", note_physical_entry);
    if (!note) return std::nullopt;
    if (note->size() == sizeof(u64)) return read_at<u64>(*note, 0);
    if (note->size() == sizeof(u32)) return read_at<u32>(*note, 0);
    return std::nullopt;
}

Result<> load_pvh(const LoadContext& context, StartState& state) {
    const Result<u64> entry = prepare(context);
    if (!entry) return std::unexpected(entry.error());
    state = make_protected_start(static_cast<u32>(*entry), layout::gdt);
    state.gprs.rbx = layout::info.raw();
    state.gprs.rsp = layout::stack_top.raw();
    return {};
}

}  // namespace bulkhead
