// Lines of a command's answer that somebody else writes.
#pragma once

#include "kernel/base/filtered.hpp"
#include "kernel/base/line_sink.hpp"
#include "vmm/console/commands.hpp"

namespace bulkhead {

// Each filtered, behind `before`; in JSON, without it, the next element of the array that is open.
class AnswerLines final : public LineSink {
  public:
    explicit AnswerLines(CommandContext& context, std::string_view before = {})
        : context_(context), before_(before) {}

  private:
    void line(std::string_view text) override {
        if (context_.json) {
            context_.writer.text(text);
        } else {
            print(context_.out, "{}{}\n", before_, Filtered(text));
        }
    }

    CommandContext& context_;
    std::string_view before_;
};

}  // namespace bulkhead
