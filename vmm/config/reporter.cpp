#include "vmm/config/reporter.hpp"

#include "kernel/base/filtered.hpp"

namespace bulkhead {

TextPosition position_of(std::string_view text, usize offset) {
    TextPosition result;
    for (usize i = 0; i < offset && i < text.size(); ++i) {
        const u8 byte = static_cast<u8>(text[i]);
        if (byte == '\n') {
            ++result.line;
            result.column = 1;
        } else if ((byte & 0xC0) != 0x80) {
            ++result.column;
        }
    }
    return result;
}

bool Reporter::begin(usize offset) {
    if (++count_ > max_shown) return false;
    const TextPosition position = position_of(text_, offset);
    print(sink_, "{}:{}:{}: ", Filtered(file_name_), position.line, position.column);
    return true;
}

void Reporter::finish() {
    if (count_ > max_shown) {
        print(sink_, "{}: {} more problems are not shown; correct the above first\n", Filtered(file_name_),
              count_ - max_shown);
    }
}

}  // namespace bulkhead
