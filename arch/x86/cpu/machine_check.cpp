#include "arch/x86/cpu/machine_check.hpp"

#include <atomic>

#include "arch/x86/cpu/injected_faults.hpp"
#include "arch/x86/cpu/intrinsics.hpp"
#include "arch/x86/regs/msr.hpp"

namespace bulkhead {

#ifdef BULKHEAD_FAULT_INJECTION
machine_check::Bank injected_bank;
#endif

namespace {

using namespace machine_check;

// Pages noted and not yet taken: the address with bit 0 set, 0 for none.
constexpr usize most_lost_pages = 8;
std::atomic<u64> lost_pages[most_lost_pages];

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

// False if it has been noted before, and so strikes again and again, or if there is no room for it.
[[nodiscard]] bool note_lost_page(HostPhysical page) {
    const u64 entry = page.raw() | 1;
    for (const auto& each : lost_pages) {
        if (each.load() == entry) return false;
    }
    for (auto& each : lost_pages) {
        u64 free = 0;
        if (each.compare_exchange_strong(free, entry)) return true;
    }
    return false;
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
    const u64 capability = capabilities();
    bool survives = (cpu::read_msr_safe(msr::mcg_status).value_or(0) & restart_valid) != 0;
#ifdef BULKHEAD_FAULT_INJECTION
    survives = survives || injected_bank.status != 0;
#endif
    // With every bank empty it is another core's error, which this one was told of.
    for (u32 number = 0; number < bank_count(capability); ++number) {
        const Bank bank = read_bank(number);
        const Severity severity = severity_of(bank, (capability & has_recovery) != 0);
        if (severity == Severity::none || severity == Severity::corrected)
            continue;  // counted by the next poll
        if (severity == Severity::contained &&
            note_lost_page(HostPhysical(bank.address).align_down(page_size))) {
            clear_bank(number);
            continue;
        }
        // Left in its bank: it outlasts a reset, for the firmware to tell of.
        fatal_bank = number;
        fatal_status = bank.status;
        fatal_address = bank.address;
        survives = false;
    }
    if (survives) (void)cpu::write_msr_safe(msr::mcg_status, 0);
    return survives;
}

std::optional<HostPhysical> take_lost_page() {
    for (auto& each : lost_pages) {
        if (each.load() == 0) continue;
        if (const u64 entry = each.exchange(0); entry != 0) return HostPhysical(entry & ~u64{1});
    }
    return std::nullopt;
}

void print_fatal_machine_check(Sink& sink) {
    print(sink, "  bank {}: status {:#018x}, address {:#x}\n", fatal_bank.load(), fatal_status.load(),
          fatal_address.load());
}

}  // namespace bulkhead
