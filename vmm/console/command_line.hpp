// A typed line, split into words and options.
// Words are separated by blanks; 'single quotes' keep everything, "double quotes" keep all but \" and \\, and
// a backslash outside quotes keeps the character after it. Words that start with -- are options wherever they
// stand, until a lone --. Which options there are, and which of them take a value, the caller knows.
#pragma once

#include <optional>
#include <span>
#include <string_view>

#include "kernel/base/fixed_vector.hpp"
#include "kernel/base/result.hpp"

namespace bulkhead {

// About 1 KiB, since the words lie in it: not for a stack.
class CommandLine {
  public:
    static constexpr usize max_length = 511;
    static constexpr usize max_words = 24;

    CommandLine() = default;
    CommandLine(const CommandLine&) = delete;
    CommandLine& operator=(const CommandLine&) = delete;

    // Replaces what was there. After an error there are no words.
    [[nodiscard]] Result<> parse(std::string_view line);

    [[nodiscard]] bool empty() const { return words_.empty() && options_.empty(); }
    // The command's name and its arguments.
    [[nodiscard]] std::span<const std::string_view> words() const { return words_; }
    [[nodiscard]] std::span<const std::string_view> options() const { return options_; }  // with their --

    [[nodiscard]] bool has_option(std::string_view name) const;
    // For the option `name` that takes a value, as "--name=VALUE" or "--name VALUE": its value, which is then
    // none of the words any more. Nothing when the option is not there; empty when its value is not.
    [[nodiscard]] std::optional<std::string_view> take_value(std::string_view name);
    // Makes each word that is `name` (such as "-f") an option. False when there are too many options.
    [[nodiscard]] bool take_flag(std::string_view name);

  private:
    [[nodiscard]] Result<> split(std::string_view line);

    char text_[max_length];
    FixedVector<std::string_view, max_words> words_;
    FixedVector<std::string_view, 8> options_;
    FixedVector<u8, 8> places_;  // of each option: how many words stand before it
};

}  // namespace bulkhead
