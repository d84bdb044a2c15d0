// The VGA's colour text mode, as the firmware or the boot loader set it.
#pragma once

#include "drivers/screen.hpp"

namespace bulkhead::drivers {

constexpr HostPhysical vga_text_memory{0xB8000};

class VgaText final : public Screen {
  public:
    // `memory`: a mapping of columns * lines * 2 bytes. Clears the screen and hides the cursor.
    VgaText(HostVirtual memory, u32 columns, u32 lines);

  private:
    void draw(u32 column, u32 line, char character) override;

    HostVirtual memory_;
};

}  // namespace bulkhead::drivers
