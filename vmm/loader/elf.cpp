#include "vmm/loader/elf.hpp"

#include <array>

#include "vmm/platform.hpp"

namespace bulkhead {
namespace {

constexpr u16 max_segments = 64;  // real kernels have at most about ten
constexpr u16 type_executable = 2, type_shared = 3;
constexpr u16 machine_i386 = 3, machine_x86_64 = 62;

struct Header32 {
    std::array<u8, 16> ident;
    u16 type, machine;
    u32 version, entry, phoff, shoff, flags;
    u16 ehsize, phentsize, phnum, shentsize, shnum, shstrndx;
};
static_assert(sizeof(Header32) == 52);

struct Header64 {
    std::array<u8, 16> ident;
    u16 type, machine;
    u32 version;
    u64 entry, phoff, shoff;
    u32 flags;
    u16 ehsize, phentsize, phnum, shentsize, shnum, shstrndx;
};
static_assert(sizeof(Header64) == 64);

struct ProgramHeader32 {
    u32 type, offset, vaddr, paddr, filesz, memsz, flags, align;
};
static_assert(sizeof(ProgramHeader32) == 32);

struct ProgramHeader64 {
    u32 type, flags;
    u64 offset, vaddr, paddr, filesz, memsz, align;
};
static_assert(sizeof(ProgramHeader64) == 56);

// What the two file headers have in common.
struct Header {
    u16 type, machine;
    u32 version;
    u64 entry, phoff;
    u16 ehsize, phentsize, phnum;
};

template <class Raw>
std::optional<Header> read_header(Bytes file) {
    const std::optional<Raw> raw = read_at<Raw>(file, 0);
    if (!raw) return std::nullopt;
    return Header{raw->type,  raw->machine, raw->version,   raw->entry,
                  raw->phoff, raw->ehsize,  raw->phentsize, raw->phnum};
}

template <class Raw>
ElfSegment read_segment(Bytes file, u64 offset) {
    const Raw raw = read_at<Raw>(file, offset).value_or(Raw{});
    return {raw.type, raw.offset, raw.vaddr, raw.paddr, raw.filesz, raw.memsz, raw.align};
}

// Ranges [a, a + a_length) and [b, b + b_length), which do not wrap, have an address in common.
bool overlap(u64 a, u64 a_length, u64 b, u64 b_length) {
    return a_length != 0 && b_length != 0 && a < b + b_length && b < a + a_length;
}

constexpr u64 round_up(u64 value, u64 alignment) {
    return (value + alignment - 1) & ~(alignment - 1);
}

}  // namespace

bool ElfImage::recognise(Bytes file) {
    constexpr std::array<u8, 4> magic = {0x7F, 'E', 'L', 'F'};
    return read_at<std::array<u8, 4>>(file, 0) == magic;
}

Result<ElfImage> ElfImage::parse(Bytes file) {
    if (!recognise(file)) return fail("not an ELF file: it does not begin with 7F 'E' 'L' 'F'");
    const auto ident = read_at<std::array<u8, 16>>(file, 0);
    if (!ident) return fail("ELF header cut off: the file has {} bytes; copy it anew", file.size());
    const u8 file_class = (*ident)[4], data = (*ident)[5], version = (*ident)[6];
    if (file_class != 1 && file_class != 2) {
        return fail("ELF EI_CLASS is {}, not 1 (32-bit) or 2 (64-bit); the file is corrupt", file_class);
    }
    if (data != 1) return fail("ELF EI_DATA is {}, not 1 (little-endian); not an x86 kernel", data);
    if (version != 1) return fail("ELF EI_VERSION is {}, not 1; the file is corrupt", version);

    ElfImage image(file);
    image.wide_ = file_class == 2;
    const usize header_size = image.wide_ ? sizeof(Header64) : sizeof(Header32);
    const usize entry_size = image.wide_ ? sizeof(ProgramHeader64) : sizeof(ProgramHeader32);
    const auto header = image.wide_ ? read_header<Header64>(file) : read_header<Header32>(file);
    if (!header) {
        return fail("ELF header cut off: the file has {} bytes, the header {}; copy it anew", file.size(),
                    header_size);
    }
    if (header->type != type_executable && header->type != type_shared) {
        return fail("ELF e_type is {}, not 2 (executable) or 3; name a linked kernel", header->type);
    }
    if (header->machine != machine_i386 && header->machine != machine_x86_64) {
        return fail("ELF e_machine is {}, not 3 (i386) or 62 (x86-64); the kernel is for another processor",
                    header->machine);
    }
    if (header->version != 1) {
        return fail("ELF e_version is {}, not 1; the file is corrupt", header->version);
    }
    if (header->ehsize < header_size) {
        return fail("ELF e_ehsize is {}, less than {}; the file is corrupt", header->ehsize, header_size);
    }
    if (header->phentsize != entry_size) {
        return fail("ELF e_phentsize is {}, not {}; the file is corrupt", header->phentsize, entry_size);
    }
    if (header->phnum == 0) return fail("ELF e_phnum is 0: nothing to load; name a linked kernel");
    if (header->phnum > max_segments) {
        return fail("ELF e_phnum is {}; at most {} program headers are supported", header->phnum,
                    max_segments);
    }
    if (!range_within(header->phoff, u64{header->phnum} * entry_size, file.size())) {
        return fail("ELF program headers at {:#x} (e_phoff) pass the file's end at {:#x}; copy it anew",
                    header->phoff, file.size());
    }
    image.entry_ = header->entry;
    image.table_ = header->phoff;
    image.count_ = header->phnum;
    for (u16 i = 0; i < image.count_; ++i) {
        if (const Result<> checked = image.check_segment(i); !checked) {
            return std::unexpected(checked.error());
        }
    }
    return image;
}

ElfSegment ElfImage::segment(u16 index) const {
    return wide_ ? read_segment<ProgramHeader64>(file_, table_ + index * sizeof(ProgramHeader64))
                 : read_segment<ProgramHeader32>(file_, table_ + index * sizeof(ProgramHeader32));
}

Result<> ElfImage::check_segment(u16 index) const {
    const ElfSegment it = segment(index);
    if (it.type != load && it.type != note) return {};
    if (!range_within(it.offset, it.file_size, file_.size())) {
        return fail(
            "ELF segment {}: p_offset {:#x} and p_filesz {:#x} pass the file's end at {:#x}; copy it "
            "anew",
            index, it.offset, it.file_size, file_.size());
    }
    if (it.type != load) return {};
    if (it.file_size > it.memory_size) {
        return fail("ELF segment {}: p_filesz {:#x} is more than p_memsz {:#x}; the file is corrupt", index,
                    it.file_size, it.memory_size);
    }
    if (!range_within(it.physical_address, it.memory_size, ~u64{0})) {
        return fail("ELF segment {}: p_paddr {:#x} and p_memsz {:#x} pass the address space's end", index,
                    it.physical_address, it.memory_size);
    }
    for (u16 other_index = 0; other_index < index; ++other_index) {
        const ElfSegment other = segment(other_index);
        if (other.type == load &&
            overlap(it.physical_address, it.memory_size, other.physical_address, other.memory_size)) {
            return fail("ELF segments {} and {} share memory at {:#x} (p_paddr); the file is corrupt",
                        other_index, index, it.physical_address);
        }
    }
    return {};
}

Result<u64> ElfImage::physical_entry() const {
    for (u16 i = 0; i < count_; ++i) {
        const ElfSegment it = segment(i);
        if (it.type == load && entry_ >= it.virtual_address && entry_ - it.virtual_address < it.memory_size) {
            return entry_ - it.virtual_address + it.physical_address;
        }
    }
    for (u16 i = 0; i < count_; ++i) {
        const ElfSegment it = segment(i);
        if (it.type == load && entry_ >= it.physical_address &&
            entry_ - it.physical_address < it.memory_size) {
            return entry_;
        }
    }
    return fail("ELF e_entry {:#x} is in no loaded segment; the file is corrupt", entry_);
}

std::optional<Bytes> ElfImage::find_note(std::string_view owner, u32 type) const {
    struct NoteHeader {
        u32 name_size, descriptor_size, type;
    };
    for (u16 i = 0; i < count_; ++i) {
        const ElfSegment it = segment(i);
        if (it.type != note) continue;
        // Fields are padded to 4 bytes; to 8 in segments so aligned.
        const u64 alignment = it.alignment == 8 ? 8 : 4;
        Bytes rest = file_.subspan(it.offset, it.file_size);
        while (const auto header = read_at<NoteHeader>(rest, 0)) {
            const u64 descriptor_at = round_up(sizeof(NoteHeader) + header->name_size, alignment);
            const auto name = slice(rest, sizeof(NoteHeader), header->name_size);
            const auto descriptor = slice(rest, descriptor_at, header->descriptor_size);
            if (!name || !descriptor) break;
            // The name's terminating zero counts.
            if (header->type == type && name->size() == owner.size() + 1 && name->back() == 0 &&
                std::memcmp(name->data(), owner.data(), owner.size()) == 0) {
                return descriptor;
            }
            const u64 next = round_up(descriptor_at + header->descriptor_size, alignment);
            if (next >= rest.size()) break;
            rest = rest.subspan(next);
        }
    }
    return std::nullopt;
}

Result<LoadedRange> ElfImage::load_into(GuestMemory& memory, const GuestMemoryMap& map) const {
    LoadedRange loaded;
    for (u16 i = 0; i < count_; ++i) {
        const ElfSegment it = segment(i);
        if (it.type != load || it.memory_size == 0) continue;
        const u64 end = it.physical_address + it.memory_size;
        if (it.physical_address < platform::high_memory) {
            return fail("ELF segment {}: p_paddr {:#x} is below 1 MiB, where boot data lies; link it higher",
                        i, it.physical_address);
        }
        const GuestPhysical place(it.physical_address);
        if (!map.is_ram(it.physical_address, it.memory_size) ||
            !memory.write(place, file_.subspan(it.offset, it.file_size)) ||
            !memory.fill(place + it.file_size, it.memory_size - it.file_size, 0)) {
            return fail(
                "ELF segment {}: {:#x} to {:#x} is not in the VM's RAM, whose first part ends at {:#x}; "
                "give the VM more memory",
                i, it.physical_address, end, map.main_end());
        }
        loaded.start = it.physical_address < loaded.start ? it.physical_address : loaded.start;
        loaded.end = end > loaded.end ? end : loaded.end;
    }
    if (loaded.end == 0)
        return fail("ELF file without a PT_LOAD segment: nothing to load; name a linked kernel");
    return loaded;
}

}  // namespace bulkhead
