#include "vmm/loader/start_state.hpp"

#include "arch/x86/regs/control.hpp"

namespace bulkhead {
namespace {

constexpr u16 code32 = 0xC09B;     // present, code, readable, accessed; 4 KiB granularity, 32-bit
constexpr u16 code64 = 0xA09B;     // likewise, 64-bit
constexpr u16 data32 = 0xC093;     // present, data, writable, accessed
constexpr u16 task_busy = 0x008B;  // 32-bit TSS in protected mode, 64-bit TSS in long mode; busy
constexpr u16 ldt = 0x0082;
constexpr u16 real_code = 0x009B, real_data = 0x0093;
constexpr u32 task_limit = 0x67;

constexpr u64 descriptor(u16 access, u32 limit) {
    const u64 raw_limit = has_bit(access, 15) ? limit >> 12 : limit;
    return extract(raw_limit, 15, 0) | (u64{access} << 40 & 0x0000FF0000000000) |
           (extract(raw_limit, 19, 16) << 48) | (u64{access} >> 12 << 52);
}
static_assert(descriptor(code32, 0xFFFFFFFF) == 0x00CF9B000000FFFF);
static_assert(descriptor(code64, 0xFFFFFFFF) == 0x00AF9B000000FFFF);
static_assert(descriptor(task_busy, task_limit) == 0x00008B0000000067);

void set_flat_segments(StartState& state, u16 code) {
    state.segment(SegmentName::cs) = {
        .selector = boot_code_selector, .base = 0, .limit = 0xFFFFFFFF, .access = code};
    for (const auto name :
         {SegmentName::ds, SegmentName::es, SegmentName::fs, SegmentName::gs, SegmentName::ss}) {
        state.segment(name) = {
            .selector = boot_data_selector, .base = 0, .limit = 0xFFFFFFFF, .access = data32};
    }
    state.segment(SegmentName::tr) = {
        .selector = boot_task_selector, .base = 0, .limit = task_limit, .access = task_busy};
    state.segment(SegmentName::ldtr) = {
        .selector = 0, .base = 0, .limit = 0, .access = ldt, .unusable = true};
}

void set_real_segments(StartState& state) {
    for (const auto name :
         {SegmentName::ds, SegmentName::es, SegmentName::fs, SegmentName::gs, SegmentName::ss}) {
        state.segment(name) = {.selector = 0, .base = 0, .limit = 0xFFFF, .access = real_data};
    }
    state.segment(SegmentName::tr) = {.selector = 0, .base = 0, .limit = 0xFFFF, .access = task_busy};
    state.segment(SegmentName::ldtr) = {.selector = 0, .base = 0, .limit = 0xFFFF, .access = ldt};
    state.gdtr = {.base = 0, .limit = 0xFFFF};
    state.idtr = {.base = 0, .limit = 0xFFFF};
}

}  // namespace

BootGdt make_boot_gdt(StartState::Mode mode) {
    const u16 code = mode == StartState::Mode::long_mode ? code64 : code32;
    return {
        0, 0, descriptor(code, 0xFFFFFFFF), descriptor(data32, 0xFFFFFFFF), descriptor(task_busy, task_limit),
        0};
}

StartState make_reset_start() {
    StartState state;
    state.mode = StartState::Mode::reset_vector;
    state.rip = 0xFFF0;
    state.cr0 = cr0::cd | cr0::nw | cr0::et;
    set_real_segments(state);
    state.segment(SegmentName::cs) = {
        .selector = 0xF000, .base = 0xFFFF0000, .limit = 0xFFFF, .access = real_code};
    return state;
}

StartState make_real_start(u16 cs, u16 ip) {
    StartState state;
    state.mode = StartState::Mode::real;
    state.rip = ip;
    state.cr0 = cr0::et;
    set_real_segments(state);
    state.segment(SegmentName::cs) = {
        .selector = cs, .base = u64{cs} << 4, .limit = 0xFFFF, .access = real_code};
    return state;
}

StartState make_protected_start(u32 entry, GuestPhysical gdt_base) {
    StartState state;
    state.mode = StartState::Mode::protected_flat;
    state.rip = entry;
    state.cr0 = cr0::pe | cr0::et;
    set_flat_segments(state, code32);
    state.gdtr = {.base = gdt_base.raw(), .limit = sizeof(BootGdt) - 1};
    return state;
}

StartState make_long_start(u64 entry, GuestPhysical page_tables, GuestPhysical gdt_base) {
    StartState state;
    state.mode = StartState::Mode::long_mode;
    state.rip = entry;
    state.cr0 = cr0::pe | cr0::et | cr0::pg;
    state.cr3 = page_tables.raw();
    state.cr4 = cr4::pae;
    state.efer = efer::lme | efer::lma;
    set_flat_segments(state, code64);
    state.gdtr = {.base = gdt_base.raw(), .limit = sizeof(BootGdt) - 1};
    return state;
}

}  // namespace bulkhead
