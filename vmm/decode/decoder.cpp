#include "vmm/decode/decoder.hpp"

#include <array>

namespace bulkhead {
namespace {

// What follows an opcode and how it behaves. The tables below hold one word of these for each opcode.
using Traits = u16;
constexpr Traits has_modrm = bit<Traits>(0), imm8 = bit<Traits>(1),
                 imm_z = bit<Traits>(2),  // 2 bytes with 16-bit operands, else 4
    imm16 = bit<Traits>(3),
                 imm_v = bit<Traits>(4),  // as many bytes as the operand
    offset = bit<Traits>(5),              // a memory offset of the address size
    far_pointer = bit<Traits>(6), byte_form = bit<Traits>(7), not_in_64 = bit<Traits>(8),
                 default_64 = bit<Traits>(9),  // operands of 64 or 16 bits in 64-bit code
    forced_64 = bit<Traits>(10),               // operands of 64 bits in 64-bit code, come what may
    special = bit<Traits>(11),                 // see is_defined(): more to check, in ModRM or the prefixes
    undefined = bit<Traits>(12),
                 lockable =
                     bit<Traits>(13),  // LOCK allowed if the destination is memory; groups: see may_lock()
    memory_only = bit<Traits>(14), register_only = bit<Traits>(15);

consteval std::array<Traits, 256> make_one_byte_map() {
    std::array<Traits, 256> map{};
    const auto set = [&map](unsigned first, unsigned last, Traits traits) {
        for (unsigned i = first; i <= last; ++i) map[i] = traits;
    };
    for (unsigned group = 0; group < 8; ++group) {  // ADD OR ADC SBB AND SUB XOR CMP
        const unsigned base = group * 8;
        const Traits lock = group == 7 ? Traits{0} : lockable;
        map[base + 0] = has_modrm | byte_form | lock;
        map[base + 1] = has_modrm | lock;
        map[base + 2] = has_modrm | byte_form;
        map[base + 3] = has_modrm;
        map[base + 4] = imm8 | byte_form;
        map[base + 5] = imm_z;
        map[base + 6] = not_in_64;  // PUSH and POP of a segment register (or a prefix), DAA, DAS, AAA, AAS
        map[base + 7] = not_in_64;
    }
    set(0x50, 0x5F, default_64);
    set(0x60, 0x61, not_in_64);
    map[0x62] = has_modrm | not_in_64 | memory_only;
    map[0x63] = has_modrm;
    map[0x68] = imm_z | default_64;
    map[0x69] = has_modrm | imm_z;
    map[0x6A] = imm8 | default_64;
    map[0x6B] = has_modrm | imm8;
    map[0x6C] = map[0x6E] = byte_form;
    set(0x70, 0x7F, imm8 | forced_64);
    map[0x80] = has_modrm | imm8 | byte_form | lockable;
    map[0x81] = has_modrm | imm_z | lockable;
    map[0x82] = has_modrm | imm8 | byte_form | lockable | not_in_64;
    map[0x83] = has_modrm | imm8 | lockable;
    map[0x84] = has_modrm | byte_form;
    map[0x85] = has_modrm;
    map[0x86] = has_modrm | byte_form | lockable;
    map[0x87] = has_modrm | lockable;
    map[0x88] = map[0x8A] = has_modrm | byte_form;
    map[0x89] = map[0x8B] = has_modrm;
    map[0x8C] = map[0x8E] = has_modrm | special;
    map[0x8D] = has_modrm | memory_only;
    map[0x8F] = has_modrm | default_64 | special;
    map[0x9A] = far_pointer | not_in_64;
    map[0x9C] = map[0x9D] = default_64;
    map[0xA0] = map[0xA2] = offset | byte_form;
    map[0xA1] = map[0xA3] = offset;
    map[0xA4] = map[0xA6] = map[0xAA] = map[0xAC] = map[0xAE] = byte_form;
    map[0xA8] = imm8 | byte_form;
    map[0xA9] = imm_z;
    set(0xB0, 0xB7, imm8 | byte_form);
    set(0xB8, 0xBF, imm_v);
    map[0xC0] = map[0xD0] = map[0xD2] = has_modrm | byte_form;
    map[0xC0] |= imm8;
    map[0xC1] = has_modrm | imm8;
    map[0xC2] = imm16 | forced_64;
    map[0xC3] = forced_64;
    map[0xC4] = map[0xC5] = has_modrm | not_in_64 | memory_only;
    map[0xC6] = has_modrm | imm8 | byte_form | special;
    map[0xC7] = has_modrm | imm_z | special;
    map[0xC8] = imm16 | default_64;
    map[0xC9] = default_64;
    map[0xCA] = imm16;
    map[0xCD] = imm8;
    map[0xCE] = not_in_64;
    map[0xD1] = map[0xD3] = has_modrm;
    map[0xD4] = map[0xD5] = imm8 | not_in_64;
    map[0xD6] = not_in_64;
    map[0xD7] = byte_form;
    set(0xD8, 0xDF, has_modrm);
    set(0xE0, 0xE3, imm8 | forced_64);
    map[0xE4] = map[0xE6] = imm8 | byte_form;
    map[0xE5] = map[0xE7] = imm8;
    map[0xE8] = map[0xE9] = imm_z | forced_64;
    map[0xEA] = far_pointer | not_in_64;
    map[0xEB] = imm8 | forced_64;
    map[0xEC] = map[0xEE] = byte_form;
    map[0xF6] = has_modrm | byte_form | lockable | special;
    map[0xF7] = has_modrm | lockable | special;
    map[0xFE] = has_modrm | byte_form | lockable | special;
    map[0xFF] = has_modrm | lockable | special;
    return map;
}

consteval std::array<Traits, 256> make_0f_map() {
    std::array<Traits, 256> map{};
    const auto set = [&map](unsigned first, unsigned last, Traits traits) {
        for (unsigned i = first; i <= last; ++i) map[i] = traits;
    };
    set(0x00, 0x01, has_modrm | special);
    set(0x02, 0x03, has_modrm);
    map[0x04] = map[0x0A] = map[0x0C] = undefined;
    map[0x0B] = undefined;  // UD2
    map[0x0D] = has_modrm;
    map[0x0F] = has_modrm | imm8;  // 3DNow!: the immediate is the opcode
    set(0x10, 0x1F, has_modrm);
    map[0x13] = map[0x17] = has_modrm | memory_only;
    set(0x20, 0x23, has_modrm | special);
    set(0x24, 0x27, undefined);
    set(0x28, 0x2F, has_modrm);
    map[0x2B] = has_modrm | memory_only;
    map[0x36] = undefined;
    set(0x38, 0x3F, undefined);  // 38 and 3A are escapes
    set(0x40, 0x6F, has_modrm);
    map[0x50] = has_modrm | register_only;
    set(0x70, 0x73, has_modrm | imm8);
    map[0x71] = map[0x72] = map[0x73] = has_modrm | imm8 | register_only;
    set(0x74, 0x76, has_modrm);
    set(0x78, 0x79, has_modrm | default_64 | special);
    set(0x7A, 0x7B, undefined);
    set(0x7C, 0x7F, has_modrm);
    set(0x80, 0x8F, imm_z | forced_64);
    set(0x90, 0x9F, has_modrm | byte_form);
    map[0xA0] = map[0xA1] = map[0xA8] = map[0xA9] = default_64;
    map[0xA3] = has_modrm;
    map[0xA4] = map[0xAC] = has_modrm | imm8;
    map[0xA5] = map[0xAD] = has_modrm;
    set(0xA6, 0xA7, undefined);
    map[0xAB] = map[0xB3] = map[0xBB] = has_modrm | lockable;
    map[0xAE] = map[0xAF] = has_modrm;
    map[0xB0] = map[0xC0] = has_modrm | byte_form | lockable;
    map[0xB1] = map[0xC1] = has_modrm | lockable;
    map[0xB2] = map[0xB4] = map[0xB5] = has_modrm | memory_only;
    map[0xB6] = map[0xB7] = map[0xBE] = map[0xBF] = map[0xBC] = map[0xBD] = has_modrm;
    map[0xB8] = has_modrm | special;
    map[0xB9] = undefined;  // UD1
    map[0xBA] = has_modrm | imm8 | lockable | special;
    map[0xC2] = map[0xC4] = map[0xC6] = has_modrm | imm8;
    map[0xC3] = has_modrm | memory_only | special;
    map[0xC5] = has_modrm | imm8 | register_only;
    map[0xC7] = has_modrm | lockable | special;
    set(0xD0, 0xFE, has_modrm);
    map[0xD7] = map[0xF7] = has_modrm | register_only;
    map[0xE7] = has_modrm | memory_only;
    map[0xFF] = undefined;  // UD0
    return map;
}

constexpr std::array<Traits, 256> one_byte_map = make_one_byte_map();
constexpr std::array<Traits, 256> map_0f = make_0f_map();

// The bytes of one instruction, each read once.
class Cursor {
  public:
    explicit Cursor(Bytes bytes)
        : bytes_(bytes),
          limit_(bytes.size() < Instruction::max_length ? bytes.size() : Instruction::max_length) {}

