// A plain font for printable ASCII, drawn for this project: 8 by 8 pixels, shown at double height.
#pragma once

#include "kernel/base/types.hpp"

namespace bulkhead::drivers {

struct FontGlyph {
    u8 rows[8];  // from the top; bit 7 is the leftmost pixel
};

// Of a space for what is not printable ASCII.
[[nodiscard]] const FontGlyph& font_glyph(char character);

}  // namespace bulkhead::drivers
