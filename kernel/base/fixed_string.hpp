// Text of bounded length held in place. What does not fit is cut off, never written past the end.
#pragma once

#include <cstring>
#include <string_view>

#include "kernel/base/format.hpp"
#include "kernel/base/types.hpp"

namespace bulkhead {

template <usize Capacity>
class FixedString final : public Sink {
  public:
    constexpr FixedString() = default;
    constexpr FixedString(std::string_view text) { append(text); }  // NOLINT: implicit on purpose
    constexpr FixedString(const char* text) { append(text); }       // NOLINT: implicit on purpose

    void write(std::string_view text) override { append(text); }

    constexpr void append(std::string_view text) {
        const usize count = text.size() < Capacity - size_ ? text.size() : Capacity - size_;
        for (usize i = 0; i < count; ++i) data_[size_ + i] = text[i];
        size_ += count;
        truncated_ = truncated_ || count < text.size();
    }
    constexpr void clear() {
        size_ = 0;
        truncated_ = false;
    }
    constexpr void resize_down(usize size) {
        if (size < size_) size_ = size;
    }

    [[nodiscard]] constexpr std::string_view view() const { return {data_, size_}; }
    constexpr operator std::string_view() const { return view(); }  // NOLINT: implicit on purpose
    [[nodiscard]] constexpr usize size() const { return size_; }
    [[nodiscard]] constexpr bool empty() const { return size_ == 0; }
    [[nodiscard]] constexpr bool truncated() const { return truncated_; }
    [[nodiscard]] static constexpr usize capacity() { return Capacity; }

    friend constexpr bool operator==(const FixedString& a, std::string_view b) { return a.view() == b; }

  private:
    char data_[Capacity] = {};
    usize size_ = 0;
    bool truncated_ = false;
};

}  // namespace bulkhead
