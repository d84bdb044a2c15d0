// What a virtual processor's hardware holds, as a row of numbers: what it gives to the VMM at an exit, and
// what it has been told by the next entry. A record has the numbers that changed.
#pragma once

#include <optional>

#include "vmm/cpu_state.hpp"
#include "vmm/vcpu_backend.hpp"

namespace bulkhead {

struct RecordedState {
    // Where they stand.
    static constexpr unsigned general = 0;               // 16, RSP among them
    static constexpr unsigned registers = general + 16;  // by Register
    static constexpr unsigned segments = registers + static_cast<unsigned>(Register::count);
    static constexpr unsigned segment_size = 4;  // selector, base, limit, access and whether it is unusable
    static constexpr unsigned gdtr = segments + 8 * segment_size;  // base, limit
    static constexpr unsigned idtr = gdtr + 2;
    static constexpr unsigned interruptibility = idtr + 2;
    static constexpr unsigned cr8 = interruptibility + 1;
    static constexpr unsigned xcr0 = cr8 + 1;
    static constexpr unsigned debug = xcr0 + 1;       // DR0-3, DR6
    static constexpr unsigned apic_page = debug + 5;  // its 64 registers
    static constexpr unsigned apic_registers = 64;
    // What cannot be read back from the hardware.
    static constexpr unsigned told = apic_page + apic_registers;
    static constexpr unsigned injected = told;         // see pack_event(); its error code, its address
    static constexpr unsigned windows = injected + 3;  // bit 0: for interrupts, 1: for NMIs
    static constexpr unsigned tpr_threshold = windows + 1;
    static constexpr unsigned tsc_offset = tpr_threshold + 1;
    static constexpr unsigned apic_mode = tsc_offset + 1;
    static constexpr unsigned virtual_interrupt = apic_mode + 1;
    static constexpr unsigned eoi_exits = virtual_interrupt + 1;  // 256 bits
    static constexpr unsigned count = eoi_exits + 4;

    u64 values[count] = {};

    // Takes what can be read: all but what was told.
    void capture(const VcpuBackend& backend, const u8* apic);

    [[nodiscard]] Segment segment(SegmentName which) const;
    void set_segment(SegmentName which, const Segment& value);
    [[nodiscard]] Interruptibility get_interruptibility() const;
    void set_interruptibility(Interruptibility value);
    [[nodiscard]] std::optional<Event> event() const;
    void set_event(const std::optional<Event>& event);

    void print_name(Sink& sink, unsigned index) const;
};
static_assert(RecordedState::count < 0xFF, "0xFF ends a list of changes");

// An event in one number, but for its error code and address. 0: none.
[[nodiscard]] u64 pack_event(const std::optional<Event>& event);
// The event whose type and vector are in range, or none.
[[nodiscard]] std::optional<Event> unpack_event(u64 packed, u64 error_code, u64 fault_address);

}  // namespace bulkhead
