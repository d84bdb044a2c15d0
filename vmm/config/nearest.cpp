#include "vmm/config/nearest.hpp"

#include <algorithm>

namespace bulkhead {

unsigned edit_distance(std::string_view a, std::string_view b) {
    constexpr usize longest = 32;
    const usize rows = std::min(a.size(), longest);
    const usize columns = std::min(b.size(), longest);
    // Three rows of the table of distances between prefixes: two rows back is for swaps.
    u8 table[3][longest + 1];
    for (usize j = 0; j <= columns; ++j) table[0][j] = static_cast<u8>(j);
    for (usize i = 1; i <= rows; ++i) {
        u8* row = table[i % 3];
        const u8* above = table[(i + 2) % 3];
        const u8* twice_above = table[(i + 1) % 3];
        row[0] = static_cast<u8>(i);
        for (usize j = 1; j <= columns; ++j) {
            const bool same = a[i - 1] == b[j - 1];
            unsigned best = std::min(above[j] + 1, row[j - 1] + 1);
            best = std::min(best, above[j - 1] + (same ? 0u : 1u));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
                best = std::min(best, twice_above[j - 2] + 1u);
            }
            row[j] = static_cast<u8>(best);
        }
    }
    return table[rows % 3][columns];
}

void Nearest::consider(std::string_view known) {
    const unsigned distance = edit_distance(typed_, known);
    const usize longer = std::max(typed_.size(), known.size());
    if (distance * 3 > std::max<usize>(longer, 3) || distance >= distance_) return;
    distance_ = distance;
    best_.clear();
    best_.append(known);
}

}  // namespace bulkhead