    [[nodiscard]] bool has(usize count) const { return count <= limit_ - position_; }
    [[nodiscard]] u8 next() { return bytes_[position_++]; }
    [[nodiscard]] u8 peek(usize ahead = 0) const { return bytes_[position_ + ahead]; }
    [[nodiscard]] usize position() const { return position_; }
    // The next `size` bytes (1, 2, 4 or 8), sign-extended. The caller has checked has(size).
    [[nodiscard]] u64 take(unsigned size) {
        const u8* from = bytes_.data() + position_;
        position_ += size;
        switch (size) {
            case 1: return static_cast<u64>(static_cast<i64>(static_cast<i8>(*from)));
            case 2: return static_cast<u64>(static_cast<i64>(load<i16>(from)));
            case 4: return static_cast<u64>(static_cast<i64>(load<i32>(from)));
            default: return load<u64>(from);
        }
    }
    // Why has() was false.
    [[nodiscard]] DecodeStatus shortage() const {
        return limit_ == Instruction::max_length ? DecodeStatus::too_long : DecodeStatus::more_bytes;
    }

  private:
    template <class T>
    [[nodiscard]] static T load(const u8* from) {
        T value;
        __builtin_memcpy(&value, from, sizeof(T));
        return value;
    }

    Bytes bytes_;
    usize limit_;
    usize position_ = 0;
};

// 0F 01 with a register form: one bit for each ModRM byte C0h-FFh that is an instruction of some processor.
constexpr u64 make_0f01_registers() {
    u64 mask = 0;
    const auto set = [&mask](unsigned first, unsigned last) {
        for (unsigned i = first; i <= last; ++i) mask |= bit(i - 0xC0);
    };
    set(0xC0, 0xC6);  // ENCLV, VMX, PCONFIG, WRMSRNS
    set(0xC8, 0xCB);  // MONITOR, MWAIT, CLAC, STAC
    set(0xCC, 0xD1);  // SEAM, ENCLS, XGETBV, XSETBV
    set(0xD4, 0xE8);  // VMFUNC, TSX, ENCLU, SVM, SMSW, SERIALIZE (with F2 and F3: TSX suspension, SETSSBSY)
    set(0xE9, 0xFF);  // shadow stacks, user interrupts, PKRU, LMSW, SWAPGS, RDTSCP, ...
    return mask;
}

// Opcodes marked `special`: whether ModRM and prefixes make an instruction of them.
bool is_defined(const Instruction& i) {
    const bool memory = i.mod() != 3;
    const unsigned extension = i.extension();
    if (i.map == OpcodeMap::one_byte) {
        switch (i.opcode) {
            case 0x8C: return extension < 6;
            case 0x8E: return extension < 6 && extension != 1;
            case 0x8F: return extension == 0;
            case 0xC6:
            case 0xC7: return extension == 0 || i.modrm == 0xF8;  // XABORT, XBEGIN
            case 0xFE: return extension < 2;
            case 0xFF: return extension != 7 && (memory || (extension != 3 && extension != 5));
            default: return true;
        }
    }
    switch (i.opcode) {
        case 0x00: return extension < 6;
        case 0x01:
            if (memory) return extension != 5 || i.repeat;
            if (i.modrm >= 0xCC && i.modrm <= 0xCE) return i.operand_size_prefix;  // SEAM and TDX
            return has_bit(make_0f01_registers(), i.modrm - 0xC0u);
        case 0x20:
        case 0x22: {
            const unsigned number = i.reg();
            return number == 0 || number == 2 || number == 3 || number == 4 || number == 8;
        }
        case 0x21:
        case 0x23: return i.reg() < 8;
        case 0x78:
            if (i.repeat_not_equal) return !memory;                       // INSERTQ
            if (i.operand_size_prefix) return !memory && extension == 0;  // EXTRQ
            return true;                                                  // VMREAD
        case 0xB8: return i.repeat;
        case 0xBA: return extension >= 4;
        case 0xC3: return !i.operand_size_prefix && !i.repeats();
        case 0xC7:
            if (memory) return extension == 1 || extension >= 3;
            return extension >= 6;
        default: return true;
    }
}

// Whether LOCK may precede a lockable opcode with this ModRM byte.
bool may_lock(const Instruction& i) {
    if (i.mod() == 3) return false;
    const unsigned extension = i.extension();
    if (i.map == OpcodeMap::one_byte) {
        switch (i.opcode) {
            case 0x80:
            case 0x81:
            case 0x82:
            case 0x83: return extension != 7;
            case 0xF6:
            case 0xF7: return extension == 2 || extension == 3;
            case 0xFE:
            case 0xFF: return extension < 2;
            default: return true;
        }
    }
    if (i.opcode == 0xBA) return extension > 4;
    if (i.opcode == 0xC7) return extension == 1;
    return true;
}

[[nodiscard]] unsigned address_bytes(CodeSize code, bool prefix) {
    switch (code) {
        case CodeSize::bits16: return prefix ? 4 : 2;
        case CodeSize::bits32: return prefix ? 2 : 4;
        default: return prefix ? 4 : 8;
    }
}

class Decoder {
  public:
    Decoder(Bytes bytes, CodeSize code, Instruction& out) : cursor_(bytes), i_(out) { i_.code = code; }

