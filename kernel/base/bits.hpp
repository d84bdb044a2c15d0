// Named access to the bits of hardware words.
#pragma once

#include "kernel/base/types.hpp"

namespace bulkhead {

template <class T = u64>
[[nodiscard]] constexpr T bit(unsigned n) {
    return static_cast<T>(T{1} << n);
}

[[nodiscard]] constexpr bool has_bit(u64 word, unsigned n) {
    return ((word >> n) & 1) != 0;
}

// The `width` lowest bits set. width: 0..64.
[[nodiscard]] constexpr u64 low_mask(unsigned width) {
    return width >= 64 ? ~u64{0} : (u64{1} << width) - 1;
}

// Bits `low`..`high` (both included) of `word`, moved down to bit 0.
[[nodiscard]] constexpr u64 extract(u64 word, unsigned high, unsigned low) {
    return (word >> low) & low_mask(high - low + 1);
}

// `word` with its bits `low`..`high` replaced by `value`.
[[nodiscard]] constexpr u64 insert(u64 word, unsigned high, unsigned low, u64 value) {
    const u64 mask = low_mask(high - low + 1) << low;
    return (word & ~mask) | ((value << low) & mask);
}

[[nodiscard]] constexpr bool is_power_of_two(u64 value) {
    return value != 0 && (value & (value - 1)) == 0;
}

// The value of the `size` lowest bytes, sign-extended to 64 bits. size: 1, 2, 4 or 8.
[[nodiscard]] constexpr u64 sign_extend(u64 value, unsigned size) {
    const unsigned shift = 64 - 8 * size;
    return static_cast<u64>(static_cast<i64>(value << shift) >> shift);
}

// All-ones of `size` bytes: what absent hardware reads as.
[[nodiscard]] constexpr u64 all_ones(unsigned size) {
    return low_mask(8 * size);
}

// True where [start, start + length) neither wraps nor leaves [0, limit).
[[nodiscard]] constexpr bool range_within(u64 start, u64 length, u64 limit) {
    return start <= limit && length <= limit - start;
}

// value * numerator / denominator without losing the high half. The quotient must fit 64 bits.
[[nodiscard]] constexpr u64 scale(u64 value, u64 numerator, u64 denominator) {
    return static_cast<u64>(static_cast<u128>(value) * numerator / denominator);
}

}  // namespace bulkhead
