#include "boot/kernel_space.hpp"

#include <algorithm>

#include "arch/x86/cpu/control_flow.hpp"
#include "arch/x86/cpu/intrinsics.hpp"
#include "arch/x86/cpu/stacks.hpp"
#include "arch/x86/regs/control.hpp"
#include "kernel/base/deferred.hpp"
#include "kernel/mem/layout.hpp"

namespace bulkhead {
namespace {

// Placed by linker.ld; each of the sections begins and ends on a page boundary.
extern "C" const u8 image_start[], text_start[], text_end[], rodata_start[], rodata_end[], data_start[],
    data_end[], image_end[];

[[nodiscard]] HostVirtual at(const u8* symbol) {
    return HostVirtual(reinterpret_cast<u64>(symbol));
}

// For the tables of the kernel and, until a VM's arena takes over, of compartments.
// Two pages a core are for its virtualisation extension.
constexpr u64 pool_pages = 256 + 128;
alignas(page_size) u8 pool_memory[pool_pages * page_size];
u64 pool_bitmap[PagePool::bitmap_words(pool_pages)];

// Translations are dropped on the running core. What other cores hold of the shared windows is not touched by
// anything that happens after they have started.
class KernelTableMemory final : public PoolTableMemory {
  public:
    explicit KernelTableMemory(PagePool& pool) : PoolTableMemory(pool, image_window) {}