    [[nodiscard]] DecodeStatus run() {
        u8 byte = 0;
        if (const auto status = prefixes(byte); status != DecodeStatus::ok) return status;
        i_.address_size = static_cast<u8>(address_bytes(i_.code, i_.address_size_prefix));

        Traits traits = 0;
        const bool long_code = i_.code == CodeSize::bits64;
        if (byte == 0x0F) {
            if (!cursor_.has(1)) return cursor_.shortage();
            i_.opcode = cursor_.next();
            if (i_.opcode == 0x38 || i_.opcode == 0x3A) {
                const bool third = i_.opcode == 0x3A;
                if (!cursor_.has(1)) return cursor_.shortage();
                i_.opcode = cursor_.next();
                i_.map = third ? OpcodeMap::map_0f3a : OpcodeMap::map_0f38;
                traits = third ? has_modrm | imm8 : has_modrm;
            } else {
                i_.map = OpcodeMap::map_0f;
                traits = map_0f[i_.opcode];
            }
        } else if ((byte == 0xC4 || byte == 0xC5 || byte == 0x62 || byte == 0x8F) && is_vector_escape(byte)) {
            return vector(byte);
        } else {
            if (byte == 0x8F || byte == 0xC4 || byte == 0xC5 || byte == 0x62) {
                if (!cursor_.has(1)) return cursor_.shortage();
            }
            i_.opcode = byte;
            traits = one_byte_map[byte];
        }
        if ((traits & undefined) != 0 || (long_code && (traits & not_in_64) != 0))
            return DecodeStatus::invalid;

        i_.operand_size = static_cast<u8>(operand_bytes(traits));
        if ((traits & has_modrm) != 0) {
            if (const auto status = modrm(traits); status != DecodeStatus::ok) return status;
        }
        if (i_.lock && !lock_allowed(traits)) return DecodeStatus::invalid;
        return immediates(traits);
    }

