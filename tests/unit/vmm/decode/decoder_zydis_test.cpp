// The decoder against Zydis: lengths, operands and memory operands of random and generated instructions.
#include "vmm/decode/decoder.hpp"

#include <Zydis/Zydis.h>

#include <catch2/catch.hpp>
#include <cstdio>
#include <cstring>
#include <random>
#include <string>
#include <vector>

namespace bulkhead {
namespace {

struct Oracle {
    explicit Oracle(CodeSize code) {
        switch (code) {
            case CodeSize::bits16:
                ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16);
                break;
            case CodeSize::bits32:
                ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
                break;
            case CodeSize::bits64:
                ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
                break;
        }
    }
    ZydisDecoder decoder{};
    ZydisDecodedInstruction instruction{};
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
};

// Where the decoder promises to tell defined from undefined opcodes.
bool is_vetted(const Instruction& i) {
    if (i.encoding != Encoding::legacy) return false;
    const u8 op = i.opcode;
    if (i.map == OpcodeMap::one_byte) return op < 0xD8 || op > 0xDF;
    if (i.map != OpcodeMap::map_0f) return false;
    const auto in = [op](u8 first, u8 last) { return op >= first && op <= last; };
    if (in(0x20, 0x23)) return !i.lock;  // Zydis does not know AMD's LOCK MOV CR0
    return op == 0x00 || in(0x02, 0x0D) || in(0x24, 0x27) || in(0x30, 0x36) || in(0x40, 0x4F) ||
           in(0x80, 0xA5) || in(0xA8, 0xAD) || in(0xAF, 0xC1) || op == 0xC3 || in(0xC8, 0xCF);
}

// What only other makers' processors know: VIA's PadLock, and Knights Corner's mask branches in VEX.
bool is_foreign(const ZydisDecodedInstruction& z) {
    if (z.meta.category == ZYDIS_CATEGORY_PADLOCK) return true;
    return z.meta.isa_set == ZYDIS_ISA_SET_KNCE || z.meta.isa_set == ZYDIS_ISA_SET_KNCJKBR ||
           z.encoding == ZYDIS_INSTRUCTION_ENCODING_MVEX;
}

bool is_explicitly_undefined(const ZydisDecodedInstruction& z) {
    return z.mnemonic == ZYDIS_MNEMONIC_UD0 || z.mnemonic == ZYDIS_MNEMONIC_UD1 ||
           z.mnemonic == ZYDIS_MNEMONIC_UD2;
}

u8 register_number(ZydisRegister reg) {
    return reg == ZYDIS_REGISTER_NONE ? MemoryOperand::none : static_cast<u8>(ZydisRegisterGetId(reg));
}

SegmentName segment_of(ZydisRegister reg) {
    switch (reg) {
        case ZYDIS_REGISTER_ES: return SegmentName::es;
        case ZYDIS_REGISTER_CS: return SegmentName::cs;
        case ZYDIS_REGISTER_SS: return SegmentName::ss;
        case ZYDIS_REGISTER_FS: return SegmentName::fs;
        case ZYDIS_REGISTER_GS: return SegmentName::gs;
        default: return SegmentName::ds;
    }
}

// An empty string, or how `mine` differs from Zydis's view.
std::string difference(const Instruction& mine, const Oracle& oracle) {
    const ZydisDecodedInstruction& z = oracle.instruction;
    if (mine.length != z.length) return "length";
    if (mine.has_modrm != ((z.attributes & ZYDIS_ATTRIB_HAS_MODRM) != 0)) return "modrm presence";
    // MPX and SGX instructions have an address size of their own, beside the encoding's.
    if (z.meta.isa_set != ZYDIS_ISA_SET_MPX && z.meta.category != ZYDIS_CATEGORY_SGX &&
        mine.address_size * 8 != z.address_width)
        return "address size";
    if (mine.is(OpcodeMap::map_0f, 0x0F)) return "";  // Zydis calls the immediate of 3DNow! the opcode
    if (mine.opcode != z.opcode) return "opcode";
    if (mine.encoding != Encoding::legacy) return "";
    if (mine.immediate_size * 8 != z.raw.imm[0].size) return "immediate size";
    if (mine.immediate_size != 0) {
        const u64 mask = all_ones(mine.immediate_size);
        if ((mine.immediate & mask) != (z.raw.imm[0].value.u & mask)) return "immediate";
        if (sign_extend(mine.immediate, mine.immediate_size) != mine.immediate) return "immediate extension";
    }
    if (z.raw.imm[1].size != 0 && mine.second_immediate != z.raw.imm[1].value.u) return "second immediate";
    if (mine.lock != ((z.attributes & ZYDIS_ATTRIB_HAS_LOCK) != 0)) return "lock";
    // Operand sizes of the instructions that are executed, or that name a general register.
    const bool sized =
        is_vetted(mine) &&
        (z.meta.category == ZYDIS_CATEGORY_BINARY || z.meta.category == ZYDIS_CATEGORY_LOGICAL ||
         z.meta.category == ZYDIS_CATEGORY_DATAXFER || z.meta.category == ZYDIS_CATEGORY_BITBYTE ||
         z.meta.category == ZYDIS_CATEGORY_ROTATE || z.meta.category == ZYDIS_CATEGORY_SHIFT ||
         z.meta.category == ZYDIS_CATEGORY_STRINGOP || z.meta.category == ZYDIS_CATEGORY_PUSH ||
         z.meta.category == ZYDIS_CATEGORY_POP || z.meta.category == ZYDIS_CATEGORY_SEMAPHORE ||
         z.meta.category == ZYDIS_CATEGORY_CMOV);
    if (sized && mine.operand_size * 8 != z.operand_width) return "operand size";
    if (!is_vetted(mine)) return "";
    for (unsigned n = 0; n < z.operand_count; ++n) {
        const ZydisDecodedOperand& operand = oracle.operands[n];
        if (operand.type != ZYDIS_OPERAND_TYPE_MEMORY ||
            operand.visibility != ZYDIS_OPERAND_VISIBILITY_EXPLICIT)
            continue;
        const MemoryOperand& m = mine.memory;
        if (!m.present) return "memory presence";
        if (segment_of(operand.mem.segment) != mine.segment && z.mnemonic != ZYDIS_MNEMONIC_LEA &&
            (z.attributes & ZYDIS_ATTRIB_HAS_NOTRACK) == 0)
            return "segment";
        if (m.rip_relative !=
            (operand.mem.base == ZYDIS_REGISTER_RIP || operand.mem.base == ZYDIS_REGISTER_EIP))
            return "rip relative";
        // Zydis 4.0 finds R13D in a SIB byte without base if REX.B is set and the address size is 32; the
        // SDM's table 2-5 says that REX.B is not looked at there, and for 64 bits Zydis agrees.
        const bool no_base = mine.code == CodeSize::bits64 && mine.address_size == 4 && mine.mod() == 0 &&
                             (mine.modrm & 7) == 4 && operand.mem.base == ZYDIS_REGISTER_R13D;
        if (no_base) return "";
        if (!m.rip_relative && m.base != register_number(operand.mem.base)) return "base";
        if (m.index != register_number(operand.mem.index)) return "index";
        if (m.index != MemoryOperand::none && m.scale != operand.mem.scale) return "scale";
        const u64 mask = all_ones(mine.address_size);
        if ((static_cast<u64>(m.displacement) & mask) != (static_cast<u64>(operand.mem.disp.value) & mask))
            return "displacement";
    }
    return "";
}

std::string hex(const u8* bytes, unsigned count) {
    std::string text;
    for (unsigned i = 0; i < count; ++i) {
        char part[4];
        std::snprintf(part, sizeof part, "%02x ", bytes[i]);
        text += part;
    }
    return text;
}

// Random bytes, steered so that every map, prefix and vector encoding comes up often.
void generate(std::mt19937_64& random, u8 (&bytes)[15]) {
    const u64 first = random();
    const u64 second = random();
    std::memcpy(bytes, &first, 8);
    std::memcpy(bytes + 8, &second, 7);
    const u64 choice = random();
    static constexpr u8 prefixes[16] = {0x66, 0x67, 0xF2, 0xF3, 0xF0, 0x2E, 0x64, 0x65,
                                        0x36, 0x48, 0x41, 0x4F, 0x26, 0x3E, 0x66, 0x45};
    unsigned at = 0;
    if ((choice & 3) == 0) {
        const unsigned count = 1 + ((choice >> 2) & 3);
        for (unsigned i = 0; i < count; ++i) bytes[at++] = prefixes[(choice >> (8 + 4 * i)) & 15];
    }
    switch ((choice >> 32) & 15) {
        case 0:
        case 1:
        case 2:
        case 3:
        case 4: bytes[at] = 0x0F; break;
        case 5:
            bytes[at] = 0x0F;
            bytes[at + 1] = 0x38;
            break;
        case 6:
            bytes[at] = 0x0F;
            bytes[at + 1] = 0x3A;
            break;
        case 7:
            bytes[at] = 0xC4;
            bytes[at + 1] = static_cast<u8>((bytes[at + 1] & 0xE0) | ((choice >> 40) & 3));
            break;
        case 8: bytes[at] = 0xC5; break;
        case 9:
            bytes[at] = 0x62;
            bytes[at + 1] &= 0xF7;
            bytes[at + 2] |= 4;
            break;
        case 10:
            bytes[at] = 0x8F;
            bytes[at + 1] = static_cast<u8>((bytes[at + 1] & 0xE0) | (8 + ((choice >> 40) & 3)));
            break;
        default: break;
    }
}

struct Tally {
    unsigned agreed = 0;
    unsigned both_refused = 0;
};

// Compares one instruction; the failure is reported with its bytes.
void compare(CodeSize code, Oracle& oracle, const u8 (&bytes)[15], Tally& tally) {
    const bool known = ZYAN_SUCCESS(
        ZydisDecoderDecodeFull(&oracle.decoder, bytes, sizeof bytes, &oracle.instruction, oracle.operands));
    Instruction mine;
    const DecodeStatus status = decode(bytes, code, mine);
    const auto report = [&](const std::string& what) {
        INFO(what << " in mode " << static_cast<int>(code) << ": " << hex(bytes, 15)
                  << (known ? ZydisMnemonicGetString(oracle.instruction.mnemonic) : "undefined"));
        FAIL_CHECK();
    };
    if (known && is_foreign(oracle.instruction)) return;
    if (!known || is_explicitly_undefined(oracle.instruction)) {
        if (status == DecodeStatus::ok && is_vetted(mine)) report("accepted");
        ++tally.both_refused;
        return;
    }
    if (status != DecodeStatus::ok) return report("refused");
    const std::string wrong = difference(mine, oracle);
    if (!wrong.empty()) return report(wrong);
    ++tally.agreed;
}

constexpr CodeSize modes[] = {CodeSize::bits16, CodeSize::bits32, CodeSize::bits64};

}  // namespace

