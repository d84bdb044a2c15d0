// Text on a linear framebuffer that the boot loader set up.
#pragma once

#include "drivers/screen.hpp"
#include "kernel/base/result.hpp"
#include "kernel/bootinfo/boot_info.hpp"

namespace bulkhead::drivers {

class FramebufferConsole final : public Screen {
  public:
    // True for a framebuffer that can be drawn on: true colour with 16, 24 or 32 bits a pixel, of sane size.
    [[nodiscard]] static bool supports(const Framebuffer& framebuffer);
    [[nodiscard]] static u64 bytes(const Framebuffer& framebuffer) {
        return u64{framebuffer.pitch} * framebuffer.height;
    }

    // `memory`: a mapping of bytes(framebuffer). Clears the screen.
    FramebufferConsole(HostVirtual memory, const Framebuffer& framebuffer);

  private:
    void draw(u32 column, u32 line, char character) override;

    HostVirtual memory_;
    u32 pitch_;
    u32 pixel_bytes_;
    u32 foreground_;
};

}  // namespace bulkhead::drivers
