// The emulator's rules one by one: segmentation, paging faults, straddling, repetition, devices, locks.
#include "vmm/decode/emulator.hpp"

#include <catch2/catch.hpp>
#include <random>

#include "test_machine.hpp"

namespace bulkhead::test {
namespace {

using Kind = Outcome::Kind;
namespace error = page_fault_error;

constexpr u64 device = 0xFEC0'0000;

TestMachine long_mode_machine() {
    TestMachine m;
    m.enter_long_mode();
    m.device_base = device;
    m.device_size = 0x1000;
    m.set(Register::rip, 0x100);
    return m;
}

// 4-level tables at 1000h: linear 0-2 MiB by 4 KiB pages, identity; the table is at 4000h.
constexpr u64 page_table = 0x4000;
void enable_paging(TestMachine& m) {
    m.set(Register::cr0, cr0::pe | cr0::pg | cr0::wp);
    m.set(Register::cr4, cr4::pae);
    m.set(Register::efer, efer::lme | efer::lma | efer::nxe);
    m.set(Register::cr3, 0x1000);
    m.poke<u64>(0x1000, 0x2007);
    m.poke<u64>(0x2000, 0x3007);
    m.poke<u64>(0x3000, page_table | 7);
    for (u64 page = 0; page < 512; ++page) m.poke<u64>(page_table + 8 * page, page * page_size | 7);
}
void unmap(TestMachine& m, u64 page) {
    m.poke<u64>(page_table + 8 * page, 0);
}
void map(TestMachine& m, u64 page, u64 physical, u64 bits = 7) {
    m.poke<u64>(page_table + 8 * page, physical | bits);
}

void expect_exception(const Outcome& outcome, Vector vector, std::optional<u32> code) {
    REQUIRE(outcome.kind == Kind::exception);
    CHECK(outcome.event.vector == vector);
    CHECK(outcome.event.error_code == code);
}
void expect_page_fault(const Outcome& outcome, u64 address, u32 code) {
    expect_exception(outcome, exception::page_fault, code);
    CHECK(outcome.event.fault_address == address);
}

}  // namespace

TEST_CASE("a 32-bit store and load reach a device once each, in their size") {
    TestMachine m = long_mode_machine();
    m.general.rbx = device;
    m.general.rax = 0xAAAA'BBBB'1234'5678;
    CHECK(m.execute({0x89, 0x43, 0x10}).kind == Kind::done);  // MOV [RBX+10h], EAX
    m.device_value = 0xFFFF'FFFF'8765'4321;
    CHECK(m.execute({0x8B, 0x03}).kind == Kind::done);  // MOV EAX, [RBX]
    CHECK(m.general.rax == 0x8765'4321);
    CHECK(m.execute({0xC7, 0x83, 0xB0, 0, 0, 0, 0, 0, 0, 0}).kind == Kind::done);
    CHECK(m.execute({0x48, 0xC7, 0x03, 0xFE, 0xFF, 0xFF, 0xFF}).kind == Kind::done);
    const std::vector<PhysicalAccess> expected{{true, device + 0x10, 4, 0x1234'5678},
                                               {false, device, 4, 0x8765'4321},
                                               {true, device + 0xB0, 4, 0},
                                               {true, device, 8, ~u64{1}}};
    CHECK(m.device_log == expected);
    CHECK(m.read(Register::rip) == 0x100 + 3 + 2 + 10 + 7);
}

TEST_CASE("a read-modify-write of a device reads once and writes once, locked or not") {
    for (const bool lock : {false, true}) {
        TestMachine m = long_mode_machine();
        m.general.rbx = device;
        m.device_value = 0x0F;
        const Outcome outcome = lock ? m.execute({0xF0, 0x80, 0x0B, 0xF0}) : m.execute({0x80, 0x0B, 0xF0});
        CHECK(outcome.kind == Kind::done);
        const std::vector<PhysicalAccess> expected{{false, device, 1, 0x0F}, {true, device, 1, 0xFF}};
        CHECK(m.device_log == expected);
        CHECK((m.read(Register::rflags) & rflags::sf) != 0);
    }
    TestMachine m = long_mode_machine();
    m.general.rbx = device;
    m.device_value = 7;
    m.general.rax = 1;
    m.general.rcx = 9;
    CHECK(m.execute({0x0F, 0xB1, 0x0B}).kind == Kind::done);  // CMPXCHG [RBX], ECX, unequal
    CHECK(m.general.rax == 7);
    const std::vector<PhysicalAccess> expected{{false, device, 4, 7}, {true, device, 4, 7}};
    CHECK(m.device_log == expected);
    m.device_log.clear();
    CHECK(m.execute({0x87, 0x0B}).kind == Kind::done);  // XCHG
    CHECK(m.general.rcx == 7);
    CHECK(m.device_log == std::vector<PhysicalAccess>{{false, device, 4, 7}, {true, device, 4, 9}});
}

TEST_CASE("a locked operation on RAM is one atomic exchange, repeated when another processor interferes") {
    TestMachine m = long_mode_machine();
    m.general.rbx = 0x800;
    m.general.rax = 5;
    m.poke<u32>(0x800, 10);
    unsigned interferences = 3;
    m.before_exchange = [&](u64) {
        if (interferences != 0 && interferences-- != 0) m.poke<u32>(0x800, m.peek<u32>(0x800) + 100);
    };
    CHECK(m.execute({0xF0, 0x0F, 0xC1, 0x03}).kind == Kind::done);  // LOCK XADD [RBX], EAX
    CHECK(m.peek<u32>(0x800) == 315);
    CHECK(m.general.rax == 310);
    CHECK(m.ram_writes == 0);
    CHECK(m.exchanges == 1);

    m.before_exchange = [&](u64) { m.poke<u32>(0x800, m.peek<u32>(0x800) + 1); };
    const GeneralRegisters before = m.general;
    const u64 rip = m.read(Register::rip);
    CHECK(m.execute({0xF0, 0x01, 0x03}).kind == Kind::interrupted);  // endless interference ends
    CHECK(m.general.rax == before.rax);
    CHECK(m.read(Register::rip) == rip);
}

TEST_CASE("registers are only changed once the access has succeeded") {
    TestMachine m = long_mode_machine();
    enable_paging(m);
    unmap(m, 8);
    m.general = {.rax = 1, .rcx = 2, .rdx = 3, .rbx = 0x8000, .rsp = 0x7000};
    const GeneralRegisters before = m.general;
    const u64 flags = m.read(Register::rflags);
    expect_page_fault(m.execute({0x01, 0x03}), 0x8000, error::write);
    expect_page_fault(m.execute({0x03, 0x03}), 0x8000, 0);
    expect_page_fault(m.execute({0x0F, 0xC1, 0x03}), 0x8000, error::write);
    expect_page_fault(m.execute({0xFF, 0x33}), 0x8000, 0);             // PUSH [RBX]
    expect_page_fault(m.execute({0x8F, 0x03}), 0x8000, error::write);  // POP [RBX]
    expect_page_fault(m.execute({0xFF, 0x13}), 0x8000, 0);             // CALL [RBX]
    CHECK(std::memcmp(&m.general, &before, sizeof before) == 0);
    CHECK(m.read(Register::rflags) == flags);
    CHECK(m.read(Register::rip) == 0x100);
}

TEST_CASE("an operand across two pages faults on the second without touching the first") {
    TestMachine m = long_mode_machine();
    enable_paging(m);
    unmap(m, 9);
    m.general.rbx = 0x8FFE;
    m.general.rax = 0x11223344;
    m.poke<u16>(0x8FFE, 0xBEEF);
    expect_page_fault(m.execute({0x89, 0x03}), 0x9000, error::write);
    CHECK(m.peek<u16>(0x8FFE) == 0xBEEF);
    expect_page_fault(m.execute({0x48, 0x8B, 0x03}), 0x9000, 0);
    CHECK(m.general.rax == 0x11223344);

    map(m, 9, 0xB000);
    map(m, 8, 0xA000);
    CHECK(m.execute({0x89, 0x03}).kind == Kind::done);
    CHECK(m.peek<u16>(0xAFFE) == 0x3344);
    CHECK(m.peek<u16>(0xB000) == 0x1122);
    m.general.rax = 0;
    CHECK(m.execute({0x48, 0x8B, 0x03}).kind == Kind::done);
    CHECK((m.general.rax & 0xFFFFFFFF) == 0x11223344);
    CHECK(m.execute({0xF0, 0x83, 0x03, 0x01}).kind == Kind::done);  // locked, across pages
    CHECK(m.peek<u16>(0xAFFE) == 0x3345);
}

TEST_CASE("an operand that begins in RAM and ends in a device is split at the page") {
    TestMachine m = long_mode_machine();
    enable_paging(m);
    map(m, 9, device);
    m.general.rbx = 0x8FFD;
    m.general.rax = 0x1122'3344'5566'7788;
    CHECK(m.execute({0x48, 0x89, 0x03}).kind == Kind::done);
    CHECK(m.peek<u8>(0x8FFD) == 0x88);
    CHECK(m.peek<u16>(0x8FFE) == 0x6677);
    const std::vector<PhysicalAccess> expected{{true, device, 4, 0x2233'4455}, {true, device + 4, 1, 0x11}};
    CHECK(m.device_log == expected);
}

TEST_CASE("paging permissions follow CPL, WP, SMAP and the flags of the page") {
    TestMachine m = long_mode_machine();
    enable_paging(m);
    m.general.rbx = 0x8000;
    map(m, 8, 0x8000, 1);  // read-only, supervisor
    expect_page_fault(m.execute({0x88, 0x03}), 0x8000, error::present | error::write);
    CHECK(m.execute({0x8A, 0x03}).kind == Kind::done);
    m.privilege = 3;
    expect_page_fault(m.execute({0x8A, 0x03}), 0x8000, error::present | error::user);
    m.privilege = 0;
    map(m, 8, 0x8000, 7);
    m.set(Register::cr4, cr4::pae | cr4::smap);
    expect_page_fault(m.execute({0x8A, 0x03}), 0x8000, error::present);
    m.set(Register::rflags, 2 | rflags::ac);
    CHECK(m.execute({0x8A, 0x03}).kind == Kind::done);
}

TEST_CASE("a known translation saves the walk only for its own page and direction") {
    TestMachine m = long_mode_machine();
    enable_paging(m);
    map(m, 8, device);
    m.general.rbx = 0x8010;
    const KnownTranslation known{.physical = GuestPhysical(device + 0x10),
                                 .linear = GuestVirtual(0x8010),
                                 .valid = true,
                                 .linear_known = true,
                                 .writable = false};
    m.reads = 0;
    CHECK(m.execute({0x8B, 0x03}, {.known = known}).kind == Kind::done);
    CHECK(m.reads == 1);  // the device alone
    map(m, 8, device, 5);
    expect_page_fault(m.execute({0x89, 0x03}, {.known = known}), 0x8010, error::present | error::write);
    m.general.rbx = 0x9010;
    m.reads = 0;
    CHECK(m.execute({0x8B, 0x03}, {.known = known}).kind == Kind::done);
    CHECK(m.reads > 1);

    // Only the physical address known: the offset in the page has to match, and the operand has to be the
    // only one.
    const KnownTranslation physical{
        .physical = GuestPhysical(device + 0x10), .valid = true, .writable = true};
    m.general.rbx = 0x8010;
    m.reads = 0;
    CHECK(m.execute({0x89, 0x03}, {.known = physical}).kind == Kind::done);
    CHECK(m.reads == 0);
    CHECK(m.device_log.back().address == device + 0x10);
    m.general.rbx = 0x9014;
    m.reads = 0;
    CHECK(m.execute({0x8B, 0x03}, {.known = physical}).kind == Kind::done);
    CHECK(m.reads > 1);
    m.general.rsp = 0xA018;
    m.general.rbx = 0x9100;
    m.device_log.clear();
    CHECK(m.execute({0xFF, 0x33}, {.known = physical}).kind == Kind::done);  // PUSH [RBX] to A010h
    CHECK(m.device_log.empty());
}

TEST_CASE("a translation known for reading does not write") {
    TestMachine m = long_mode_machine();
    enable_paging(m);
    map(m, 8, device, 5);  // read-only
    m.general.rbx = 0x8010;
    // With bytes behind it, as in memory, so that the decoder sees the plain move.
    const u8 bytes[Instruction::max_length] = {0x89, 0x03};  // MOV [RBX], EAX
    Instruction instruction;
    REQUIRE(decode(bytes, CodeSize::bits64, instruction) == DecodeStatus::ok);
    REQUIRE(instruction.plain_move);
    const KnownTranslation known{.physical = GuestPhysical(device + 0x10),
                                 .linear = GuestVirtual(0x8010),
                                 .valid = true,
                                 .linear_known = true,
                                 .writable = false};
    expect_page_fault(emulate(m, execution_mode(m), instruction, {.known = known}), 0x8010,
                      error::present | error::write);
    CHECK(m.device_log.empty());
}

TEST_CASE("a known translation does not keep a program from alignment checks") {
    TestMachine m = long_mode_machine();
    m.privilege = 3;
    m.set(Register::cr0, m.read(Register::cr0) | cr0::am);
    m.set(Register::rflags, rflags::reserved_one | rflags::ac);
    m.general.rbx = device + 1;
    const u8 bytes[Instruction::max_length] = {0x8B, 0x03};  // MOV EAX, [RBX]
    Instruction instruction;
    REQUIRE(decode(bytes, CodeSize::bits64, instruction) == DecodeStatus::ok);
    const KnownTranslation known{.physical = GuestPhysical(device + 1),
                                 .linear = GuestVirtual(device + 1),
                                 .valid = true,
                                 .linear_known = true};
    expect_exception(emulate(m, execution_mode(m), instruction, {.known = known}), exception::alignment_check,
                     0);
    CHECK(m.device_log.empty());
}

TEST_CASE("a port string whose address wraps goes on at the segment's beginning") {
    TestMachine m(256 * kib);
    m.enter_protected_mode();
    m.seg(SegmentName::es).base = 0x100;  // so that the wrap is at no page's end
    m.general = {.rcx = 16, .rdx = 0x1F0, .rdi = 0xFFF8};
    CHECK(m.execute({0x67, 0xF3, 0x6C}).kind == Kind::done);  // REP INSB with 16-bit addresses
    for (unsigned i = 0; i < 8; ++i) {
        CHECK(m.peek<u8>(0x100F8 + i) == 0x11 + i);
        CHECK(m.peek<u8>(0x100 + i) == 0x19 + i);
    }
    CHECK(m.peek<u8>(0x10100) == 0);
    CHECK(m.general.rdi == 8);
    CHECK(m.general.rcx == 0);
}

TEST_CASE("the short way for plain moves does what the general way does") {
    std::mt19937_64 random(5);
    unsigned plain = 0;
    for (unsigned n = 0; n < 20'000; ++n) {
        u8 bytes[15];
        for (u8& byte : bytes) byte = static_cast<u8>(random());
        static constexpr u8 opcodes[] = {0x88, 0x89, 0x8A, 0x8B, 0xC6, 0xC7};
        unsigned at = 0;
        if (random() % 2 == 0) bytes[at++] = static_cast<u8>(0x40 | random() % 16);
        bytes[at] = opcodes[random() % std::size(opcodes)];
        Instruction instruction;
        if (decode(bytes, CodeSize::bits64, instruction) != DecodeStatus::ok) continue;
        if (!instruction.memory.present || instruction.memory.base == MemoryOperand::none) continue;
        plain += instruction.plain_move ? 1 : 0;

        TestMachine slow = long_mode_machine();
        slow.device_value = random();
        for (unsigned i = 0; i < 16; ++i) slow.general[i] = random();
        const MemoryOperand& m = instruction.memory;
        const u64 target = device + random() % 0x1000;
        slow.general[m.base] = 0;
        const u64 rest = static_cast<u64>(m.displacement) +
                         (m.index != MemoryOperand::none ? slow.general[m.index] * m.scale : 0);
        if (m.base != m.index) slow.general[m.base] = target - rest;
        TestMachine quick = slow;
        const ExecutionMode mode = execution_mode(slow);
        const bool linear_known = random() % 2 == 0;
        const EmulatorOptions options{.known = {.physical = GuestPhysical(target),
                                                .linear = GuestVirtual(target),
                                                .valid = true,
                                                .linear_known = linear_known,
                                                .writable = random() % 8 != 0}};
        const Outcome a = emulate(slow, mode, instruction);
        const Outcome b = emulate(quick, mode, instruction, options);
        REQUIRE(a.kind == b.kind);
        REQUIRE(a.event == b.event);
        REQUIRE(slow.device_log == quick.device_log);
        REQUIRE(std::memcmp(&slow.general, &quick.general, sizeof slow.general) == 0);
        REQUIRE(slow.read(Register::rip) == quick.read(Register::rip));
        REQUIRE(slow.ram == quick.ram);
    }
    CHECK(plain > 5'000);
}

TEST_CASE("a string port instruction can be made from what the exit tells") {
    TestMachine m = long_mode_machine();
    m.poke_bytes(0x800, {1, 2, 3});
    m.general = {.rcx = 3, .rdx = 0x3F8, .rsi = 0xFFFF'FFFF'0000'0800};
    const Instruction made = string_port_instruction({.in = false,
                                                      .repeat = true,
                                                      .size = 1,
                                                      .address_size = 4,
                                                      .segment = SegmentName::ds,
                                                      .code = CodeSize::bits64,
                                                      .length = 3});
    const u8 bytes[] = {0x67, 0xF3, 0x6E};
    Instruction decoded;
    REQUIRE(decode(bytes, CodeSize::bits64, decoded) == DecodeStatus::ok);
    CHECK(made.opcode == decoded.opcode);
    CHECK(made.operand_size == decoded.operand_size);
    CHECK(made.address_size == decoded.address_size);
    CHECK(emulate(m, execution_mode(m), made).kind == Kind::done);
    CHECK(m.port_log.size() == 3);
    CHECK(m.general.rsi == 0x803);
    CHECK(m.read(Register::rip) == 0x103);
    CHECK(string_port_instruction({.in = true, .size = 4}).opcode == 0x6D);
}

TEST_CASE("non-canonical addresses raise #GP, or #SS through the stack segment") {
    TestMachine m = long_mode_machine();
    m.general.rbx = 0x8000'0000'0000;
    expect_exception(m.execute({0x8B, 0x03}), exception::general_protection, 0);
    m.general.rbx = 0x7FFF'FFFF'FFFD;  // the last bytes
    expect_exception(m.execute({0x8B, 0x03}), exception::general_protection, 0);
    m.general.rbp = 0x8000'0000'0000;
    expect_exception(m.execute({0x8B, 0x45, 0x00}), exception::stack_fault, 0);
    m.general.r13 = 0x8000'0000'0000;
    expect_exception(m.execute({0x41, 0x8B, 0x45, 0x00}), exception::general_protection, 0);
    m.general.rsp = 0x8000'0000'0008;
    expect_exception(m.execute({0x50}), exception::stack_fault, 0);  // PUSH RAX
    m.set(Register::cr4, cr4::la57);
    CHECK(m.execute({0x8B, 0x03}).kind == Kind::done);
}

TEST_CASE("FS and GS have a base in 64-bit code, the other segments none") {
    TestMachine m = long_mode_machine();
    m.seg(SegmentName::fs).base = 0x1000;
    m.seg(SegmentName::fs).unusable = true;  // does not matter
    m.seg(SegmentName::ds).base = 0x5000;
    m.seg(SegmentName::ds).limit = 0;
    m.poke<u32>(0x1800, 0xF5);
    m.poke<u32>(0x800, 0xD5);
    m.general.rbx = 0x800;
    CHECK(m.execute({0x64, 0x8B, 0x03}).kind == Kind::done);
    CHECK(m.general.rax == 0xF5);
    CHECK(m.execute({0x8B, 0x03}).kind == Kind::done);
    CHECK(m.general.rax == 0xD5);
    // A 32-bit address size cuts the offset, not the sum.
    m.general.rbx = 0xFFFF'FFFF'0000'0800;
    CHECK(m.execute({0x67, 0x64, 0x8B, 0x03}).kind == Kind::done);
    CHECK(m.general.rax == 0xF5);
}

TEST_CASE("segment limits, types and null segments are enforced outside 64-bit code") {
    TestMachine m;
    m.enter_protected_mode();
    const auto load_ds = [&] { return m.execute({0x8B, 0x03}); };  // MOV EAX, [EBX]
    const auto store_ds = [&] { return m.execute({0x89, 0x03}); };
    const auto load_ss = [&] { return m.execute({0x8B, 0x45, 0}); };  // MOV EAX, [EBP]
    Segment& ds = m.seg(SegmentName::ds);
    Segment& ss = m.seg(SegmentName::ss);

    ds = {.selector = 0x10, .base = 0x100, .limit = 0xFFF, .access = 0x4093};
    m.general.rbx = 0xFFC;
    CHECK(load_ds().kind == Kind::done);
    m.general.rbx = 0xFFD;
    expect_exception(load_ds(), exception::general_protection, 0);
    m.general.rbx = 0xFFFF'FFFF;
    expect_exception(load_ds(), exception::general_protection, 0);

    ds = {.selector = 0x10, .limit = 0xFFF, .access = 0x4097};  // expand-down, big: 1000h-FFFFFFFFh
    m.general.rbx = 0xFFF;
    expect_exception(load_ds(), exception::general_protection, 0);
    m.general.rbx = 0x1000;
    CHECK(load_ds().kind == Kind::done);
    m.general.rbx = 0xFFFF'FFFC;
    CHECK(load_ds().kind == Kind::done);
    m.general.rbx = 0xFFFF'FFFD;
    expect_exception(load_ds(), exception::general_protection, 0);
    ds.access = 0x0097;  // expand-down, small: 1000h-FFFFh
    m.general.rbx = 0xFFFC;
    CHECK(load_ds().kind == Kind::done);
    m.general.rbx = 0xFFFD;
    expect_exception(load_ds(), exception::general_protection, 0);

    m.general.rbx = 0x100;
    ds = {.limit = 0xFFFFFFFF, .access = 0xC091};  // read-only data
    CHECK(load_ds().kind == Kind::done);
    expect_exception(store_ds(), exception::general_protection, 0);
    ds.access = 0xC099;  // execute-only code
    expect_exception(load_ds(), exception::general_protection, 0);
    ds.access = 0xC09B;  // readable code
    CHECK(load_ds().kind == Kind::done);
    expect_exception(store_ds(), exception::general_protection, 0);
    ds.unusable = true;
    expect_exception(load_ds(), exception::general_protection, 0);
    CHECK(m.execute({0x8D, 0x03}).kind == Kind::done);  // LEA accesses nothing
    ss.unusable = true;
    m.general.rbp = 0x100;
    expect_exception(load_ss(), exception::stack_fault, 0);
    ss = {.limit = 0xFF, .access = 0x4093};
    expect_exception(load_ss(), exception::stack_fault, 0);
    expect_exception(m.execute({0x36, 0x8B, 0x03}), exception::stack_fault, 0);
}

TEST_CASE("a 4 GiB segment wraps at its end, byte by byte") {
    TestMachine m(0x2000, 0xFFFF'F000);
    m.ram.resize(0x1000);
    m.enter_protected_mode();
    m.general.rbx = 0xFFFF'FFFE;
    m.general.rax = 0x11223344;
    m.device_base = 0;
    m.device_size = 0x1000;
    CHECK(m.execute({0x89, 0x03}).kind == Kind::done);
    CHECK(m.peek<u16>(0xFFFF'FFFE) == 0x3344);
    CHECK(m.device_log == std::vector<PhysicalAccess>{{true, 0, 2, 0x1122}});
}

TEST_CASE("real mode faults at 64 KiB without an error code, and IP does not wrap") {
    TestMachine m;
    m.enter_real_mode();
    m.seg(SegmentName::ds).base = 0x500;
    m.poke<u16>(0x500 + 0x34, 0xABCD);
    m.general.rbx = 0x30;
    m.general.rsi = 0xFFFF'0004;
    CHECK(m.execute({0x8B, 0x00}).kind == Kind::done);  // MOV AX, [BX+SI]
    CHECK(m.general.rax == 0xABCD);
    m.general.rsi = 0xFFCF;  // offset FFFFh
    expect_exception(m.execute({0x8B, 0x00}), exception::general_protection, std::nullopt);
    m.general.rsi = 0xFFD0;  // the sum wraps to 0
    CHECK(m.execute({0x8B, 0x00}).kind == Kind::done);
    m.general.rbp = 0xFFFF;
    expect_exception(m.execute({0x8B, 0x46, 0x00}), exception::stack_fault, std::nullopt);
    m.set(Register::rip, 0xFFFE);
    m.general.rsi = 0;
    CHECK(m.execute({0x8B, 0x00}).kind == Kind::done);
    CHECK(m.read(Register::rip) == 0x1'0000);
}

TEST_CASE("RIP wraps at 4 GiB outside 64-bit code and not within it") {
    TestMachine m;
    m.enter_protected_mode();
    m.set(Register::rip, 0xFFFF'FFFE);
    CHECK(m.execute({0x8B, 0x03}).kind == Kind::done);
    CHECK(m.read(Register::rip) == 0);
    m.enter_long_mode();
    m.set(Register::rip, 0xFFFF'FFFE);
    CHECK(m.execute({0x8B, 0x03}).kind == Kind::done);
    CHECK(m.read(Register::rip) == 0x1'0000'0000);
}

TEST_CASE("misaligned accesses raise #AC in ring 3 where it is switched on") {
    TestMachine m = long_mode_machine();
    m.general.rbx = 0x801;
    m.set(Register::cr0, cr0::pe | cr0::am);
    m.set(Register::rflags, 2 | rflags::ac);
    CHECK(m.execute({0x8B, 0x03}).kind == Kind::done);
    m.privilege = 3;
    expect_exception(m.execute({0x8B, 0x03}), exception::alignment_check, 0);
    CHECK(m.execute({0x8A, 0x03}).kind == Kind::done);
    m.set(Register::rflags, 2);
    CHECK(m.execute({0x8B, 0x03}).kind == Kind::done);
}

TEST_CASE("bit offsets in a register are signed and reach far from the operand") {
    TestMachine m = long_mode_machine();
    m.general.rbx = 0x4000;
    m.general.rax = static_cast<u64>(-8 * 0x2000 + 3);
    CHECK(m.execute({0x48, 0x0F, 0xAB, 0x03}).kind == Kind::done);  // BTS [RBX], RAX
    CHECK(m.peek<u8>(0x2000) == 8);
    m.general.rbx = 0x1000'0000'0000'2000;  // offset and base wrap together
    m.general.rax = 0x8000'0000'0000'0000 + 3;
    CHECK(m.execute({0x48, 0x0F, 0xA3, 0x03}).kind == Kind::done);
    CHECK((m.read(Register::rflags) & rflags::cf) != 0);
    m.general.rbx = 0x2000;
    expect_exception(m.execute({0x48, 0x0F, 0xA3, 0x03}), exception::general_protection, 0);
    // 16 bits of the register count with a 16-bit operand.
    m.general.rax = 0x1234'8000;
    m.general.rbx = 0x2000;
    m.poke<u8>(0x1000, 1);
    CHECK(m.execute({0x66, 0x0F, 0xB3, 0x03}).kind == Kind::done);
    CHECK(m.peek<u8>(0x1000) == 0);
}

TEST_CASE("CMPXCHG8B ignores an operand-size prefix, CMPXCHG16B is refused") {
    TestMachine m = long_mode_machine();
    m.general = {.rax = 0x5566'7788, .rcx = 1, .rdx = 0x1122'3344, .rbx = 2, .rsi = 0x800};
    m.poke<u64>(0x800, 0x1122'3344'5566'7788);
    m.poke<u64>(0x808, 0x99);
    CHECK(m.execute({0x66, 0xF0, 0x0F, 0xC7, 0x0E}).kind == Kind::done);
    CHECK(m.peek<u64>(0x800) == 0x1'0000'0002);
    CHECK(m.peek<u64>(0x808) == 0x99);
    CHECK(m.execute({0xF0, 0x48, 0x0F, 0xC7, 0x0E}).kind == Kind::unsupported);
}

TEST_CASE("what the emulator does not know changes nothing") {
    TestMachine m = long_mode_machine();
    m.general.rbx = device;
    const GeneralRegisters before = m.general;
    for (const auto& bytes :
         std::initializer_list<std::initializer_list<u8>>{{0x0F, 0x11, 0x03},        // MOVUPS
                                                          {0x66, 0x0F, 0x6F, 0x03},  // MOVDQA
                                                          {0xC5, 0xF8, 0x28, 0x03},  // VMOVAPS
                                                          {0xD9, 0x03},              // FLD
                                                          {0xF7, 0x33},              // DIV
                                                          {0x0F, 0xA4, 0x03, 0x01},  // SHLD
                                                          {0x8E, 0x1B},              // MOV DS
                                                          {0xFF, 0x2B},              // far JMP
                                                          {0x0F, 0xA2},              // CPUID
                                                          {0xF2, 0x0F, 0x38, 0xF1, 0x03}}) {
        CHECK(m.execute(bytes).kind == Kind::unsupported);
        CHECK(m.status == DecodeStatus::ok);
        CHECK(std::memcmp(&m.general, &before, sizeof before) == 0);
        CHECK(m.device_log.empty());
        CHECK(m.read(Register::rip) == 0x100);
    }
    m.refuse = true;
    CHECK(m.execute({0x8B, 0x03}).kind == Kind::unsupported);
    CHECK(std::memcmp(&m.general, &before, sizeof before) == 0);
}

TEST_CASE("a repetition with a count of zero does nothing but end") {
    TestMachine m = long_mode_machine();
    m.general = {.rcx = 0, .rsi = 0xDEAD'0000'0000, .rdi = 0xDEAD'0000'0000'0000};
    const GeneralRegisters before = m.general;
    CHECK(m.execute({0xF3, 0xA5}).kind == Kind::done);
    CHECK(m.execute({0xF3, 0x6C}).kind == Kind::done);
    CHECK(std::memcmp(&m.general, &before, sizeof before) == 0);
    CHECK(m.read(Register::rip) == 0x104);
    CHECK(m.port_log.empty());
    m.enter_real_mode();
    m.general.rcx = 0x1'0000;  // CX is zero
    CHECK(m.execute({0xF3, 0xA4}).kind == Kind::done);
    CHECK(m.general.rcx == 0x1'0000);
}

TEST_CASE("a count of 2^64-1 stops at the iteration limit and goes on from there") {
    TestMachine m = long_mode_machine();
    m.general = {.rax = 0x5A, .rcx = ~u64{0}, .rdi = 0x1000};
    const Outcome outcome = m.execute({0xF3, 0xAA}, {.iteration_limit = 100});
    CHECK(outcome.kind == Kind::interrupted);
    CHECK(m.general.rcx == ~u64{0} - 100);
    CHECK(m.general.rdi == 0x1000 + 100);
    CHECK(m.read(Register::rip) == 0x100);
    CHECK(m.peek<u8>(0x1000 + 99) == 0x5A);
    CHECK(m.peek<u8>(0x1000 + 100) == 0);
    m.attention = true;
    CHECK(m.execute({0xF3, 0xAA}).kind == Kind::interrupted);
    CHECK(m.general.rdi > 0x1000 + 100);
    CHECK(m.general.rdi <= 0x1000 + 100 + 16);
    CHECK(m.execute({0xF3, 0x6C}, {.iteration_limit = 0}).kind ==
          Kind::interrupted);  // a limit of 0 counts as 1
}

TEST_CASE("a single-stepped repetition stops after each element, its last element ends it") {
    for (const u8 opcode : {u8{0xA4}, u8{0xAA}, u8{0xAC}, u8{0x6C}, u8{0x6E}}) {
        CAPTURE(unsigned{opcode});
        TestMachine m = long_mode_machine();
        m.general = {.rax = 0x5A, .rcx = 2, .rdx = 0x80, .rsi = 0x1000, .rdi = 0x2000};
        m.set(Register::rflags, 2 | rflags::tf);
        CHECK(m.execute({0xF3, opcode}).kind == Kind::stepped);
        CHECK(m.general.rcx == 1);
        CHECK(m.read(Register::rip) == 0x100);
        CHECK(m.execute({0xF3, opcode}).kind == Kind::done);
        CHECK(m.general.rcx == 0);
        CHECK(m.read(Register::rip) == 0x102);
    }
}

TEST_CASE("a string that runs into an unmapped page faults with the completed part in the registers") {
    TestMachine m = long_mode_machine();
    enable_paging(m);
    unmap(m, 9);
    for (const bool backwards : {false, true}) {
        m.set(Register::rflags, backwards ? 2 | rflags::df : 2);
        m.general = {.rcx = 100, .rsi = 0x7800, .rdi = backwards ? u64{0xA018} : u64{0x8FE8}};
        const Outcome outcome = m.execute({0xF3, 0x48, 0xA5});
        expect_page_fault(outcome, backwards ? 0x9FF8 : 0x9000, error::write);
        const u64 done = backwards ? 4 : 3;
        CHECK(m.general.rcx == 100 - done);
        CHECK(m.general.rdi == (backwards ? 0xA018 - 32 : 0x9000));
        CHECK(m.general.rsi == (backwards ? 0x7800 - 32 : 0x7818));
        CHECK(m.read(Register::rip) == 0x100);
    }
    // INS: the port is not read for an element that cannot be stored.
    m.set(Register::rflags, 2);
    m.general = {.rcx = 100, .rdx = 0x1F0, .rdi = 0x8FFC};
    expect_page_fault(m.execute({0xF3, 0x66, 0x6D}), 0x9000, error::write);
    CHECK(m.port_log.size() == 2);
    CHECK(m.general.rcx == 98);
    CHECK(m.general.rdi == 0x9000);
    // An element across the boundary: not begun.
    m.port_log.clear();
    m.general = {.rcx = 4, .rdx = 0x1F0, .rdi = 0x8FFF};
    expect_page_fault(m.execute({0xF3, 0x66, 0x6D}), 0x9000, error::write);
    CHECK(m.port_log.empty());
    CHECK(m.general.rcx == 4);
    m.general = {.rcx = 8, .rdx = 0x3F8, .rsi = 0x8FFA};
    expect_page_fault(m.execute({0xF3, 0x6E}), 0x9000, 0);
    CHECK(m.port_log.size() == 6);
    CHECK(m.general.rcx == 2);
}

TEST_CASE("REPE and REPNE end on the first difference or match, with its flags") {
    TestMachine m = long_mode_machine();
    m.poke_bytes(0x800, {1, 2, 3, 4});
    m.poke_bytes(0x900, {1, 2, 9, 4});
    m.general = {.rcx = 10, .rsi = 0x800, .rdi = 0x900};
    CHECK(m.execute({0xF3, 0xA6}).kind == Kind::done);
    CHECK(m.general.rcx == 7);
    CHECK(m.general.rsi == 0x803);
    CHECK((m.read(Register::rflags) & (rflags::zf | rflags::cf)) == rflags::cf);
    m.general = {.rax = 9, .rcx = 10, .rdi = 0x900};
    CHECK(m.execute({0xF2, 0xAE}).kind == Kind::done);
    CHECK(m.general.rcx == 7);
    CHECK((m.read(Register::rflags) & rflags::zf) != 0);
}

TEST_CASE("a comparison that faults keeps the flags of the elements before") {
    TestMachine m = long_mode_machine();
    enable_paging(m);
    unmap(m, 9);
    m.set(Register::rflags, 2 | rflags::cf);
    m.general = {.rcx = 10, .rsi = 0x8FFE, .rdi = 0x7000};
    expect_page_fault(m.execute({0xF3, 0xA6}), 0x9000, 0);
    CHECK(m.general.rcx == 8);
    CHECK((m.read(Register::rflags) & (rflags::zf | rflags::cf)) == rflags::zf);
}

TEST_CASE("string port instructions move chunks between RAM and the port in order") {
    TestMachine m = long_mode_machine();
    for (unsigned i = 0; i < 200; ++i) m.poke<u8>(0x1FC0 + i, static_cast<u8>(i));
    m.general = {.rcx = 200, .rdx = 0x3F8, .rsi = 0x1FC0};
    CHECK(m.execute({0xF3, 0x6E}).kind == Kind::done);
    REQUIRE(m.port_log.size() == 200);
    for (unsigned i = 0; i < 200; ++i)
        CHECK(m.port_log[i] == PhysicalAccess{true, 0x3F8, 1, static_cast<u8>(i)});
    CHECK(m.general.rsi == 0x1FC0 + 200);
    CHECK(m.general.rcx == 0);

    m.port_log.clear();
    m.port_value = 0x1000;
    m.general = {.rcx = 3, .rdx = 0x1F0, .rdi = 0x2FFF};
    CHECK(m.execute({0xF3, 0x6D}).kind == Kind::done);  // across a page
    CHECK(m.peek<u32>(0x2FFF) == 0x1000);
    CHECK(m.peek<u32>(0x3007) == 0x1002);
    m.set(Register::rflags, 2 | rflags::df);
    m.general = {.rcx = 2, .rdx = 0x1F0, .rdi = 0x2004};
    m.port_value = 0x77;
    CHECK(m.execute({0xF3, 0x6C}).kind == Kind::done);
    CHECK(m.peek<u8>(0x2004) == 0x77);
    CHECK(m.peek<u8>(0x2003) == 0x78);
    CHECK(m.general.rdi == 0x2002);
    // Without REP: one, and RCX is none of its business. REX.W means nothing.
    m.port_log.clear();
    CHECK(m.execute({0x48, 0x6F}).kind == Kind::done);
    CHECK(m.port_log.size() == 1);
    CHECK(m.port_log[0].size == 4);
}

TEST_CASE("string port instructions obey the source segment, its limit and the wrap of a 16-bit offset") {
    TestMachine m;
    m.enter_real_mode();
    m.seg(SegmentName::gs).base = 0x1000;
    m.poke<u8>(0x1000 + 0xFFFF - 0x8000, 0);
    m.general = {.rcx = 4, .rdx = 0x3F8, .rsi = 0xFFFE};
    m.ram.resize(128 * kib);
    m.poke_bytes(0x1000 + 0xFFFE, {0xAA, 0xBB});
    m.poke_bytes(0x1000, {0xCC, 0xDD});
    CHECK(m.execute({0x65, 0xF3, 0x6E}).kind == Kind::done);
    REQUIRE(m.port_log.size() == 4);
    CHECK(m.port_log[1].value == 0xBB);
    CHECK(m.port_log[2].value == 0xCC);
    CHECK(m.general.rsi == 2);
    m.seg(SegmentName::gs).limit = 0x10;
    m.general = {.rcx = 4, .rdx = 0x3F8, .rsi = 0xF};
    m.port_log.clear();
    expect_exception(m.execute({0x65, 0xF3, 0x6E}), exception::general_protection, std::nullopt);
    CHECK(m.port_log.size() == 2);
    CHECK(m.general.rcx == 2);
    CHECK(m.general.rsi == 0x11);
}

TEST_CASE("IN and OUT take the port from DX or the instruction and change no more than their size") {
    TestMachine m = long_mode_machine();
    m.general.rax = ~u64{0};
    m.general.rdx = 0xFFFF'0060;
    m.port_value = 0x12;
    CHECK(m.execute({0xEC}).kind == Kind::done);
    CHECK(m.general.rax == ((~u64{0} << 8) | 0x12));
    CHECK(m.execute({0xE5, 0xCF}).kind == Kind::done);
    CHECK(m.general.rax == 0x13);  // 32 bits clear the upper half
    CHECK(m.execute({0x66, 0xEF}).kind == Kind::done);
    const std::vector<PhysicalAccess> expected{
        {false, 0x60, 1, 0x12}, {false, 0xCF, 4, 0x13}, {true, 0x60, 2, 0x13}};
    CHECK(m.port_log == expected);
}

TEST_CASE("near transfers through memory check their target before the stack moves") {
    TestMachine m = long_mode_machine();
    m.general.rbx = 0x800;
    m.general.rsp = 0x2000;
    m.poke<u64>(0x800, 0x1234'5678);
    CHECK(m.execute({0xFF, 0x13}).kind == Kind::done);
    CHECK(m.read(Register::rip) == 0x1234'5678);
    CHECK(m.peek<u64>(0x1FF8) == 0x102);
    CHECK(m.general.rsp == 0x1FF8);
    CHECK(m.execute({0xC3}).kind == Kind::done);
    CHECK(m.read(Register::rip) == 0x102);
    m.poke<u64>(0x800, 0x8000'0000'0000);
    expect_exception(m.execute({0xFF, 0x13}), exception::general_protection, 0);
    CHECK(m.general.rsp == 0x2000);
    m.poke<u64>(0x2000, 0x8000'0000'0000);
    expect_exception(m.execute({0xC3}), exception::general_protection, 0);
    CHECK(m.general.rsp == 0x2000);
    m.enter_protected_mode();
    m.seg(SegmentName::cs).limit = 0xFFFF;
    m.poke<u32>(0x800, 0x10000);
    expect_exception(m.execute({0xFF, 0x23}), exception::general_protection, 0);
    m.poke<u32>(0x800, 0xFFFF);
    CHECK(m.execute({0xFF, 0x23}).kind == Kind::done);
    CHECK(m.read(Register::rip) == 0xFFFF);
}

TEST_CASE("POP computes its destination with the stack pointer already moved") {
    TestMachine m = long_mode_machine();
    m.general.rsp = 0x1000;
    m.poke<u64>(0x1000, 0x77);
    CHECK(m.execute({0x8F, 0x04, 0x24}).kind == Kind::done);  // POP [RSP]
    CHECK(m.peek<u64>(0x1008) == 0x77);
    CHECK(m.general.rsp == 0x1008);
}

TEST_CASE("the stack pointer has the stack segment's width outside 64-bit code") {
    TestMachine m;
    m.enter_protected_mode();
    m.seg(SegmentName::ss) = {.limit = 0xFFFF, .access = 0x0093};
    m.general.rsp = 0xABCD'0000;
    m.general.rax = 0x1234'5678;
    CHECK(m.execute({0x50}).kind == Kind::done);  // PUSH EAX: SP wraps
    CHECK(m.general.rsp == 0xABCD'FFFC);
    CHECK(m.peek<u32>(0xFFFC) == 0x1234'5678);
}

TEST_CASE("an instruction is fetched once, up to the page end first and beyond it only if it goes on") {
    TestMachine m = long_mode_machine();
    enable_paging(m);
    unmap(m, 9);
    m.poke_bytes(0x8FFE, {0x0F, 0xA2});
    m.set(Register::rip, 0x8FFE);
    FetchedInstruction fetched;
    REQUIRE(fetch_instruction(m, execution_mode(m), fetched));
    CHECK(fetched.instruction.opcode == 0xA2);
    CHECK(m.fetched_bytes == 2);
    m.poke_bytes(0x8FFE, {0x0F, 0x01});
    REQUIRE_FALSE(fetch_instruction(m, execution_mode(m), fetched));
    expect_page_fault(fetched.outcome, 0x9000, error::fetch);
    map(m, 9, 0xB000);
    m.poke_bytes(0xB000, {0xD1});
    m.fetched_bytes = 0;
    REQUIRE(fetch_instruction(m, execution_mode(m), fetched));
    CHECK(fetched.instruction.length == 3);
    CHECK(m.fetched_bytes == 15);
    map(m, 9, 0xB000, 7 | bit(63));
    REQUIRE_FALSE(fetch_instruction(m, execution_mode(m), fetched));
    expect_page_fault(fetched.outcome, 0x9000, error::present | error::fetch);
    map(m, 9, device);
    REQUIRE_FALSE(fetch_instruction(m, execution_mode(m), fetched));
    CHECK(fetched.outcome.kind == Kind::unsupported);  // no code from devices
}

TEST_CASE("a fetch respects the code segment's limit, 15 bytes and canonical addresses") {
    TestMachine m;
    m.enter_protected_mode();
    FetchedInstruction fetched;
    m.seg(SegmentName::cs).limit = 0x100;
    m.poke_bytes(0x100, {0xF4, 0xF4});
    m.set(Register::rip, 0x100);
    REQUIRE(fetch_instruction(m, execution_mode(m), fetched));
    CHECK(fetched.byte_count == 1);
    m.poke_bytes(0x100, {0x0F, 0xA2});
    REQUIRE_FALSE(fetch_instruction(m, execution_mode(m), fetched));
    expect_exception(fetched.outcome, exception::general_protection, 0);
    m.poke_bytes(0x100, {0xF4, 0xF4, 0xF4});
    for (const u64 beyond : {0x101, 0x102}) {
        m.set(Register::rip, beyond);
        REQUIRE_FALSE(fetch_instruction(m, execution_mode(m), fetched));
        expect_exception(fetched.outcome, exception::general_protection, 0);
    }
    m.enter_long_mode();
    m.set(Register::rip, 0x200);
    for (u64 i = 0; i < 16; ++i) m.poke<u8>(0x200 + i, 0x66);
    REQUIRE_FALSE(fetch_instruction(m, execution_mode(m), fetched));
    expect_exception(fetched.outcome, exception::general_protection, 0);
    m.poke_bytes(0x200, {0x0F, 0x0B});
    REQUIRE_FALSE(fetch_instruction(m, execution_mode(m), fetched));
    expect_exception(fetched.outcome, exception::invalid_opcode, std::nullopt);
    m.set(Register::rip, 0x8000'0000'0000);
    REQUIRE_FALSE(fetch_instruction(m, execution_mode(m), fetched));
    expect_exception(fetched.outcome, exception::general_protection, 0);
}

TEST_CASE("the execution mode follows CS, EFER, CR0 and RFLAGS") {
    TestMachine m;
    m.enter_long_mode();
    m.privilege = 3;
    CHECK(execution_mode(m).code == CodeSize::bits64);
    CHECK(execution_mode(m).cpl == 3);
    m.seg(SegmentName::cs).access = 0xC09B;
    CHECK(execution_mode(m).code == CodeSize::bits32);
    CHECK(execution_mode(m).protected_mode);
    m.enter_protected_mode();
    m.seg(SegmentName::cs).access = 0xA09B;  // L without long mode
    CHECK(execution_mode(m).code == CodeSize::bits16);
    m.set(Register::rflags, 2 | rflags::vm);
    CHECK_FALSE(execution_mode(m).protected_mode);
    CHECK(execution_mode(m).error_codes);
    m.enter_real_mode();
    CHECK_FALSE(execution_mode(m).error_codes);
}

}  // namespace bulkhead::test
