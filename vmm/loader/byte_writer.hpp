// Builds tables front to back in a buffer of fixed size. Past the end nothing is written and ok() turns
// false, so that a builder checks once, at its end.
#pragma once

#include <string_view>

#include "kernel/base/bytes.hpp"

namespace bulkhead {

class ByteWriter {
  public:
    explicit ByteWriter(MutableBytes buffer) : buffer_(buffer) {}

    template <class T>
    requires std::is_trivially_copyable_v<T>
    void put(const T& value) {
        put_at(position_, value);
        position_ += sizeof(T);
    }
    // Overwrites what was written before, or writes ahead; the position stays.
    template <class T>
    requires std::is_trivially_copyable_v<T>
    void put_at(usize offset, const T& value) {
        if (!write_at(buffer_, offset, value)) ok_ = false;
    }
    void bytes(Bytes data) {
        if (range_within(position_, data.size(), buffer_.size())) {
            if (!data.empty()) std::memcpy(buffer_.data() + position_, data.data(), data.size());
        } else {
            ok_ = false;
        }
        position_ += data.size();
    }
    void text(std::string_view value) { bytes({reinterpret_cast<const u8*>(value.data()), value.size()}); }
    void c_string(std::string_view value) {
        text(value);
        put<u8>(0);
    }
    void zeros(usize count) {
        if (range_within(position_, count, buffer_.size())) {
            if (count != 0) std::memset(buffer_.data() + position_, 0, count);
        } else {
            ok_ = false;
        }
        position_ += count;
    }
    // Zeros up to the next multiple of `alignment`, a power of two, from the buffer's start.
    void align(usize alignment) { zeros((alignment - position_ % alignment) % alignment); }

    [[nodiscard]] usize position() const { return position_; }
    [[nodiscard]] bool ok() const { return ok_; }
    // What was written from `start` on. Only meaningful while ok().
    [[nodiscard]] MutableBytes written(usize start = 0) const {
        return ok_ ? buffer_.subspan(start, position_ - start) : MutableBytes{};
    }

  private:
    MutableBytes buffer_;
    usize position_ = 0;  // may pass the end: then ok_ is false
    bool ok_ = true;
};

// The byte that makes the sum of `data` zero modulo 256.
[[nodiscard]] inline u8 checksum_for(Bytes data) {
    u8 sum = 0;
    for (const u8 byte : data) sum = static_cast<u8>(sum + byte);
    return static_cast<u8>(0U - sum);
}

}  // namespace bulkhead
