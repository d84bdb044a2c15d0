// How a guest's first processor starts: everything a vCPU needs to be set to, in words both vendors share.
// Whatever is not named here is as after RESET (Intel SDM Vol. 3A, table 9-1, June 2023 edition).
#pragma once

#include <array>
#include <optional>

#include "vmm/cpu_state.hpp"

namespace bulkhead {

// A firmware image to be mapped, read-only to the guest, by whoever builds the VM: `length` bytes from
// `address` so that its last byte lies at FFFFFFFFh; and its last `alias_length` bytes at `alias` as well.
struct FirmwareMapping {
    GuestPhysical address;
    u64 length = 0;
    GuestPhysical alias;
    u64 alias_length = 0;
};

struct StartState {
    enum class Mode : u8 {
        reset_vector,    // real mode at F000:FFF0, CS base FFFF0000h
        real,            // real mode at CS:IP
        protected_flat,  // 32-bit, flat segments, no paging
        long_mode,       // 64-bit, paging on
    };

    Mode mode = Mode::reset_vector;
    u64 rip = 0;
    u64 rflags = 2;
    GeneralRegisters gprs{};  // rsp among them
    u64 cr0 = 0, cr3 = 0, cr4 = 0, efer = 0;
    std::array<Segment, 8> segments{};  // by SegmentName
    DescriptorTable gdtr{}, idtr{};
    std::optional<FirmwareMapping> firmware{};

    [[nodiscard]] Segment& segment(SegmentName name) { return segments[static_cast<usize>(name)]; }
    [[nodiscard]] const Segment& segment(SegmentName name) const {
        return segments[static_cast<usize>(name)];
    }
};

// The selectors of the descriptor table below, which are those Linux's boot protocol asks for.
constexpr u16 boot_code_selector = 0x10, boot_data_selector = 0x18, boot_task_selector = 0x20;

// The table that goes with a start in protected or long mode; the caller puts it at `gdt_base`. The task
// segment is 104 bytes of the guest's RAM that start at 0, as the PVH ABI asks; nothing ever uses it.
// The entry at boot_task_selector is 8 bytes in protected mode and 16 (the last 8 of which are zero) in long
// mode.
using BootGdt = std::array<u64, 6>;
[[nodiscard]] BootGdt make_boot_gdt(StartState::Mode mode);

[[nodiscard]] StartState make_reset_start();
// Segments other than CS are zero.
[[nodiscard]] StartState make_real_start(u16 cs, u16 ip);
[[nodiscard]] StartState make_protected_start(u32 entry, GuestPhysical gdt_base);
[[nodiscard]] StartState make_long_start(u64 entry, GuestPhysical page_tables, GuestPhysical gdt_base);

}  // namespace bulkhead
