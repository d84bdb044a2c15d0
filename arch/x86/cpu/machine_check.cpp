#include "arch/x86/cpu/machine_check.hpp"

#include <atomic>

#include "arch/x86/cpu/injected_faults.hpp"
#include "arch/x86/cpu/intrinsics.hpp"
#include "arch/x86/cpu/panic.hpp"
#include "arch/x86/cpu/per_cpu.hpp"
#include "arch/x86/regs/msr.hpp"

namespace bulkhead {

#ifdef BULKHEAD_FAULT_INJECTION
machine_check::Bank injected_bank;
#endif

constinit LostPages lost_pages;

namespace {

using namespace machine_check;

std::atomic<u64> fatal_status, fatal_address;
std::atomic<u32> fatal_bank;

// IA32_MC0_CTL; STATUS, ADDR and MISC follow, and four registers on the next bank.
[[nodiscard]] MsrIndex bank_register(u32 bank, u32 which) {
    constexpr u32 first = 0x400;
    return MsrIndex(first + 4 * bank + which);
}
constexpr u32 control = 0, status = 1, address = 2, misc = 3;

[[nodiscard]] u64 capabilities() {
    const u32 features = cpu::cpuid(1).edx;
    const u32 needed = cpuid::leaf1_edx::mce | cpuid::leaf1_edx::mca;
    if ((features & needed) != needed) return 0;
    return cpu::read_msr_safe(msr::mcg_cap).value_or(0);
}

[[nodiscard]] u32 bank_count(u64 capability) {
    const auto count = static_cast<u32>(capability & bank_count_mask);
#ifdef BULKHEAD_FAULT_INJECTION
    if (count == 0) return 1;  // for the injected one
#endif
    return count;
}

// The address and MISC registers exist only where the status says that they hold something.
[[nodiscard]] Bank read_bank(u32 number) {
#ifdef BULKHEAD_FAULT_INJECTION
    if (number == 0 && injected_bank.status != 0) return injected_bank;
#endif
    Bank bank{.status = cpu::read_msr_safe(bank_register(number, status)).value_or(0)};
    if ((bank.status & valid) == 0) return {};
    if ((bank.status & address_valid) != 0)
        bank.address = cpu::read_msr_safe(bank_register(number, address)).value_or(0);
    if ((bank.status & misc_valid) != 0)
        bank.misc = cpu::read_msr_safe(bank_register(number, misc)).value_or(0);
    return bank;
}

void clear_bank(u32 number) {
#ifdef BULKHEAD_FAULT_INJECTION
    if (number == 0) injected_bank = {};
#endif
    (void)cpu::write_msr_safe(bank_register(number, status), 0);
}

// Looks at all banks. What is contained is noted and its bank cleared; what is not stays in its bank: it
// outlasts a reset, for the firmware to tell of.
[[nodiscard]] Damage take_damage(bool in_guest) {
    const u64 capability = capabilities();
    const bool recovery = (capability & has_recovery) != 0;
    u64 global_status = cpu::read_msr_safe(msr::mcg_status).value_or(0);
#ifdef BULKHEAD_FAULT_INJECTION
    if (injected_bank.status != 0) global_status |= restart_valid;
#endif
    Damage damage(global_status, in_guest);
    for (u32 number = 0; number < bank_count(capability); ++number) {
        const Bank bank = read_bank(number);
        Severity severity = severity_of(bank, recovery);
        if (severity == Severity::contained) {
            const LostPage lost{.page = HostPhysical(bank.address).align_down(page_size),
                                .bank = number,
                                .status = bank.status};
            if (lost_pages.note(lost, cpu_index())) {
                clear_bank(number);
            } else {
                severity = Severity::fatal;
            }
        }
        if (severity == Severity::fatal) {
            fatal_bank = number;
            fatal_status = bank.status;
            fatal_address = bank.address;
        }
        damage.add(severity);  // what is corrected is counted by the next poll
    }
    if (damage.host_survives()) (void)cpu::write_msr_safe(msr::mcg_status, 0);
    return damage;
}

}  // namespace

void enable_machine_checks() {
    const u64 capability = capabilities();
    if (capability == 0) return;
    if ((capability & has_control) != 0) (void)cpu::write_msr_safe(msr::mcg_ctl, ~u64{0});
    for (u32 bank = 0; bank < (capability & bank_count_mask); ++bank) {
        (void)cpu::write_msr_safe(bank_register(bank, control), ~u64{0});
        (void)cpu::write_msr_safe(bank_register(bank, status), 0);
    }
}

CorrectedErrors poll_corrected_errors() {
    CorrectedErrors result;
    const u64 capability = capabilities();
    for (u32 number = 0; number < bank_count(capability); ++number) {
        const Bank bank = read_bank(number);
        // What is not corrected brings a machine check of its own.
        if (severity_of(bank, (capability & has_recovery) != 0) != Severity::corrected) continue;
        ++result.count;
        result.bank = number;
        result.status = bank.status;
        clear_bank(number);
    }
    return result;
}

bool survive_machine_check() {
    return take_damage(false).host_survives();
}

bool survive_machine_check_of_guest() {
    const Damage damage = take_damage(true);
    if (!damage.host_survives())
        panic(
            "HV-E012: machine check while a guest ran; the hardware reports an uncorrectable error, have it "
            "examined\n  bank {}: status {:#018x}, address {:#x}",
            fatal_bank.load(), fatal_status.load(), fatal_address.load());
    return damage.guest_survives();
}

void print_fatal_machine_check(Sink& sink) {
    print(sink, "  bank {}: status {:#018x}, address {:#x}\n", fatal_bank.load(), fatal_status.load(),
          fatal_address.load());
}

}  // namespace bulkhead
