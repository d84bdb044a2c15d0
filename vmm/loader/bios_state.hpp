// What a BIOS leaves in the chips, for guests that start without one (StartState::Mode other than
// reset_vector): the VM builder plays it onto the freshly reset machine. Kernels rely on more of it than they
// admit: a PIT that runs, a PIC with vectors, MTRRs that cover RAM, LINT0 in virtual wire mode.
#pragma once

#include <array>
#include <span>

#include "kernel/base/types.hpp"

namespace bulkhead {

struct PortWrite {
    Port port;
    u8 value = 0;
};

// In this order: PICs at vectors 08h and 70h with the timer, keyboard, cascade and RTC lines open, edge and
// level by platform::elcr_default; PIT channel 0 at 18.2 Hz; the keyboard controller translating, its
// interrupt on; the RTC in 24-hour BCD with no interrupts.
[[nodiscard]] std::span<const PortWrite> bios_port_writes();

struct MsrWrite {
    MsrIndex index;
    u64 value = 0;
};

// For every processor: MTRRs that make RAM write-back, the VGA window and the MMIO hole uncacheable, and the
// BIOS area write-protected. physical_bits: MAXPHYADDR, 32..52.
constexpr usize bios_msr_count = 14;
[[nodiscard]] std::array<MsrWrite, bios_msr_count> bios_msr_writes(unsigned physical_bits);

// The boot processor's local APIC, virtual wire mode: offset in its page, value.
struct ApicWrite {
    u32 offset = 0;
    u32 value = 0;
};
[[nodiscard]] std::span<const ApicWrite> bios_apic_writes();

}  // namespace bulkhead
