// The decoder by hand: what every exiting instruction measures, prefix quirks, refusals.
#include "vmm/decode/decoder.hpp"

#include <catch2/catch.hpp>
#include <initializer_list>
#include <vector>

namespace bulkhead {
namespace {

struct Decoded {
    DecodeStatus status;
    Instruction instruction;
};

Decoded decode_bytes(std::initializer_list<u8> list, CodeSize code = CodeSize::bits64) {
    const std::vector<u8> bytes(list);
    Decoded result{};
    result.status = decode(bytes, code, result.instruction);
    return result;
}

unsigned length_of(std::initializer_list<u8> list, CodeSize code = CodeSize::bits64) {
    const Decoded decoded = decode_bytes(list, code);
    REQUIRE(decoded.status == DecodeStatus::ok);
    return decoded.instruction.length;
}

DecodeStatus status_of(std::initializer_list<u8> list, CodeSize code = CodeSize::bits64) {
    return decode_bytes(list, code).status;
}

}  // namespace

TEST_CASE("every instruction that exits has the length its encoding says, in all three code sizes") {
    for (const CodeSize code : {CodeSize::bits16, CodeSize::bits32, CodeSize::bits64}) {
        CHECK(length_of({0x0F, 0xA2}, code) == 2);        // CPUID
        CHECK(length_of({0xF3, 0x0F, 0xA2}, code) == 3);  // with a prefix that means nothing
        CHECK(length_of({0x0F, 0x32}, code) == 2);        // RDMSR
        CHECK(length_of({0x0F, 0x30}, code) == 2);        // WRMSR
        CHECK(length_of({0xE4, 0x80}, code) == 2);        // IN AL, imm8
        CHECK(length_of({0xE7, 0x80}, code) == 2);        // OUT imm8, eAX
        CHECK(length_of({0x66, 0xED}, code) == 2);        // IN eAX, DX
        CHECK(length_of({0xF3, 0x6E}, code) == 2);        // REP OUTSB
        CHECK(length_of({0xF4}, code) == 1);              // HLT
        CHECK(length_of({0x0F, 0x22, 0xC0}, code) == 3);  // MOV CR0, eAX
        CHECK(length_of({0x0F, 0x20, 0x05}, code) == 3);  // MOV from CR0 with mod 0: still a register
        CHECK(length_of({0x0F, 0x23, 0xF8}, code) == 3);  // MOV DR7, eAX
        CHECK(length_of({0x0F, 0x01, 0xD1}, code) == 3);  // XSETBV
        CHECK(length_of({0x0F, 0x01, 0xD9}, code) == 3);  // VMMCALL
        CHECK(length_of({0x0F, 0x01, 0xC1}, code) == 3);  // VMCALL
        CHECK(length_of({0x0F, 0x09}, code) == 2);        // WBINVD
        CHECK(length_of({0x0F, 0x08}, code) == 2);        // INVD
        CHECK(length_of({0x0F, 0x31}, code) == 2);        // RDTSC
        CHECK(length_of({0x0F, 0x33}, code) == 2);        // RDPMC
        CHECK(length_of({0x0F, 0x01, 0xF9}, code) == 3);  // RDTSCP
        CHECK(length_of({0x0F, 0x01, 0xC8}, code) == 3);  // MONITOR
        CHECK(length_of({0x0F, 0x01, 0xC9}, code) == 3);  // MWAIT
        CHECK(length_of({0xF3, 0x90}, code) == 2);        // PAUSE
        CHECK(length_of({0x0F, 0x06}, code) == 2);        // CLTS
        CHECK(length_of({0x0F, 0x01, 0xF0}, code) == 3);  // LMSW AX
    }
    CHECK(length_of({0x0F, 0x01, 0x3C, 0x25, 0, 0, 0, 0}) == 8);        // INVLPG [disp32]
    CHECK(length_of({0x0F, 0x01, 0x15, 0, 0, 0, 0}) == 7);              // LGDT [RIP + 0]
    CHECK(length_of({0x0F, 0x01, 0x16, 0, 0}, CodeSize::bits16) == 5);  // LGDT [disp16]
    CHECK(length_of({0x67, 0x0F, 0x01, 0x16}, CodeSize::bits16) == 4);  // LGDT [ESI]
    CHECK(length_of({0x66, 0x0F, 0x38, 0x82, 0x04, 0x24}) == 6);        // INVPCID
}

TEST_CASE("the last segment prefix wins, and in 64-bit code only FS and GS are prefixes") {
    CHECK(decode_bytes({0x26, 0x65, 0x8B, 0x00}, CodeSize::bits32).instruction.segment == SegmentName::gs);
    CHECK(decode_bytes({0x65, 0x26, 0x8B, 0x00}, CodeSize::bits32).instruction.segment == SegmentName::es);
    CHECK(decode_bytes({0x65, 0x26, 0x8B, 0x00}).instruction.segment == SegmentName::gs);
    CHECK(decode_bytes({0x36, 0x8B, 0x00}).instruction.segment == SegmentName::ds);
    CHECK(decode_bytes({0x8B, 0x45, 0x00}).instruction.segment == SegmentName::ss);
    CHECK(decode_bytes({0x49, 0x8B, 0x45, 0x00}).instruction.segment == SegmentName::ds);  // R13
}

TEST_CASE("REX counts only directly before the opcode") {
    CHECK(decode_bytes({0x48, 0x89, 0x00}).instruction.operand_size == 8);
    CHECK(decode_bytes({0x48, 0x66, 0x89, 0x00}).instruction.operand_size == 2);
    CHECK(decode_bytes({0x66, 0x48, 0x89, 0x00}).instruction.operand_size == 8);
    CHECK(decode_bytes({0x48, 0x41, 0x89, 0x00}).instruction.rex == 0x41);
}

TEST_CASE("LOCK is refused wherever the manual does not list the instruction") {
    CHECK(status_of({0xF0, 0x01, 0x00}) == DecodeStatus::ok);       // ADD [RAX], EAX
    CHECK(status_of({0xF0, 0x01, 0xC0}) == DecodeStatus::invalid);  // register destination
    CHECK(status_of({0xF0, 0x03, 0x00}) == DecodeStatus::invalid);  // ADD EAX, [RAX]
    CHECK(status_of({0xF0, 0x39, 0x00}) == DecodeStatus::invalid);  // CMP
    CHECK(status_of({0xF0, 0x83, 0x38, 0}) == DecodeStatus::invalid);
    CHECK(status_of({0xF0, 0x89, 0x00}) == DecodeStatus::invalid);           // MOV
    CHECK(status_of({0xF0, 0x87, 0x00}) == DecodeStatus::ok);                // XCHG
    CHECK(status_of({0xF0, 0x0F, 0xA3, 0x00}) == DecodeStatus::invalid);     // BT
    CHECK(status_of({0xF0, 0x0F, 0xBA, 0x20, 0}) == DecodeStatus::invalid);  // BT imm8
    CHECK(status_of({0xF0, 0x0F, 0xBA, 0x28, 0}) == DecodeStatus::ok);       // BTS imm8
    CHECK(status_of({0xF0, 0x0F, 0xC7, 0x08}) == DecodeStatus::ok);          // CMPXCHG8B
    CHECK(status_of({0xF0, 0x90}) == DecodeStatus::invalid);                 // NOP
    CHECK(status_of({0xF0, 0x0F, 0xA2}) == DecodeStatus::invalid);           // CPUID
    CHECK(status_of({0xF0, 0xF4}) == DecodeStatus::invalid);                 // HLT
}

TEST_CASE("undefined opcodes, stray REX and prefixes before VEX are refused") {
    CHECK(status_of({0x0F, 0x0B}) == DecodeStatus::invalid);  // UD2
    CHECK(status_of({0x0F, 0x24, 0xC0}) == DecodeStatus::invalid);
    CHECK(status_of({0x06}) == DecodeStatus::invalid);  // PUSH ES in 64-bit code
    CHECK(status_of({0x06}, CodeSize::bits32) == DecodeStatus::ok);
    CHECK(status_of({0xC5, 0xF8, 0x28, 0x00}) == DecodeStatus::ok);
    CHECK(status_of({0x48, 0xC5, 0xF8, 0x28, 0x00}) == DecodeStatus::invalid);
    CHECK(status_of({0x66, 0xC5, 0xF8, 0x28, 0x00}) == DecodeStatus::invalid);
    CHECK(status_of({0xF0, 0xC5, 0xF8, 0x28, 0x00}) == DecodeStatus::invalid);
    CHECK(status_of({0xC5, 0x38, 0x28, 0x00}, CodeSize::bits32) == DecodeStatus::ok);  // LDS
    CHECK(status_of({0x0F, 0x0B, 0x78, 0x65, 0x6E}) == DecodeStatus::invalid);         // forced emulation
}

TEST_CASE("the sixteenth byte is never reached") {
    std::vector<u8> bytes(15, 0x66);
    Instruction i;
    CHECK(decode(bytes, CodeSize::bits64, i) == DecodeStatus::too_long);
    bytes[14] = 0x90;
    CHECK(decode(bytes, CodeSize::bits64, i) == DecodeStatus::ok);
    CHECK(i.length == 15);
    bytes[13] = 0x0F;
    bytes[14] = 0xA2;
    CHECK(decode(bytes, CodeSize::bits64, i) == DecodeStatus::ok);
    bytes[13] = 0x89;
    bytes[14] = 0x05;  // needs a displacement
    CHECK(decode(bytes, CodeSize::bits64, i) == DecodeStatus::too_long);
    CHECK(decode(Bytes(bytes.data(), 14), CodeSize::bits64, i) == DecodeStatus::more_bytes);
    CHECK(decode({}, CodeSize::bits64, i) == DecodeStatus::more_bytes);
}

TEST_CASE("control register moves yield their operands") {
    using Kind = ControlRegisterOperands::Kind;
    auto operands = control_register_operands(decode_bytes({0x45, 0x0F, 0x22, 0xC3}).instruction);
    REQUIRE(operands);
    CHECK(operands->kind == Kind::write);
    CHECK(operands->number == 8);
    CHECK(operands->general_register == 11);
    operands = control_register_operands(decode_bytes({0x0F, 0x21, 0xF9}).instruction);
    REQUIRE(operands);
    CHECK(operands->debug);
    CHECK(operands->kind == Kind::read);
    CHECK(operands->number == 7);
    CHECK(operands->general_register == 1);
    operands =
        control_register_operands(decode_bytes({0xF0, 0x0F, 0x20, 0xC1}, CodeSize::bits32).instruction);
    REQUIRE(operands);
    CHECK(operands->number == 8);
    operands = control_register_operands(decode_bytes({0x0F, 0x01, 0x30}).instruction);
    REQUIRE(operands);
    CHECK(operands->kind == Kind::lmsw);
    CHECK(operands->memory);
    CHECK(control_register_operands(decode_bytes({0x0F, 0x06}).instruction)->kind == Kind::clts);
    CHECK_FALSE(control_register_operands(decode_bytes({0x0F, 0xA2}).instruction));
}

TEST_CASE("port instructions yield size, direction and immediate port") {
    auto operands = port_operands(decode_bytes({0xE5, 0xFE}).instruction);
    REQUIRE(operands);
    CHECK(operands->in);
    CHECK(operands->size == 4);
    CHECK(operands->immediate == Port(0xFE));
    operands = port_operands(decode_bytes({0x66, 0xEF}).instruction);
    REQUIRE(operands);
    CHECK_FALSE(operands->in);
    CHECK(operands->size == 2);
    CHECK_FALSE(operands->immediate);
    operands = port_operands(decode_bytes({0xF3, 0x48, 0x6D}).instruction);
    REQUIRE(operands);
    CHECK(operands->string);
    CHECK(operands->repeat);
    CHECK(operands->size == 4);
    CHECK_FALSE(port_operands(decode_bytes({0x90}).instruction));
}

TEST_CASE("instructions between registers have no memory form") {
    for (const u8 opcode : {0x50, 0x71, 0x72, 0x73, 0xC5, 0xD7, 0xF7}) {
        // MOVMSKPS, the shifts by an immediate (/2), PEXTRW, PMOVMSKB, MASKMOVQ
        CAPTURE(unsigned{opcode});
        CHECK(decode_bytes({0x0F, opcode, 0x10, 0x00}).status == DecodeStatus::invalid);
        CHECK(decode_bytes({0x0F, opcode, 0xD0, 0x00}).status == DecodeStatus::ok);
    }
}

}  // namespace bulkhead
