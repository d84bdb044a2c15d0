#include "drivers/screen.hpp"

namespace bulkhead::drivers {

void Screen::write(std::string_view text) {
    for (const char c : text) {
        if (c == '\n') {
            new_line();
        } else if (c != '\r') {
            put(c >= ' ' && c <= '~' ? c : '?');
        }
    }
}

void Screen::put(char character) {
    if (columns_ == 0 || lines_ == 0) return;
    if (column_ == columns_) new_line();
    if (shown_[line_][column_] != character) {
        shown_[line_][column_] = character;
        draw(column_, line_, character);
    }
    ++column_;
}

void Screen::new_line() {
    if (lines_ == 0) return;
    column_ = 0;
    if (++line_ < lines_) return;
    // By a quarter at a time: moving the whole screen for each line is what makes consoles slow. Only cells
    // that change are drawn.
    const u32 distance = lines_ >= 4 ? lines_ / 4 : 1;
    for (u32 line = 0; line < lines_; ++line) {
        for (u32 column = 0; column < columns_; ++column) {
            const char wanted = line + distance < lines_ ? shown_[line + distance][column] : char{0};
            if (shown_[line][column] == wanted) continue;
            shown_[line][column] = wanted;
            draw(column, line, wanted == 0 ? ' ' : wanted);
        }
    }
    line_ = lines_ - distance;
}

}  // namespace bulkhead::drivers
