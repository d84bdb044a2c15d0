#include "vmm/loader/boot_data.hpp"

#include "vmm/loader/byte_writer.hpp"
#include "vmm/loader/layout.hpp"

namespace bulkhead {
namespace {

std::unexpected<Error> no_base_memory(GuestPhysical address) {
    return fail("the VM has no RAM at {} for boot data", address);
}

}  // namespace

Result<> write_boot_gdt(GuestMemory& memory, StartState::Mode mode) {
    const BootGdt gdt = make_boot_gdt(mode);
    u8* const place = memory.at(layout::gdt, sizeof(gdt));
    if (place == nullptr) return no_base_memory(layout::gdt);
    std::memcpy(place, gdt.data(), sizeof(gdt));
    return {};
}

Result<> write_identity_tables(GuestMemory& memory) {
    constexpr u64 present_writable = 3, large = bit(7);
    constexpr usize entries = 512;
    u8* const place = memory.at(layout::page_tables, layout::page_tables_size);
    if (place == nullptr) return no_base_memory(layout::page_tables);
    ByteWriter out({place, layout::page_tables_size});
    const u64 base = layout::page_tables.raw();
    out.put((base + page_size) | present_writable);
    out.align(page_size);
    constexpr u64 directories = 4;
    for (u64 i = 0; i < directories; ++i) out.put((base + (2 + i) * page_size) | present_writable);
    out.align(page_size);
    for (u64 i = 0; i < directories * entries; ++i) out.put(i * large_page_size | present_writable | large);
    return {};
}

}  // namespace bulkhead
