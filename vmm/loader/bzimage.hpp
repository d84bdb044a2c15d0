// Linux kernels, and others in their format (memtest86+): the x86 boot protocol, version 2.06 or later
// (Documentation/arch/x86/boot.rst and zero-page.rst, Linux 6.1). The 16-bit setup code is never run: the
// kernel is entered at its 64-bit entry point if it has one (XLF_KERNEL_64), else at its 32-bit one, with a
// zero page (struct boot_params) that has memory map, VGA text mode, command line, initrd and ACPI root
// pointer. Not done: zImage (loaded low), kernels above 4 GiB, EDD, APM, EFI, setup_data.
#pragma once

#include "vmm/loader/boot_data.hpp"

namespace bulkhead {

// The fields of the setup header that decide how an image is loaded, checked.
struct LinuxImage {
    u16 version = 0;             // of the protocol: 206h is 2.06
    u32 header_end = 0;          // file offset, one past the setup header
    u64 payload_offset = 0;      // in the file: the protected-mode code
    u64 payload_size = 0;        //
    bool entry_64bit = false;    //
    bool relocatable = false;    //
    u64 preferred_address = 0;   // where it is linked, or would like to be
    u64 alignment = 0;           // of another address, if relocatable
    u64 memory_size = 0;         // what must be free from the load address on
    u64 initrd_limit = 0;        // one past the highest byte an initrd may take
    u32 command_line_limit = 0;  // without the terminating zero

    // True if the file has the boot sector and setup header signatures, whatever else is wrong with it.
    [[nodiscard]] static bool recognise(Bytes file);
    [[nodiscard]] static Result<LinuxImage> parse(Bytes file);
};

[[nodiscard]] Result<> load_linux(const LoadContext& context, StartState& state);

}  // namespace bulkhead
