// Problems in a text file, each reported as `file:line:column: what; what to do`.
#pragma once

#include <string_view>

#include "kernel/base/format.hpp"
#include "kernel/base/types.hpp"

namespace bulkhead {

// Both from 1; the column counts characters, not bytes.
struct TextPosition {
    u32 line = 1;
    u32 column = 1;
};

[[nodiscard]] TextPosition position_of(std::string_view text, usize offset);

class Reporter {
  public:
    // A file that is no config at all would otherwise keep a serial console busy for minutes.
    static constexpr unsigned max_shown = 100;

    Reporter(std::string_view file_name, std::string_view text, Sink& sink)
        : file_name_(file_name), text_(text), sink_(sink) {}

    // Text from the file is passed as Filtered().
    template <class... Arguments>
    void report(usize offset, FormatString<std::type_identity_t<Arguments>...> format,
                const Arguments&... arguments) {
        if (!begin(offset)) return;
        print(sink_, format, arguments...);
        sink_.write("\n");
    }

    // For messages written in pieces: begin() ... sink().write() ... end(). False: do not write this one.
    [[nodiscard]] bool begin(usize offset);
    [[nodiscard]] Sink& sink() { return sink_; }
    void end() { sink_.write("\n"); }

    // Says how many problems were left out, if any.
    void finish();

    [[nodiscard]] unsigned count() const { return count_; }
    [[nodiscard]] u32 line_of(usize offset) const { return position_of(text_, offset).line; }

  private:
    std::string_view file_name_;
    std::string_view text_;
    Sink& sink_;
    unsigned count_ = 0;
};

}  // namespace bulkhead
