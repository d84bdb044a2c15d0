// Text on its way to somebody who takes whole lines.
#pragma once

#include "kernel/base/fixed_string.hpp"
#include "kernel/base/format.hpp"

namespace bulkhead {

class LineSink : public Sink {
  public:
    void write(std::string_view text) final {
        while (!text.empty()) {
            const usize end = text.find('\n');
            line_.append(text.substr(0, end));
            if (end == std::string_view::npos) return;
            line(line_);
            line_.clear();
            text.remove_prefix(end + 1);
        }
    }

  protected:
    ~LineSink() = default;
    // Without its line feed; what is beyond 300 characters is lost.
    virtual void line(std::string_view text) = 0;

  private:
    FixedString<300> line_;
};

}  // namespace bulkhead
