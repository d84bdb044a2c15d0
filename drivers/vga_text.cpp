#include "drivers/vga_text.hpp"

#include "arch/x86/cpu/intrinsics.hpp"

namespace bulkhead::drivers {
namespace {

constexpr u16 light_grey_on_black = 0x0700;

}  // namespace

VgaText::VgaText(HostVirtual memory, u32 columns, u32 lines) : Screen(columns, lines), memory_(memory) {
    for (u32 i = 0; i < columns * lines; ++i)
        cpu::mmio_write<u16>(memory_ + i * sizeof(u16), light_grey_on_black | ' ');
    constexpr Port crtc_index{0x3D4}, crtc_data{0x3D5};
    constexpr u8 cursor_start = 0x0A, cursor_off = bit<u8>(5);
    cpu::out8(crtc_index, cursor_start);
    cpu::out8(crtc_data, cursor_off);
}

void VgaText::draw(u32 column, u32 line, char character) {
    // columns() may be less than the screen has, but it is 80 wherever this mode is in use.
    const u64 offset = (u64{line} * columns() + column) * sizeof(u16);
    cpu::mmio_write<u16>(memory_ + offset,
                         static_cast<u16>(light_grey_on_black | static_cast<u8>(character)));
}

}  // namespace bulkhead::drivers