  private:
    // Consumes prefixes and REX; `opcode` becomes the byte after them.
    [[nodiscard]] DecodeStatus prefixes(u8& opcode) {
        const bool long_code = i_.code == CodeSize::bits64;
        for (;;) {
            if (!cursor_.has(1)) return cursor_.shortage();
            opcode = cursor_.next();
            // A REX prefix counts only directly before the opcode: any later prefix clears it again.
            if (long_code && (opcode & 0xF0) == 0x40) {
                i_.rex = opcode;
                continue;
            }
            switch (opcode) {
                case 0x26: segment(SegmentName::es); break;
                case 0x2E: segment(SegmentName::cs); break;
                case 0x36: segment(SegmentName::ss); break;
                case 0x3E: segment(SegmentName::ds); break;
                case 0x64: segment(SegmentName::fs); break;
                case 0x65: segment(SegmentName::gs); break;
                case 0x66: i_.operand_size_prefix = true; break;
                case 0x67: i_.address_size_prefix = true; break;
                case 0xF0: i_.lock = true; break;
                case 0xF2:
                    i_.repeat_not_equal = true;
                    i_.repeat = false;
                    break;
                case 0xF3:
                    i_.repeat = true;
                    i_.repeat_not_equal = false;
                    break;
                default: return DecodeStatus::ok;
            }
            i_.rex = 0;
        }
    }

