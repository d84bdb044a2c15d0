// How a kernel wants to be started: what the operator writes, and what the loader does.
#pragma once

#include <string_view>

#include "kernel/base/types.hpp"

namespace bulkhead {

enum class BootProtocol : u8 {
    automatic,   // by what the image says of itself; see boot_image.hpp for the order
    linux_boot,  // bzImage
    multiboot2,
    multiboot1,
    pvh,       // ELF with the note XEN_ELFNOTE_PHYS32_ENTRY
    firmware,  // a ROM that starts at the reset vector; never chosen automatically, nor by the config file
};

// The words of the config file.
[[nodiscard]] constexpr std::string_view name_of(BootProtocol protocol) {
    switch (protocol) {
        case BootProtocol::automatic: break;
        case BootProtocol::linux_boot: return "linux";
        case BootProtocol::multiboot2: return "multiboot2";
        case BootProtocol::multiboot1: return "multiboot";
        case BootProtocol::pvh: return "pvh";
        case BootProtocol::firmware: return "firmware";
    }
    return "auto";
}

}  // namespace bulkhead
