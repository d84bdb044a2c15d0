// A report of many lines on its way into the log.
#pragma once

#include "kernel/base/line_sink.hpp"
#include "kernel/log/logger.hpp"

namespace bulkhead {

// Each line becomes one of the log, behind `before`.
class LogLines final : public LineSink {
  public:
    LogLines(Logger& log, LogLevel level, std::string_view before = {})
        : log_(log), level_(level), before_(before) {}

  private:
    void line(std::string_view text) override { log_.write(level_, "{}{}", before_, text); }

    Logger& log_;
    LogLevel level_;
    std::string_view before_;
};

}  // namespace bulkhead
