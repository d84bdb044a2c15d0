// The emulator's inside, shared by its source files: one instruction being executed.
#pragma once

#include "vmm/decode/alu.hpp"
#include "vmm/decode/emulator.hpp"

namespace bulkhead {

// Functions that return bool return false when the instruction ends early; access_.outcome() then says how.
class Emulator {
  public:
    Emulator(EmulationContext& context, const ExecutionMode& mode, const Instruction& instruction,
             const EmulatorOptions& options)
        : context_(context),
          i_(instruction),
          options_(options),
          gprs_(context.gprs()),
          access_(context, mode, options.known) {}

    [[nodiscard]] Outcome run();

  private:
    // A register or memory operand, memory being translated.
    struct Operand {
        bool memory = false;
        u8 reg = 0;
        Translated where{};
    };

    // emulator.cpp
    [[nodiscard]] bool one_byte();
    [[nodiscard]] bool two_byte();
    [[nodiscard]] bool group_5();
    [[nodiscard]] bool unsupported() { return access_.stop(Outcome::Kind::unsupported); }
    [[nodiscard]] bool arithmetic(alu::Operation operation, unsigned form);
    [[nodiscard]] bool modify_rm(alu::Operation operation, u64 b);
    [[nodiscard]] bool test_rm(u64 b);
    [[nodiscard]] bool move_to_rm(u64 value, unsigned size);
    [[nodiscard]] bool extend(unsigned from_size, bool sign);
    [[nodiscard]] bool bit_operation(alu::Operation operation, bool immediate);
    [[nodiscard]] bool exchange();
    [[nodiscard]] bool exchange_add();
    [[nodiscard]] bool compare_exchange();
    [[nodiscard]] bool compare_exchange_8_bytes();
    [[nodiscard]] bool move_big_endian(bool store);
    [[nodiscard]] bool push(u64 value);
    [[nodiscard]] bool pop(u64& value);
    [[nodiscard]] bool pop_rm();
    [[nodiscard]] bool jump(u64 target);
    [[nodiscard]] bool call(u64 target);
    [[nodiscard]] bool check_target(u64& target);
    void port(const PortOperands& operands);

    [[nodiscard]] u64 effective_offset() const;
    [[nodiscard]] bool rm_operand(unsigned size, AccessKind kind, Operand& operand, bool only_operand = true);
    [[nodiscard]] bool memory_operand(u64 offset, unsigned size, AccessKind kind, bool only_operand,
                                      Translated& to);
    [[nodiscard]] bool get(const Operand& operand, unsigned size, u64& value);
    [[nodiscard]] bool put(const Operand& operand, unsigned size, u64 value);
    [[nodiscard]] bool modify(alu::Operation operation, const Operand& operand, unsigned size, u64 b,
                              u64& old, u64& flags);
    [[nodiscard]] u64 register_value(unsigned number, unsigned size) const;
    void set_register(unsigned number, unsigned size, u64 value);
    [[nodiscard]] unsigned stack_size() const;
    [[nodiscard]] u64 flags() const { return context_.read(Register::rflags); }
    void set_flags(u64 value) { context_.write(Register::rflags, value); }
    [[nodiscard]] u64 next_rip() const;

    // string_ops.cpp
    struct StringState;
    [[nodiscard]] bool string();
    [[nodiscard]] bool string_element(StringState& state);
    [[nodiscard]] bool port_string(StringState& state, u64 budget, u64& done);
    [[nodiscard]] bool string_address(const StringState& state, bool destination, u64 bytes, AccessKind kind,
                                      u64& address);

    EmulationContext& context_;
    const Instruction& i_;
    const EmulatorOptions& options_;
    GeneralRegisters& gprs_;
    GuestAccess access_;
    u64 target_rip_ = 0;  // where a transfer goes
    bool transfers_ = false;
};

}  // namespace bulkhead
