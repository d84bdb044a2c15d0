// Several processors of one VM at the same time. The tests with threads are stress tests: they assert what
// must hold in the end, and a build under ThreadSanitizer says whether it held by luck.
#include <atomic>
#include <thread>

#include "vm_bench.hpp"
#include "vmm/console/management.hpp"

using namespace bulkhead;
using namespace bulkhead::platform;
using Ran = Vcpu::RunResult;

namespace {

// Programs PIT channel 0 to interrupt after `count` of its ticks.
void one_shot(VmBench& bench, u16 count, unsigned vcpu) {
    bench.vm->port_write(Port(0x43), 1, 0x30, vcpu);
    bench.vm->port_write(Port(0x40), 1, count & 0xFF, vcpu);
    bench.vm->port_write(Port(0x40), 1, count >> 8, vcpu);
}

}  // namespace

TEST_CASE("one vCPU keeps the chips' time, the others only that of their local APICs") {
    VmBench bench(ApicAssist::none, 4);
    one_shot(bench, 1000, 0);
    const u64 due = bench.vm->clock().to_physical(bench.vm->device_deadline());
    CHECK(bench.vcpu(0).wake_deadline() == due);
    for (unsigned i = 1; i < 4; ++i) CHECK(bench.vcpu(i).wake_deadline() == never);
    bench.enable_apic(2);
    bench.apic(2).write(apic::lvt_timer, 4, 0x40);
    bench.apic(2).write(apic::timer_initial, 4, 10);
    CHECK(bench.vcpu(2).wake_deadline() < due);
    CHECK(bench.vcpu(0).wake_deadline() == due);
}

TEST_CASE("another vCPU or the operator that brings the chips' deadline forward wakes the timekeeper") {
    VmBench bench(ApicAssist::none, 2);
    one_shot(bench, 60000, 0);
    bench.surroundings.woken.clear();
    one_shot(bench, 50000, 0);
    CHECK(bench.surroundings.woken.empty());
    one_shot(bench, 100, 1);
    CHECK(bench.surroundings.woken == std::vector{0U});
    bench.surroundings.woken.clear();
    bench.vm->port_write(Port(0x43), 1, 0x30, 1);  // stops the channel
    CHECK(bench.surroundings.woken.empty());
    // A character that waits in the FIFO below its trigger level makes the UART's time-out run.
    bench.vm->port_write(Port(0x3FB), 1, 0x03, 0);
    bench.vm->port_write(Port(0x3FA), 1, 0xC1, 0);
    bench.vm->port_write(Port(0x3F9), 1, 0x01, 0);
    bench.vm->port_write(Port(0x3FC), 1, 0x08, 0);
    bench.surroundings.woken.clear();
    REQUIRE(bench.vm->serial_input('x'));
    CHECK(bench.surroundings.woken == std::vector{0U});
}

TEST_CASE("whoever stops the VM wakes every processor, once") {
    VmBench bench(ApicAssist::none, 4);
    bench.surroundings.woken.clear();
    bench.vm->port_write(reset_control, 1, reset_value, 2);
    CHECK(bench.surroundings.woken == std::vector{0U, 1U, 2U, 3U});
    bench.vm->crash(bench.vcpu(1), "too late");
    CHECK(bench.surroundings.woken.size() == 4);
    CHECK(bench.vm->stop_text() == "reset");
    for (unsigned i = 0; i < 4; ++i) CHECK(bench.run(i) == Ran::stopped);
}

