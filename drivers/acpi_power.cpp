#include "drivers/acpi_power.hpp"

#include "arch/x86/cpu/intrinsics.hpp"

namespace bulkhead::drivers {
namespace {

constexpr u16 sci_enabled = bit<u16>(0), sleep_enable = bit<u16>(13), sleep_type_mask = 7u << 10;
constexpr u32 about_a_second = 1'000'000;  // reads of a port
constexpr Port delay_port{0x80};

void wait(u32 microseconds) {
    for (u32 i = 0; i < microseconds; ++i) (void)cpu::in8(delay_port);
}

}  // namespace

MachinePower::Register MachinePower::prepare(const AcpiAddress& address, MapDevice map) {
    Register result{.address = address};
    if (address.space == AcpiAddress::Space::memory) {
        result.mapped = map(HostPhysical(address.address), 4);
        if (result.mapped.raw() == 0) result.address.space = AcpiAddress::Space::none;
    } else if (address.space == AcpiAddress::Space::io && address.address > 0xFFFE) {
        result.address.space = AcpiAddress::Space::none;
    }
    return result;
}

void MachinePower::prepare(const AcpiInfo& info, MapDevice map) {
    info_ = &info;
    reset_ = prepare(info.reset_register, map);
    if (info.power_off) {
        pm1a_ = prepare(info.power_off->pm1a_control, map);
        pm1b_ = prepare(info.power_off->pm1b_control, map);
    }
}

u16 MachinePower::read16(const Register& from) {
    switch (from.address.space) {
        case AcpiAddress::Space::io: return cpu::in16(Port(static_cast<u16>(from.address.address)));
        case AcpiAddress::Space::memory: return cpu::mmio_read<u16>(from.mapped);
        default: return 0;
    }
}

void MachinePower::write16(const Register& to, u16 value) {
    switch (to.address.space) {
        case AcpiAddress::Space::io: cpu::out16(Port(static_cast<u16>(to.address.address)), value); break;
        case AcpiAddress::Space::memory: cpu::mmio_write<u16>(to.mapped, value); break;
        default: break;
    }
}

void MachinePower::enter_acpi_mode() {
    if (info_->smi_command_port == 0 || (read16(pm1a_) & sci_enabled) != 0) return;
    cpu::out8(Port(info_->smi_command_port), info_->acpi_enable_value);
    for (u32 i = 0; i < about_a_second && (read16(pm1a_) & sci_enabled) == 0; ++i) {
    }
}

void MachinePower::power_off() {
    if (!can_power_off()) return;
    const AcpiPowerOff& how = *info_->power_off;
    enter_acpi_mode();
    const auto command = [](u16 control, u8 type) {
        return static_cast<u16>((control & ~(sleep_type_mask | sleep_enable)) | (type & 7u) << 10);
    };
    const u16 a = command(read16(pm1a_), how.sleep_type_a);
    const u16 b = command(read16(pm1b_), how.sleep_type_b);
    cpu::write_back_caches();
    write16(pm1a_, a);
    write16(pm1b_, b);
    write16(pm1a_, a | sleep_enable);
    write16(pm1b_, b | sleep_enable);
    wait(about_a_second);
}

void MachinePower::reset() {
    constexpr u32 patience = 50'000;
    cpu::disable_interrupts();
    if (info_ != nullptr) {
        switch (reset_.address.space) {
            case AcpiAddress::Space::io:
                cpu::out8(Port(static_cast<u16>(reset_.address.address)), info_->reset_value);
                break;
            case AcpiAddress::Space::memory: cpu::mmio_write<u8>(reset_.mapped, info_->reset_value); break;
            case AcpiAddress::Space::pci_configuration: {
                // Bus 0: device in bits 47:32, function in 31:16, register in 15:0.
                const auto device = static_cast<u32>(extract(reset_.address.address, 36, 32));
                const auto function = static_cast<u32>(extract(reset_.address.address, 18, 16));
                const auto offset = static_cast<u32>(extract(reset_.address.address, 7, 0));
                cpu::out32(Port(0xCF8), bit<u32>(31) | device << 11 | function << 8 | (offset & 0xFC));
                cpu::out8(Port(static_cast<u16>(0xCFC + (offset & 3))), info_->reset_value);
                break;
            }
            default: break;
        }
        wait(patience);
    }
    constexpr Port reset_control{0xCF9}, keyboard_status{0x64}, keyboard_command{0x64};
    constexpr u8 hard_reset = 0x02, do_reset = 0x04, pulse_reset = 0xFE, input_full = 0x02;
    cpu::out8(reset_control, hard_reset);
    cpu::out8(reset_control, hard_reset | do_reset);
    wait(patience);
    for (u32 i = 0; i < patience && (cpu::in8(keyboard_status) & input_full) != 0; ++i) {
    }
    cpu::out8(keyboard_command, pulse_reset);
    wait(patience);
    cpu::load_idt({});
    asm volatile("int3");
    cpu::stop();
}

}  // namespace bulkhead::drivers
