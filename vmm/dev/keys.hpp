// Keys of a US keyboard by character or name, as the scan codes (set 2) that pressing and releasing them
// sends. Reference: Microsoft, "Keyboard Scan Code Specification", revision 1.3a (2000).
#pragma once

#include <optional>
#include <span>
#include <string_view>

#include "kernel/base/fixed_vector.hpp"
#include "kernel/base/types.hpp"

namespace bulkhead {

// At most three modifiers and an extended key, pressed and released.
using ScanCodes = FixedVector<u8, 24>;

// Printable ASCII, newline (Enter), tab, backspace (8 or 7Fh) and escape.
[[nodiscard]] std::optional<ScanCodes> scan_codes_of(char character);

// A key by name: a single character, or one of enter, tab, esc, backspace, space, up, down, left, right,
// home, end, pageup, pagedown, insert, delete, f1..f12; with modifiers before it: "ctrl-alt-delete",
// "shift-f3", "alt-x". Nothing if some part has no meaning.
[[nodiscard]] std::optional<ScanCodes> scan_codes_of_key(std::string_view name);

}  // namespace bulkhead
