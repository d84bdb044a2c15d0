// Instruction decoder: one x86 instruction from at most 15 bytes, in 16-, 32- and 64-bit code.
//
// Implemented: exact lengths of all of the one-byte, 0F, 0F38 and 0F3A maps (general-purpose, x87, MMX, SSE,
// 3DNow!), of VEX, EVEX and AMD's XOP; operand and address sizes, ModRM, SIB, displacement, immediates, the
// effective segment and the memory operand. Undefined opcodes, LOCK where it is not allowed and stray
// prefixes before VEX, EVEX and XOP are found out in the general-purpose maps. Not vetted: which mandatory
// prefix a media (x87, SSE, AVX, ...) opcode allows. Such an instruction is measured, never executed here, so
// an undefined one that slips through is still refused by the emulator. EVEX displacements are given as
// encoded, not multiplied by the element size. Near branches ignore an operand-size prefix in 64-bit code, as
// Intel's processors do (AMD's obey it).
//
// Intel SDM Vol. 2, chapter 2 and appendix A (June 2023 edition); AMD APM Vol. 3, chapter 1 and appendix A
// (rev. 3.35).
#pragma once

#include <optional>

#include "kernel/base/bytes.hpp"
#include "vmm/cpu_state.hpp"

namespace bulkhead {

// What CS.L and CS.D select. Real and virtual-8086 mode are bits16 (or what CS.D says).
enum class CodeSize : u8 { bits16, bits32, bits64 };

enum class DecodeStatus : u8 {
    ok,
    more_bytes,  // the instruction goes on beyond the bytes given
    invalid,     // #UD
    too_long,    // over 15 bytes: #GP(0)
};

enum class Encoding : u8 { legacy, vex, evex, xop };

// For VEX and EVEX maps 1 to 3 are those of the escapes 0F, 0F38 and 0F3A; the others keep their number.
enum class OpcodeMap : u8 {
    one_byte = 0,
    map_0f = 1,
    map_0f38 = 2,
    map_0f3a = 3,
    map_5 = 5,
    map_6 = 6,
    xop_8 = 8,
    xop_9 = 9,
    xop_a = 10
};

// An operand in memory: base + index * scale + displacement, cut to the address size, in `segment`.
struct MemoryOperand {
    static constexpr u8 none = 0xFF;

    i64 displacement = 0;
    u8 base = none;   // general register
    u8 index = none;  // general register
    u8 scale = 1;     // 1, 2, 4, 8
    bool present = false;
    bool rip_relative = false;  // the displacement counts from the end of the instruction
};

struct Instruction {
    static constexpr unsigned max_length = 15;

    u64 immediate = 0;         // sign-extended to 64 bits from its own size
    MemoryOperand memory{};    // of ModRM or moffs; the implied operands of string instructions are not here
    u16 second_immediate = 0;  // selector of a far pointer; nesting level of ENTER
    u8 length = 0;
    u8 opcode = 0;
    OpcodeMap map = OpcodeMap::one_byte;
    Encoding encoding = Encoding::legacy;
    CodeSize code = CodeSize::bits64;
    u8 rex = 0;                             // 0, or 40h-4Fh; for VEX, EVEX and XOP the same W, R, X, B
    u8 modrm = 0;                           // 0 where there is none
    u8 immediate_size = 0;                  // bytes
    u8 operand_size = 0;                    // bytes of the operation: 1 (opcode of a byte form), 2, 4, 8
    u8 address_size = 0;                    // 2, 4, 8
    SegmentName segment = SegmentName::ds;  // of the memory operand, or of a string's source
    bool segment_override = false;          // by a prefix that counts in this mode
    bool has_modrm = false;
    bool lock = false;
    bool repeat = false;            // F3, the later of F2 and F3 counting
    bool repeat_not_equal = false;  // F2
    bool operand_size_prefix = false;
    bool address_size_prefix = false;
    // MOV of 4 or 8 bytes between memory and a register or from an immediate (89, 8B, C7), in 64-bit code,
    // with a base register, in a flat segment and without prefixes: noted for the emulator's short way.
    bool plain_move = false;

    [[nodiscard]] constexpr unsigned mod() const { return modrm >> 6; }
    // The reg field without its REX bit: the opcode extension of a group.
    [[nodiscard]] constexpr unsigned extension() const { return (modrm >> 3) & 7; }
    [[nodiscard]] constexpr unsigned reg() const { return extension() | ((rex & 4u) << 1); }
    [[nodiscard]] constexpr unsigned rm() const { return (modrm & 7u) | ((rex & 1u) << 3); }
    // The register in the low bits of the opcode (PUSH, XCHG, MOV immediate, BSWAP).
    [[nodiscard]] constexpr unsigned opcode_register() const { return (opcode & 7u) | ((rex & 1u) << 3); }
    [[nodiscard]] constexpr bool rex_w() const { return (rex & 8) != 0; }
    [[nodiscard]] constexpr bool repeats() const { return repeat || repeat_not_equal; }
    [[nodiscard]] constexpr bool is(OpcodeMap m, u8 op) const {
        return encoding == Encoding::legacy && map == m && opcode == op;
    }
};

// Decodes the instruction at the start of `bytes`. `instruction` is meaningful only where the result is ok.
// Bytes past the instruction are not looked at.
[[nodiscard]] DecodeStatus decode(Bytes bytes, CodeSize code, Instruction& instruction);

// MOV to or from a control or debug register, CLTS and LMSW: the operands, for the virtual processor to act
// on.
struct ControlRegisterOperands {
    enum class Kind : u8 { write, read, clts, lmsw, smsw };
    Kind kind = Kind::write;
    bool debug = false;       // DR rather than CR
    u8 number = 0;            // CR0-CR15, DR0-DR15
    u8 general_register = 0;  // source or destination; of LMSW and SMSW only where !memory
    bool memory = false;      // LMSW and SMSW: the operand is 16 bits of memory
};

// Nothing for any other instruction. Which numbers exist is the caller's to check. LOCK MOV CR0 is AMD's way
// to name CR8 outside 64-bit code (AMD APM Vol. 3, "MOV CRn").
[[nodiscard]] std::optional<ControlRegisterOperands> control_register_operands(
    const Instruction& instruction);

// The operands of IN, OUT, INS and OUTS as far as the encoding gives them.
struct PortOperands {
    bool in = false;
    bool string = false;
    bool repeat = false;
    u8 size = 1;                    // 1, 2, 4
    std::optional<Port> immediate;  // nothing: DX
};
[[nodiscard]] std::optional<PortOperands> port_operands(const Instruction& instruction);

// INS or OUTS as an exit describes it where the hardware does (VT-x, and AMD-V's EXITINFO1): to be executed
// without fetching and decoding the instruction.
struct StringPort {
    bool in = false;
    bool repeat = false;
    u8 size = 1;                            // 1, 2, 4
    u8 address_size = 8;                    // 2, 4, 8
    SegmentName segment = SegmentName::ds;  // of OUTS
    CodeSize code = CodeSize::bits64;
    u8 length = 0;
};
[[nodiscard]] constexpr Instruction string_port_instruction(const StringPort& port) {
    Instruction instruction;
    instruction.opcode = static_cast<u8>((port.in ? 0x6C : 0x6E) | (port.size > 1 ? 1 : 0));
    instruction.operand_size = port.size;
    instruction.address_size = port.address_size;
    instruction.repeat = port.repeat;
    instruction.segment = port.segment;
    instruction.code = port.code;
    instruction.length = port.length;
    return instruction;
}

}  // namespace bulkhead
