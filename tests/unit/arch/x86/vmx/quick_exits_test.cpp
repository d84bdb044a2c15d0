// The exits that the backend answers by itself, and those it must not.
#include <catch2/catch.hpp>
#include <cstring>
#include <vector>

#include "arch/x86/vmx/exit_decode.hpp"
#include "fixture.hpp"
#include "tests/fakes/quick_world.hpp"
#include "vmm/platform.hpp"

using namespace bulkhead;
using namespace bulkhead::vmx;

namespace {

namespace reason = basic_exit_reason;

// A guest in 64-bit code at 1000h whose instructions have two bytes.
struct World {
    Bench bench;
    Backend& b = *bench.backend;
    QuickWorld quick{b};
    GeneralRegisters at_last{};  // of the guest, when it was entered again

    World() {
        b.write(Register::cr4, cr4::pae);
        b.write(Register::efer, efer::lme);
        b.write(Register::cr0, cr0::pe | cr0::pg | cr0::et);
        b.set_segment(SegmentName::cs, {.selector = 8, .limit = ~0U, .access = 0xA09B});
        b.write(Register::rip, 0x1000);
        b.write(Register::rflags, 2);
    }
    // The guest exits so; should it be entered again, a host interrupt ends its turn.
    Exit run(u16 number, u64 deadline = ~u64{0}) {
        bench.fake.set(vmcs::vm_exit_instruction_length, 2);
        bench.fake.entries = 0;
        bench.fake.guest = [this, number](GeneralRegisters& registers) {
            bench.fake.tsc += 10;
            if (bench.fake.entries <= 1) return u64{number};
            at_last = registers;
            return u64{reason::external_interrupt};
        };
        return b.run(deadline);
    }
    void ask_port(Port port, bool in, u8 size = 1) {
        bench.fake.set(vmcs::exit_qualification, u64{port.raw()} << 16 | (in ? 8 : 0) | (size - 1U));
    }
};

}  // namespace

TEST_CASE("What needs nothing but registers is answered, and the guest entered again") {
    World w;
    w.b.gprs.rax = 0;
    CHECK(w.run(reason::cpuid).reason == ExitReason::external_interrupt);
    CHECK(w.b.read(Register::rip) == 0x1002);
    const CpuidResult leaf = w.quick.cpuid.lookup(0, 0, {});
    CHECK(w.at_last.rax == leaf.eax);
    CHECK(w.at_last.rbx == leaf.ebx);
    CHECK(w.at_last.rcx == leaf.ecx);
    CHECK(w.at_last.rdx == leaf.edx);
    CHECK(w.quick.count(ExitReason::cpuid) == 1);

    w.b.gprs.rcx = msr::apic_base.raw();
    CHECK(w.run(reason::rdmsr).reason == ExitReason::external_interrupt);
    CHECK(w.at_last.rax == (w.quick.apic.base() & 0xFFFFFFFF));
    CHECK(w.at_last.rdx == 0);
    CHECK(w.quick.count(ExitReason::msr_read) == 1);

    CHECK(w.run(reason::vmcall).reason == ExitReason::external_interrupt);
    CHECK(w.at_last.rax == static_cast<u64>(-38));
    CHECK(w.quick.count(ExitReason::hypercall) == 1);

    w.b.gprs.rcx = 0;
    w.b.gprs.rax = 3;
    w.b.gprs.rdx = 0;
    w.b.write(Register::cr4, cr4::pae | cr4::osxsave);
    CHECK(w.run(reason::xsetbv).reason == ExitReason::external_interrupt);
    CHECK(w.b.xcr0() == 3);
    CHECK(w.b.read(Register::rip) == 0x1008);
}

