// The end of the hypervisor: says why, where and on which stack, and stops every core. Takes no lock and
// allocates nothing, so that it works wherever it is called from.
#pragma once

#include <string_view>

#include "arch/x86/cpu/trap_frame.hpp"
#include "kernel/base/fixed_string.hpp"
#include "kernel/base/format.hpp"

namespace bulkhead {

struct PanicSettings {
    Sink* output = nullptr;                // unlocked; null: nothing is printed
    void (*freeze_others)() = nullptr;     // sends an NMI to all other cores that run
    bool (*core_runs)(u32 cpu) = nullptr;  // whether that core is one of them
    // The function that `address` lies in and the offset there; empty: unknown.
    std::string_view (*symbolize)(u64 address, u64& offset) = nullptr;
    void (*reset)() = nullptr;  // resets the machine afterwards; null: it halts
};
// Set up by boot_main() as the pieces become available.
extern PanicSettings panic_settings;

[[nodiscard]] bool panic_in_progress();

// What an NMI comes to while another core panics: the core leaves a note of where it was, for the report, and
// stops.
[[noreturn]] void freeze_for_panic(const TrapFrame& frame);

[[noreturn]] void panic_with(std::string_view text);
[[noreturn]] void panic_on_trap(const TrapFrame& frame);

// panic("HV-E010: queue of {} cores is full; report this", count);
template <class... Arguments>
[[noreturn]] [[gnu::cold]] void panic(FormatString<std::type_identity_t<Arguments>...> format,
                                      const Arguments&... arguments) {
    FixedString<200> text;
    print(text, format, arguments...);
    panic_with(text.view());
}

// The return addresses from frame pointer `rbp` on, one a line, by name.
void print_backtrace(Sink& sink, u64 rip, u64 rbp);

// An invariant that no input can break: a defect of ours if it fails.
#define BULKHEAD_ASSERT(condition)                                                                     \
    do {                                                                                               \
        if (!(condition)) [[unlikely]]                                                                 \
            ::bulkhead::panic("HV-E010: assertion failed: " #condition ", {}:{}", __FILE__, __LINE__); \
    } while (false)

}  // namespace bulkhead