TEST_CASE("INIT leaves what the manual says it leaves") {
    VmBench bench(ApicAssist::none, 2);
    FakeBackend& cpu = bench.cpu(1);
    REQUIRE(bench.apic(1).post_init());
    REQUIRE(bench.apic(1).post_sipi(Vector(0x10)));
    REQUIRE(bench.run(1) == Ran::yielded);
    const unsigned resets = cpu.resets;
    bench.enter_long_mode(1);
    cpu.write(Register::cr0, cpu.read(Register::cr0) | cr0::cd);
    cpu.write(Register::cr2, 0x1234);
    cpu.write(Register::pat, 0x0102030405060708);
    cpu.write(Register::star, 0x11);
    cpu.write(Register::lstar, 0x22);
    cpu.write(Register::kernel_gs_base, 0x33);
    cpu.write(Register::sysenter_eip, 0x44);
    cpu.write(Register::tsc_aux, 0x55);
    cpu.write(Register::debugctl, 1);
    cpu.write(Register::dr7, 0x4FF);
    cpu.set_xcr0(7);
    cpu.set_debug_register(0, 0x66);
    cpu.set_debug_register(6, 0xFFFF0FF1);
    cpu.gprs[5] = 0x77;
    cpu.blocked = {.nmi_blocked = true};
    cpu.inject(make_general_protection());
    const u64 offset = cpu.tsc_offset;
    bench.enable_apic(1);
    bench.apic(1).set_cr8(9);

    REQUIRE(bench.apic(1).post_init());
    CHECK(bench.run(1) == Ran::blocked);
    CHECK(bench.vcpu(1).activity() == Activity::wait_for_sipi);
    CHECK(cpu.resets == resets);  // which would have lost x87 and SSE state
    CHECK_FALSE(cpu.injection);
    CHECK(cpu.read(Register::cr0) == (cr0::cd | cr0::et));
    for (const Register zero :
         {Register::cr2, Register::cr3, Register::cr4, Register::efer, Register::debugctl}) {
        CHECK(cpu.read(zero) == 0);
    }
    CHECK(cpu.read(Register::rip) == 0xFFF0);
    CHECK(cpu.read(Register::rflags) == 2);
    CHECK(cpu.segment(SegmentName::cs).base == 0xFFFF0000);
    CHECK(cpu.segment(SegmentName::cs).selector == 0xF000);
    CHECK(cpu.segment(SegmentName::tr).limit == 0xFFFF);
    CHECK(cpu.gdtr() == DescriptorTable{.base = 0, .limit = 0xFFFF});
    CHECK(cpu.idtr() == DescriptorTable{.base = 0, .limit = 0xFFFF});
    CHECK(cpu.gprs[5] == 0);
    CHECK(cpu.gprs.rdx == bench.vcpu(1).cpuid(1).eax);
    CHECK(cpu.debug_register(0) == 0);
    CHECK(cpu.debug_register(6) == 0xFFFF0FF0);
    CHECK(cpu.read(Register::dr7) == 0x400);
    CHECK(cpu.interruptibility() == Interruptibility{});
    // Kept.
    CHECK(cpu.read(Register::pat) == 0x0102030405060708);
    CHECK(cpu.read(Register::star) == 0x11);
    CHECK(cpu.read(Register::lstar) == 0x22);
    CHECK(cpu.read(Register::kernel_gs_base) == 0x33);
    CHECK(cpu.read(Register::sysenter_eip) == 0x44);
    CHECK(cpu.read(Register::tsc_aux) == 0x55);
    CHECK(cpu.xcr0() == 7);
    CHECK(cpu.tsc_offset == offset);
    // The local APIC is as after reset, its ID and base as before.
    CHECK(bench.apic(1).read(apic::svr, 4) == 0xFF);
    CHECK(bench.apic(1).cr8() == 0);
    CHECK(cpu.cr8() == 0);
    CHECK(bench.apic(1).id() == 1);
    CHECK(bench.apic(1).mode() == ApicMode::xapic);
}

TEST_CASE("an NMI for a processor that waits for SIPI is held until it runs") {
    VmBench bench(ApicAssist::none, 2);
    bench.enable_apic();
    REQUIRE(bench.apic(1).post_nmi());
    CHECK(bench.run(1) == Ran::blocked);
    CHECK_FALSE(bench.vcpu(1).has_work());
    REQUIRE(bench.apic(1).post_sipi(Vector(8)));
    CHECK(bench.vcpu(1).has_work());
    CHECK(bench.run(1) == Ran::yielded);
    REQUIRE(bench.injected(1));
    CHECK(bench.injected(1)->type == Event::Type::nmi);
    CHECK(bench.cpu(1).segment(SegmentName::cs).base == 0x8000);
}

TEST_CASE("a SIPI for a processor that runs or halts does nothing, then or later") {
    VmBench bench(ApicAssist::none, 2);
    REQUIRE(bench.apic(1).post_sipi(Vector(8)));
    REQUIRE(bench.run(1) == Ran::yielded);
    REQUIRE(bench.apic(1).post_sipi(Vector(9)));
    CHECK(bench.run(1) == Ran::yielded);
    CHECK(bench.cpu(1).segment(SegmentName::cs).base == 0x8000);
    // The one from before the INIT is forgotten.
    REQUIRE(bench.apic(1).post_sipi(Vector(9)));
    REQUIRE(bench.apic(1).post_init());
    CHECK(bench.run(1) == Ran::blocked);
    CHECK(bench.vcpu(1).activity() == Activity::wait_for_sipi);
}

TEST_CASE("a storm of INITs and SIPIs takes a turn for each and no more") {
    VmBench bench(ApicAssist::none, 2);
    for (unsigned i = 0; i < 1000; ++i) {
        REQUIRE(bench.apic(1).post_init());
        REQUIRE(bench.apic(1).post_sipi(Vector(8)));
        const usize entries = bench.cpu(1).entries.size();
        CHECK(bench.run(1) == Ran::yielded);
        CHECK(bench.cpu(1).entries.size() == entries + 1);
    }
    CHECK_FALSE(bench.vm->stopped());
}
