// The emulator against the processor that runs the test: the same instruction, registers, flags and memory
// must come out the same, but for flags that the manual leaves undefined.
#include <catch2/catch.hpp>
#include <cstdio>
#include <random>
#include <string>

#include "host_processor.hpp"
#include "test_machine.hpp"

namespace bulkhead::test {
namespace {

constexpr u64 region = 0x2000'0000;
constexpr u64 region_size = 16 * kib;
constexpr u8 no_extension = 0xFF;

enum class Shape : u8 {
    modrm,        // register or memory operand
    memory,       // memory only
    bit_offset,   // BT and its like with a register: the register is an address
    no_operands,  // registers in the opcode, or none
    string,
    stack,  // PUSH and POP without ModRM
};

// An opcode to be tried in all sizes and with random operands.
struct Form {
    std::string name;
    std::vector<u8> opcode;  // escape included
    u8 extension = no_extension;
    unsigned immediate = 0;  // bytes; 4: by operand size
    Shape shape = Shape::modrm;
    u64 undefined = 0;  // flags not compared
    bool lockable = false;
    bool shift = false;       // undefined flags depend on the count
    bool fixed_size = false;  // a 66 prefix would select something else
};

std::vector<Form> all_forms() {
    std::vector<Form> forms;
    static const char* const names[] = {"add", "or", "adc", "sbb", "and", "sub", "xor", "cmp"};
    for (u8 op = 0; op < 8; ++op) {
        const u64 undefined = op == 1 || op == 4 || op == 6 ? rflags::af : 0;
        const bool lock = op != 7;
        const u8 base = static_cast<u8>(op * 8);
        for (u8 form = 0; form < 4; ++form) {
            forms.push_back({.name = names[op],
                             .opcode = {static_cast<u8>(base + form)},
                             .undefined = undefined,
                             .lockable = lock && form < 2});
        }
        forms.push_back({.name = names[op],
                         .opcode = {static_cast<u8>(base + 4)},
                         .immediate = 1,
                         .shape = Shape::no_operands,
                         .undefined = undefined});
        forms.push_back({.name = names[op],
                         .opcode = {static_cast<u8>(base + 5)},
                         .immediate = 4,
                         .shape = Shape::no_operands,
                         .undefined = undefined});
        for (const u8 group : {u8{0x80}, u8{0x81}, u8{0x83}}) {
            forms.push_back({.name = names[op],
                             .opcode = {group},
                             .extension = op,
                             .immediate = group == 0x81 ? 4u : 1u,
                             .undefined = undefined,
                             .lockable = lock});
        }
    }
    for (const u8 op : {u8{0x84}, u8{0x85}})
        forms.push_back({.name = "test", .opcode = {op}, .undefined = rflags::af});
    forms.push_back({.name = "test",
                     .opcode = {0xA8},
                     .immediate = 1,
                     .shape = Shape::no_operands,
                     .undefined = rflags::af});
    forms.push_back({.name = "test",
                     .opcode = {0xA9},
                     .immediate = 4,
                     .shape = Shape::no_operands,
                     .undefined = rflags::af});
    for (const u8 op : {u8{0xF6}, u8{0xF7}}) {
        forms.push_back({.name = "test",
                         .opcode = {op},
                         .extension = 0,
                         .immediate = op == 0xF6 ? 1u : 4u,
                         .undefined = rflags::af});
        forms.push_back({.name = "not", .opcode = {op}, .extension = 2, .lockable = true});
        forms.push_back({.name = "neg", .opcode = {op}, .extension = 3, .lockable = true});
    }
    for (const u8 op : {u8{0xFE}, u8{0xFF}}) {
        forms.push_back({.name = "inc", .opcode = {op}, .extension = 0, .lockable = true});
        forms.push_back({.name = "dec", .opcode = {op}, .extension = 1, .lockable = true});
    }
    static const char* const shifts[] = {"rol", "ror", "rcl", "rcr", "shl", "shr", "sal", "sar"};
    for (u8 extension = 0; extension < 8; ++extension) {
        for (const u8 op : {u8{0xC0}, u8{0xC1}, u8{0xD0}, u8{0xD1}, u8{0xD2}, u8{0xD3}}) {
            forms.push_back({.name = shifts[extension],
                             .opcode = {op},
                             .extension = extension,
                             .immediate = op < 0xD0 ? 1u : 0u,
                             .shift = true});
        }
    }
    for (const u8 op : {u8{0x88}, u8{0x89}, u8{0x8A}, u8{0x8B}})
        forms.push_back({.name = "mov", .opcode = {op}});
    forms.push_back({.name = "mov", .opcode = {0xC6}, .extension = 0, .immediate = 1});
    forms.push_back({.name = "mov", .opcode = {0xC7}, .extension = 0, .immediate = 4});
    for (u8 op = 0xB0; op < 0xB8; ++op)
        forms.push_back({.name = "mov", .opcode = {op}, .immediate = 1, .shape = Shape::no_operands});
    for (u8 op = 0xB8; op < 0xC0; ++op)
        forms.push_back({.name = "mov", .opcode = {op}, .immediate = 8, .shape = Shape::no_operands});
    forms.push_back({.name = "movsxd", .opcode = {0x63}});
    for (const u8 op : {u8{0xB6}, u8{0xB7}, u8{0xBE}, u8{0xBF}})
        forms.push_back({.name = "movx", .opcode = {0x0F, op}});
    forms.push_back({.name = "movnti", .opcode = {0x0F, 0xC3}, .shape = Shape::memory, .fixed_size = true});
    forms.push_back({.name = "movbe load", .opcode = {0x0F, 0x38, 0xF0}, .shape = Shape::memory});
    forms.push_back({.name = "movbe store", .opcode = {0x0F, 0x38, 0xF1}, .shape = Shape::memory});
    forms.push_back({.name = "lea", .opcode = {0x8D}, .shape = Shape::memory});
    for (u8 op = 0x40; op < 0x50; ++op) forms.push_back({.name = "cmov", .opcode = {0x0F, op}});
    for (u8 op = 0x90; op < 0xA0; ++op) forms.push_back({.name = "set", .opcode = {0x0F, op}});
    for (const u8 op : {u8{0x86}, u8{0x87}})
        forms.push_back({.name = "xchg", .opcode = {op}, .lockable = true});
    for (const u8 op : {u8{0xC0}, u8{0xC1}})
        forms.push_back({.name = "xadd", .opcode = {0x0F, op}, .lockable = true});
    for (const u8 op : {u8{0xB0}, u8{0xB1}})
        forms.push_back({.name = "cmpxchg", .opcode = {0x0F, op}, .lockable = true});
    forms.push_back({.name = "cmpxchg8b",
                     .opcode = {0x0F, 0xC7},
                     .extension = 1,
                     .shape = Shape::memory,
                     .lockable = true,
                     .fixed_size = true});
    constexpr u64 bit_undefined = rflags::of | rflags::sf | rflags::af | rflags::pf;
    for (const u8 op : {u8{0xA3}, u8{0xAB}, u8{0xB3}, u8{0xBB}})
        forms.push_back({.name = "bt",
                         .opcode = {0x0F, op},
                         .shape = Shape::bit_offset,
                         .undefined = bit_undefined,
                         .lockable = op != 0xA3});
    for (u8 extension = 4; extension < 8; ++extension)
        forms.push_back({.name = "bt imm",
                         .opcode = {0x0F, 0xBA},
                         .extension = extension,
                         .immediate = 1,
                         .undefined = bit_undefined,
                         .lockable = extension != 4});
    for (u8 op = 0x50; op < 0x60; ++op)
        forms.push_back({.name = op < 0x58 ? "push" : "pop", .opcode = {op}, .shape = Shape::stack});
    forms.push_back({.name = "push imm", .opcode = {0x68}, .immediate = 4, .shape = Shape::stack});
    forms.push_back({.name = "push imm8", .opcode = {0x6A}, .immediate = 1, .shape = Shape::stack});
    forms.push_back({.name = "push m", .opcode = {0xFF}, .extension = 6});
    forms.push_back({.name = "pop m", .opcode = {0x8F}, .extension = 0});
    for (const u8 op :
         {u8{0xA4}, u8{0xA5}, u8{0xA6}, u8{0xA7}, u8{0xAA}, u8{0xAB}, u8{0xAC}, u8{0xAD}, u8{0xAE}, u8{0xAF}})
        forms.push_back({.name = "string", .opcode = {op}, .shape = Shape::string});
    return forms;
}

class Trial {
  public:
    Trial(std::mt19937_64& random, const Form& form) : random_(random), form_(form) { build(); }