TEST_CASE("the decoder agrees with Zydis on a million steered random instructions") {
    for (const CodeSize code : modes) {
        Oracle oracle(code);
        std::mt19937_64 random(0x42756C6B + static_cast<u64>(code));
        Tally tally;
        for (unsigned n = 0; n < 400'000; ++n) {
            u8 bytes[15];
            generate(random, bytes);
            compare(code, oracle, bytes, tally);
        }
        CHECK(tally.agreed > 200'000);
    }
}

TEST_CASE("the decoder agrees with Zydis on every opcode, ModRM byte and size prefix of the legacy maps") {
    static constexpr u8 prefix_sets[][2] = {{0, 0},    {0x66, 0}, {0x67, 0}, {0xF2, 0},    {0xF3, 0},
                                            {0xF0, 0}, {0x48, 0}, {0x4F, 0}, {0x66, 0x67}, {0x66, 0x48}};
    for (const CodeSize code : modes) {
        Oracle oracle(code);
        std::mt19937_64 random(7);
        Tally tally;
        for (const auto& set : prefix_sets) {
            for (unsigned escape = 0; escape < 2; ++escape) {
                for (unsigned opcode = 0; opcode < 256; ++opcode) {
                    for (unsigned modrm = 0; modrm < 256; modrm += 1) {
                        u8 bytes[15];
                        const u64 filler[2] = {random(), random()};
                        std::memcpy(bytes, filler, sizeof bytes);
                        unsigned at = 0;
                        for (const u8 prefix : set) {
                            if (prefix != 0) bytes[at++] = prefix;
                        }
                        if (escape != 0) bytes[at++] = 0x0F;
                        bytes[at++] = static_cast<u8>(opcode);
                        bytes[at] = static_cast<u8>(modrm);
                        compare(code, oracle, bytes, tally);
                    }
                }
            }
        }
        CHECK(tally.agreed > 500'000);
    }
}

TEST_CASE("an instruction cut short asks for more bytes and never for more than it needs") {
    for (const CodeSize code : modes) {
        std::mt19937_64 random(99);
        for (unsigned n = 0; n < 100'000; ++n) {
            u8 bytes[15];
            generate(random, bytes);
            Instruction whole;
            if (decode(bytes, code, whole) != DecodeStatus::ok) continue;
            for (unsigned cut = 0; cut < whole.length; ++cut) {
                Instruction part;
                // The copy is exactly as long as what may be read: the address sanitizer watches its end.
                const std::vector<u8> copy(bytes, bytes + cut);
                const DecodeStatus status = decode(copy, code, part);
                REQUIRE(status == DecodeStatus::more_bytes);
            }
            Instruction exact;
            REQUIRE(decode(Bytes(bytes, whole.length), code, exact) == DecodeStatus::ok);
            REQUIRE(exact.length == whole.length);
        }
    }
}

}  // namespace bulkhead
