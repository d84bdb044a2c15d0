// What `send` sends: typed text with escapes, as bytes for a serial port or as key strokes for a keyboard.
#pragma once

#include <string_view>

#include "kernel/base/result.hpp"
#include "vmm/dev/keys.hpp"

namespace bulkhead {

// The character of `text` at `at`, which moves behind it (at < text.size()). Escapes: \n \r \t \e \b, \xHH,
// a backslash before anything but a small letter or a digit for that itself; ^C for a control character.
[[nodiscard]] Result<u8> next_character(std::string_view text, usize& at);

// The next stroke of `word`, of which `at` bytes are done (at < word.size()). A word is a key's name, with
// modifiers before it or not (Enter, F1, Ctrl-Alt-Del, Alt-x; in any case of letters), or text that is typed
// on a US keyboard.
[[nodiscard]] Result<ScanCodes> next_stroke(std::string_view word, usize& at);

}  // namespace bulkhead
