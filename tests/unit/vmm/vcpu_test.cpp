// The run loop: time, events into the guest, signals between processors.
#include "vmm/vcpu.hpp"

#include <algorithm>

#include "vm_bench.hpp"

using namespace bulkhead;

namespace {

using Ran = Vcpu::RunResult;

constexpr Event interrupt(u8 vector) {
    return {.type = Event::Type::external_interrupt, .vector = Vector(vector)};
}

// One entry, ended by a host interrupt.
void turn(VmBench& bench, unsigned i = 0) {
    CHECK(bench.run(i) == Ran::yielded);
}

}  // namespace

TEST_CASE("the bootstrap processor starts where the loader says, the others wait") {
    VmBench bench(ApicAssist::none, 3);
    bench.power_on();
    CHECK(bench.vcpu(0).activity() == Activity::active);
    CHECK(bench.reg(Register::cr0) == (cr0::pe | cr0::et));
    CHECK(bench.cpu().segment(SegmentName::cs).limit == ~0U);
    CHECK(bench.cpu().gprs.rbx != 0);
    for (const unsigned i : {1U, 2U}) {
        CHECK(bench.vcpu(i).activity() == Activity::wait_for_sipi);
        CHECK(bench.run(i) == Ran::blocked);
        CHECK(bench.cpu(i).entries.empty());
    }
}

TEST_CASE("a host interrupt and the deadline end the turn; the guest goes on next time") {
    VmBench bench;
    bench.cpu().then(ExitReason::spurious);
    bench.cpu().then(ExitReason::spurious);
    CHECK(bench.run() == Ran::yielded);
    CHECK(bench.cpu().entries.size() == 3);
    // The deadline is over before it begins: no entry.
    CHECK(bench.vcpu().run(bench.machine.now) == Ran::yielded);
    CHECK(bench.cpu().entries.size() == 3);
    // A guest that exits without end is left after the deadline.
    for (int i = 0; i < 50; ++i) bench.cpu().then(ExitReason::spurious);
    bench.cpu().turn_ticks = 100;
    const u64 deadline = bench.machine.now + 1000;
    CHECK(bench.vcpu().run(deadline) == Ran::yielded);
    CHECK(bench.cpu().entries.size() == 13);
    CHECK(bench.cpu().entries.back().deadline == deadline);
    CHECK(bench.machine.now == deadline);
}

TEST_CASE("a guest that exits without end is left after 10 ms, whether a host interrupt comes or not") {
    VmBench bench;
    const u64 turn = bench.machine.tsc_hz() / 100;
    for (int i = 0; i < 50; ++i) bench.cpu().then(ExitReason::spurious);
    bench.cpu().turn_ticks = turn / 10;
    const u64 begin = bench.machine.now;
    CHECK(bench.vcpu().run(never) == Ran::yielded);
    CHECK(bench.machine.now == begin + turn);
    CHECK(bench.cpu().entries.size() == 10);
    // No timer was armed for it: one that does not exit keeps its core.
    for (const auto& entry : bench.cpu().entries) CHECK(entry.deadline > begin + turn);
    CHECK(bench.vcpu().run(never) == Ran::yielded);
    CHECK(bench.cpu().entries.size() == 20);
}

TEST_CASE("exceptions that a guest raises without end let the host look around after each") {
    VmBench bench;
    const auto raised = [](const Event& event, std::optional<Event> interrupted) {
        Exit exit(ExitReason::exception);
        exit.exception = {.event = event};
        exit.interrupted = interrupted;
        return exit;
    };
    const Event debug = make_exception(exception::debug);
    // A watchpoint on the stack to which #DB is delivered: the next strikes at the first's end.
    for (usize i = 1; i <= 3; ++i) {
        bench.cpu().then(raised(debug, std::nullopt));
        CHECK(bench.vcpu().run(never) == Ran::yielded);
        CHECK(bench.cpu().entries.size() == i);
    }
    // #AC by its own delivery; and any event whose delivery does not come to an end.
    const Event alignment = make_exception(exception::alignment_check, 0);
    bench.cpu().then(raised(alignment, alignment));
    CHECK(bench.vcpu().run(never) == Ran::yielded);
    CHECK(bench.cpu().entries.size() == 4);
    Exit broken(ExitReason::spurious);
    broken.interrupted = interrupt(0x31);
    bench.cpu().then(broken);
    CHECK(bench.vcpu().run(never) == Ran::yielded);
    CHECK(bench.cpu().entries.size() == 5);
    CHECK(bench.cpu().entries.back().injected == alignment);
}

