// The kernel's own address space: the image with the rights its sections need, device registers, and windows
// through which boot-provided memory is read. Every VM's compartment shares it.
#pragma once

#include "kernel/bootinfo/physical_reader.hpp"
#include "kernel/mem/page_pool.hpp"
#include "kernel/mem/page_table.hpp"

namespace bulkhead {

// Builds it out of fixed memory and loads it on the running core, which until then ran on the entry code's
// tables: text can be executed but not written, constants only read, nothing else executed; below every stack
// is a hole; nothing is mapped low.
[[nodiscard]] Result<> enter_kernel_space();

// On another core, which until then ran on the entry code's tables too; after configure_core().
void enter_kernel_table();

// For Compartment::create(). After enter_kernel_space().
[[nodiscard]] HostPageTable& kernel_page_table();
[[nodiscard]] TableMemory& kernel_table_memory();
[[nodiscard]] const PagePool& kernel_page_pool();

// Registers of a device, or a framebuffer, at device_virtual(start). Mapping the same pages twice with the
// same type is fine. Not to be unmapped. Start-up only: other cores' translations are not looked after.
[[nodiscard]] Result<HostVirtual> map_device(HostPhysical start, u64 length,
                                             MemoryType type = MemoryType::uncacheable);

// A place of its own to read physical memory through, without a map of all of it. Start-up only, like
// map_device().
class PhysicalWindow final : public PhysicalReader {
  public:
    static constexpr u64 window_size = 64 * mib;
    static constexpr unsigned count = 4;

    // number: 0..count - 1; each has an address range of its own.
    explicit constexpr PhysicalWindow(unsigned number) : number_(number) {}
    PhysicalWindow(const PhysicalWindow&) = delete;
    PhysicalWindow& operator=(const PhysicalWindow&) = delete;

    // Read-only and cached. Nothing beyond the processor's physical address width or window_size less a page.
    [[nodiscard]] std::optional<Bytes> read(HostPhysical start, u64 length) override;
    // Read and write: for what the start-up code puts into low memory.
    [[nodiscard]] std::optional<MutableBytes> open(HostPhysical start, u64 length);
    // Forgets the mapping; read() and open() do so first.
    void close();

  private:
    [[nodiscard]] HostVirtual base() const;
    [[nodiscard]] u8* map(HostPhysical start, u64 length, Permissions permissions);

    unsigned number_;
    u64 mapped_ = 0;
};

// The number of bits in a physical address. CPUID 80000008h.
[[nodiscard]] unsigned physical_address_bits();

// Of the image's text and constants, which cannot be written: 64-bit FNV-1a.
[[nodiscard]] u64 image_checksum();

// The image and all fixed memory.
[[nodiscard]] HostPhysical image_begin();
[[nodiscard]] HostPhysical image_finish();

}  // namespace bulkhead
