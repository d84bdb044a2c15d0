// The exits that the backend answers by itself, and those it must not.
#include <catch2/catch.hpp>

#include "fixture.hpp"
#include "tests/fakes/quick_world.hpp"

using namespace bulkhead;
using namespace bulkhead::svm;

namespace {

// A guest in 64-bit code at 1000h whose instructions have two bytes.
struct World {
    Bench bench;
    Backend& b = *bench.backend;
    QuickWorld quick{b};
    GeneralRegisters at_last{};  // of the guest, when it was entered again
    bool in_shadow = false;      // the exit is one of an instruction behind STI

    explicit World(const Capabilities& capabilities = full_capabilities) : bench(capabilities) {
        b.write(Register::efer, efer::lme);
        b.write(Register::cr4, cr4::pae);
        b.write(Register::cr0, cr0::pe | cr0::pg | cr0::et);
        b.set_segment(SegmentName::cs, {.selector = 8, .limit = ~0U, .access = 0xA09B});
        b.write(Register::rip, 0x1000);
        b.write(Register::rflags, 2);
    }
    // The guest exits so; should it be entered again, a host interrupt ends its turn.
    Exit run(u64 code, u64 info1 = 0, u64 deadline = ~u64{0}) {
        const usize before = bench.fake.entries.size();
        bench.fake.guest = [=, this](GeneralRegisters& registers, Vmcb& block) {
            bench.fake.tsc += 10;
            const bool first = bench.fake.entries.size() == before + 1;
            at_last = registers;
            at_last.rax = block.state.rax;
            block.control.exit_code = first ? code : exit_code::intr;
            block.control.exit_info1 = info1;
            block.control.interrupt_shadow = in_shadow ? 1 : 0;
            block.control.next_rip = block.control.exit_info2 = block.state.rip + 2;
        };
        return b.run(deadline);
    }
};

constexpr u64 in_byte = bit(0) | bit(4), out_byte = bit(4);
constexpr u64 port(u16 number) {
    return u64{number} << 16;
}

}  // namespace

TEST_CASE("What needs nothing but registers is answered, and the guest entered again") {
    World w;
    w.b.gprs.rax = 0;
    CHECK(w.run(exit_code::cpuid).reason == ExitReason::external_interrupt);
    CHECK(w.b.read(Register::rip) == 0x1002);
    const CpuidResult leaf = w.quick.cpuid.lookup(0, 0, {});
    CHECK(w.at_last.rax == leaf.eax);
    CHECK(w.at_last.rbx == leaf.ebx);
    CHECK(w.at_last.rcx == leaf.ecx);
    CHECK(w.at_last.rdx == leaf.edx);

    w.b.gprs.rcx = msr::apic_base.raw();
    CHECK(w.run(exit_code::msr, 0).reason == ExitReason::external_interrupt);
    CHECK(w.at_last.rax == (w.quick.apic.base() & 0xFFFFFFFF));
    CHECK(w.run(exit_code::msr, 1).reason == ExitReason::external_interrupt);  // what it is already
    CHECK(w.run(exit_code::vmmcall).reason == ExitReason::external_interrupt);
    CHECK(w.at_last.rax == static_cast<u64>(-38));
    CHECK(w.b.read(Register::rip) == 0x1008);
    for (const ExitReason reason :
         {ExitReason::cpuid, ExitReason::msr_read, ExitReason::msr_write, ExitReason::hypercall}) {
        CHECK(w.quick.count(reason) == 1);
    }
}

TEST_CASE("A chip's register is read and written between two entries") {
    World w;
    w.b.gprs.rax = 0x5A;
    CHECK(w.run(exit_code::ioio, port(0x3FF) | out_byte).reason == ExitReason::answered);  // a new deadline
    w.quick.quick.device_deadline = w.quick.vm.device_deadline();
    w.b.gprs.rax = 0x1234'5678'9ABC'DE00;
    CHECK(w.run(exit_code::ioio, port(0x3FF) | in_byte).reason == ExitReason::external_interrupt);
    CHECK(w.at_last.rax == 0x1234'5678'9ABC'DE5A);
    CHECK(w.b.read(Register::rip) == 0x1004);
}

TEST_CASE("Without nRIP an instruction's length is not guessed") {
    World w(bare_capabilities);
    w.b.gprs.rax = 0;
    CHECK(w.run(exit_code::cpuid).reason == ExitReason::cpuid);
    CHECK(w.b.read(Register::rip) == 0x1000);
    CHECK(w.quick.count(ExitReason::cpuid) == 0);
}

TEST_CASE("What happens at an instruction's end, and faults, are left to the general way") {
    World w;
    w.b.gprs.rax = 0;
    for (const u64 flags : {u64{0x102}, u64{0x10002}}) {  // TF, RF
        w.b.write(Register::rflags, flags);
        CHECK(w.run(exit_code::cpuid).reason == ExitReason::cpuid);
    }
    w.b.write(Register::rflags, 2);
    w.b.gprs.rax = 1;
    CHECK(w.run(exit_code::cpuid).reason == ExitReason::cpuid);
    w.b.gprs.rcx = 0x12345;
    CHECK(w.run(exit_code::msr, 0).reason == ExitReason::msr_read);
    CHECK(w.run(exit_code::msr, 1).reason == ExitReason::msr_write);
    w.bench.vmcb.state.cpl = 3;
    CHECK(w.run(exit_code::vmmcall).reason == ExitReason::hypercall);
    CHECK(w.b.read(Register::rip) == 0x1000);
    CHECK(w.quick.quick.account.statistics.total_count() == 0);
}

TEST_CASE("Once the deadline has passed, or the turn is over, an answer is the last") {
    World w;
    w.b.gprs.rax = 0;
    CHECK(w.run(exit_code::cpuid, 0, w.bench.fake.tsc + 10).reason == ExitReason::answered);
    CHECK(w.bench.fake.entries.size() == 1);
    w.b.gprs.rax = 0;
    w.quick.quick.turn_end = w.bench.fake.tsc + 10;
    CHECK(w.run(exit_code::cpuid).reason == ExitReason::answered);
    CHECK(w.bench.fake.entries.size() == 2);
    CHECK(w.b.read(Register::rip) == 0x1004);
}

TEST_CASE("What happens at the end of an instruction in an interrupt shadow is left to the general way") {
    World w;
    w.b.gprs.rax = 0;
    w.in_shadow = true;
    CHECK(w.run(exit_code::cpuid).reason == ExitReason::cpuid);
    CHECK(w.b.read(Register::rip) == 0x1000);
}

TEST_CASE("The host's timer alone ends a turn as a deadline; anything else goes to the host") {
    World w;
    w.bench.fake.only_timer_waits = true;
    CHECK(w.run(exit_code::intr, 0, w.bench.fake.tsc + 10).reason == ExitReason::preemption);
    CHECK(w.bench.fake.interrupts_taken == 1);
    CHECK(w.run(exit_code::intr, 0, w.bench.fake.tsc + 100).reason == ExitReason::external_interrupt);
    CHECK(w.bench.fake.interrupts_taken == 1);
    w.bench.fake.only_timer_waits = false;
    CHECK(w.run(exit_code::intr, 0, w.bench.fake.tsc + 10).reason == ExitReason::external_interrupt);
}