    void flush(u64 address, u64 length) override {
        constexpr u64 most = 64 * page_size;
        if (length <= most) {
            for (u64 offset = 0; offset < length; offset += page_size)
                cpu::invalidate_page(HostVirtual(address + offset));
            return;
        }
        // Toggling PGE drops all translations, global ones too (Intel SDM Vol. 3A, 4.10.4.1, June 2023
        // edition).
        const u64 value = cpu::read_cr4();
        if ((value & cr4::pge) != 0) {
            cpu::write_cr4(value & ~cr4::pge);
            cpu::write_cr4(value);
        } else {
            cpu::write_cr3(cpu::read_cr3());
        }
    }
};

Deferred<PagePool> pool;
Deferred<KernelTableMemory> table_memory;
Deferred<HostPageTable> table;

[[nodiscard]] Result<> map_image(HostVirtual start, HostVirtual end, Permissions permissions,
                                 bool shadow_stack = false) {
    if (start == end) return {};
    // 4 KiB pages throughout: the stacks' holes would split larger ones, and a split takes memory when it is
    // needed least.
    return table->map(start, image_physical(start), end - start,
                      {.permissions = permissions, .global = true, .shadow_stack = shadow_stack}, 1);
}

[[nodiscard]] Result<> map_data() {
    HostVirtual from = at(data_start);
    const auto map_to = [&](u64 guard) {
        auto mapped = map_image(from, HostVirtual(guard), read_write);
        from = HostVirtual(guard) + page_size;
        return mapped;
    };
    // In the order in which the linker script has them.
    for (const CpuStacks& stacks : cpu_stacks) {
        for (const u64 offset : stack_guard_offsets) {
            if (auto mapped = map_to(reinterpret_cast<u64>(&stacks) + offset); !mapped) return mapped;
            if (offset != offsetof(CpuStacks, guard_shadow)) continue;
            const HostVirtual end = from + sizeof(stacks.shadow) + sizeof(stacks.shadow_of_ists);
            if (auto mapped = map_image(from, end, read_only, true); !mapped) return mapped;
            from = end;
        }
    }
    if (auto mapped = map_to(reinterpret_cast<u64>(first_stack.guard)); !mapped) return mapped;
    return map_image(from, at(data_end), read_write);
}

// The windows to physical memory lie in the image's top-level slot, beyond the image window.
constexpr u64 physical_windows = image_window + image_window_size;
static_assert(top_slot(physical_windows) == top_slot(image_window));
static_assert(physical_windows + PhysicalWindow::count * PhysicalWindow::window_size > physical_windows);

}  // namespace

Result<> enter_kernel_space() {
    prepare_shadow_stacks();
    pool.emplace(image_physical(at(pool_memory)), pool_pages, pool_bitmap);
    table_memory.emplace(*pool);
    auto root = HostPageTable::make_root(host_paging, *table_memory);
    if (!root) return std::unexpected(root.error());
    table.emplace(host_paging, *table_memory, *root);

    if (auto r = map_image(at(text_start), at(text_end), read_execute); !r) return r;
    if (auto r = map_image(at(rodata_start), at(rodata_end), read_only); !r) return r;
    if (auto r = map_data(); !r) return r;
    // What compartments share stays where it is, whatever is mapped or unmapped in it later.
    for (const u64 window : {image_window, device_window}) {
        if (auto r = table->pin_top_slot(top_slot(window)); !r) return r;
    }

    cpu::write_cr3(table->root().raw());
    return {};
}

void enter_kernel_table() {
    cpu::write_cr3(table->root().raw());
}

HostPageTable& kernel_page_table() {
    return *table;
}
TableMemory& kernel_table_memory() {
    return *table_memory;
}
const PagePool& kernel_page_pool() {
    return *pool;
}

u64 image_checksum() {
    u64 hash = 0xCBF2'9CE4'8422'2325;
    const auto add = [&](const u8* from, const u8* to) {
        for (; from != to; ++from) hash = (hash ^ *from) * 0x0000'0100'0000'01B3;
    };
    add(text_start, text_end);
    add(rodata_start, rodata_end);
    return hash;
}

HostPhysical image_begin() {
    return image_physical(at(image_start));
}
HostPhysical image_finish() {
    return image_physical(at(image_end));
}

unsigned physical_address_bits() {
    if (cpu::cpuid(0x8000'0000).eax < 0x8000'0008) return 36;
    return std::min<unsigned>(cpu::cpuid(0x8000'0008).eax & 0xFF, 52);
}

Result<HostVirtual> map_device(HostPhysical start, u64 length, MemoryType type) {
    if (length == 0 || !range_within(start.raw(), length, device_window_size))
        return fail("HV-E023: device registers at {} are out of reach; report this machine", start);
    const PageAttributes attributes{.permissions = read_write, .type = type, .global = true};
    const HostPhysical first = start.align_down(page_size);
    const HostPhysical end = (start + length).align_up(page_size);
    // A large mapping is a framebuffer: nobody else's pages are among it.
    if (end - first > 16 * page_size) {
        if (auto r = table->map(device_virtual(first), first, end - first, attributes, 2); !r)
            return std::unexpected(r.error());
        return device_virtual(start);
    }
    for (HostPhysical page = first; page < end; page += page_size) {
        if (const auto present = table->lookup(device_virtual(page))) {
            if (present->attributes.type != type)
                return fail("HV-E023: device page {} is wanted with two memory types; report this machine",
                            page);
            continue;
        }
        if (auto r = table->map(device_virtual(page), page, page_size, attributes, 1); !r)
            return std::unexpected(r.error());
    }
    return device_virtual(start);
}

HostVirtual PhysicalWindow::base() const {
    return HostVirtual(physical_windows + number_ * window_size);
}

void PhysicalWindow::close() {
    // Its tables cover nothing else, so no page needs splitting and it cannot fail.
    if (mapped_ != 0) (void)table->unmap(base(), mapped_);
    mapped_ = 0;
}

u8* PhysicalWindow::map(HostPhysical start, u64 length, Permissions permissions) {
    close();
    if (length == 0 || length > window_size - page_size ||
        !range_within(start.raw(), length, bit(physical_address_bits())))
        return nullptr;
    const HostPhysical first = start.align_down(page_size);
    const u64 bytes = (start + length).align_up(page_size) - first;
    if (!table->map(base(), first, bytes, {.permissions = permissions}, 1)) return nullptr;
    mapped_ = bytes;
    return reinterpret_cast<u8*>(base().raw() + start.offset_in(page_size));
}

std::optional<Bytes> PhysicalWindow::read(HostPhysical start, u64 length) {
    if (length == 0) return Bytes{};
    const u8* bytes = map(start, length, read_only);
    if (bytes == nullptr) return std::nullopt;
    return Bytes(bytes, length);
}

std::optional<MutableBytes> PhysicalWindow::open(HostPhysical start, u64 length) {
    u8* bytes = map(start, length, read_write);
    if (bytes == nullptr) return std::nullopt;
    return MutableBytes(bytes, length);
}

}  // namespace bulkhead
