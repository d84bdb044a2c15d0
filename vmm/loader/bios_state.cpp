#include "vmm/loader/bios_state.hpp"

#include "arch/x86/regs/apic.hpp"
#include "vmm/platform.hpp"

namespace bulkhead {
namespace {

constexpr Port next(Port port, u16 offset = 1) {
    return Port(static_cast<u16>(port.raw() + offset));
}

constexpr PortWrite port_writes[] = {
    // 8259A: ICW1 to ICW4, then the masks.
    {platform::pic_master, 0x11},
    {next(platform::pic_master), 0x08},
    {next(platform::pic_master), 0x04},
    {next(platform::pic_master), 0x01},
    {platform::pic_slave, 0x11},
    {next(platform::pic_slave), 0x70},
    {next(platform::pic_slave), 0x02},
    {next(platform::pic_slave), 0x01},
    {next(platform::pic_master), 0xF8},
    {next(platform::pic_slave), 0xFE},
    {platform::elcr, platform::elcr_default & 0xFF},
    {next(platform::elcr), platform::elcr_default >> 8},
    // 8254: channel 0, low then high byte, mode 3, count 65536.
    {next(platform::pit, 3), 0x36},
    {platform::pit, 0x00},
    {platform::pit, 0x00},
    // 8042: command byte with translation, system flag and keyboard interrupt.
    {platform::keyboard_command, 0x60},
    {platform::keyboard_data, 0x45},
    // MC146818A: divider running, status B 24-hour BCD.
    {platform::rtc_index, 0x0A},
    {platform::rtc_data, 0x26},
    {platform::rtc_index, 0x0B},
    {platform::rtc_data, 0x02},
};

// Intel SDM Vol. 3A, 12.11 (June 2023 edition).
constexpr u64 write_back_everywhere = 0x0606060606060606, write_protected_everywhere = 0x0505050505050505;
constexpr MsrIndex mtrr_physbase0{0x200}, mtrr_physmask0{0x201}, mtrr_fix64k{0x250}, mtrr_fix16k_80000{0x258},
    mtrr_fix16k_a0000{0x259}, mtrr_fix4k_c0000{0x268}, mtrr_def_type{0x2FF};

constexpr ApicWrite apic_writes[] = {
    {apic::svr, apic::svr_enabled | 0xFF},
    {apic::lvt_lint0, static_cast<u32>(apic::Delivery::extint) << 8},
    {apic::lvt_lint1, static_cast<u32>(apic::Delivery::nmi) << 8},
};

}  // namespace

std::span<const PortWrite> bios_port_writes() {
    return port_writes;
}

std::array<MsrWrite, bios_msr_count> bios_msr_writes(unsigned physical_bits) {
    constexpr u64 valid = bit(11), enable_all_fixed_write_back = bit(11) | bit(10) | 6;
    const u64 hole_mask = low_mask(physical_bits) & ~(platform::mmio_hole_end - platform::mmio_hole - 1);
    std::array<MsrWrite, bios_msr_count> writes = {
        MsrWrite{mtrr_fix64k, write_back_everywhere},
        {mtrr_fix16k_80000, write_back_everywhere},
        {mtrr_fix16k_a0000, 0},
        {mtrr_physbase0, platform::mmio_hole},
        {mtrr_physmask0, hole_mask | valid},
    };
    constexpr usize first_4k = 5, count_4k = 8;
    static_assert(first_4k + count_4k + 1 == bios_msr_count);
    for (u32 i = 0; i < count_4k; ++i) {
        writes[first_4k + i] = {MsrIndex(mtrr_fix4k_c0000.raw() + i), write_protected_everywhere};
    }
    writes.back() = {mtrr_def_type, enable_all_fixed_write_back};
    return writes;
}

std::span<const ApicWrite> bios_apic_writes() {
    return apic_writes;
}

}  // namespace bulkhead
