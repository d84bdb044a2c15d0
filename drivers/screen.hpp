// A screen that shows a log: lines of printable ASCII, new ones at the bottom. How characters get onto the
// glass is the heir's business.
#pragma once

#include "kernel/base/format.hpp"
#include "kernel/base/types.hpp"

namespace bulkhead::drivers {

// Unlocked: whoever shares it among cores locks.
class Screen : public Sink {
  public:
    static constexpr u32 max_columns = 160, max_lines = 64;

    void write(std::string_view text) override;

  protected:
    // Larger screens are used in part.
    constexpr Screen(u32 columns, u32 lines)
        : columns_(columns < max_columns ? columns : max_columns),
          lines_(lines < max_lines ? lines : max_lines) {}
    ~Screen() = default;

    [[nodiscard]] u32 columns() const { return columns_; }
    [[nodiscard]] u32 lines() const { return lines_; }

    virtual void draw(u32 column, u32 line, char character) = 0;

  private:
    void put(char character);
    void new_line();

    u32 columns_;
    u32 lines_;
    u32 column_ = 0;
    u32 line_ = 0;
    // What the glass shows, since reading it back is slow or impossible. 0: blank.
    char shown_[max_lines][max_columns] = {};
};

}  // namespace bulkhead::drivers
