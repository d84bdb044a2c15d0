// What compiled code expects of its environment: memory functions, the stack protector, and the ends of paths
// that must not be taken.
#include <cstddef>
#include <cstdint>
#include <new>

#include "arch/x86/cpu/panic.hpp"

extern "C" {

// String instructions: what processors do best, and what an exit path measured in instructions counts as one.
// Eight bytes at a time where there are many: that is as fast on a processor with ERMS, and emulators, whose
// every step moves one element, clear a VM's memory in an eighth of the time. This file is compiled so that
// the loops here are not turned into calls of themselves.
constexpr std::size_t many = 64;

void* memcpy(void* to, const void* from, std::size_t count) {
    void* const result = to;
    if (count >= many) {
        std::size_t words = count / 8;
        count %= 8;
        asm volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(words) : : "memory");
    }
    asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
    return result;
}

void* memset(void* to, int value, std::size_t count) {
    void* const result = to;
    const std::uint64_t pattern = static_cast<unsigned char>(value) * 0x0101'0101'0101'0101;
    if (count >= many) {
        std::size_t words = count / 8;
        count %= 8;
        asm volatile("rep stosq" : "+D"(to), "+c"(words) : "a"(pattern) : "memory");
    }
    asm volatile("rep stosb" : "+D"(to), "+c"(count) : "a"(pattern) : "memory");
    return result;
}

void* memmove(void* to, const void* from, std::size_t count) {
    // To lower addresses memcpy() goes ahead of itself: each element is read before it is overwritten.
    if (reinterpret_cast<std::uintptr_t>(to) - reinterpret_cast<std::uintptr_t>(from) >= count)
        return memcpy(to, from, count);
    // `to` lies within the source: from the end, with DF set; nothing can see DF but the trap entry, which
    // clears it.
    auto* last_to = static_cast<unsigned char*>(to) + count - 1;
    const auto* last_from = static_cast<const unsigned char*>(from) + count - 1;
    asm volatile("std; rep movsb; cld" : "+D"(last_to), "+S"(last_from), "+c"(count) : : "memory");
    return to;
}

int memcmp(const void* a, const void* b, std::size_t count) {
    const auto* x = static_cast<const unsigned char*>(a);
    const auto* y = static_cast<const unsigned char*>(b);
    for (std::size_t i = 0; i < count; ++i) {
        if (x[i] != y[i]) return x[i] < y[i] ? -1 : 1;
    }
    return 0;
}

std::size_t strlen(const char* text) {
    std::size_t size = 0;
    while (text[size] != 0) ++size;
    return size;
}

// By another name, as the C++ headers declare memchr as two overloads.
[[gnu::used]] void* find_byte(const void* memory, int value, std::size_t count) asm("memchr");
void* find_byte(const void* memory, int value, std::size_t count) {
    const auto* bytes = static_cast<const unsigned char*>(memory);
    for (std::size_t i = 0; i < count; ++i) {
        if (bytes[i] == static_cast<unsigned char>(value)) return const_cast<unsigned char*>(bytes + i);
    }
    return nullptr;
}

// 128-bit division. The compiler's own library assumes a red zone, which interrupts would overwrite.
struct Quotient {
    unsigned __int128 quotient;
    unsigned __int128 remainder;
};

static Quotient divide(unsigned __int128 numerator, unsigned __int128 denominator) {
    auto high = static_cast<std::uint64_t>(numerator >> 64);
    if (denominator >> 64 == 0) {
        const auto divisor = static_cast<std::uint64_t>(denominator);
        if (divisor == 0) bulkhead::panic("HV-E010: division by zero");
        auto low = static_cast<std::uint64_t>(numerator);
        const std::uint64_t quotient_high = high / divisor;
        high %= divisor;  // below the divisor, so that DIV's quotient fits 64 bits
        asm("divq %2" : "+a"(low), "+d"(high) : "r"(divisor) : "cc");
        return {static_cast<unsigned __int128>(quotient_high) << 64 | low, high};
    }
    unsigned __int128 remainder = high;
    auto low = static_cast<std::uint64_t>(numerator);
    std::uint64_t quotient = 0;
    for (int i = 0; i < 64; ++i) {
        const bool carry = remainder >> 127 != 0;
        remainder = remainder << 1 | low >> 63;
        low <<= 1;
        quotient <<= 1;
        if (carry || remainder >= denominator) {
            remainder -= denominator;
            quotient |= 1;
        }
    }
    return {quotient, remainder};
}

[[gnu::used]] unsigned __int128 __udivti3(unsigned __int128 a, unsigned __int128 b) {
    return divide(a, b).quotient;
}
[[gnu::used]] unsigned __int128 __umodti3(unsigned __int128 a, unsigned __int128 b) {
    return divide(a, b).remainder;
}
[[gnu::used]] __int128 __divti3(__int128 a, __int128 b) {
    const auto magnitude = [](__int128 n) {
        return n < 0 ? -static_cast<unsigned __int128>(n) : static_cast<unsigned __int128>(n);
    };
    const auto quotient = static_cast<__int128>(divide(magnitude(a), magnitude(b)).quotient);
    return (a < 0) != (b < 0) ? -quotient : quotient;
}

// Written once, by the entry code.
[[gnu::used]] std::uint64_t __stack_chk_guard = 0;

[[noreturn, gnu::used]] void __stack_chk_fail() {
    bulkhead::panic("HV-E011: stack overwritten (stack protector)");
}

[[noreturn, gnu::used]] void __cxa_pure_virtual() {
    bulkhead::panic("HV-E010: pure virtual call");
}

[[noreturn, gnu::used]] void abort() {
    bulkhead::panic("HV-E010: abort() reached");
}

}  // extern "C"

// Deleting destructors refer to it; nothing is ever allocated.
void operator delete(void*) noexcept {
    bulkhead::panic("HV-E010: operator delete reached");
}
void operator delete(void*, std::size_t) noexcept {
    bulkhead::panic("HV-E010: operator delete reached");
}
void operator delete(void*, std::size_t, std::align_val_t) noexcept {
    bulkhead::panic("HV-E010: operator delete reached");
}

// libstdc++ headers call these where a hosted program would throw.
namespace std {
[[noreturn]] void __throw_logic_error(const char* what) {
    bulkhead::panic("HV-E010: logic error: {}", what);
}
[[noreturn]] void __throw_length_error(const char* what) {
    bulkhead::panic("HV-E010: length error: {}", what);
}
[[noreturn]] void __throw_out_of_range(const char* what) {
    bulkhead::panic("HV-E010: out of range: {}", what);
}
[[noreturn]] void __throw_out_of_range_fmt(const char* what, ...) {
    bulkhead::panic("HV-E010: out of range: {}", what);
}
[[noreturn]] void __throw_bad_optional_access() {
    bulkhead::panic("HV-E010: empty optional");
}
[[noreturn]] void __throw_bad_variant_access(const char* what) {
    bulkhead::panic("HV-E010: bad variant: {}", what);
}
[[noreturn]] void __throw_bad_function_call() {
    bulkhead::panic("HV-E010: empty function");
}
}  // namespace std
