// Little-endian values in byte spans that nobody has vetted: every read is bounds-checked, no alignment is
// assumed.
#pragma once

#include <cstring>
#include <optional>
#include <span>
#include <type_traits>

#include "kernel/base/bits.hpp"
#include "kernel/base/types.hpp"

namespace bulkhead {

using Bytes = std::span<const u8>;
using MutableBytes = std::span<u8>;

// The object of type T at `offset`, or nothing if it does not lie wholly within `bytes`.
template <class T>
requires std::is_trivially_copyable_v<T>
[[nodiscard]] std::optional<T> read_at(Bytes bytes, u64 offset) {
    if (!range_within(offset, sizeof(T), bytes.size())) return std::nullopt;
    T value;
    std::memcpy(&value, bytes.data() + offset, sizeof(T));
    return value;
}

// Writes `value` at `offset`; false, with nothing written, if it does not fit.
template <class T>
requires std::is_trivially_copyable_v<T>
[[nodiscard]] bool write_at(MutableBytes bytes, u64 offset, const T& value) {
    if (!range_within(offset, sizeof(T), bytes.size())) return false;
    std::memcpy(bytes.data() + offset, &value, sizeof(T));
    return true;
}

// `length` bytes from `offset`, or nothing if they do not lie wholly within `bytes`.
[[nodiscard]] inline std::optional<Bytes> slice(Bytes bytes, u64 offset, u64 length) {
    if (!range_within(offset, length, bytes.size())) return std::nullopt;
    return bytes.subspan(offset, length);
}

}  // namespace bulkhead
