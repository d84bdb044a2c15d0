// "Did you mean ...?": the known word nearest to a mistyped one.
#pragma once

#include <string_view>

#include "kernel/base/fixed_string.hpp"
#include "kernel/base/types.hpp"

namespace bulkhead {

// Insertions, deletions, replacements and swaps of neighbours that turn `a` into `b`. Only the first 32
// bytes of each are looked at.
[[nodiscard]] unsigned edit_distance(std::string_view a, std::string_view b);

// Feed it the known words; it keeps the nearest. The first of equals wins.
class Nearest {
  public:
    explicit Nearest(std::string_view typed) : typed_(typed) {}

    void consider(std::string_view known);

    // Empty when nothing is near enough to be what was meant: more than a third of the word is different.
    [[nodiscard]] std::string_view word() const { return best_.view(); }

  private:
    std::string_view typed_;
    FixedString<64> best_;
    unsigned distance_ = ~0u;
};

}  // namespace bulkhead
