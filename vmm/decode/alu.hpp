// The integer operations of x86 and their flags, on values of 1, 2, 4 or 8 bytes.
// Intel SDM Vol. 2 and Vol. 1, appendix A (June 2023 edition). Flags that the manual leaves undefined come
// out as Intel's processors have them where that is simple: AF clear after logic, OF of a rotation by any
// count computed as by one.
#pragma once

#include <bit>

#include "arch/x86/regs/control.hpp"
#include "kernel/base/bits.hpp"

namespace bulkhead::alu {

enum class Operation : u8 {
    // In the order of the opcodes 00-3F and of group 1.
    add,
    or_,
    adc,
    sbb,
    and_,
    sub,
    xor_,
    cmp,
    // In the order of group 2.
    rol,
    ror,
    rcl,
    rcr,
    shl,
    shr,
    shl_alias,
    sar,
    test,
    inc,
    dec,
    not_,
    neg,
    bt,
    bts,
    btr,
    btc,   // b: the bit's number within the operand
    move,  // the result is b
};

struct Result {
    u64 value = 0;
    u64 flags = 0;  // RFLAGS with the operation's flags replaced
};

[[nodiscard]] constexpr u64 top_bit(u64 value, unsigned size) {
    return (value >> (8 * size - 1)) & 1;
}

// SF, ZF and PF of a result that is cut to `size` bytes.
[[nodiscard]] constexpr u64 result_flags(u64 value, unsigned size) {
    u64 flags = 0;
    if (value == 0) flags |= rflags::zf;
    if (top_bit(value, size) != 0) flags |= rflags::sf;
    if ((std::popcount(value & 0xFF) & 1) == 0) flags |= rflags::pf;
    return flags;
}

[[nodiscard]] constexpr Result add(u64 a, u64 b, u64 carry_in, unsigned size, u64 flags) {
    const u64 mask = all_ones(size);
    const u64 value = (a + b + carry_in) & mask;
    // The carry out of each bit, from the operands and the sum.
    const u64 carries = (a & b) | ((a | b) & ~value);
    u64 set = result_flags(value, size);
    if (top_bit(carries, size) != 0) set |= rflags::cf;
    if (has_bit(carries, 3)) set |= rflags::af;
    if (top_bit((a ^ value) & (b ^ value), size) != 0) set |= rflags::of;
    return {value, (flags & ~rflags::arithmetic) | set};
}

[[nodiscard]] constexpr Result subtract(u64 a, u64 b, u64 borrow_in, unsigned size, u64 flags) {
    const u64 mask = all_ones(size);
    const u64 value = (a - b - borrow_in) & mask;
    const u64 borrows = (~a & b) | ((~a | b) & value);
    u64 set = result_flags(value, size);
    if (top_bit(borrows, size) != 0) set |= rflags::cf;
    if (has_bit(borrows, 3)) set |= rflags::af;
    if (top_bit((a ^ b) & (a ^ value), size) != 0) set |= rflags::of;
    return {value, (flags & ~rflags::arithmetic) | set};
}

[[nodiscard]] constexpr Result logic(u64 value, unsigned size, u64 flags) {
    return {value, (flags & ~rflags::arithmetic) | result_flags(value, size)};
}

// The carry into (rotations through carry) or out of an operation.
[[nodiscard]] constexpr u64 with(u64 flags, u64 flag, bool on) {
    return on ? flags | flag : flags & ~flag;
}

[[nodiscard]] constexpr Result rotate(Operation operation, u64 a, u64 count, unsigned size, u64 flags) {
    const unsigned width = 8 * size;
    const u64 mask = all_ones(size);
    count &= size == 8 ? 63 : 31;
    if (count == 0) return {a, flags};
    bool carry = (flags & rflags::cf) != 0;
    u64 value = a;
    switch (operation) {
        case Operation::rol:
        case Operation::ror: {
            const unsigned by = static_cast<unsigned>(count % width);
            const unsigned left = operation == Operation::rol ? by : (width - by) % width;
            if (left != 0) value = ((a << left) | (a >> (width - left))) & mask;
            carry = operation == Operation::rol ? (value & 1) != 0 : top_bit(value, size) != 0;
            break;
        }
        default:
            // Through carry: a ring of width + 1 bits. At most 63 steps.
            for (u64 n = count % (width + 1); n != 0; --n) {
                if (operation == Operation::rcl) {
                    const bool out = top_bit(value, size) != 0;
                    value = ((value << 1) | (carry ? 1 : 0)) & mask;
                    carry = out;
                } else {
                    const bool out = (value & 1) != 0;
                    value = (value >> 1) | (carry ? bit(width - 1) : 0);
                    carry = out;
                }
            }
            break;
    }
    const bool left = operation == Operation::rol || operation == Operation::rcl;
    const bool top = top_bit(value, size) != 0;
    const bool overflow = left ? top != carry : top != has_bit(value, width - 2);
    flags = with(flags, rflags::cf, carry);
    return {value, with(flags, rflags::of, overflow)};
}

[[nodiscard]] constexpr Result shift(Operation operation, u64 a, u64 count, unsigned size, u64 flags) {
    const unsigned width = 8 * size;
    count &= size == 8 ? 63 : 31;
    if (count == 0) return {a, flags};
    u64 value = 0;
    bool carry = false;
    bool overflow = false;
    switch (operation) {
        case Operation::shr:
            carry = count <= width && has_bit(a, static_cast<unsigned>(count - 1));
            value = count < width ? a >> count : 0;
            overflow = top_bit(a, size) != 0;
            break;
        case Operation::sar: {
            const u64 extended = sign_extend(a, size);
            carry = has_bit(static_cast<u64>(static_cast<i64>(extended) >> (count - 1)), 0);
            value = static_cast<u64>(static_cast<i64>(extended) >> count) & all_ones(size);
            break;
        }
        default:
            carry = count <= width && has_bit(a, static_cast<unsigned>(width - count));
            value = count < width ? (a << count) & all_ones(size) : 0;
            overflow = (top_bit(value, size) != 0) != carry;
            break;
    }
    u64 set = result_flags(value, size);
    if (carry) set |= rflags::cf;
    if (overflow) set |= rflags::of;
    return {value, (flags & ~rflags::arithmetic) | set};
}

// a, b: cut to `size` bytes. Of compare, test and bt the value is `a` unchanged.
[[nodiscard]] constexpr Result execute(Operation operation, u64 a, u64 b, unsigned size, u64 flags) {
    const u64 carry = (flags & rflags::cf) != 0 ? 1 : 0;
    const auto without_value = [a](Result result) {
        result.value = a;
        return result;
    };
    const auto keep_carry = [flags](Result result) {
        result.flags = (result.flags & ~rflags::cf) | (flags & rflags::cf);
        return result;
    };
    switch (operation) {
        case Operation::add: return add(a, b, 0, size, flags);
        case Operation::adc: return add(a, b, carry, size, flags);
        case Operation::sub: return subtract(a, b, 0, size, flags);
        case Operation::sbb: return subtract(a, b, carry, size, flags);
        case Operation::cmp: return without_value(subtract(a, b, 0, size, flags));
        case Operation::or_: return logic(a | b, size, flags);
        case Operation::and_: return logic(a & b, size, flags);
        case Operation::xor_: return logic(a ^ b, size, flags);
        case Operation::test: return without_value(logic(a & b, size, flags));
        case Operation::inc: return keep_carry(add(a, 1, 0, size, flags));
        case Operation::dec: return keep_carry(subtract(a, 1, 0, size, flags));
        case Operation::not_: return {~a & all_ones(size), flags};
        case Operation::neg: return subtract(0, a, 0, size, flags);
        case Operation::rol:
        case Operation::ror:
        case Operation::rcl:
        case Operation::rcr: return rotate(operation, a, b, size, flags);
        case Operation::shl:
        case Operation::shr:
        case Operation::shl_alias:
        case Operation::sar: return shift(operation, a, b, size, flags);
        case Operation::bt:
        case Operation::bts:
        case Operation::btr:
        case Operation::btc: {
            const u64 mask = bit(static_cast<unsigned>(b & (8 * size - 1)));
            const u64 result_carry = with(flags, rflags::cf, (a & mask) != 0);
            if (operation == Operation::bts) return {a | mask, result_carry};
            if (operation == Operation::btr) return {a & ~mask, result_carry};
            if (operation == Operation::btc) return {a ^ mask, result_carry};
            return {a, result_carry};
        }
        case Operation::move: return {b, flags};
    }
    return {a, flags};
}

// Whether the condition of Jcc, SETcc and CMOVcc (low four bits of the opcode) holds.
[[nodiscard]] constexpr bool condition(unsigned code, u64 flags) {
    const auto on = [flags](u64 flag) { return (flags & flag) != 0; };
    bool result = false;
    switch ((code >> 1) & 7) {
        case 0: result = on(rflags::of); break;
        case 1: result = on(rflags::cf); break;
        case 2: result = on(rflags::zf); break;
        case 3: result = on(rflags::cf | rflags::zf); break;
        case 4: result = on(rflags::sf); break;
        case 5: result = on(rflags::pf); break;
        case 6: result = on(rflags::sf) != on(rflags::of); break;
        default: result = on(rflags::zf) || on(rflags::sf) != on(rflags::of); break;
    }
    return result != ((code & 1) != 0);
}

}  // namespace bulkhead::alu
