// What banks of machine-check registers tell of an error, and what it costs. Intel SDM Vol. 3B, Machine-Check
// Architecture (June 2023 edition); AMD APM Vol. 2, Machine Check Architecture (rev. 3.41).
#pragma once

#include "kernel/base/bits.hpp"

namespace bulkhead::machine_check {

// IA32_MCG_CAP and IA32_MCG_STATUS.
constexpr u64 bank_count_mask = 0xFF, has_control = bit(8), has_recovery = bit(24);
constexpr u64 restart_valid = bit(0), error_at_instruction = bit(1), in_progress = bit(2);
// IA32_MCi_STATUS. `signalled`: by a machine check, where the processor has recovery; elsewhere it means
// something else.
constexpr u64 valid = bit(63), overflow = bit(62), uncorrected = bit(61), enabled = bit(60),
              misc_valid = bit(59), address_valid = bit(58), context_corrupt = bit(57), signalled = bit(56);

struct Bank {
    u64 status = 0, address = 0, misc = 0;
};

enum class Severity : u8 {
    none,       // the bank is empty
    corrected,  // nothing is lost so far; to be counted
    contained,  // data are lost, in one page of memory, which the bank names; all else is whole
    fatal,      // nobody knows what is still right
};

// `recovery`: MCG_CAP has SER_P, that is, MISC says what kind of address it is, and errors are signalled or
// not.
[[nodiscard]] constexpr Severity severity_of(const Bank& bank, bool recovery) {
    if ((bank.status & valid) == 0) return Severity::none;
    if ((bank.status & uncorrected) == 0) return Severity::corrected;
    // Of two uncorrected errors the first one's registers are kept: the other's are not known.
    if ((bank.status & (context_corrupt | overflow)) != 0) return Severity::fatal;
    // Found where nobody has used the data: no action required.
    if (recovery && (bank.status & signalled) == 0) return Severity::corrected;
    if ((bank.status & address_valid) == 0) return Severity::fatal;
    if (recovery) {
        if ((bank.status & misc_valid) == 0) return Severity::fatal;
        constexpr u64 physical_address = 2, bits_in_a_page = 12;
        if (extract(bank.misc, 8, 6) != physical_address || extract(bank.misc, 5, 0) > bits_in_a_page)
            return Severity::fatal;
    }
    return Severity::contained;
}

// What one machine check, as the processor that took it has its banks, leaves whole.
class Damage {
  public:
    // `global_status`: IA32_MCG_STATUS. `in_guest`: it ended a guest's turn, and struck no host code.
    constexpr Damage(u64 global_status, bool in_guest) : global_status_(global_status), in_guest_(in_guest) {}

    constexpr void add(Severity severity) {
        contained_ = contained_ || severity == Severity::contained;
        fatal_ = fatal_ || severity == Severity::fatal;
    }

    // Whether the host can go on. With every bank empty it is another processor's error, which this one was
    // told of. Where the interrupted program cannot go on it must have been a guest's, and a bank say why.
    [[nodiscard]] constexpr bool host_survives() const {
        if (fatal_) return false;
        return can_restart() || (in_guest_ && contained_);
    }
    // Whether the guest whose turn it ended can; false when the error is of its own doing.
    [[nodiscard]] constexpr bool guest_survives() const {
        return host_survives() && can_restart() && (global_status_ & error_at_instruction) == 0;
    }

  private:
    [[nodiscard]] constexpr bool can_restart() const { return (global_status_ & restart_valid) != 0; }

    u64 global_status_;
    bool in_guest_;
    bool contained_ = false, fatal_ = false;
};

}  // namespace bulkhead::machine_check
