// Events on their way into the guest, as VM entry wants them, and out of it, as VM exits report them.
// Intel SDM Vol. 3C, 25.8.3, 25.9.2-25.9.3, 27.2.1.3 and 27.6 (June 2023 edition).
#pragma once

#include <optional>

#include "vmm/cpu_state.hpp"

namespace bulkhead::vmx {

// The three VM-entry fields of an injection.
struct EntryEvent {
    u32 information = 0;
    u32 error_code = 0;
    u32 instruction_length = 0;  // 0: the field does not matter
    friend constexpr bool operator==(const EntryEvent&, const EntryEvent&) = default;
};

// protected_mode: the guest's CR0.PE. In real mode no exception has an error code; in protected mode just
// those have one that push it on hardware, whatever `event` says. zero_length: the processor takes an
// instruction length of zero.
[[nodiscard]] EntryEvent encode_event(const Event& event, bool protected_mode, bool zero_length);

// From interruption information or IDT-vectoring information with its valid bit set. The instruction length
// counts for the software types only. Nothing for a type that the manual does not define.
[[nodiscard]] std::optional<Event> decode_event(u32 information, u32 error_code, u32 instruction_length);

}  // namespace bulkhead::vmx
