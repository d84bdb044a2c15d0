#include "vmm/decode/emulator.hpp"

#include <utility>

#include "vmm/decode/emulator_core.hpp"

namespace bulkhead {

using alu::Operation;

namespace {

constexpr unsigned rax = 0, rdx = 2, rsp = 4;

// Attempts at an atomic read-modify-write before the virtual processor is let go to try again.
constexpr unsigned max_exchange_attempts = 64;

[[nodiscard]] u64 reverse_bytes(u64 value, unsigned size) {
    return __builtin_bswap64(value) >> (64 - 8 * size);
}

// The commonest accesses to devices, cheaply: plain moves outside ring 3, where the hardware has told the
// physical address. False, with nothing done, where anything is out of the ordinary; what is done here is
// exactly what the general path would do.
[[nodiscard]] bool emulate_known_move(EmulationContext& context, const ExecutionMode& mode,
                                      const Instruction& i, const KnownTranslation& known) {
    GeneralRegisters& gprs = context.gprs();
    GuestPhysical address;
    if (!known_move_address(i, gprs, mode.cpl, known, address)) return false;
    const bool load = i.opcode == 0x8B;
    const unsigned size = i.operand_size;
    const u64 mask = size == 8 ? ~u64{0} : 0xFFFFFFFF;
    if (load) {
        u64 value = 0;
        if (!context.read_physical(address, size, value)) return false;
        gprs[i.reg()] = value & mask;
    } else {
        const u64 value = i.opcode == 0xC7 ? i.immediate : gprs[i.reg()];
        if (!context.write_physical(address, size, value & mask)) return false;
    }
    context.write(Register::rip, context.read(Register::rip) + i.length);
    return true;
}

}  // namespace

Outcome emulate(EmulationContext& context, const ExecutionMode& mode, const Instruction& instruction,
                const EmulatorOptions& options) {
    if (emulate_known_move(context, mode, instruction, options.known)) return {};
    return Emulator(context, mode, instruction, options).run();
}

Outcome Emulator::run() {
    bool done = false;
    if (i_.encoding == Encoding::legacy) {
        if (i_.map == OpcodeMap::one_byte) {
            done = one_byte();
        } else {
            done = two_byte();
        }
    } else {
        done = unsupported();
    }
    if (done) context_.write(Register::rip, transfers_ ? target_rip_ : next_rip());
    return access_.outcome();
}

// Outside 64-bit code hardware counts in 32 bits even in 16-bit segments: IP does not wrap at 64 KiB, the
// next fetch faults on the limit instead.
u64 Emulator::next_rip() const {
    const u64 next = context_.read(Register::rip) + i_.length;
    return i_.code == CodeSize::bits64 ? next : next & 0xFFFFFFFF;
}

u64 Emulator::register_value(unsigned number, unsigned size) const {
    // Without REX the numbers 4 to 7 of byte registers are AH, CH, DH and BH.
    if (size == 1 && i_.rex == 0 && (number & ~3u) == 4) return (gprs_[number & 3] >> 8) & 0xFF;
    return gprs_[number] & all_ones(size);
}

void Emulator::set_register(unsigned number, unsigned size, u64 value) {
    switch (size) {
        case 1:
            if (i_.rex == 0 && (number & ~3u) == 4) {
                gprs_[number & 3] = insert(gprs_[number & 3], 15, 8, value & 0xFF);
            } else {
                gprs_[number] = insert(gprs_[number], 7, 0, value & 0xFF);
            }
            break;
        case 2: gprs_[number] = insert(gprs_[number], 15, 0, value & 0xFFFF); break;
        case 4: gprs_[number] = value & 0xFFFFFFFF; break;
        default: gprs_[number] = value; break;
    }
}

u64 Emulator::effective_offset() const {
    const MemoryOperand& m = i_.memory;
    u64 offset = static_cast<u64>(m.displacement);
    if (m.base != MemoryOperand::none) offset += gprs_[m.base];
    if (m.index != MemoryOperand::none) offset += gprs_[m.index] * m.scale;
    if (m.rip_relative) offset += context_.read(Register::rip) + i_.length;
    return offset & all_ones(i_.address_size);
}

bool Emulator::memory_operand(u64 offset, unsigned size, AccessKind kind, bool only_operand, Translated& to) {
    u64 address = 0;
    return access_.linear(i_.segment, offset, size, kind, address) &&
           access_.translate(address, size, kind, only_operand, to);
}

bool Emulator::rm_operand(unsigned size, AccessKind kind, Operand& operand, bool only_operand) {
    if (!i_.memory.present) {
        operand.reg = static_cast<u8>(i_.rm());
        return true;
    }
    operand.memory = true;
    return memory_operand(effective_offset(), size, kind, only_operand, operand.where);
}

bool Emulator::get(const Operand& operand, unsigned size, u64& value) {
    if (operand.memory) return access_.load(operand.where, value);
    value = register_value(operand.reg, size);
    return true;
}

bool Emulator::put(const Operand& operand, unsigned size, u64 value) {
    if (operand.memory) return access_.store(operand.where, value);
    set_register(operand.reg, size, value);
    return true;
}

// operand = operation(operand, b). Locked memory in RAM is changed by one atomic access; a device is read
// once and written once. `old` is what was read, `flags` go in and come out; they are written nowhere.
bool Emulator::modify(Operation operation, const Operand& operand, unsigned size, u64 b, u64& old,
                      u64& flags) {
    if (!get(operand, size, old)) return false;
    const bool locked = i_.lock || operation == Operation::move;
    if (operand.memory && locked && operand.where.first_size == size) {
        for (unsigned attempt = 0; attempt < max_exchange_attempts; ++attempt) {
            const alu::Result result = alu::execute(operation, old, b, size, flags);
            switch (context_.compare_exchange(operand.where.first, size, old, result.value)) {
                case ExchangeResult::exchanged: flags = result.flags; return true;
                case ExchangeResult::changed: old &= all_ones(size); continue;
                case ExchangeResult::not_ram: flags = result.flags; return put(operand, size, result.value);
            }
        }
        return access_.stop(Outcome::Kind::interrupted);
    }
    const alu::Result result = alu::execute(operation, old, b, size, flags);
    flags = result.flags;
    return put(operand, size, result.value);
}

bool Emulator::modify_rm(Operation operation, u64 b) {
    const unsigned size = i_.operand_size;
    Operand operand;
    u64 old = 0;
    u64 result_flags = flags();
    if (!rm_operand(size, AccessKind::write, operand)) return false;
    if (!modify(operation, operand, size, b & all_ones(size), old, result_flags)) return false;
    set_flags(result_flags);
    return true;
}

// TEST, CMP and BT: the operand is read alone.
bool Emulator::test_rm(u64 b) {
    const unsigned size = i_.operand_size;
    Operand operand;
    u64 a = 0;
    if (!rm_operand(size, AccessKind::read, operand) || !get(operand, size, a)) return false;
    set_flags(alu::execute(Operation::test, a, b & all_ones(size), size, flags()).flags);
    return true;
}

// The six forms of the opcodes 00-3F: r/m,r of bytes and words; r,r/m; accumulator and immediate.
bool Emulator::arithmetic(Operation operation, unsigned form) {
    const unsigned size = i_.operand_size;
    if (form < 2 && operation != Operation::cmp) return modify_rm(operation, register_value(i_.reg(), size));
    Operand operand;
    u64 a = 0;
    u64 b = 0;
    unsigned destination = i_.reg();
    if (form < 4) {
        if (!rm_operand(size, AccessKind::read, operand) || !get(operand, size, b)) return false;
        a = register_value(destination, size);
        if (form < 2) std::swap(a, b);
    } else {
        destination = rax;
        a = register_value(rax, size);
        b = i_.immediate & all_ones(size);
    }
    const alu::Result result = alu::execute(operation, a, b, size, flags());
    if (operation != Operation::cmp) set_register(destination, size, result.value);
    set_flags(result.flags);
    return true;
}

bool Emulator::move_to_rm(u64 value, unsigned size) {
    Operand operand;
    return rm_operand(size, AccessKind::write, operand) && put(operand, size, value);
}

// MOVZX, MOVSX and MOVSXD.
bool Emulator::extend(unsigned from_size, bool sign) {
    Operand operand;
    u64 value = 0;
    if (!rm_operand(from_size, AccessKind::read, operand) || !get(operand, from_size, value)) return false;
    set_register(i_.reg(), i_.operand_size, sign ? sign_extend(value, from_size) : value);
    return true;
}

// A bit number in a register reaches beyond the operand: it is signed, and counts from the operand's address.
bool Emulator::bit_operation(Operation operation, bool immediate) {
    const unsigned size = i_.operand_size;
    const u64 number = immediate ? i_.immediate : register_value(i_.reg(), size);
    const AccessKind kind = operation == Operation::bt ? AccessKind::read : AccessKind::write;
    Operand operand;
    if (i_.memory.present && !immediate) {
        const i64 bits = static_cast<i64>(sign_extend(number, size));
        const unsigned shift = static_cast<unsigned>(std::countr_zero(8 * size));
        const u64 displacement = static_cast<u64>(bits >> shift) * size;
        operand.memory = true;
        const u64 offset = (effective_offset() + displacement) & all_ones(i_.address_size);
        if (!memory_operand(offset, size, kind, true, operand.where)) return false;
    } else if (!rm_operand(size, kind, operand)) {
        return false;
    }
    u64 old = 0;
    u64 result_flags = flags();
    if (operation == Operation::bt) {
        if (!get(operand, size, old)) return false;
        result_flags = alu::execute(operation, old, number, size, result_flags).flags;
    } else if (!modify(operation, operand, size, number, old, result_flags)) {
        return false;
    }
    set_flags(result_flags);
    return true;
}

bool Emulator::exchange() {
    const unsigned size = i_.operand_size;
    Operand operand;
    u64 old = 0;
    u64 ignored_flags = 0;
    if (!rm_operand(size, AccessKind::write, operand)) return false;
    if (!modify(Operation::move, operand, size, register_value(i_.reg(), size), old, ignored_flags))
        return false;
    set_register(i_.reg(), size, old);
    return true;
}

bool Emulator::exchange_add() {
    const unsigned size = i_.operand_size;
    Operand operand;
    u64 old = 0;
    u64 result_flags = flags();
    if (!rm_operand(size, AccessKind::write, operand)) return false;
    const u64 addend = register_value(i_.reg(), size);
    if (operand.memory) {
        if (!modify(Operation::add, operand, size, addend, old, result_flags)) return false;
        set_register(i_.reg(), size, old);
    } else {
        // The sum goes to the destination last: XADD of a register with itself doubles it.
        old = register_value(operand.reg, size);
        const alu::Result result = alu::execute(Operation::add, old, addend, size, result_flags);
        set_register(i_.reg(), size, old);
        set_register(operand.reg, size, result.value);
        result_flags = result.flags;
    }
    set_flags(result_flags);
    return true;
}

bool Emulator::compare_exchange() {
    const unsigned size = i_.operand_size;
    Operand operand;
    u64 old = 0;
    if (!rm_operand(size, AccessKind::write, operand) || !get(operand, size, old)) return false;
    const u64 accumulator = register_value(rax, size);
    const u64 source = register_value(i_.reg(), size);
    if (!operand.memory) {
        if (old == accumulator) {
            set_register(operand.reg, size, source);
        } else {
            set_register(rax, size, old);
        }
    } else {
        // Hardware writes whether or not the values are equal, and a device sees that.
        ExchangeResult result = ExchangeResult::not_ram;
        if (operand.where.first_size == size) {
            u64 expected = accumulator;
            result = context_.compare_exchange(operand.where.first, size, expected, source);
            if (result == ExchangeResult::exchanged) old = accumulator;
            if (result == ExchangeResult::changed) old = expected & all_ones(size);
        }
        if (result == ExchangeResult::not_ram && !put(operand, size, old == accumulator ? source : old))
            return false;
        if (old != accumulator) set_register(rax, size, old);
    }
    set_flags(alu::execute(Operation::cmp, accumulator, old, size, flags()).flags);
    return true;
}

bool Emulator::compare_exchange_8_bytes() {
    // 66 has no effect; REX.W makes it CMPXCHG16B.
    if (i_.rex_w()) return unsupported();
    Operand operand;
    u64 old = 0;
    if (!rm_operand(8, AccessKind::write, operand) || !get(operand, 8, old)) return false;
    const u64 accumulator = (gprs_.rdx << 32) | (gprs_.rax & 0xFFFFFFFF);
    const u64 source = (gprs_.rcx << 32) | (gprs_.rbx & 0xFFFFFFFF);
    ExchangeResult result = ExchangeResult::not_ram;
    if (operand.where.first_size == 8) {
        u64 expected = accumulator;
        result = context_.compare_exchange(operand.where.first, 8, expected, source);
        if (result == ExchangeResult::exchanged) old = accumulator;
        if (result == ExchangeResult::changed) old = expected;
    }
    if (result == ExchangeResult::not_ram && !put(operand, 8, old == accumulator ? source : old))
        return false;
    if (old != accumulator) {
        set_register(rax, 4, old);
        set_register(rdx, 4, old >> 32);
    }
    set_flags(alu::with(flags(), rflags::zf, old == accumulator));
    return true;
}

bool Emulator::move_big_endian(bool store) {
    const unsigned size = i_.operand_size;
    if (!i_.memory.present || i_.repeats()) return unsupported();
    if (store) return move_to_rm(reverse_bytes(register_value(i_.reg(), size), size), size);
    Operand operand;
    u64 value = 0;
    if (!rm_operand(size, AccessKind::read, operand) || !get(operand, size, value)) return false;
    set_register(i_.reg(), size, reverse_bytes(value, size));
    return true;
}

unsigned Emulator::stack_size() const {
    if (i_.code == CodeSize::bits64) return 8;
    return context_.segment(SegmentName::ss).default_big() ? 4 : 2;
}

bool Emulator::push(u64 value) {
    const unsigned size = i_.operand_size;
    const unsigned pointer_size = stack_size();
    const u64 top = (gprs_.rsp - size) & all_ones(pointer_size);
    u64 address = 0;
    Translated to;
    if (!access_.linear(SegmentName::ss, top, size, AccessKind::write, address) ||
        !access_.translate(address, size, AccessKind::write, false, to) || !access_.store(to, value))
        return false;
    set_register(rsp, pointer_size, top);
    return true;
}

bool Emulator::pop(u64& value) {
    const unsigned size = i_.operand_size;
    const unsigned pointer_size = stack_size();
    const u64 top = gprs_.rsp & all_ones(pointer_size);
    u64 address = 0;
    Translated from;
    if (!access_.linear(SegmentName::ss, top, size, AccessKind::read, address) ||
        !access_.translate(address, size, AccessKind::read, false, from) || !access_.load(from, value))
        return false;
    set_register(rsp, pointer_size, top + size);
    return true;
}

// The destination's address is computed with RSP already advanced, but a fault leaves RSP alone.
bool Emulator::pop_rm() {
    const u64 old_rsp = gprs_.rsp;
    u64 value = 0;
    if (!pop(value)) return false;
    Operand operand;
    if (rm_operand(i_.operand_size, AccessKind::write, operand, false) &&
        put(operand, i_.operand_size, value))
        return true;
    gprs_.rsp = old_rsp;
    return false;
}

// Cuts a near target to the operand size and checks it.
bool Emulator::check_target(u64& target) {
    if (i_.code == CodeSize::bits64) {
        const bool five_levels =
            !is_canonical(target, false) && (context_.read(Register::cr4) & cr4::la57) != 0;
        return is_canonical(target, five_levels) || access_.raise_general_protection();
    }
    target &= i_.operand_size == 2 ? 0xFFFF : 0xFFFFFFFF;
    return target <= context_.segment(SegmentName::cs).limit || access_.raise_general_protection();
}

bool Emulator::jump(u64 target) {
    if (!check_target(target)) return false;
    target_rip_ = target;
    transfers_ = true;
    return true;
}

bool Emulator::call(u64 target) {
    return check_target(target) && push(next_rip()) && jump(target);
}

void Emulator::port(const PortOperands& operands) {
    const Port number = operands.immediate ? *operands.immediate : Port(static_cast<u16>(gprs_.rdx));
    if (operands.in) {
        set_register(rax, operands.size, context_.port_read(number, operands.size) & all_ones(operands.size));
    } else {
        context_.port_write(number, operands.size, static_cast<u32>(gprs_.rax & all_ones(operands.size)));
    }
}

bool Emulator::group_5() {
    u64 value = 0;
    const unsigned size = i_.operand_size;
    switch (i_.extension()) {
        case 0: return modify_rm(Operation::inc, 0);
        case 1: return modify_rm(Operation::dec, 0);
        case 2:
        case 4:
        case 6: {
            Operand operand;
            if (!rm_operand(size, AccessKind::read, operand, i_.extension() == 4) ||
                !get(operand, size, value))
                return false;
            if (i_.extension() == 2) return call(value);
            return i_.extension() == 4 ? jump(value) : push(value);
        }
        default: return unsupported();
    }
}

bool Emulator::one_byte() {
    const u8 opcode = i_.opcode;
    const unsigned size = i_.operand_size;
    Operand operand;
    u64 value = 0;
    switch (opcode) {
        // The commonest accesses to devices first.
        case 0x88:
        case 0x89: return move_to_rm(register_value(i_.reg(), size), size);
        case 0x8A:
        case 0x8B:
            if (!rm_operand(size, AccessKind::read, operand) || !get(operand, size, value)) return false;
            set_register(i_.reg(), size, value);
            return true;
        case 0xC6:
        case 0xC7:
            if (i_.extension() != 0) return unsupported();  // XABORT, XBEGIN
            return move_to_rm(i_.immediate, size);
        case 0x63:
            if (i_.code != CodeSize::bits64) return unsupported();  // ARPL
            return extend(size == 2 ? 2 : 4, true);
        case 0x68:
        case 0x6A: return push(i_.immediate);
        case 0x6C:
        case 0x6D:
        case 0x6E:
        case 0x6F:
        case 0xA4:
        case 0xA5:
        case 0xA6:
        case 0xA7:
        case 0xAA:
        case 0xAB:
        case 0xAC:
        case 0xAD:
        case 0xAE:
        case 0xAF: return string();
        case 0x80:
        case 0x81:
        case 0x82:
        case 0x83: {
            const auto operation = static_cast<Operation>(i_.extension());
            if (operation != Operation::cmp) return modify_rm(operation, i_.immediate);
            if (!rm_operand(size, AccessKind::read, operand) || !get(operand, size, value)) return false;
            set_flags(alu::execute(operation, value, i_.immediate & all_ones(size), size, flags()).flags);
            return true;
        }
        case 0x84:
        case 0x85: return test_rm(register_value(i_.reg(), size));
        case 0x86:
        case 0x87: return exchange();
        case 0x8C:
            // Memory takes 16 bits whatever the operand size, a register is zero-extended.
            value = context_.segment(static_cast<SegmentName>(i_.extension())).selector;
            return move_to_rm(value, i_.memory.present ? 2 : size);
        case 0x8D: set_register(i_.reg(), size, effective_offset()); return true;
        case 0x8F: return pop_rm();
        case 0xA0:
        case 0xA1:
            if (!rm_operand(size, AccessKind::read, operand) || !get(operand, size, value)) return false;
            set_register(rax, size, value);
            return true;
        case 0xA2:
        case 0xA3: return move_to_rm(register_value(rax, size), size);
        case 0xA8:
        case 0xA9:
            set_flags(alu::execute(Operation::test, register_value(rax, size), i_.immediate & all_ones(size),
                                   size, flags())
                          .flags);
            return true;
        case 0xC0:
        case 0xC1: return modify_rm(static_cast<Operation>(8 + i_.extension()), i_.immediate & 0xFF);
        case 0xD0:
        case 0xD1: return modify_rm(static_cast<Operation>(8 + i_.extension()), 1);
        case 0xD2:
        case 0xD3: return modify_rm(static_cast<Operation>(8 + i_.extension()), gprs_.rcx & 0xFF);
        case 0xC3: {
            const u64 old_rsp = gprs_.rsp;
            if (pop(value) && jump(value)) return true;
            gprs_.rsp = old_rsp;
            return false;
        }
        case 0xE8: return call(next_rip() + i_.immediate);
        case 0xE4:
        case 0xE5:
        case 0xE6:
        case 0xE7:
        case 0xEC:
        case 0xED:
        case 0xEE:
        case 0xEF: port(*port_operands(i_)); return true;
        case 0xF6:
        case 0xF7:
            switch (i_.extension()) {
                case 0:
                case 1: return test_rm(i_.immediate);
                case 2: return modify_rm(Operation::not_, 0);
                case 3: return modify_rm(Operation::neg, 0);
                default: return unsupported();
            }
        case 0xFE: return modify_rm(i_.extension() == 0 ? Operation::inc : Operation::dec, 0);
        case 0xFF: return group_5();
        default: break;
    }
    if (opcode < 0x40) {
        if ((opcode & 7) > 5) return unsupported();
        return arithmetic(static_cast<Operation>(opcode >> 3), opcode & 7);
    }
    if (opcode < 0x50) {  // only outside 64-bit code
        const auto operation = opcode < 0x48 ? Operation::inc : Operation::dec;
        const unsigned number = opcode & 7;
        const alu::Result result = alu::execute(operation, register_value(number, size), 0, size, flags());
        set_register(number, size, result.value);
        set_flags(result.flags);
        return true;
    }
    if (opcode < 0x58) return push(register_value(i_.opcode_register(), size));
    if (opcode < 0x60) {
        if (!pop(value)) return false;
        set_register(i_.opcode_register(), size, value);
        return true;
    }
    if (opcode >= 0xB0 && opcode < 0xC0) {
        set_register(i_.opcode_register(), size, i_.immediate);
        return true;
    }
    return unsupported();
}

bool Emulator::two_byte() {
    const u8 opcode = i_.opcode;
    const unsigned size = i_.operand_size;
    if (i_.map == OpcodeMap::map_0f38) {
        if (opcode == 0xF0 || opcode == 0xF1) return move_big_endian(opcode == 0xF1);
        return unsupported();
    }
    if (i_.map != OpcodeMap::map_0f) return unsupported();
    Operand operand;
    u64 value = 0;
    if ((opcode & 0xF0) == 0x40) {  // CMOVcc reads its operand, and writes its register, in any case
        if (!rm_operand(size, AccessKind::read, operand) || !get(operand, size, value)) return false;
        if (!alu::condition(opcode, flags())) value = register_value(i_.reg(), size);
        set_register(i_.reg(), size, value);
        return true;
    }
    if ((opcode & 0xF0) == 0x90) return move_to_rm(alu::condition(opcode, flags()) ? 1 : 0, 1);
    switch (opcode) {
        case 0xA3: return bit_operation(Operation::bt, false);
        case 0xAB: return bit_operation(Operation::bts, false);
        case 0xB3: return bit_operation(Operation::btr, false);
        case 0xBB: return bit_operation(Operation::btc, false);
        case 0xBA: {
            constexpr Operation operations[] = {Operation::bt, Operation::bts, Operation::btr,
                                                Operation::btc};
            return bit_operation(operations[i_.extension() & 3], true);
        }
        case 0xB0:
        case 0xB1: return compare_exchange();
        case 0xB6: return extend(1, false);
        case 0xB7: return extend(2, false);
        case 0xBE: return extend(1, true);
        case 0xBF: return extend(2, true);
        case 0xC0:
        case 0xC1: return exchange_add();
        case 0xC3: return move_to_rm(register_value(i_.reg(), size), size);  // MOVNTI
        case 0xC7:
            if (i_.extension() != 1 || !i_.memory.present) return unsupported();
            return compare_exchange_8_bytes();
        default: return unsupported();
    }
}

}  // namespace bulkhead
