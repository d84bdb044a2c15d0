// What `send` sends: typed text with escapes, as bytes for a serial port or as key strokes for a keyboard.
#pragma once

#include <string_view>

#include "kernel/base/fixed_vector.hpp"
#include "kernel/base/result.hpp"

namespace bulkhead {

// The character of `text` at `at`, which moves behind it (at < text.size()). Escapes: \n \r \t \e \b, \xHH,
// a backslash before anything but a small letter or a digit for that itself; ^C for a control character.
[[nodiscard]] Result<u8> next_character(std::string_view text, usize& at);

// Pressing one key with its modifiers and letting go again, in scan code set 2.
using KeyStroke = FixedVector<u8, 28>;

// The next stroke of `word`, of which `at` bytes are done (at < word.size()). A word is a key's name, with
// modifiers before it or not (Enter, F1, Ctrl-Alt-Del, Alt-x; in any case of letters), or text that is typed
// on a US keyboard.
[[nodiscard]] Result<KeyStroke> next_stroke(std::string_view word, usize& at);

}  // namespace bulkhead
