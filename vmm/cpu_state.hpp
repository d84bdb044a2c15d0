// The architectural state of a virtual processor, in words both vendors share.
#pragma once

#include <optional>

#include "kernel/base/bits.hpp"
#include "kernel/base/types.hpp"

namespace bulkhead {

// In the instruction encoding's order; the world switch's assembly relies on the layout (8 bytes each).
struct GeneralRegisters {
    u64 rax = 0, rcx = 0, rdx = 0, rbx = 0, rsp = 0, rbp = 0, rsi = 0, rdi = 0;
    u64 r8 = 0, r9 = 0, r10 = 0, r11 = 0, r12 = 0, r13 = 0, r14 = 0, r15 = 0;

    // index: 0..15, the number in a ModRM byte with its REX bit. RSP is in here too: the backend copies it.
    [[nodiscard]] u64& operator[](unsigned index) { return (&rax)[index & 15]; }
    [[nodiscard]] u64 operator[](unsigned index) const { return (&rax)[index & 15]; }
};
static_assert(sizeof(GeneralRegisters) == 16 * 8);

enum class SegmentName : u8 { es, cs, ss, ds, fs, gs, ldtr, tr };

// A segment register with its hidden part.
struct Segment {
    u16 selector = 0;
    u64 base = 0;
    u32 limit = 0;   // in bytes, granularity applied
    u16 access = 0;  // descriptor bits 40-47 in bits 0-7 (type, S, DPL, P), AVL, L, D/B, G in bits 12-15
    bool unusable = false;

    [[nodiscard]] constexpr unsigned type() const { return access & 0xF; }
    [[nodiscard]] constexpr bool is_code_or_data() const { return has_bit(access, 4); }
    [[nodiscard]] constexpr unsigned dpl() const { return (access >> 5) & 3; }
    [[nodiscard]] constexpr bool present() const { return has_bit(access, 7); }
    [[nodiscard]] constexpr bool long_mode() const { return has_bit(access, 13); }
    [[nodiscard]] constexpr bool default_big() const { return has_bit(access, 14); }
    [[nodiscard]] constexpr bool granularity() const { return has_bit(access, 15); }
    friend constexpr bool operator==(const Segment&, const Segment&) = default;
};

struct DescriptorTable {
    u64 base = 0;
    u16 limit = 0;
    friend constexpr bool operator==(const DescriptorTable&, const DescriptorTable&) = default;
};

// Registers outside the general set, named for VcpuBackend::read and write. The MSRs among them are those the
// guest owns outright and the hardware switches or the backend holds.
enum class Register : u8 {
    rip,
    rflags,
    cr0,  // as the guest sees it: host-owned bits merged from the read shadow
    cr2,
    cr3,
    cr4,  // as the guest sees it
    dr7,
    efer,
    fs_base,
    gs_base,
    kernel_gs_base,
    star,
    lstar,
    cstar,
    sfmask,
    sysenter_cs,
    sysenter_esp,
    sysenter_eip,
    pat,
    debugctl,
    tsc_aux,  // 32 bits; RDTSCP and RDPID read it without an exit
    count
};

// Something delivered through the guest's IDT.
struct Event {
    enum class Type : u8 {
        external_interrupt,
        nmi,
        hardware_exception,
        software_interrupt,             // INT n
        privileged_software_exception,  // INT1
        software_exception,             // INT3, INTO
    };
    Type type = Type::hardware_exception;
    Vector vector{};
    std::optional<u32> error_code{};
    u8 instruction_length = 0;  // for the three software types: the length of the instruction that raised it
    std::optional<u64> fault_address{};  // #PF: the value CR2 takes on injection
    friend constexpr bool operator==(const Event&, const Event&) = default;
};

// Exceptions by their Intel SDM names (Vol. 3A, table 6-1, June 2023 edition).
namespace exception {
constexpr Vector divide_error{0}, debug{1}, breakpoint{3}, overflow{4}, bound_range{5}, invalid_opcode{6},
    device_not_available{7}, double_fault{8}, invalid_tss{10}, segment_not_present{11}, stack_fault{12},
    general_protection{13}, page_fault{14}, x87_error{16}, alignment_check{17}, machine_check{18},
    simd_error{19}, virtualization{20}, control_protection{21};
}  // namespace exception

[[nodiscard]] constexpr Event make_exception(Vector vector, std::optional<u32> error_code = std::nullopt) {
    return {.type = Event::Type::hardware_exception, .vector = vector, .error_code = error_code};
}
[[nodiscard]] constexpr Event make_general_protection(u32 error_code = 0) {
    return make_exception(exception::general_protection, error_code);
}
[[nodiscard]] constexpr Event make_invalid_opcode() {
    return make_exception(exception::invalid_opcode);
}
[[nodiscard]] constexpr Event make_page_fault(u64 address, u32 error_code) {
    Event event = make_exception(exception::page_fault, error_code);
    event.fault_address = address;
    return event;
}

// What keeps events from being delivered at the next instruction boundary.
struct Interruptibility {
    bool sti_shadow = false;
    bool mov_ss_shadow = false;
    bool nmi_blocked = false;
    friend constexpr bool operator==(const Interruptibility&, const Interruptibility&) = default;
};

enum class Activity : u8 { active, halted, shutdown, wait_for_sipi };

}  // namespace bulkhead