    // The last override wins. In 64-bit code only FS and GS are overrides; the others are not there at all.
    void segment(SegmentName name) {
        if (i_.code == CodeSize::bits64 && name < SegmentName::fs) return;
        i_.segment = name;
        i_.segment_override = true;
    }

    [[nodiscard]] unsigned operand_bytes(Traits traits) const {
        if ((traits & byte_form) != 0) return 1;
        const bool prefix = i_.operand_size_prefix;
        if (i_.code == CodeSize::bits16) return prefix ? 4 : 2;
        if (i_.code == CodeSize::bits32) return prefix ? 2 : 4;
        if ((i_.rex & 8) != 0 || (traits & forced_64) != 0) return 8;
        if (prefix) return 2;
        return (traits & default_64) != 0 ? 8 : 4;
    }

    [[nodiscard]] DecodeStatus modrm(Traits traits) {
        if (!cursor_.has(1)) return cursor_.shortage();
        i_.modrm = cursor_.next();
        i_.has_modrm = true;
        const bool control = i_.map == OpcodeMap::map_0f && i_.opcode >= 0x20 && i_.opcode <= 0x23;
        if (control) {
            // MOV CR and DR: mod is ignored, and the operand is as wide as the mode's registers.
            i_.modrm |= 0xC0;
            i_.operand_size = i_.code == CodeSize::bits64 ? 8 : 4;
        }
        if ((traits & special) != 0) {
            if (!is_defined(i_)) return DecodeStatus::invalid;
            if (i_.map == OpcodeMap::one_byte && i_.opcode == 0xFF && i_.extension() >= 2) {
                // Near CALL and JMP, and PUSH; the far ones keep the ordinary size.
                const unsigned extension = i_.extension();
                const Traits width = extension == 6         ? default_64
                                     : (extension & 1) == 0 ? forced_64
                                                            : Traits{0};
                i_.operand_size = static_cast<u8>(operand_bytes(width));
            }
        }
        if (i_.mod() == 3) return (traits & memory_only) != 0 ? DecodeStatus::invalid : DecodeStatus::ok;
        if ((traits & register_only) != 0) return DecodeStatus::invalid;
        return memory();
    }

    [[nodiscard]] DecodeStatus memory() {
        i_.memory.present = true;
        return i_.address_size == 2 ? memory16() : memory32();
    }

    [[nodiscard]] DecodeStatus memory16() {
        static constexpr u8 none = MemoryOperand::none;
        static constexpr u8 bases[8] = {3, 3, 5, 5, 6, 7, 5, 3};                // BX BX BP BP SI DI BP BX
        static constexpr u8 indices[8] = {6, 7, 6, 7, none, none, none, none};  // SI DI SI DI
        const unsigned mod = i_.mod();
        const unsigned rm = i_.modrm & 7u;
        unsigned displacement = mod;
        if (mod == 0 && rm == 6) {
            displacement = 2;
        } else {
            i_.memory.base = bases[rm];
            i_.memory.index = indices[rm];
            if (bases[rm] == 5 && !i_.segment_override) i_.segment = SegmentName::ss;
        }
        return take_displacement(displacement);
    }

    [[nodiscard]] DecodeStatus memory32() {
        const unsigned mod = i_.mod();
        const unsigned rm = i_.modrm & 7u;
        const u8 rex_b = static_cast<u8>((i_.rex & 1u) << 3);
        unsigned displacement = mod == 2 ? 4 : mod;
        if (rm == 4) {
            if (!cursor_.has(1)) return cursor_.shortage();
            const u8 sib = cursor_.next();
            const u8 index = static_cast<u8>(((sib >> 3) & 7) | ((i_.rex & 2u) << 2));
            // RSP cannot be an index, R12 can. (Vector index registers are not ours to name.)
            if (index != 4) {
                i_.memory.index = index;
                i_.memory.scale = static_cast<u8>(1u << (sib >> 6));
            }
            if ((sib & 7) == 5 && mod == 0) {
                displacement = 4;
            } else {
                base(static_cast<u8>((sib & 7) | rex_b));
            }
        } else if (rm == 5 && mod == 0) {
            displacement = 4;
            i_.memory.rip_relative = i_.code == CodeSize::bits64;
        } else {
            base(static_cast<u8>(rm | rex_b));
        }
        return take_displacement(displacement);
    }

