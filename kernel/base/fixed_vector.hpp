// A vector of bounded length held in place. Elements are default-constructed up front.
#pragma once

#include <span>

#include "kernel/base/types.hpp"

namespace bulkhead {

template <class T, usize Capacity>
class FixedVector {
  public:
    // False, with nothing changed, when full.
    [[nodiscard]] constexpr bool push_back(const T& value) {
        if (size_ == Capacity) return false;
        items_[size_++] = value;
        return true;
    }
    constexpr void pop_back() { --size_; }
    constexpr void clear() { size_ = 0; }
    // Removes the element at `index`, keeping the order of the others.
    constexpr void erase(usize index) {
        for (usize i = index; i + 1 < size_; ++i) items_[i] = items_[i + 1];
        --size_;
    }

    [[nodiscard]] constexpr usize size() const { return size_; }
    [[nodiscard]] constexpr bool empty() const { return size_ == 0; }
    [[nodiscard]] constexpr bool full() const { return size_ == Capacity; }
    [[nodiscard]] static constexpr usize capacity() { return Capacity; }

    constexpr T& operator[](usize index) { return items_[index]; }
    constexpr const T& operator[](usize index) const { return items_[index]; }
    constexpr T& back() { return items_[size_ - 1]; }
    constexpr T* begin() { return items_; }
    constexpr T* end() { return items_ + size_; }
    constexpr const T* begin() const { return items_; }
    constexpr const T* end() const { return items_ + size_; }
    constexpr operator std::span<T>() { return {items_, size_}; }              // NOLINT: implicit on purpose
    constexpr operator std::span<const T>() const { return {items_, size_}; }  // NOLINT: implicit on purpose

  private:
    T items_[Capacity] = {};
    usize size_ = 0;
};

}  // namespace bulkhead
