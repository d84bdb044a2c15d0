#include "drivers/pic_8259.hpp"

#include "arch/x86/cpu/intrinsics.hpp"
#include "kernel/base/bits.hpp"

namespace bulkhead::drivers {

void mask_legacy_pics(Vector first) {
    constexpr Port master_command{0x20}, master_data{0x21}, slave_command{0xA0}, slave_data{0xA1};
    constexpr u8 initialise = 0x11;  // ICW1: edge-triggered, cascaded, ICW4 follows
    constexpr u8 mode_8086 = 0x01;   // ICW4

    cpu::out8(master_command, initialise);
    cpu::out8(slave_command, initialise);
    cpu::out8(master_data, first.raw());
    cpu::out8(slave_data, static_cast<u8>(first.raw() + 8));
    cpu::out8(master_data, bit<u8>(2));  // the slave is at input 2,
    cpu::out8(slave_data, 2);            // and knows it
    cpu::out8(master_data, mode_8086);
    cpu::out8(slave_data, mode_8086);
    cpu::out8(master_data, 0xFF);
    cpu::out8(slave_data, 0xFF);
}

}  // namespace bulkhead::drivers