    void base(u8 number) {
        i_.memory.base = number;
        // RSP and RBP, not R12 and R13, speak of the stack.
        if ((number == 4 || number == 5) && !i_.segment_override) i_.segment = SegmentName::ss;
    }

    [[nodiscard]] DecodeStatus take_displacement(unsigned size) {
        if (size == 0) return DecodeStatus::ok;
        if (!cursor_.has(size)) return cursor_.shortage();
        i_.memory.displacement = static_cast<i64>(cursor_.take(size));
        return DecodeStatus::ok;
    }

    [[nodiscard]] bool lock_allowed(Traits traits) const {
        if ((traits & lockable) != 0) return may_lock(i_);
        // AMD's LOCK MOV CR0 for CR8.
        return i_.map == OpcodeMap::map_0f && (i_.opcode == 0x20 || i_.opcode == 0x22) && i_.reg() == 0;
    }

    [[nodiscard]] DecodeStatus immediates(Traits traits) {
        unsigned size = 0;
        unsigned second = 0;
        constexpr Traits any = imm8 | imm_z | imm16 | imm_v | offset | far_pointer;
        if ((traits & any) != 0) {
            const unsigned z = i_.operand_size == 2 ? 2 : 4;
            if ((traits & imm8) != 0) size = 1;
            if ((traits & imm_z) != 0) size = z;
            if ((traits & imm16) != 0) size = 2;
            if ((traits & imm_v) != 0) size = i_.operand_size;
            if ((traits & offset) != 0) {
                if (!cursor_.has(i_.address_size)) return cursor_.shortage();
                i_.memory.present = true;
                i_.memory.displacement = static_cast<i64>(cursor_.take(i_.address_size));
            }
            if ((traits & far_pointer) != 0) {
                size = z;
                second = 2;
            }
        }
        if (i_.map == OpcodeMap::one_byte) {
            if (i_.opcode == 0xC8) second = 1;  // ENTER
            if ((i_.opcode == 0xF6 || i_.opcode == 0xF7) && i_.extension() < 2) {
                size = i_.opcode == 0xF6 ? 1 : (i_.operand_size == 2 ? 2 : 4);  // TEST
            }
        } else if (i_.map == OpcodeMap::map_0f && i_.opcode == 0x78 &&
                   (i_.operand_size_prefix || i_.repeat_not_equal)) {
            size = second = 1;  // EXTRQ, INSERTQ
        }
        if (!cursor_.has(size + second)) return cursor_.shortage();
        if (size != 0) i_.immediate = cursor_.take(size);
        if (second != 0) i_.second_immediate = static_cast<u16>(cursor_.take(second) & all_ones(second));
        i_.immediate_size = static_cast<u8>(size);
        i_.length = static_cast<u8>(cursor_.position());
        return DecodeStatus::ok;
    }

    // C4, C5 and 62 are LES, LDS and BOUND outside 64-bit code unless what would be ModRM names a register;
    // 8F is POP where what would be ModRM has the extension 0.
    [[nodiscard]] bool is_vector_escape(u8 byte) const {
        if (!cursor_.has(1)) return false;
        if (byte == 0x8F) return (cursor_.peek() & 0x1F) >= 8;
        return i_.code == CodeSize::bits64 || cursor_.peek() >= 0xC0;
    }

