#include "drivers/framebuffer_console.hpp"

#include "arch/x86/cpu/intrinsics.hpp"
#include "drivers/font.hpp"

namespace bulkhead::drivers {
namespace {

constexpr u32 cell_width = 8, cell_height = 16;
constexpr u32 max_size = 16384;  // pixels, either way

[[nodiscard]] bool fits(const Framebuffer::Channel& channel, u32 bits) {
    return channel.width >= 1 && channel.width <= 16 && u32{channel.position} + channel.width <= bits;
}

// Light grey: three quarters of full intensity.
[[nodiscard]] u32 shade(const Framebuffer::Channel& channel) {
    const u64 full = low_mask(channel.width);
    return static_cast<u32>((full - full / 4) << channel.position);
}

}  // namespace

bool FramebufferConsole::supports(const Framebuffer& f) {
    if (f.kind != Framebuffer::Kind::rgb) return false;
    if (f.bits_per_pixel != 16 && f.bits_per_pixel != 24 && f.bits_per_pixel != 32) return false;
    if (f.width < cell_width || f.height < cell_height || f.width > max_size || f.height > max_size)
        return false;
    if (u64{f.width} * (f.bits_per_pixel / 8) > f.pitch || f.pitch > max_size * 8) return false;
    return fits(f.red, f.bits_per_pixel) && fits(f.green, f.bits_per_pixel) && fits(f.blue, f.bits_per_pixel);
}

FramebufferConsole::FramebufferConsole(HostVirtual memory, const Framebuffer& f)
    : Screen(f.width / cell_width, f.height / cell_height),
      memory_(memory),
      pitch_(f.pitch),
      pixel_bytes_(f.bits_per_pixel / 8),
      foreground_(shade(f.red) | shade(f.green) | shade(f.blue)) {
    for (u64 offset = 0; offset + sizeof(u64) <= bytes(f); offset += sizeof(u64))
        cpu::mmio_write<u64>(memory_ + offset, 0);
}

void FramebufferConsole::draw(u32 column, u32 line, char character) {
    const FontGlyph& glyph = font_glyph(character);
    for (u32 y = 0; y < cell_height; ++y) {
        HostVirtual pixel =
            memory_ + u64{line * cell_height + y} * pitch_ + u64{column} * cell_width * pixel_bytes_;
        const u8 row = glyph.rows[y / 2];
        for (u32 x = 0; x < cell_width; ++x, pixel += pixel_bytes_) {
            const u32 colour = has_bit(row, cell_width - 1 - x) ? foreground_ : 0;
            if (pixel_bytes_ == 4) {
                cpu::mmio_write<u32>(pixel, colour);
            } else {
                cpu::mmio_write<u16>(pixel, static_cast<u16>(colour));
                if (pixel_bytes_ == 3) cpu::mmio_write<u8>(pixel + 2, static_cast<u8>(colour >> 16));
            }
        }
    }
}

}  // namespace bulkhead::drivers
