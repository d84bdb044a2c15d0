// ELF executables as kernels (System V ABI, edition 4.1, chapters 4 and 5; ELF-64 object file format 1.5):
// 32- and 64-bit, little-endian, i386 and x86-64, loaded by program header at the physical addresses.
// Sections are never looked at. Relocation is not done.
#pragma once

#include "kernel/base/bytes.hpp"
#include "kernel/base/result.hpp"
#include "vmm/guest_memory.hpp"
#include "vmm/loader/e820.hpp"

namespace bulkhead {

struct ElfSegment {
    u32 type = 0;
    u64 offset = 0, virtual_address = 0, physical_address = 0;
    u64 file_size = 0, memory_size = 0, alignment = 0;
};

// The guest-physical range that loading touched.
struct LoadedRange {
    u64 start = ~u64{0};
    u64 end = 0;
};

class ElfImage {
  public:
    static constexpr u32 load = 1, note = 4;  // segment types

    // True if the file says it is ELF, whatever else is wrong with it.
    [[nodiscard]] static bool recognise(Bytes file);

    // Checks the file header and every program header, and that no two segments share memory.
    [[nodiscard]] static Result<ElfImage> parse(Bytes file);

    [[nodiscard]] u16 segment_count() const { return count_; }
    // index < segment_count(). The file range is known to lie in the file, memory ranges not to wrap.
    [[nodiscard]] ElfSegment segment(u16 index) const;
    [[nodiscard]] u64 entry() const { return entry_; }
    [[nodiscard]] bool is_64bit() const { return wide_; }

    // The entry point as a physical address: within a segment's virtual range, translated to its physical
    // one; else unchanged if some segment's physical range holds it.
    [[nodiscard]] Result<u64> physical_entry() const;

    // The descriptor of the first note with this owner ("Xen") and type, or nothing.
    [[nodiscard]] std::optional<Bytes> find_note(std::string_view owner, u32 type) const;

    // Copies the segments to RAM and clears what follows their file contents. All of it must lie in RAM at or
    // above 1 MiB.
    [[nodiscard]] Result<LoadedRange> load_into(GuestMemory& memory, const GuestMemoryMap& map) const;

  private:
    explicit ElfImage(Bytes file) : file_(file) {}
    [[nodiscard]] Result<> check_segment(u16 index) const;

    Bytes file_;
    u64 entry_ = 0;
    u64 table_ = 0;
    u16 count_ = 0;
    bool wide_ = false;
};

}  // namespace bulkhead