    std::vector<u8> code;
    GeneralRegisters gprs{};
    u64 flags = rflags::reserved_one;

  private:
    u64 pick(u64 below) { return random_() % below; }

    u64 value() {
        static constexpr u64 edges[] = {0,
                                        1,
                                        2,
                                        0x7F,
                                        0x80,
                                        0xFF,
                                        0x7FFF,
                                        0x8000,
                                        0xFFFF,
                                        0x7FFFFFFF,
                                        0x80000000,
                                        0xFFFFFFFF,
                                        0x7FFFFFFFFFFFFFFF,
                                        0x8000000000000000,
                                        ~u64{0}};
        return pick(3) == 0 ? edges[pick(std::size(edges))] : random_();
    }

    void append(u64 bytes, unsigned size) {
        for (unsigned i = 0; i < size; ++i) code.push_back(static_cast<u8>(bytes >> (8 * i)));
    }

    void build() {
        for (unsigned i = 0; i < 16; ++i) gprs[i] = value();
        gprs.rsp = region + 8 * kib + 8 * pick(64);
        flags |= random_() & rflags::arithmetic;
        const bool memory =
            form_.shape == Shape::memory ||
            ((form_.shape == Shape::modrm || form_.shape == Shape::bit_offset) && pick(3) != 0);
        const bool word = !form_.fixed_size && pick(4) == 0;
        const bool short_address = (memory || form_.shape == Shape::string) && pick(5) == 0;
        u8 rex = pick(2) == 0 ? static_cast<u8>(0x40 | pick(16)) : u8{0};
        if (form_.name == "cmpxchg8b") rex &= 0xF7;

        if (form_.shape == Shape::string) {
            const u64 choice = pick(3);
            if (choice != 0) code.push_back(choice == 1 ? 0xF3 : 0xF2);
            gprs.rsi = region + 5000 + pick(4096);
            gprs.rdi = region + 5000 + pick(4096);
            gprs.rcx = pick(40);
            // What processors do to the upper halves where ECX is zero differs between makers.
            if (short_address && gprs.rcx == 0) gprs.rcx = 1;
            if (pick(2) != 0) flags |= rflags::df;
        }
        if (word) code.push_back(0x66);
        if (short_address) code.push_back(0x67);
        if (memory && form_.lockable && pick(3) == 0) code.push_back(0xF0);

        if (form_.shape != Shape::modrm && form_.shape != Shape::memory && form_.shape != Shape::bit_offset) {
            if (rex != 0) code.push_back(rex);
            code.insert(code.end(), form_.opcode.begin(), form_.opcode.end());
            immediate(rex, word);
            return;
        }
        unsigned reg = static_cast<unsigned>(pick(8));
        if (form_.extension != no_extension) {
            reg = form_.extension;
            rex &= 0xFB;
        }
        const unsigned full_reg = reg | ((rex & 4u) << 1);
        u8 rm = static_cast<u8>(pick(8));
        u8 mod = 3;
        u8 sib = 0;
        i32 displacement = 0;
        bool has_sib = false;
        if (memory) {
            mod = static_cast<u8>(pick(3));
            displacement = mod == 0   ? 0
                           : mod == 1 ? static_cast<i8>(random_())
                                      : static_cast<i32>(pick(100000)) - 50000;
            const bool uses_rsp = form_.name == "push m" || form_.name == "pop m";
            unsigned base = 0;
            unsigned index = 4;
            do {
                rm = static_cast<u8>(pick(8));
                base = rm | ((rex & 1u) << 3);
                has_sib = rm == 4;
                if (has_sib) {
                    sib = static_cast<u8>(random_());
                    base = (sib & 7u) | ((rex & 1u) << 3);
                    index = ((sib >> 3) & 7u) | ((rex & 2u) << 2);
                }
                // A base of RSP is for PUSH and POP alone; RBP and R13 need a displacement.
            } while ((base == 4 && !uses_rsp) || ((base & 7) == 5 && mod == 0) || conflicts(base, full_reg) ||
                     (has_sib && index != 4 && (index == base || conflicts(index, full_reg))));
            u64 address = region + 6 * kib + pick(3 * kib);
            if (has_sib && index != 4) {
                gprs[index] = pick(64);
                address -= gprs[index] << (sib >> 6);
            }
            if (base != 4) gprs[base] = address - static_cast<u64>(static_cast<i64>(displacement));
            if (base == 4) displacement = static_cast<i8>(displacement);
        }
        if (form_.shape == Shape::bit_offset && memory) {
            // Up to a thousand bytes either way, with garbage above what the operand size makes of it.
            const u64 offset = static_cast<u64>(static_cast<i64>(pick(16000)) - 8000);
            const unsigned keep = (rex & 8) != 0 ? 64 : word ? 16 : 32;
            gprs[full_reg] = (offset & low_mask(keep)) | (random_() & ~low_mask(keep));
        }
        if (form_.name.starts_with("cmpxchg") && pick(2) == 0 && !memory)
            gprs.rax = gprs[rm | ((rex & 1u) << 3)];

        if (rex != 0) code.push_back(rex);
        code.insert(code.end(), form_.opcode.begin(), form_.opcode.end());
        code.push_back(static_cast<u8>((mod << 6) | (reg << 3) | rm));
        if (has_sib && mod != 3) code.push_back(sib);
        if (mod == 1) append(static_cast<u64>(displacement), 1);
        if (mod == 2) append(static_cast<u64>(displacement), 4);
        immediate(rex, word);
    }

