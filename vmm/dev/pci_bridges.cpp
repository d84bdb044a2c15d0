#include "vmm/dev/pci_bridges.hpp"

namespace bulkhead {

namespace {

constexpr u16 intel = 0x8086;

}  // namespace

void PciBridge::identify(u16 vendor, u16 device, u32 class_code, u8 revision, u8 header_type) {
    space_.define(0x00, 2, vendor);
    space_.define(0x02, 2, device);
    space_.define(0x08, 4, class_code << 8 | revision);
    space_.define(0x0E, 1, header_type);
}

void PciBridge::become_host_bridge() {
    identify(intel, 0x1237, 0x060000, 2, 0);
    // I/O, memory and bus master are on for ever; parity response and SERR# can be set.
    space_.define(0x04, 2, 0x0006, 0x0140);
    space_.define(0x06, 2, 0x0280);
    space_.define_write_1_to_clear(0x06, 2, 0x7000);
    space_.define(0x0D, 1, 0x00, 0xF8);
    for (unsigned i = 0x50; i < 0x60; ++i) space_.define(static_cast<u8>(i), 1, 0, 0xFF);  // to PAM6
    space_.define(0x72, 1, 0x02, 0x7F);                                                    // SMRAM
}

void PciBridge::become_isa_bridge() {
    identify(intel, 0x7000, 0x060100, 0, 0x80);
    space_.define(0x04, 2, 0x0007, 0x0008);
    space_.define(0x06, 2, 0x0200);
    space_.define_write_1_to_clear(0x06, 2, 0x7800);
    space_.define(0x4C, 1, 0x4D, 0xFF);
    space_.define(0x4E, 2, 0x0003, 0x07FF);
    for (u8 i = 0x60; i < 0x64; ++i) space_.define(i, 1, 0x80, 0x8F);  // PIRQA-PIRQD, routed nowhere
    space_.define(0x69, 1, 0x02, 0xFE);
    space_.define(0x70, 1, 0x80, 0xEF);
    space_.define(0xA0, 1, 0x08, 0xFF);
    space_.define(0xA2, 2, 0x0000, 0xFFFF);
}

void PciBridge::become_power_management(u16 io_base, u8 sci) {
    identify(intel, 0x7113, 0x068000, 3, 0);
    space_.define(0x04, 2, 0x0001, 0x0000);
    space_.define(0x06, 2, 0x0280);
    space_.define(0x3C, 1, sci, 0xFF);
    space_.define(0x3D, 1, 0x01);
    space_.define(0x40, 4, (io_base & 0xFFC0u) | 1);
    space_.define(0x80, 1, 0x01);  // the block is decoded
}

}  // namespace bulkhead
