// Executes one decoded instruction on behalf of the virtual processor: for memory accesses that hardware
// could not complete (devices) and for port string instructions.
//
// Implemented, in all operand and address sizes and all of real, virtual-8086, protected, compatibility and
// 64-bit mode: MOV in all memory and register forms (not to segment registers), MOVBE, MOVNTI, MOVZX, MOVSX,
// MOVSXD, CMOVcc, SETcc, XCHG, XADD, CMPXCHG, CMPXCHG8B, ADD OR ADC SBB AND SUB XOR CMP TEST INC DEC NEG NOT,
// the shifts and rotations of group 2, BT BTS BTR BTC, PUSH and POP (of general registers, immediates and
// memory), near CALL, JMP and RET, LEA, IN, OUT, and the string instructions MOVS CMPS STOS LODS SCAS INS
// OUTS with and without REP. Unsupported, and refused with nothing changed: everything else, above all x87,
// MMX, SSE and AVX moves, CMPXCHG16B, MUL and DIV, SHLD and SHRD, segment loads and far transfers.
//
// Limits: a locked access that crosses a page, or reaches a device, is not atomic. Data breakpoints do not
// fire.
//
// For the caller to do after Outcome::done (the same as after any instruction it skips): end the STI and MOV
// SS shadows, clear RFLAGS.RF, and raise the single-step #DB if RFLAGS.TF was set.
#pragma once

#include "vmm/decode/guest_access.hpp"

namespace bulkhead {

struct EmulatorOptions {
    KnownTranslation known{};
    // Elements of a repeated string instruction before it is left as `interrupted`; at least 1.
    u32 iteration_limit = 1024;
};

// Where a plain move (Instruction::plain_move) goes, if it is what the hardware translated. False: the
// general way has to find out.
[[nodiscard]] inline bool known_move_address(const Instruction& i, const GeneralRegisters& gprs, unsigned cpl,
                                             const KnownTranslation& known, GuestPhysical& address) {
    if (!known.valid || !i.plain_move || cpl == 3) return false;
    if (i.opcode != 0x8B && !known.writable) return false;
    u64 linear = static_cast<u64>(i.memory.displacement) + gprs[i.memory.base];
    if (i.memory.index != MemoryOperand::none) linear += gprs[i.memory.index] * i.memory.scale;
    const u64 in_page = linear & (page_size - 1);
    if (in_page + i.operand_size > page_size) return false;
    if (known.linear_known) {
        if ((linear ^ known.linear.raw()) >= page_size) return false;
    } else if (in_page != known.physical.offset_in(page_size) || !is_canonical(linear, false)) {
        return false;
    }
    address = known.physical.align_down(page_size) + in_page;
    return true;
}

// `instruction`: decoded for mode.code from the bytes at CS:RIP.
[[nodiscard]] Outcome emulate(EmulationContext& context, const ExecutionMode& mode,
                              const Instruction& instruction, const EmulatorOptions& options = {});

}  // namespace bulkhead