    [[nodiscard]] DecodeStatus vector(u8 escape) {
        if (i_.rex != 0 || i_.lock || i_.operand_size_prefix || i_.repeats()) return DecodeStatus::invalid;
        const unsigned payload = escape == 0xC5 ? 1 : escape == 0x62 ? 3 : 2;
        if (!cursor_.has(payload + 1)) return cursor_.shortage();
        const u8 p0 = cursor_.next();
        const u8 p1 = payload > 1 ? cursor_.next() : p0;
        if (payload == 3) (void)cursor_.next();
        i_.opcode = cursor_.next();
        // R, X and B are inverted, and have no effect outside 64-bit code.
        u8 extensions = static_cast<u8>(~(p0 >> 5)) & (escape == 0xC5 ? 4 : 7);
        if (i_.code != CodeSize::bits64) extensions = 0;
        const bool wide = escape != 0xC5 && (p1 & 0x80) != 0;
        i_.rex = static_cast<u8>(0x40 | (wide ? 8 : 0) | extensions);
        i_.operand_size = wide && i_.code == CodeSize::bits64 ? 8 : 4;

        const unsigned map = escape == 0xC5 ? 1u : escape == 0x62 ? p0 & 7u : p0 & 0x1Fu;
        Traits traits = has_modrm;
        switch (escape) {
            case 0x62:
                i_.encoding = Encoding::evex;
                if ((p0 & 8) != 0 || (p1 & 4) == 0) return DecodeStatus::invalid;
                if (map == 0 || map == 4 || map == 7) return DecodeStatus::invalid;
                break;
            case 0x8F:
                i_.encoding = Encoding::xop;
                if (map > 10) return DecodeStatus::invalid;
                if (map == 8) traits |= imm8;
                if (map == 10) traits |= imm_z;
                break;
            default:
                i_.encoding = Encoding::vex;
                if (map == 0 || map > 3) return DecodeStatus::invalid;
                if (map == 1 && i_.opcode == 0x77) traits = 0;
                break;
        }
        i_.map = static_cast<OpcodeMap>(map);
        if (map == 1) {
            const u8 op = i_.opcode;
            if ((op >= 0x70 && op <= 0x73) || op == 0xC2 || (op >= 0xC4 && op <= 0xC6)) traits |= imm8;
        }
        if (map == 3) traits |= imm8;
        if ((traits & has_modrm) != 0) {
            if (!cursor_.has(1)) return cursor_.shortage();
            i_.modrm = cursor_.next();
            i_.has_modrm = true;
            if (i_.mod() != 3) {
                if (const auto status = memory(); status != DecodeStatus::ok) return status;
            }
        }
        return immediates(traits);
    }

