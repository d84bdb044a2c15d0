// Text of a stranger (a guest, a file) on the operator's terminal: print(sink, "{}", Filtered(text)).
// What could move the cursor, change a colour or make the terminal answer is replaced by '?', so that the
// text stays a text: C0 controls (tab, line feed and ESC included), DEL, C1 controls and invalid UTF-8. A
// terminal that is not in UTF-8 mode takes the bytes 80h..9Fh for C1 controls wherever they stand, so a
// character whose encoding contains one is replaced as well.
#pragma once

#include <string_view>

#include "kernel/base/format.hpp"

namespace bulkhead {

struct Filtered {
    std::string_view text;
    constexpr explicit Filtered(std::string_view stranger) : text(stranger) {}
};

void format_value(Sink& sink, const Filtered& value);

// A sink that passes filtered text on. Each piece written to it is filtered on its own.
class FilteringSink final : public Sink {
  public:
    explicit FilteringSink(Sink& next) : next_(next) {}
    void write(std::string_view text) override { format_value(next_, Filtered(text)); }

  private:
    Sink& next_;
};

}  // namespace bulkhead
