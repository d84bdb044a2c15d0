// The local APIC's registers by their offset in the xAPIC page; x2APIC MSR = 800h + offset / 16.
// Intel SDM Vol. 3A, table 11-1 and 11-6 (June 2023 edition).
#pragma once

#include "kernel/base/bits.hpp"

namespace bulkhead::apic {

constexpr u64 default_base = 0xFEE00000;

constexpr u32 id = 0x020, version = 0x030, tpr = 0x080, apr = 0x090, ppr = 0x0A0, eoi = 0x0B0, rrd = 0x0C0,
              ldr = 0x0D0, dfr = 0x0E0, svr = 0x0F0, isr = 0x100, tmr = 0x180, irr = 0x200, esr = 0x280,
              lvt_cmci = 0x2F0, icr_low = 0x300, icr_high = 0x310, lvt_timer = 0x320, lvt_thermal = 0x330,
              lvt_performance = 0x340, lvt_lint0 = 0x350, lvt_lint1 = 0x360, lvt_error = 0x370,
              timer_initial = 0x380, timer_current = 0x390, timer_divide = 0x3E0, self_ipi = 0x3F0;

// IA32_APIC_BASE.
constexpr u64 base_bsp = bit(8), base_x2apic = bit(10), base_enable = bit(11);

// LVT and ICR fields.
constexpr u32 masked = bit<u32>(16), level_triggered = bit<u32>(15), remote_irr = bit<u32>(14),
              active_low = bit<u32>(13), delivery_pending = bit<u32>(12), icr_assert = bit<u32>(14),
              icr_logical = bit<u32>(11);
constexpr unsigned delivery_shift = 8, shorthand_shift = 18;
constexpr u32 svr_enabled = bit<u32>(8);
enum class Delivery : u8 {
    fixed = 0,
    lowest_priority = 1,
    smi = 2,
    nmi = 4,
    init = 5,
    startup = 6,
    extint = 7
};
enum class Shorthand : u8 { none = 0, self = 1, all = 2, others = 3 };
[[nodiscard]] constexpr Delivery delivery_of(u32 word) {
    return static_cast<Delivery>(extract(word, 10, 8));
}

// The low half of the interrupt command register: a message to one core, by its APIC ID in the high half.
[[nodiscard]] constexpr u32 icr_fixed(u8 vector) {
    return icr_assert | vector;
}
[[nodiscard]] constexpr u32 icr_nmi() {
    return icr_assert | static_cast<u32>(Delivery::nmi) << delivery_shift;
}
[[nodiscard]] constexpr u32 icr_init() {
    return icr_assert | static_cast<u32>(Delivery::init) << delivery_shift;
}
// The core starts in real mode at page * 4096; pages A0h to BFh are reserved.
[[nodiscard]] constexpr u32 icr_startup(u8 page) {
    return icr_assert | static_cast<u32>(Delivery::startup) << delivery_shift | page;
}
// The high half: eight bits of ID in xAPIC mode, 32 in x2APIC mode.
[[nodiscard]] constexpr u32 icr_destination(u32 apic_id, bool x2apic) {
    return x2apic ? apic_id : apic_id << 24;
}

// Error status register. Vectors below this one are illegal.
constexpr u32 error_send_illegal_vector = bit<u32>(5), error_receive_illegal_vector = bit<u32>(6),
              error_illegal_register = bit<u32>(7);
constexpr u8 first_legal_vector = 16;

enum class TimerMode : u8 { one_shot = 0, periodic = 1, tsc_deadline = 2 };

}  // namespace bulkhead::apic