TEST_CASE("A chip's register is read and written between two entries") {
    World w;
    const Port scratch(0x3FF);
    w.ask_port(scratch, false);
    w.b.gprs.rax = 0x1234'5678'9ABC'DE5A;
    CHECK(w.run(reason::io_instruction).reason == ExitReason::answered);  // the chips' deadline is news
    w.quick.quick.device_deadline = w.quick.vm.device_deadline();
    w.ask_port(scratch, true);
    w.b.gprs.rax = 0x1234'5678'9ABC'DE00;
    CHECK(w.run(reason::io_instruction).reason == ExitReason::external_interrupt);
    CHECK(w.at_last.rax == 0x1234'5678'9ABC'DE5A);
    CHECK(w.b.read(Register::rip) == 0x1004);
    CHECK(w.quick.count(ExitReason::port_io) == 2);
    w.ask_port(Port(0xED), true, 4);  // where no chip is
    CHECK(w.run(reason::io_instruction).reason == ExitReason::external_interrupt);
    CHECK(w.at_last.rax == 0xFFFF'FFFF);
    w.ask_port(Port(0xED), true, 2);
    w.b.gprs.rax = 0x1111'1111'1111'1111;
    CHECK(w.run(reason::io_instruction).reason == ExitReason::external_interrupt);
    CHECK(w.at_last.rax == 0x1111'1111'1111'FFFF);
}

TEST_CASE("What happens at an instruction's end is left to the general way") {
    World w;
    w.b.gprs.rax = 0;
    const auto unanswered = [&] {
        CHECK(w.run(reason::cpuid).reason == ExitReason::cpuid);
        CHECK(w.bench.fake.entries == 1);
        CHECK(w.b.gprs.rax == 0);
    };
    w.b.write(Register::rflags, 0x102);  // TF
    unanswered();
    w.b.write(Register::rflags, 0x10002);  // RF
    unanswered();
    w.b.write(Register::rflags, 0x202);
    w.b.set_interruptibility({.sti_shadow = true});
    unanswered();
    w.b.set_interruptibility({});
    w.b.write(Register::rip, 0xFFFF'FFFF);
    unanswered();
    CHECK(w.b.read(Register::rip) == 0xFFFF'FFFF);
    CHECK(w.quick.count(ExitReason::cpuid) == 0);
}

TEST_CASE("Faults, and leaves that depend on the processor's state, are left to the general way") {
    World w;
    w.b.gprs.rax = 1;
    CHECK(w.run(reason::cpuid).reason == ExitReason::cpuid);
    w.b.gprs.rcx = 0x12345;
    CHECK(w.run(reason::rdmsr).reason == ExitReason::msr_read);
    CHECK(w.run(reason::wrmsr).reason == ExitReason::msr_write);
    w.b.gprs.rcx = msr::apic_base.raw();
    w.b.gprs.rax = static_cast<u32>(w.quick.apic.base()) ^ 0x1000;  // another page
    w.b.gprs.rdx = 0;
    CHECK(w.run(reason::wrmsr).reason == ExitReason::msr_write);
    w.b.gprs.rcx = 0x808;  // the x2APIC's TPR, in xAPIC mode
    CHECK(w.run(reason::rdmsr).reason == ExitReason::msr_read);
    CHECK(w.run(reason::wrmsr).reason == ExitReason::msr_write);
    w.b.gprs.rcx = 0;
    w.b.gprs.rax = 2;  // XCR0 without x87
    w.b.write(Register::cr4, cr4::pae | cr4::osxsave);
    CHECK(w.run(reason::xsetbv).reason == ExitReason::xsetbv);
    Segment stack = w.b.segment(SegmentName::ss);
    stack.access = 0xC0F3;
    w.b.set_segment(SegmentName::ss, stack);
    CHECK(w.run(reason::vmcall).reason == ExitReason::hypercall);
    CHECK(w.b.read(Register::rip) == 0x1000);
    CHECK(w.quick.quick.account.statistics.total_count() == 0);
}

TEST_CASE("Once the deadline has passed an answer is the last") {
    World w;
    w.b.gprs.rax = 0;
    CHECK(w.run(reason::cpuid, w.bench.fake.tsc + 10).reason == ExitReason::answered);
    CHECK(w.bench.fake.entries == 1);
    CHECK(w.b.read(Register::rip) == 0x1002);
    CHECK(w.b.left >= w.b.entered + 10);
    // Likewise the turn's end, for which no timer is armed.
    w.b.gprs.rax = 0;
    w.quick.quick.turn_end = w.bench.fake.tsc + 10;
    CHECK(w.run(reason::cpuid).reason == ExitReason::answered);
    CHECK(w.b.read(Register::rip) == 0x1004);
}

TEST_CASE(
    "A move that was decoded before reaches the local APIC's page; what is none is left to the general way") {
    World w;
    std::vector<u8> ram(0x8000);
    GuestMemory memory;
    REQUIRE(memory.add({.start = GuestPhysical(0), .length = ram.size(), .host = ram.data()}));
    const auto put = [&](u64 at, u64 value) { std::memcpy(&ram[at], &value, sizeof value); };
    put(0x2000, 0x3027);
    put(0x3000, 0x4027);
    put(0x4000, 0x5027);
    put(0x5008, 0x1027);
    const u8 load[] = {0x8B, 0x03};  // MOV EAX, [RBX]
    std::memcpy(&ram[0x1000], load, sizeof load);
    w.b.write(Register::cr3, 0x2000);
    Instruction decoded;
    const Bytes code(&ram[0x1000], Instruction::max_length);
    REQUIRE(decode(code, CodeSize::bits64, decoded) == DecodeStatus::ok);
    constexpr GuestPhysical nowhere{~u64{0}};
    w.quick.quick.instructions.store(w.b.code_place(), decoded, code, memory, nowhere);

    constexpr u64 version = 0x30;
    w.b.gprs.rbx = platform::local_apic + version;
    w.b.gprs.rax = ~u64{0};
    for (const u64 type : {2, 3, 10, 15}) {  // a fetch, an event's delivery
        w.bench.fake.set(vmcs::exit_qualification, type << 12 | version);
        CHECK(w.run(reason::apic_access).reason == ExitReason::apic_access);
    }
    w.bench.fake.set(vmcs::exit_qualification, version);
    w.bench.fake.set(vmcs::idt_vectoring_information, 0x8000'0030);
    CHECK(w.run(reason::apic_access).reason == ExitReason::apic_access);
    w.bench.fake.set(vmcs::idt_vectoring_information, 0);
    w.bench.fake.set(vmcs::exit_qualification, u64{0x20});  // not where RBX points
    CHECK(w.run(reason::apic_access).reason == ExitReason::apic_access);
    CHECK(w.quick.quick.account.statistics.total_count() == 0);
    CHECK(w.b.gprs.rax == ~u64{0});

    w.bench.fake.set(vmcs::exit_qualification, version);
    (void)w.run(reason::apic_access);
    CHECK(w.b.gprs.rax == w.quick.apic.read(version, 4));
    CHECK(w.b.read(Register::rip) == 0x1002);
    CHECK(w.quick.count(ExitReason::apic_access) == 1);
}