TEST_CASE("the guest is left when a timer of the machine is due") {
    VmBench bench;
    bench.enable_apic();
    bench.enable_interrupts();
    bench.apic().write(apic::timer_divide, 4, 0xB);
    bench.apic().write(apic::lvt_timer, 4, 0x51);
    const u64 set_at = bench.machine.now;
    bench.apic().write(apic::timer_initial, 4, 10'000);
    bench.cpu().turn_ticks = 10'000;
    bench.cpu().then(ExitReason::preemption);
    turn(bench);
    REQUIRE(bench.cpu().entries.size() == 2);
    CHECK(bench.cpu().entries[0].deadline == set_at + 10'000);
    CHECK_FALSE(bench.cpu().entries[0].injected);
    CHECK(bench.cpu().entries[1].injected == interrupt(0x51));
}

TEST_CASE("a halted processor says when it wants to run, and its timer wakes it") {
    VmBench bench;
    bench.enable_apic();
    bench.enable_interrupts();
    bench.apic().write(apic::timer_divide, 4, 0xB);
    bench.apic().write(apic::lvt_timer, 4, 0x51);
    const u64 set_at = bench.machine.now;
    bench.apic().write(apic::timer_initial, 4, 50'000);
    CHECK(bench.exit(ExitReason::hlt, 1) == Ran::blocked);
    const u64 wake = bench.vcpu().wake_deadline();
    CHECK(wake == set_at + 50'000);
    bench.machine.now = wake - 1;
    CHECK(bench.run() == Ran::blocked);
    bench.machine.now = wake;
    turn(bench);
    CHECK(bench.injected() == interrupt(0x51));
}

namespace {

u64 caused(const VmBench& bench, HostCause cause) {
    return bench.vcpu().statistics().host_caused[static_cast<usize>(cause)];
}
u64 caused(const VmBench& bench) {
    return bench.vcpu().statistics().total_host_caused();
}

}  // namespace

TEST_CASE("an exit that the guest did not ask for is the host's, by its cause") {
    VmBench bench;
    bench.cpu().then(ExitReason::external_interrupt);
    (void)bench.run();
    CHECK(caused(bench, HostCause::device) == 1);
    bench.surroundings.waiting = HostCause::kick;
    bench.cpu().then(ExitReason::host_nmi);
    (void)bench.run();
    CHECK(caused(bench, HostCause::kick) == 1);
    // The end of its turn, by whichever timer.
    for (const ExitReason reason : {ExitReason::preemption, ExitReason::external_interrupt}) {
        bench.cpu().then(reason);
        CHECK(bench.vcpu().run(bench.machine.now + bench.cpu().turn_ticks) == Ran::yielded);
    }
    CHECK(caused(bench, HostCause::tick) == 2);
    CHECK(caused(bench) == 4);
    // The host's timer is early: a tick, or the guest's own timer, whichever is next.
    bench.surroundings.waiting = HostCause::tick;
    bench.cpu().then(ExitReason::external_interrupt);
    (void)bench.vcpu().run(bench.machine.now + bench.cpu().turn_ticks + 1);
    CHECK(caused(bench, HostCause::tick) == 3);
    bench.enable_apic();
    bench.apic().write(apic::timer_divide, 4, 0xB);
    bench.apic().write(apic::lvt_timer, 4, 0x51);
    bench.apic().write(apic::timer_initial, 4, static_cast<u32>(bench.cpu().turn_ticks) + 1);
    bench.cpu().then(ExitReason::external_interrupt);
    (void)bench.vcpu().run(bench.machine.now + 2 * bench.cpu().turn_ticks);
    CHECK(caused(bench) == 5);
}

TEST_CASE("exits for the guest's own timers, interrupts and instructions are not the host's") {
    VmBench bench(ApicAssist::none, 2);
    bench.enable_apic();
    bench.surroundings.waiting = HostCause::kick;
    // Its timer, by whichever of the host's.
    bench.apic().write(apic::timer_divide, 4, 0xB);
    bench.apic().write(apic::lvt_timer, 4, 0x51);
    for (const ExitReason reason : {ExitReason::preemption, ExitReason::external_interrupt}) {
        bench.apic().write(apic::timer_initial, 4, static_cast<u32>(bench.cpu().turn_ticks));
        bench.cpu().then(reason);
        bench.cpu().then(ExitReason::cpuid);
        bench.cpu().then([&](FakeBackend&) {
            // Another processor's interrupt, which kicks the core.
            bench.apic().post(Vector(0x60), false);
            return Exit(ExitReason::external_interrupt);
        });
        while (!bench.cpu().script.empty()) (void)bench.run();
    }
    bench.cpu().then([&](FakeBackend&) {
        // Another processor brings the chips' time forward.
        bench.vm->port_write(Port(0x43), 1, 0x30, 1);
        bench.vm->port_write(Port(0x40), 1, 0xFF, 1);
        bench.vm->port_write(Port(0x40), 1, 0, 1);
        return Exit(ExitReason::external_interrupt);
    });
    (void)bench.run();
    bench.cpu().then([&](FakeBackend&) {
        bench.vm->crash(bench.vcpu(1), "for the test's sake");
        return Exit(ExitReason::host_nmi);
    });
    CHECK(bench.run() == Ran::stopped);
    CHECK(caused(bench) == 0);
}

TEST_CASE("a guest found asleep in HLT sleeps on, until something comes for it") {
    VmBench bench;
    bench.enable_apic();
    bench.enable_interrupts();
    bench.vcpu().set_alone(true);
    bench.vcpu().set_alone(true);
    CHECK(bench.cpu().halt_allowed == std::vector{true});
    const auto asleep = [](FakeBackend& cpu) {
        cpu.sleeps = true;
        return Exit(ExitReason::external_interrupt);
    };
    bench.cpu().then(asleep);
    CHECK(bench.run() == Ran::yielded);
    CHECK(bench.vcpu().activity() == Activity::halted);
    CHECK(bench.run() == Ran::blocked);
    CHECK_FALSE(bench.vcpu().halted_for_good());
    bench.apic().post(Vector(0x60), false);
    turn(bench);
    CHECK(bench.injected() == interrupt(0x60));
    CHECK(bench.vcpu().activity() == Activity::active);

    // The timer's exit finds it asleep, too, and wakes it.
    bench.cpu().set_flag(rflags::if_, true);
    bench.apic().write(apic::eoi, 4, 0);
    bench.apic().write(apic::timer_divide, 4, 0xB);
    bench.apic().write(apic::lvt_timer, 4, 0x51);
    bench.apic().write(apic::timer_initial, 4, static_cast<u32>(bench.cpu().turn_ticks));
    bench.cpu().then([](FakeBackend& cpu) {
        cpu.sleeps = true;
        return Exit(ExitReason::preemption);
    });
    CHECK(bench.run() == Ran::yielded);
    CHECK(bench.injected() == interrupt(0x51));

    // With interrupts disabled nothing wakes it.
    bench.cpu().set_flag(rflags::if_, false);
    bench.cpu().then(asleep);
    CHECK(bench.run() == Ran::yielded);
    CHECK(bench.vcpu().halted_for_good());
    bench.apic().post(Vector(0x61), false);
    CHECK(bench.run() == Ran::blocked);

    bench.vcpu().set_alone(false);
    CHECK(bench.cpu().halt_allowed == std::vector{true, false});
}

TEST_CASE("a watched processor keeps its last exits and the instructions behind them, for a while") {
    VmBench bench;
    bench.put(VmBench::code, {0x0F, 0xA2, 0x0F, 0x32});
    bench.cpu().gprs.rcx = 0x1B;
    (void)bench.exit(ExitReason::cpuid, 2);
    ExitRecord kept[ExitRecords::capacity];
    CHECK(bench.vcpu().records().copy(kept) == 0);
    bench.cpu().write(Register::rip, VmBench::code);
    bench.vcpu().watch(bench.machine.now + 1000);
    bench.cpu().then([](FakeBackend&) {
        Exit exit(ExitReason::cpuid);
        exit.raw_code = 10;
        exit.instruction_length = 2;
        return exit;
    });
    (void)bench.run();
    REQUIRE(bench.vcpu().records().copy(kept) == 2);
    CHECK(kept[0].reason == ExitReason::external_interrupt);
    CHECK(kept[0].address == VmBench::code + 2);
    CHECK(kept[1].reason == ExitReason::cpuid);
    CHECK(kept[1].code == 10);
    CHECK(kept[1].address == VmBench::code);
    REQUIRE(kept[1].size == 15);
    CHECK(kept[1].bytes[0] == 0x0F);
    CHECK(kept[1].bytes[1] == 0xA2);
    // A processor that is watched is nobody's interrupt.
    CHECK(caused(bench, HostCause::device) == 2);
    // The latest, as many as there is room for.
    for (int i = 0; i < 5; ++i) bench.cpu().then(ExitReason::spurious);
    (void)bench.run();
    REQUIRE(bench.vcpu().records().copy(kept) == ExitRecords::capacity);
    CHECK(kept[0].reason == ExitReason::external_interrupt);
    CHECK(kept[7].reason == ExitReason::cpuid);
    // An instruction that is nowhere has no bytes.
    bench.cpu().write(Register::rip, 0xE0000000);
    bench.cpu().then(ExitReason::spurious);
    (void)bench.run();
    CHECK(bench.vcpu().records().copy(kept) == ExitRecords::capacity);
    CHECK(kept[1].size == 0);
    bench.machine.now += 1000;
    (void)bench.run();
    (void)bench.run();
    bench.cpu().write(Register::rip, 0x5000);
    (void)bench.run();
    CHECK(bench.vcpu().records().copy(kept) == ExitRecords::capacity);
    CHECK(kept[0].address == 0xE0000000);
    CHECK_FALSE(bench.apic().watched());
}

TEST_CASE("the backend is told of each HLT that exits, and whether it was for good") {
    VmBench bench;
    CHECK(bench.exit(ExitReason::hlt, 1) == Ran::blocked);
    CHECK(bench.cpu().halts == std::vector{false});
    VmBench other;
    other.enable_interrupts();
    CHECK(other.exit(ExitReason::hlt, 1) == Ran::blocked);
    CHECK(other.cpu().halts == std::vector{true});
}

TEST_CASE("interrupts wait for IF, for shadows and for pending injections, behind a window") {
    VmBench bench;
    bench.enable_apic();
    REQUIRE(bench.apic().post(Vector(0x41), false));
    turn(bench);
    CHECK_FALSE(bench.injected());
    CHECK(bench.cpu().entries.back().interrupt_window);
    // STI has just been executed.
    bench.enable_interrupts();
    bench.cpu().blocked.sti_shadow = true;
    turn(bench);
    CHECK_FALSE(bench.injected());
    CHECK(bench.cpu().entries.back().interrupt_window);
    bench.cpu().blocked.mov_ss_shadow = true;
    turn(bench);
    CHECK_FALSE(bench.injected());
    // An exception goes first.
    bench.cpu().inject(make_invalid_opcode());
    turn(bench);
    CHECK(bench.injected() == make_invalid_opcode());
    CHECK(bench.cpu().entries.back().interrupt_window);
    turn(bench);
    CHECK(bench.injected() == interrupt(0x41));
    CHECK_FALSE(bench.cpu().entries.back().interrupt_window);
    turn(bench);
    CHECK_FALSE(bench.injected());
    CHECK_FALSE(bench.cpu().entries.back().interrupt_window);
    CHECK(bench.cpu().replaced == 0);
}

TEST_CASE("the higher of two interrupts goes first and a window is asked for the other") {
    for (const ApicAssist assist : {ApicAssist::none, ApicAssist::tpr}) {
        VmBench bench(assist);
        bench.enable_apic();
        bench.enable_interrupts();
        REQUIRE(bench.apic().post(Vector(0x41), false));
        REQUIRE(bench.apic().post(Vector(0x92), false));
        turn(bench);
        CHECK(bench.injected() == interrupt(0x92));
        // The other one is of a lower class than what is in service: no window before the EOI.
        CHECK_FALSE(bench.cpu().entries.back().interrupt_window);
        bench.enable_interrupts();
        turn(bench);
        CHECK_FALSE(bench.injected());
        REQUIRE(bench.apic().post(Vector(0xA3), false));
        turn(bench);
        CHECK(bench.injected() == interrupt(0xA3));
        bench.apic().write(apic::eoi, 4, 0);
        bench.apic().write(apic::eoi, 4, 0);
        bench.enable_interrupts();
        turn(bench);
        CHECK(bench.injected() == interrupt(0x41));
    }
}

TEST_CASE("what the TPR holds back is asked for by a threshold, and comes when the TPR falls") {
    for (const ApicAssist assist : {ApicAssist::none, ApicAssist::tpr}) {
        VmBench bench(assist);
        bench.enable_apic();
        bench.enable_interrupts();
        bench.apic().set_cr8(8);
        bench.cpu().set_cr8(8);
        REQUIRE(bench.apic().post(Vector(0x71), false));
        turn(bench);
        CHECK_FALSE(bench.injected());
        CHECK(bench.cpu().entries.back().tpr_threshold == 7);
        CHECK_FALSE(bench.cpu().entries.back().interrupt_window);
        bench.apic().set_cr8(6);
        bench.cpu().set_cr8(6);
        turn(bench);
        CHECK(bench.injected() == interrupt(0x71));
        CHECK(bench.cpu().entries.back().tpr_threshold == 0);
    }
}

TEST_CASE("without virtualised APIC registers CR8 is followed from exit to exit, both ways") {
    VmBench bench;
    bench.enable_apic();
    // The guest moved to CR8 without an exit.
    bench.cpu().then([](FakeBackend& cpu) {
        cpu.task_priority = 11;
        return Exit(ExitReason::spurious);
    });
    turn(bench);
    CHECK(bench.apic().cr8() == 11);
    CHECK(bench.apic().read(apic::tpr, 4) == 0xB0);
    // The guest wrote the TPR in the page: a write that exits, and that CR8 has to show.
    bench.put(VmBench::code, {0x89, 0x06});
    bench.cpu().gprs.rsi = 0xFEE00080;
    bench.cpu().gprs.rax = 0x52;
    Exit write(ExitReason::nested_page_fault);
    write.nested = {.address = GuestPhysical(0xFEE00080), .write = true};
    bench.cpu().then(write);
    bench.cpu().then(ExitReason::spurious);
    turn(bench);
    CHECK(bench.cpu().task_priority == 5);
    CHECK(bench.apic().read(apic::tpr, 4) == 0x52);
}

TEST_CASE("after answered exits, too, the task priority of the moment decides what is delivered") {
    VmBench bench(ApicAssist::none);
    bench.enable_apic();
    bench.enable_interrupts();
    // The guest has raised it by CR8 without an exit: what an answered exit raised has to wait.
    bench.cpu().then([&](FakeBackend& cpu) {
        cpu.task_priority = 15;
        REQUIRE(bench.apic().post(Vector(0x41), false));
        return Exit(ExitReason::answered);
    });
    turn(bench);
    CHECK_FALSE(bench.injected());
    CHECK(bench.apic().cr8() == 15);
    // It has lowered it: the next look delivers, though no exit was handled in between.
    bench.cpu().then([](FakeBackend& cpu) {
        cpu.task_priority = 0;
        return Exit(ExitReason::answered);
    });
    turn(bench);
    turn(bench);
    const auto delivered = [](const FakeBackend::Entry& entry) {
        return entry.injected == Event{.type = Event::Type::external_interrupt, .vector = Vector(0x41)};
    };
    const auto& entries = bench.cpu().entries;
    CHECK(std::count_if(entries.begin(), entries.end(), delivered) == 1);
}

TEST_CASE("with a fully virtualised APIC the hardware is told what is requested and in service") {
    VmBench bench(ApicAssist::full);
    bench.apic().write(apic::svr, 4, 0x1FF);
    bench.apic().write(apic::lvt_lint0, 4, 0x10000);
    turn(bench);
    bench.cpu().virtual_interrupts.clear();
    REQUIRE(bench.apic().post(Vector(0x41), false));
    REQUIRE(bench.apic().post(Vector(0x92), true));
    turn(bench);
    CHECK_FALSE(bench.injected());
    CHECK_FALSE(bench.cpu().entries.back().interrupt_window);
    CHECK(bench.cpu().virtual_interrupts == std::vector<std::pair<u8, u8>>{{0x92, 0}});
    CHECK(bench.cpu().eoi_exits.at(0x92));
    CHECK_FALSE(bench.cpu().eoi_exits.contains(0x41));
    // The next turn tells it once more, and nothing else while nothing is new.
    bench.cpu().then(ExitReason::cpuid);
    bench.cpu().then(ExitReason::spurious);
    turn(bench);
    CHECK(bench.cpu().virtual_interrupts == std::vector<std::pair<u8, u8>>{{0x92, 0}, {0x92, 0}});
    // Whoever merges the posts first: one that comes while the vCPU looks for other events is told as well.
    REQUIRE(bench.apic().post(Vector(0xA3), false));
    REQUIRE_FALSE(bench.apic().has_extint());
    turn(bench);
    CHECK(bench.cpu().virtual_interrupts.back() == std::pair<u8, u8>{0xA3, 0});
    // The same vector as an edge.
    REQUIRE(bench.apic().post(Vector(0x92), false));
    turn(bench);
    CHECK_FALSE(bench.cpu().eoi_exits.at(0x92));
}

TEST_CASE("a level-triggered interrupt comes again after its EOI while the line is up") {
    for (const ApicAssist assist : {ApicAssist::none, ApicAssist::full}) {
        VmBench bench(assist);
        bench.apic().write(apic::svr, 4, 0x1FF);
        bench.apic().write(apic::lvt_lint0, 4, 0x10000);
        bench.enable_interrupts();
        const Bus& mmio = bench.vm->mmio();
        const auto io_apic = [&](u32 index, u32 value) {
            mmio.write(platform::io_apic, 4, index);
            mmio.write(platform::io_apic + 0x10, 4, value);
        };
        io_apic(0x10 + 2 * 9 + 1, 0);
        io_apic(0x10 + 2 * 9, 0x8000 | 0x61);  // the SCI, level
        // ACPI mode on, power button enabled and pressed.
        bench.vm->ports().write(platform::smi_command.raw(), 1, platform::acpi_enable);
        bench.vm->ports().write(platform::pm1a_event.raw() + 2, 2, bit(8));
        REQUIRE(bench.vm->press_power_button());
        const auto requested = [&] {
            bench.apic().collect();
            return bench.apic().highest_request();
        };
        REQUIRE(requested() == 0x61);
        if (assist == ApicAssist::none) {
            turn(bench);
            CHECK(bench.injected() == interrupt(0x61));
            CHECK(requested() == 0);
            bench.apic().write(apic::eoi, 4, 0);
        } else {
            // The hardware delivers and ends it, and exits because of the EOI.
            __builtin_memset(bench.factory.parameters[0].apic_page.base + apic::irr, 0, 0x80);
            Exit eoi(ExitReason::virtual_eoi);
            eoi.vector = Vector(0x61);
            bench.exit(eoi);
        }
        CHECK(requested() == 0x61);
    }
}

TEST_CASE("the 8259s reach a processor whose LINT0 lets them through") {
    VmBench bench;  // as a BIOS leaves it: virtual wire mode, timer at vector 8
    bench.enable_interrupts();
    bench.machine.now += bench.machine.tsc_hz() / 10;
    turn(bench);
    CHECK(bench.injected() == interrupt(8));
    turn(bench);
    CHECK_FALSE(bench.injected());
    // End of interrupt, and the next tick.
    bench.vm->ports().write(platform::pic_master.raw(), 1, 0x20);
    bench.machine.now += bench.machine.tsc_hz() / 10;
    bench.enable_interrupts();
    turn(bench);
    CHECK(bench.injected() == interrupt(8));
}

TEST_CASE("NMIs wait while one is handled or a shadow is cast") {
    VmBench bench;
    bench.enable_apic();
    REQUIRE(bench.apic().post_nmi());
    bench.cpu().blocked.mov_ss_shadow = true;
    turn(bench);
    CHECK_FALSE(bench.injected());
    CHECK(bench.cpu().entries.back().nmi_window);
    turn(bench);
    REQUIRE(bench.injected());
    CHECK(bench.injected()->type == Event::Type::nmi);
    CHECK_FALSE(bench.cpu().entries.back().nmi_window);
    REQUIRE(bench.apic().post_nmi());
    turn(bench);
    CHECK_FALSE(bench.injected());
    CHECK(bench.cpu().entries.back().nmi_window);
    bench.cpu().blocked.nmi_blocked = false;
    turn(bench);
    CHECK(bench.injected()->type == Event::Type::nmi);
    // An NMI and an interrupt together: the NMI first, the other behind a window.
    bench.cpu().blocked.nmi_blocked = false;
    bench.enable_interrupts();
    REQUIRE(bench.apic().post_nmi());
    REQUIRE(bench.apic().post(Vector(0x41), false));
    turn(bench);
    CHECK(bench.injected()->type == Event::Type::nmi);
    CHECK(bench.cpu().entries.back().interrupt_window);
    turn(bench);
    CHECK(bench.injected() == interrupt(0x41));
}

TEST_CASE("INIT and SIPI start an application processor at the page they name") {
    VmBench bench(ApicAssist::none, 2);
    bench.enable_apic();
    const auto send = [&](u32 low) {
        bench.apic().write(apic::icr_high, 4, 1 << 24);
        bench.apic().write(apic::icr_low, 4, low);
    };
    bench.surroundings.woken.clear();
    send(0x4500);
    CHECK(bench.surroundings.woken == std::vector{1U});
    CHECK(bench.vcpu(1).has_work());
    CHECK(bench.run(1) == Ran::blocked);
    CHECK(bench.vcpu(1).activity() == Activity::wait_for_sipi);
    send(0x469A);
    CHECK(bench.run(1) == Ran::yielded);
    CHECK(bench.vcpu(1).activity() == Activity::active);
    CHECK(bench.cpu(1).entries[0].rip == 0);
    CHECK(bench.cpu(1).segment(SegmentName::cs).base == 0x9A000);
    CHECK(bench.cpu(1).segment(SegmentName::cs).selector == 0x9A00);
    // A second SIPI, as Linux sends, changes nothing.
    bench.cpu(1).write(Register::rip, 0x123);
    send(0x4611);
    CHECK(bench.run(1) == Ran::yielded);
    CHECK(bench.rip(1) == 0x123);
    // INIT takes it back, from a halt too.
    bench.cpu(1).then(ExitReason::hlt);
    bench.put(0x9A123, {0xF4});
    CHECK(bench.run(1) == Ran::blocked);
    send(0x4500);
    CHECK(bench.run(1) == Ran::blocked);
    CHECK(bench.vcpu(1).activity() == Activity::wait_for_sipi);
    CHECK(bench.rip(1) == 0xFFF0);
    CHECK_FALSE(bench.vm->stopped());
}

TEST_CASE("an INIT of the bootstrap processor resets the machine") {
    VmBench bench(ApicAssist::none, 2);
    REQUIRE(bench.apic(0).post_init());
    CHECK(bench.run() == Ran::stopped);
    CHECK(bench.vm->stop_reason() == StopReason::reset);
}

TEST_CASE("one processor's stop is everyone's") {
    VmBench bench(ApicAssist::none, 2);
    CHECK(bench.exit(ExitReason::triple_fault) == Ran::stopped);
    CHECK(bench.run(1) == Ran::stopped);
    CHECK(bench.cpu(1).entries.empty());
}

TEST_CASE("the guest's TSC starts at zero and follows IA32_TSC_ADJUST") {
    VmBench bench;
    const u64 base = 0 - bench.cpu().tsc_offset;
    CHECK(bench.vm->clock().now() == bench.machine.now - base);
    CHECK(bench.cpu().tsc_offset == bench.vm->clock().tsc_offset());
    Exit write(ExitReason::msr_write);
    write.instruction_length = 2;
    write.msr = {.index = MsrIndex(0x3B)};
    bench.cpu().gprs.rax = 1000;
    bench.cpu().gprs.rdx = 0;
    bench.exit(write);
    CHECK(bench.cpu().tsc_offset == bench.vm->clock().tsc_offset() + 1000);
    // A pause is taken out of the guest's time.
    bench.vm->pause();
    const u64 frozen = bench.vm->clock().now();
    bench.machine.now += 1'000'000;
    bench.vm->resume();
    bench.vcpu().refresh_tsc_offset();
    CHECK(bench.machine.now + bench.cpu().tsc_offset == frozen + 1000);
}

TEST_CASE("every exit is counted, with the ticks it took") {
    VmBench bench;
    bench.cpu().turn_ticks = 70;
    for (int i = 0; i < 5; ++i) {
        bench.cpu().then([&](FakeBackend&) {
            Exit exit(ExitReason::cpuid);
            exit.instruction_length = 2;
            return exit;
        });
    }
    turn(bench);
    const ExitStatistics& statistics = bench.vcpu().statistics();
    CHECK(statistics.of(ExitReason::cpuid).count == 5);
    CHECK(statistics.of(ExitReason::external_interrupt).count == 1);
    CHECK(statistics.guest_ticks == 6 * 70);
    CHECK(statistics.total_count() == 6);
    ExitStatistics sum = statistics;
    sum.add(statistics);
    CHECK(sum.total_count() == 12);
    CHECK(sum.total_ticks() == 2 * statistics.total_ticks());
}

TEST_CASE("a report shows registers, segments and the last exit") {
    VmBench bench;
    bench.cpu().gprs.r15 = 0xDEADBEEF;
    bench.exit(ExitReason::invd, 2);
    FixedString<4000> text;
    bench.vcpu().describe(text);
    const std::string report(text.view());
    CHECK(report.find("vcpu 0: rip 0000000000001002") == 0);
    CHECK(report.find("00000000deadbeef") != std::string::npos);
    CHECK(report.find("external interrupt") != std::string::npos);
    CHECK(report.find("ldtr") != std::string::npos);
}
