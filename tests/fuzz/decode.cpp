// The instruction decoder: its verdict depends on the instruction's own bytes only, and on all of them.
#include "vmm/decode/decoder.hpp"

#include "tests/fuzz/fuzz.hpp"

using namespace bulkhead;

void fuzz_one(fuzz::Input& in) {
    const auto code = static_cast<CodeSize>(in.below(3));
    const Bytes bytes = in.take(20);
    Instruction whole;
    const DecodeStatus status = decode(bytes, code, whole);
    if (status == DecodeStatus::more_bytes) MUST(bytes.size() < Instruction::max_length);
    if (status != DecodeStatus::ok) return;

    MUST(whole.length >= 1 && whole.length <= Instruction::max_length && whole.length <= bytes.size());
    MUST(whole.operand_size == 1 || whole.operand_size == 2 || whole.operand_size == 4 ||
         whole.operand_size == 8);
    MUST(whole.address_size == 2 || whole.address_size == 4 || whole.address_size == 8);
    MUST(whole.memory.base == MemoryOperand::none || whole.memory.base < 16);
    MUST(whole.memory.index == MemoryOperand::none || whole.memory.index < 32);
    MUST(code == CodeSize::bits64 ? whole.address_size != 2 : whole.address_size != 8);
    MUST(static_cast<u8>(whole.segment) <= static_cast<u8>(SegmentName::gs));
    MUST(whole.code == code);

    // The same from exactly its bytes, and no verdict from fewer.
    for (usize size = 0; size <= whole.length; ++size) {
        const std::unique_ptr<u8[]> copy(new u8[size]);
        if (size != 0) std::memcpy(copy.get(), bytes.data(), size);
        Instruction part;
        const DecodeStatus again = decode({copy.get(), size}, code, part);
        MUST(again == (size < whole.length ? DecodeStatus::more_bytes : DecodeStatus::ok));
        if (again == DecodeStatus::ok) {
            MUST(part.length == whole.length && part.immediate == whole.immediate &&
                 part.opcode == whole.opcode && part.map == whole.map &&
                 part.memory.displacement == whole.memory.displacement);
        }
    }

    if (const auto operands = control_register_operands(whole)) {
        MUST(operands->number < 16 && operands->general_register < 16);
    }
    if (const auto operands = port_operands(whole)) {
        MUST(operands->size == 1 || operands->size == 2 || operands->size == 4);
    }
}