    Cursor cursor_;
    Instruction& i_;
};

// The instructions that exit most, in 64-bit code with no prefix but REX: moves to and from memory, and those
// of two bytes without operands. False, with nothing written, where it is none of them.
// `bytes` holds at least longest_common, so that no length is checked on the way.
constexpr usize longest_common = 12;

[[nodiscard]] bool decode_common(const u8* bytes, Instruction& i) {
    const u8* at = bytes;
    u8 opcode = *at++;
    u8 rex = 0;
    if ((opcode & 0xF0) == 0x40) {
        rex = opcode;
        opcode = *at++;
    }
    OpcodeMap map = OpcodeMap::one_byte;
    if (opcode == 0x0F) {
        map = OpcodeMap::map_0f;
        opcode = *at++;
        if (opcode == 0xA2 || (opcode >= 0x30 && opcode <= 0x33) || opcode == 0x09) {
            // CPUID, WRMSR, RDTSC, RDMSR, RDPMC, WBINVD
            i.map = map;
            i.opcode = opcode;
            i.rex = rex;
            i.operand_size = (rex & 8) != 0 ? 8 : 4;
            i.address_size = 8;
            i.length = static_cast<u8>(at - bytes);
            return true;
        }
        if ((opcode & 0xF6) != 0xB6) return false;  // MOVZX, MOVSX
    } else if ((opcode & 0xFC) != 0x88 && (opcode & 0xFE) != 0xC6) {
        return false;
    }
    const u8 modrm = *at++;
    const unsigned mod = modrm >> 6;
    const unsigned rm = modrm & 7;
    const u8 rex_b = static_cast<u8>((rex & 1u) << 3);
    if (mod == 3 || (mod == 0 && rm == 5)) return false;
    if ((opcode & 0xFE) == 0xC6 && map == OpcodeMap::one_byte && (modrm & 0x38) != 0) return false;
    u8 base = static_cast<u8>(rm | rex_b);
    if (rm == 4) {
        const u8 sib = *at++;
        if (mod == 0 && (sib & 7) == 5) return false;
        base = static_cast<u8>((sib & 7) | rex_b);
        const u8 index = static_cast<u8>(((sib >> 3) & 7) | ((rex & 2u) << 2));
        if (index != 4) {
            i.memory.index = index;
            i.memory.scale = static_cast<u8>(1u << (sib >> 6));
        }
    }
    if (mod == 1) {
        i.memory.displacement = static_cast<i8>(*at++);
    } else if (mod == 2) {
        i32 displacement;
        __builtin_memcpy(&displacement, at, sizeof displacement);
        i.memory.displacement = displacement;
        at += sizeof displacement;
    }
    i.operand_size = (rex & 8) != 0 ? 8 : 4;
    if (map == OpcodeMap::one_byte) {
        i.plain_move = opcode != 0x88 && opcode != 0x8A && opcode != 0xC6;
        if (!i.plain_move) i.operand_size = 1;
        if (opcode >= 0xC6) {
            if (opcode == 0xC6) {
                i.immediate = static_cast<u64>(static_cast<i64>(static_cast<i8>(*at++)));
                i.immediate_size = 1;
            } else {
                i32 immediate;
                __builtin_memcpy(&immediate, at, sizeof immediate);
                i.immediate = static_cast<u64>(static_cast<i64>(immediate));
                i.immediate_size = sizeof immediate;
                at += sizeof immediate;
            }
        }
    }
    i.memory.present = true;
    i.memory.base = base;
    if (base == 4 || base == 5) i.segment = SegmentName::ss;
    i.map = map;
    i.opcode = opcode;
    i.rex = rex;
    i.modrm = modrm;
    i.has_modrm = true;
    i.address_size = 8;
    i.length = static_cast<u8>(at - bytes);
    return true;
}

// Apart from decode() so that the common case does not pay for its registers.
[[gnu::noinline]] DecodeStatus decode_any(Bytes bytes, CodeSize code, Instruction& instruction) {
    return Decoder(bytes, code, instruction).run();
}

}  // namespace

DecodeStatus decode(Bytes bytes, CodeSize code, Instruction& instruction) {
    // __builtin_memcpy, here and above: in a freestanding build std::memcpy is a call even for a few bytes.
    static constexpr Instruction blank{};
    __builtin_memcpy(&instruction, &blank, sizeof blank);
    if (code == CodeSize::bits64 && bytes.size() >= longest_common &&
        decode_common(bytes.data(), instruction))
        return DecodeStatus::ok;
    return decode_any(bytes, code, instruction);
}

std::optional<ControlRegisterOperands> control_register_operands(const Instruction& i) {
    using Kind = ControlRegisterOperands::Kind;
    if (i.encoding != Encoding::legacy || i.map != OpcodeMap::map_0f) return std::nullopt;
    ControlRegisterOperands operands;
    switch (i.opcode) {
        case 0x20:
        case 0x21:
        case 0x22:
        case 0x23:
            operands.kind = i.opcode < 0x22 ? Kind::read : Kind::write;
            operands.debug = (i.opcode & 1) != 0;
            operands.number = static_cast<u8>(i.reg() | (i.lock ? 8 : 0));
            operands.general_register = static_cast<u8>(i.rm());
            return operands;
        case 0x06: operands.kind = Kind::clts; return operands;
        case 0x01:
            if (i.extension() != 4 && i.extension() != 6) return std::nullopt;
            operands.kind = i.extension() == 4 ? Kind::smsw : Kind::lmsw;
            operands.memory = i.mod() != 3;
            operands.general_register = static_cast<u8>(i.rm());
            return operands;
        default: return std::nullopt;
    }
}

std::optional<PortOperands> port_operands(const Instruction& i) {
    if (i.encoding != Encoding::legacy || i.map != OpcodeMap::one_byte) return std::nullopt;
    PortOperands operands;
    // A 64-bit operand size does not exist for ports: REX.W is ignored.
    operands.size = i.operand_size > 4 ? u8{4} : i.operand_size;
    switch (i.opcode) {
        case 0xE4:
        case 0xE5:
        case 0xE6:
        case 0xE7: operands.immediate = Port(static_cast<u8>(i.immediate)); break;
        case 0xEC:
        case 0xED:
        case 0xEE:
        case 0xEF: break;
        case 0x6C:
        case 0x6D:
        case 0x6E:
        case 0x6F:
            operands.string = true;
            operands.repeat = i.repeats();
            break;
        default: return std::nullopt;
    }
    operands.in = (i.opcode & 2) == 0;
    return operands;
}

}  // namespace bulkhead
