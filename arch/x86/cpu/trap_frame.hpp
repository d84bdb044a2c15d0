// What the trap entry saves, and where it goes from there.
#pragma once

#include "kernel/base/types.hpp"

namespace bulkhead {

// In memory order; traps.asm relies on it.
struct TrapFrame {
    u64 rax, rcx, rdx, rbx, rbp, rsi, rdi;
    u64 r8, r9, r10, r11, r12, r13, r14, r15;
    u64 vector;
    u64 error_code;  // 0 for vectors that have none
    u64 rip, cs, rflags, rsp, ss;
};
static_assert(sizeof(TrapFrame) == 22 * 8);

}  // namespace bulkhead
