#include "drivers/rtc.hpp"

#include "arch/x86/cpu/intrinsics.hpp"
#include "kernel/base/bits.hpp"

namespace bulkhead::drivers {
namespace {

constexpr Port index_port{0x70}, data_port{0x71};
constexpr u8 status_a = 0x0A, status_b = 0x0B;
constexpr u8 update_in_progress = bit<u8>(7);
constexpr u8 binary = bit<u8>(2), hours_24 = bit<u8>(1), afternoon = bit<u8>(7);
constexpr u32 max_polls = 20'000;  // an update takes 2 ms at most, a port access about 1 us

struct Reading {
    u8 second, minute, hour, day, month, year;
    friend bool operator==(const Reading&, const Reading&) = default;
};

[[nodiscard]] u8 read(u8 index) {
    cpu::out8(index_port, index | bit<u8>(7));  // bit 7: NMI stays off while the index is in use
    const u8 value = cpu::in8(data_port);
    cpu::out8(index_port, 0x0D);  // NMI on again, at a harmless register
    return value;
}

[[nodiscard]] Reading read_all() {
    for (u32 i = 0; i < max_polls && (read(status_a) & update_in_progress) != 0; ++i) {
    }
    return {.second = read(0),
            .minute = read(2),
            .hour = read(4),
            .day = read(7),
            .month = read(8),
            .year = read(9)};
}

[[nodiscard]] u8 from_bcd(u8 value) {
    return static_cast<u8>((value >> 4) * 10 + (value & 0xF));
}

// Days from 1970-01-01 in the proleptic Gregorian calendar; the year starts in March, so that the leap day is
// its last.
[[nodiscard]] u64 days_since_1970(u64 year, u64 month, u64 day) {
    const u64 y = month <= 2 ? year - 1 : year;
    const u64 month_from_march = month > 2 ? month - 3 : month + 9;
    const u64 day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    return y * 365 + y / 4 - y / 100 + y / 400 + day_of_year - 719'468;
}

}  // namespace

std::optional<u64> read_rtc() {
    Reading now = read_all();
    for (int i = 0; i < 5; ++i) {
        const Reading again = read_all();
        if (again == now) break;
        now = again;
    }
    const u8 mode = read(status_b);
    const bool pm = (mode & hours_24) == 0 && (now.hour & afternoon) != 0;
    if ((mode & hours_24) == 0) now.hour &= static_cast<u8>(~afternoon);
    if ((mode & binary) == 0) {
        now = {.second = from_bcd(now.second),
               .minute = from_bcd(now.minute),
               .hour = from_bcd(now.hour),
               .day = from_bcd(now.day),
               .month = from_bcd(now.month),
               .year = from_bcd(now.year)};
    }
    if ((mode & hours_24) == 0) now.hour = static_cast<u8>(now.hour % 12 + (pm ? 12 : 0));
    if (now.second > 59 || now.minute > 59 || now.hour > 23 || now.day < 1 || now.day > 31 || now.month < 1 ||
        now.month > 12 || now.year > 99)
        return std::nullopt;
    // No machine that runs this was made before 2000.
    return ((days_since_1970(2000u + now.year, now.month, now.day) * 24 + now.hour) * 60 + now.minute) * 60 +
           now.second;
}

}  // namespace bulkhead::drivers
