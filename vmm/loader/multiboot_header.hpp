// The headers by which a kernel asks for a Multiboot loader: Multiboot 1 (specification 0.6.96) and Multiboot
// 2 (specification 2.0). Finding them, checking them, and what they ask for.
#pragma once

#include <optional>

#include "kernel/base/bytes.hpp"
#include "kernel/base/result.hpp"

namespace bulkhead {

// The address fields of either header (the "a.out kludge"): how to load a file that is not ELF.
struct MultibootAddresses {
    u64 file_offset = 0;  // of the first byte to load
    u64 load_start = 0;   // physical
    u64 load_end = 0;     // end of what is in the file
    u64 memory_end = 0;   // end of what is cleared after it
};

struct MultibootHeader {
    u8 version = 1;
    u64 offset = 0;  // in the file
    std::optional<MultibootAddresses> addresses{};
    std::optional<u64> entry{};      // from the header; else the ELF file's
    bool wants_framebuffer = false;  // the header asks for a video mode: text mode is described to it
};

// Multiboot 1: in the first 8192 bytes, 4-byte aligned. Nothing if there is none; an error if there is one
// with a field that is wrong or asks for what is not to be had. Flags: page alignment (0), memory information
// (1), video mode (2: any mode is granted as EGA text, which the specification lets a loader do), address
// fields (16). Others among 0-15 are refused.
[[nodiscard]] bool has_multiboot1_header(Bytes file);
[[nodiscard]] Result<MultibootHeader> parse_multiboot1_header(Bytes file);

// Multiboot 2: in the first 32768 bytes, 8-byte aligned, architecture 0. Tags: information request, address,
// entry address, console flags, framebuffer, module alignment; EFI and relocation tags are passed over, since
// they only say what else the kernel could do. A tag that is not known is refused unless it is optional.
[[nodiscard]] bool has_multiboot2_header(Bytes file);
[[nodiscard]] Result<MultibootHeader> parse_multiboot2_header(Bytes file);

}  // namespace bulkhead