    // The bit offset's register cannot be part of the address as well.
    bool conflicts(unsigned address_register, unsigned full_reg) const {
        return form_.shape == Shape::bit_offset && address_register == full_reg;
    }

    void immediate(u8 rex, bool word) {
        unsigned size = form_.immediate;
        if (size == 4) size = (rex & 8) == 0 && word ? 2 : 4;
        if (size == 8) size = (rex & 8) != 0 ? 8 : word ? 2 : 4;
        append(value(), size);
    }

    std::mt19937_64& random_;
    const Form& form_;
};

// Flags that the manual leaves undefined after a shift or rotation.
u64 undefined_after_shift(const Instruction& i, u64 cl) {
    const u64 raw = i.opcode < 0xD0 ? i.immediate : i.opcode < 0xD2 ? 1 : cl;
    const u64 count = raw & (i.operand_size == 8 ? 63 : 31);
    if (count == 0) return 0;
    u64 undefined = count == 1 ? 0 : rflags::of;
    if (i.extension() >= 4) {
        undefined |= rflags::af;
        if (count >= 8u * i.operand_size && i.extension() != 7) undefined |= rflags::cf;
    }
    return undefined;
}

std::string hex(const std::vector<u8>& bytes) {
    std::string text;
    for (const u8 byte : bytes) {
        char part[4];
        std::snprintf(part, sizeof part, "%02x ", byte);
        text += part;
    }
    return text;
}

}  // namespace

TEST_CASE("the emulator computes what the host's processor computes") {
    u8* const memory = map_low_memory(region, region_size);
    REQUIRE(memory != nullptr);
    HostProcessor host;
    std::mt19937_64 random(20240101);
    std::vector<u8> before(region_size);
    TestMachine machine(region_size, region);
    machine.enter_long_mode();
    const ExecutionMode mode = execution_mode(machine);

    unsigned trials = 0;
    for (const Form& form : all_forms()) {
        const unsigned rounds = form.shape == Shape::string ? 1200 : 300;
        for (unsigned round = 0; round < rounds; ++round) {
            const Trial trial(random, form);
            // Few different bytes, so that comparisons of strings go on for a while.
            for (u64 at = 0; at < region_size; at += 8) {
                const u64 word = form.shape == Shape::string ? 0 : random();
                std::memcpy(before.data() + at, &word, 8);
            }
            if (form.shape == Shape::string) before[5000 + random() % 4096] = 1;
            HostState state{.gprs = trial.gprs, .flags = trial.flags};
            if (form.shape == Shape::string && random() % 2 == 0) state.gprs.rax = 0;

            Instruction instruction;
            INFO(form.name << ": " << hex(trial.code));
            REQUIRE(decode(trial.code, CodeSize::bits64, instruction) == DecodeStatus::ok);
            REQUIRE(instruction.length == trial.code.size());
            // Half of the compare-and-exchanges with memory find what they look for: zero.
            const auto addresses = [&](u8 number) {
                return instruction.memory.base == number || instruction.memory.index == number;
            };
            if (form.name.starts_with("cmpxchg") && instruction.memory.present && !addresses(0) &&
                !addresses(2) && random() % 2 == 0) {
                state.gprs.rax = 0;
                state.gprs.rdx = 0;
                std::memset(before.data(), 0, region_size);
            }
            std::memcpy(memory, before.data(), region_size);
            machine.general = state.gprs;
            machine.ram = before;
            machine.set(Register::rflags, trial.flags);
            machine.set(Register::rip, 0x1000);

            const Outcome outcome = emulate(machine, mode, instruction);
            REQUIRE(outcome.kind == Outcome::Kind::done);
            REQUIRE(machine.read(Register::rip) == 0x1000 + trial.code.size());
            host.run(trial.code, state);

            u64 undefined = form.undefined;
            if (form.shift) undefined |= undefined_after_shift(instruction, trial.gprs.rcx & 0xFF);
            const u64 compared = (rflags::arithmetic | rflags::df) & ~undefined;
            for (unsigned i = 0; i < 16; ++i) {
                INFO("register " << i);
                REQUIRE(machine.general[i] == state.gprs[i]);
            }
            REQUIRE((machine.read(Register::rflags) & compared) == (state.flags & compared));
            REQUIRE(std::memcmp(machine.ram.data(), memory, region_size) == 0);
            ++trials;
        }
    }
    CHECK(trials > 50'000);
}

}  // namespace bulkhead::test
