// What a bank of machine-check registers tells of an error. Intel SDM Vol. 3B, Machine-Check Architecture
// (June 2023 edition); AMD APM Vol. 2, Machine Check Architecture (rev. 3.41).
#pragma once

#include "kernel/base/bits.hpp"

namespace bulkhead::machine_check {

// IA32_MCG_CAP and IA32_MCG_STATUS.
constexpr u64 bank_count_mask = 0xFF, has_control = bit(8), has_recovery = bit(24);
constexpr u64 restart_valid = bit(0), in_progress = bit(2);
// IA32_MCi_STATUS.
constexpr u64 valid = bit(63), overflow = bit(62), uncorrected = bit(61), enabled = bit(60),
              misc_valid = bit(59), address_valid = bit(58), context_corrupt = bit(57);

struct Bank {
    u64 status = 0, address = 0, misc = 0;
};

enum class Severity : u8 {
    none,       // the bank is empty
    corrected,  // the hardware has mended it; to be counted
    contained,  // data are lost, in one page of memory, which the bank names; all else is whole
    fatal,      // nobody knows what is still right
};

// `recovery`: MCG_CAP has SER_P, that is, MISC says what kind of address it is.
[[nodiscard]] constexpr Severity severity_of(const Bank& bank, bool recovery) {
    if ((bank.status & valid) == 0) return Severity::none;
    if ((bank.status & uncorrected) == 0) return Severity::corrected;
    // Of two uncorrected errors the first one's registers are kept: the other's are not known.
    if ((bank.status & (context_corrupt | overflow)) != 0 || (bank.status & address_valid) == 0)
        return Severity::fatal;
    if (recovery && (bank.status & misc_valid) != 0) {
        constexpr u64 physical_address = 2, bits_in_a_page = 12;
        if (extract(bank.misc, 8, 6) != physical_address || extract(bank.misc, 5, 0) > bits_in_a_page)
            return Severity::fatal;
    }
    return Severity::contained;
}

}  // namespace bulkhead::machine_check
