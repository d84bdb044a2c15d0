#include "drivers/io_apic.hpp"

#include "arch/x86/cpu/intrinsics.hpp"
#include "arch/x86/regs/apic.hpp"

namespace bulkhead::drivers {
namespace {

constexpr u64 select_register = 0x00, window_register = 0x10;
constexpr u8 version_index = 0x01;
constexpr u32 max_inputs = 240;

}  // namespace

IoApic::IoApic(HostVirtual page, u32 gsi_base) : page_(page), gsi_base_(gsi_base) {
    // A hole reads as ones, which would be 256 inputs.
    const auto highest = static_cast<u32>(extract(read(version_index), 23, 16));
    inputs_ = highest + 1 <= max_inputs ? highest + 1 : 0;
    for (u32 i = 0; i < inputs_; ++i) mask(gsi_base_ + i);
}

u32 IoApic::read(u8 index) const {
    cpu::mmio_write<u32>(page_ + select_register, index);
    return cpu::mmio_read<u32>(page_ + window_register);
}

void IoApic::write(u8 index, u32 value) {
    cpu::mmio_write<u32>(page_ + select_register, index);
    cpu::mmio_write<u32>(page_ + window_register, value);
}

void IoApic::route(u32 gsi, const Route& route) {
    if (!serves(gsi)) return;
    u32 low = route.vector.raw();
    if (route.level) low |= apic::level_triggered;
    if (route.active_low) low |= apic::active_low;
    mask(gsi);
    write(static_cast<u8>(entry(gsi) + 1), route.apic_id << 24);
    write(entry(gsi), low);
}

void IoApic::mask(u32 gsi) {
    if (serves(gsi)) write(entry(gsi), read(entry(gsi)) | apic::masked);
}

void IoApic::unmask(u32 gsi) {
    if (serves(gsi)) write(entry(gsi), read(entry(gsi)) & ~apic::masked);
}

}  // namespace bulkhead::drivers
