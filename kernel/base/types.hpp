// Fixed-width integers and the address types that must never be mixed up.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>

namespace bulkhead {

using u8 = std::uint8_t;
using u16 = std::uint16_t;
using u32 = std::uint32_t;
using u64 = std::uint64_t;
using i8 = std::int8_t;
using i16 = std::int16_t;
using i32 = std::int32_t;
using i64 = std::int64_t;
using usize = std::size_t;
using u128 = unsigned __int128;

constexpr u64 kib = 1024;
constexpr u64 mib = 1024 * kib;
constexpr u64 gib = 1024 * mib;
constexpr u64 page_size = 4 * kib;
constexpr u64 large_page_size = 2 * mib;

// A 64-bit address in one of the four address spaces. Arithmetic wraps modulo 2^64, as hardware's does;
// whoever handles untrusted addresses checks the range first.
template <class Space>
class Address {
  public:
    constexpr Address() = default;
    constexpr explicit Address(u64 value) : value_(value) {}

    [[nodiscard]] constexpr u64 raw() const { return value_; }
    [[nodiscard]] constexpr Address align_down(u64 alignment) const {
        return Address(value_ & ~(alignment - 1));
    }
    [[nodiscard]] constexpr Address align_up(u64 alignment) const {
        return Address((value_ + alignment - 1) & ~(alignment - 1));
    }
    [[nodiscard]] constexpr bool is_aligned(u64 alignment) const { return (value_ & (alignment - 1)) == 0; }
    [[nodiscard]] constexpr u64 offset_in(u64 alignment) const { return value_ & (alignment - 1); }

    constexpr Address& operator+=(u64 delta) {
        value_ += delta;
        return *this;
    }
    friend constexpr Address operator+(Address address, u64 delta) { return Address(address.value_ + delta); }
    friend constexpr Address operator-(Address address, u64 delta) { return Address(address.value_ - delta); }
    friend constexpr u64 operator-(Address a, Address b) { return a.value_ - b.value_; }
    friend constexpr auto operator<=>(Address, Address) = default;

  private:
    u64 value_ = 0;
};

using HostPhysical = Address<struct HostPhysicalSpace>;
using HostVirtual = Address<struct HostVirtualSpace>;
using GuestPhysical = Address<struct GuestPhysicalSpace>;
using GuestVirtual = Address<struct GuestVirtualSpace>;  // a guest's linear address: segmentation is done

// A number that names one thing only: a vector is no port.
template <class Tag, class T>
class Number {
  public:
    constexpr Number() = default;
    constexpr explicit Number(T value) : value_(value) {}
    [[nodiscard]] constexpr T raw() const { return value_; }
    friend constexpr auto operator<=>(Number, Number) = default;

  private:
    T value_ = 0;
};

using Port = Number<struct PortTag, u16>;
using Vector = Number<struct VectorTag, u8>;
using MsrIndex = Number<struct MsrTag, u32>;

}  // namespace bulkhead
