// Several processors of one VM at the same time. The tests with threads are stress tests: they assert what
// must hold in the end, and a build under ThreadSanitizer says whether it held by luck.
#include <atomic>
#include <thread>

#include "tests/fakes/fake_clock.hpp"
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

TEST_CASE("exits that reach no chip wait for nobody, whatever the other processors do") {
    for (const ApicAssist assist : {ApicAssist::none, ApicAssist::full}) {
        VmBench bench(assist, 2);
        bench.enable_apic(1);
        FakeBackend& cpu = bench.cpu(1);
        cpu.write(Register::rip, VmBench::code);
        bench.vcpu(1).apic().post_init();
        bench.vcpu(1).apic().post_sipi(Vector(VmBench::code >> 12));
        (void)bench.run(1);
        cpu.set_segment(SegmentName::cs, bench.cpu(0).segment(SegmentName::cs));
        cpu.write(Register::cr0, cr0::pe | cr0::et);
        cpu.write(Register::rip, VmBench::code);
        bench.put(VmBench::code, {0x0F, 0xA2,                      // CPUID
                                  0x0F, 0x32,                      // RDMSR
                                  0x0F, 0x30,                      // WRMSR
                                  0xA1, 0x00, 0x00, 0x00, 0xE0,    // MOV EAX, [E0000000]
                                  0xA3, 0x00, 0x00, 0x00, 0xE0,    // MOV [E0000000], EAX
                                  0xA1, 0x00, 0x00, 0xC0, 0xFE,    // MOV EAX, [FEC00000]: the I/O APIC
                                  0xA3, 0x80, 0x03, 0xE0, 0xFE});  // MOV [FEE00380], EAX: the APIC's timer

        // The first processor is in the UART, and stays there.
        std::atomic<bool> inside = false, leave = false;
        bench.surroundings.on_output = [&] {
            inside = true;
            while (!leave) std::this_thread::yield();
        };
        std::thread first([&] { bench.vm->port_write(com1, 1, 'x', 0); });
        while (!inside) std::this_thread::yield();

        cpu.threaded = true;
        const auto step = [&](Exit exit, u8 length) {
            exit.instruction_length = length;
            cpu.then(exit);
        };
        const auto fault = [&](u64 address, bool write) {
            Exit exit(ExitReason::nested_page_fault);
            exit.nested = {.address = GuestPhysical(address), .read = !write, .write = write};
            step(exit, 0);
        };
        step(Exit(ExitReason::cpuid), 2);
        for (const ExitReason reason : {ExitReason::msr_read, ExitReason::msr_write}) {
            Exit exit(reason);
            exit.msr = {.index = msr::apic_base};
            cpu.then([&cpu, exit](FakeBackend&) mutable {
                cpu.gprs.rax = apic::base_enable | 0xFEE00000;
                cpu.gprs.rdx = 0;
                exit.instruction_length = 2;
                return exit;
            });
        }
        fault(0xE0000000, false);
        fault(0xE0000000, true);
        fault(io_apic, false);
        if (assist == ApicAssist::none) {
            fault(local_apic + 0x380, true);
        } else {
            Exit exit(ExitReason::apic_write);
            exit.apic = {.offset = 0x380, .write = true};
            cpu.then(exit);
        }
        const usize before = cpu.entries.size();
        const Ran ran = bench.run(1);
        leave = true;
        first.join();
        CHECK(ran == Ran::yielded);
        CHECK(cpu.entries.size() == before + 8);
        CHECK(cpu.breaches == 0);
        CHECK_FALSE(bench.vm->stopped());
    }
}

TEST_CASE("firmware would have given every processor the same MTRRs, and INIT leaves them") {
    VmBench bench(ApicAssist::none, 3);
    const auto read = [&](unsigned vcpu, u32 index) {
        bench.cpu(vcpu).gprs.rcx = index;
        bench.cpu(vcpu).then([index](FakeBackend&) {
            Exit exit(ExitReason::msr_read);
            exit.instruction_length = 2;
            exit.msr = {.index = MsrIndex(index)};
            return exit;
        });
        REQUIRE(bench.run(vcpu) == Ran::yielded);
        return bench.cpu(vcpu).gprs.rdx << 32 | static_cast<u32>(bench.cpu(vcpu).gprs.rax);
    };
    for (unsigned round = 0; round < 2; ++round) {
        for (unsigned i = 1; i < 3; ++i) {
            REQUIRE(bench.apic(i).post_init());
            REQUIRE(bench.apic(i).post_sipi(Vector(8)));
            for (const u32 index : {0x2FFU, 0x200U, 0x201U, 0x250U, 0x26FU}) {
                CAPTURE(index);
                CHECK(read(i, index) == read(0, index));
            }
            CHECK(read(i, 0x2FF) != 0);
        }
    }
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

// --- At the same time
// ---------------------------------------------------------------------------------------------------

namespace {

// Threads that begin together.
template <class... Bodies>
void at_once(const Bodies&... bodies) {
    std::atomic<unsigned> waiting{sizeof...(bodies)};
    const auto start = [&](const auto& body) {
        return std::thread([&waiting, &body] {
            waiting.fetch_sub(1);
            while (waiting.load() != 0) std::this_thread::yield();
            body();
        });
    };
    std::thread threads[] = {start(bodies)...};
    for (std::thread& thread : threads) thread.join();
}

struct CountingWaker final : Waker {
    void wake(unsigned vcpu) override { woken[vcpu].fetch_add(1, std::memory_order_relaxed); }
    std::atomic<u64> woken[16] = {};
};

struct alignas(page_size) Page {
    u8 bytes[page_size] = {};
};

// Local APICs and an I/O APIC, without the rest of a VM.
struct Fabric {
    explicit Fabric(unsigned n) : pages(n) {
        for (unsigned i = 0; i < n; ++i) {
            apics.push_back(std::make_unique<LocalApic>(pages[i].bytes, clock, fabric,
                                                        LocalApic::Parameters{.id = i, .bootstrap = i == 0}));
            REQUIRE(fabric.add(*apics[i]));
            apics[i]->write(apic::svr, 4, 0x1FF);
        }
        REQUIRE(fabric.add(io_apic));
    }
    void route(unsigned pin, u64 entry) {
        io_apic.write(0, 4, 0x11 + 2 * pin);
        io_apic.write(0x10, 4, entry >> 32);
        io_apic.write(0, 4, 0x10 + 2 * pin);
        io_apic.write(0x10, 4, entry & 0xFFFFFFFF);
    }

    FakeClock clock;
    CountingWaker waker;
    Interrupts fabric{waker};
    IoApic io_apic{fabric};
    std::vector<Page> pages;
    std::vector<std::unique_ptr<LocalApic>> apics;
};

}  // namespace

TEST_CASE("every IPI between processors arrives, however many are under way") {
    Fabric vm(4);
    constexpr unsigned rounds = 500;
    // Each sends its own vector to the next one, and waits for the answer of the one before at the same time;
    // a vector that is still pending when it is sent again is one interrupt, so each is sent once it was
    // taken.
    std::atomic<u64> taken[4] = {};
    std::atomic<bool> lost{false};
    const auto processor = [&](unsigned self) {
        return [&, self] {
            LocalApic& apic = *vm.apics[self];
            const unsigned next = (self + 1) % 4;
            u64 sent = 0;
            u64 idle = 0;
            while (sent < rounds || taken[self].load() < rounds) {
                if (sent < rounds && taken[next].load(std::memory_order_acquire) == sent) {
                    ++sent;
                    apic.write(apic::icr_high, 4, next << 24);
                    apic.write(apic::icr_low, 4, 0x4040U + self);
                }
                if (const auto vector = apic.highest_pending()) {
                    apic.acknowledge();
                    apic.write(apic::eoi, 4, 0);
                    if (vector->raw() != 0x40 + (self + 3) % 4) lost = true;
                    taken[self].fetch_add(1, std::memory_order_release);
                    idle = 0;
                } else if (++idle > 100'000'000 || lost) {
                    lost = true;
                    return;
                } else {
                    std::this_thread::yield();
                }
            }
        };
    };
    at_once(processor(0), processor(1), processor(2), processor(3));
    CHECK_FALSE(lost);
    for (unsigned i = 0; i < 4; ++i) {
        CHECK(taken[i] == rounds);
        CHECK(vm.waker.woken[i] == rounds);
    }
}

TEST_CASE(
    "a level line is served until it is released, while its entry is rewritten and processors come and go") {
    Fabric vm(3);
    constexpr unsigned pin = 9;
    vm.route(pin, u64{0x07} << 56 | 0x8990);  // level, lowest priority, logical 7
    for (unsigned i = 0; i < 3; ++i) vm.apics[i]->write(apic::ldr, 4, bit<u32>(24 + i));
    constexpr unsigned rounds = 400;
    std::atomic<u64> served{0};
    std::atomic<bool> done{false}, stuck{false};
    // The device: asserts until it is served, releases.
    const auto device = [&] {
        for (unsigned round = 0; round < rounds && !stuck; ++round) {
            const u64 before = served.load();
            vm.io_apic.set(pin, true);
            u64 patience = 0;
            while (served.load() == before && !stuck) {
                std::this_thread::yield();
                if (++patience > 50'000'000) stuck = true;
            }
            vm.io_apic.set(pin, false);
        }
        done = true;
    };
    const auto processor = [&](unsigned self) {
        return [&, self] {
            LocalApic& apic = *vm.apics[self];
            u64 turn = 0;
            while (!done) {
                if (apic.highest_pending()) {
                    apic.acknowledge();
                    served.fetch_add(1);
                    apic.write(apic::eoi, 4, 0);
                }
                // Now and then it takes no interrupts; what was accepted before stays.
                if (self != 0 && ++turn % 64 == 0) {
                    apic.write(apic::svr, 4, 0xFF);
                    apic.write(apic::svr, 4, 0x1FF);
                }
                // The last one masks the pin and unmasks it.
                if (self == 2 && turn % 16 == 0) {
                    vm.io_apic.write(0, 4, 0x10 + 2 * pin);
                    vm.io_apic.write(0x10, 4, 0x18990);
                    vm.io_apic.write(0x10, 4, 0x8990);
                }
                std::this_thread::yield();
            }
        };
    };
    at_once(device, processor(0), processor(1), processor(2));
    CHECK_FALSE(stuck);
    CHECK(served >= rounds);
}

TEST_CASE("a level that nobody takes and a processor that begins to accept do not miss each other") {
    for (unsigned round = 0; round < 300; ++round) {
        Fabric vm(1);
        vm.apics[0]->write(apic::svr, 4, 0xFF);
        vm.route(9, 0x8090);
        at_once([&] { vm.io_apic.set(9, true); }, [&] { vm.apics[0]->write(apic::svr, 4, 0x1FF); });
        REQUIRE(vm.apics[0]->highest_pending() == Vector(0x90));
    }
}

TEST_CASE("the 8259As' output and a processor that unmasks LINT0 do not miss each other") {
    for (unsigned round = 0; round < 300; ++round) {
        Fabric vm(1);
        vm.apics[0]->write(apic::lvt_lint0, 4, 0x10700);
        std::atomic<bool> seen{false};
        at_once([&] { vm.fabric.pic_output().set(true); },
                [&] {
                    vm.apics[0]->write(apic::lvt_lint0, 4, 0x700);
                    seen = vm.apics[0]->has_extint();
                });
        // Either the processor saw the line, or it was woken to look again.
        REQUIRE((seen || vm.waker.woken[0] == 1));
    }
}

TEST_CASE("signals from all sides: NMI, INIT and SIPI are each taken once or superseded, never invented") {
    Fabric vm(4);
    LocalApic& target = *vm.apics[3];
    std::atomic<bool> done{false};
    u64 nmis = 0, inits = 0, sipis = 0;
    bool strange = false;
    const auto sender = [&](unsigned self, u32 low) {
        return [&, self, low] {
            for (unsigned i = 0; i < 2000; ++i) {
                vm.apics[self]->write(apic::icr_high, 4, 3U << 24);
                vm.apics[self]->write(apic::icr_low, 4, low);
            }
            if (self == 0) done = true;
        };
    };
    at_once(sender(0, 0x4400), sender(1, 0x4500), sender(2, 0x4680), [&] {
        while (!done || target.has_signal()) {
            nmis += target.take_nmi() ? 1 : 0;
            inits += target.take_init() ? 1 : 0;
            if (const auto page = target.take_sipi()) {
                ++sipis;
                strange = strange || page->raw() != 0x80;
            }
            if (done) break;
        }
    });
    CHECK_FALSE(strange);
    CHECK(nmis <= 2000);
    CHECK(inits <= 2000);
    CHECK(sipis <= 2000);
}

TEST_CASE("chips are used by all processors and the operator at once") {
    VmBench bench(ApicAssist::none, 4);
    VirtualMachine& vm = *bench.vm;
    constexpr unsigned rounds = 500;
    bool wrong[4] = {};
    // A register pair that only works if nobody comes between: each access is whole, the pair is the guest's.
    at_once(
        [&] {
            for (unsigned i = 0; i < rounds; ++i) {
                vm.port_write(Port(0x3FF), 1, i & 0xFF, 0);
                wrong[0] = wrong[0] || vm.port_read(Port(0x3FF), 1, 0) != (i & 0xFF);
                vm.expire_devices(vm.clock().now());
            }
        },
        [&] {
            u8 text[VirtualMachine::most_bytes_at_once] = {};
            for (unsigned i = 0; i < rounds; ++i) {
                vm.port_write_string(Port(0x80), 1, text, 1);
                vm.port_read_string(Port(0x3FD), 1, text, 1);
                one_shot(bench, 100, 1);
                wrong[1] = wrong[1] || vm.device_deadline() == never;
            }
        },
        [&] {
            for (unsigned i = 0; i < rounds; ++i) {
                vm.mmio_write(io_apic, 4, 0x10 + 2 * (i % 24), 2);
                vm.mmio_write(io_apic + 0x10, 4, 0x10000 | (0x30 + i % 64), 2);
                wrong[2] = wrong[2] || vm.mmio_read(0xD000'0000, 4, 2) != 0xFFFF'FFFF;
                (void)vm.acknowledge_pic();
            }
        },
        [&] {
            const auto screen = std::make_unique<ScreenText>();
            for (unsigned i = 0; i < rounds; ++i) {
                (void)vm.serial_input('x');
                const u8 key[] = {0x1C};
                (void)vm.press_keys(key);
                (void)vm.press_power_button();
                if (i % 100 == 0) vm.read_screen(*screen);
                wrong[3] = wrong[3] || (i % 100 == 0 && screen->columns != 80);
            }
        });
    for (const bool one : wrong) CHECK_FALSE(one);
    CHECK_FALSE(vm.stopped());
}

TEST_CASE("of those who stop the VM at once one wins, and nobody sees half of what it says") {
    VmBench bench(ApicAssist::none, 2);
    for (unsigned round = 0; round < 50; ++round) {
        bench.power_on();
        std::string seen[3];
        StopReason why[3] = {};
        const auto look = [&](unsigned i) {
            return [&, i] {
                while (!bench.vm->stopped()) std::this_thread::yield();
                seen[i] = bench.vm->stop_text();
                why[i] = bench.vm->stop_reason();
            };
        };
        at_once(
            [&] {
                bench.vm->crash(bench.vcpu(1), "the first of two");
                look(0)();
            },
            [&] {
                bench.vm->port_write(reset_control, 1, reset_value, 0);
                look(1)();
            },
            look(2));
        REQUIRE(seen[0] == seen[1]);
        REQUIRE(seen[1] == seen[2]);
        REQUIRE((why[0] == StopReason::crashed || why[0] == StopReason::reset));
        REQUIRE(why[0] == why[2]);
        REQUIRE((seen[0] == "reset") == (why[0] == StopReason::reset));
        if (why[0] == StopReason::crashed) REQUIRE(seen[0].find("the first of two") != std::string::npos);
    }
}

TEST_CASE("four vCPUs exit at the same time, while their counters and states are read") {
    VmBench bench(ApicAssist::none, 4);
    constexpr unsigned exits = 2000;
    for (unsigned i = 0; i < 4; ++i) {
        if (i != 0) {
            REQUIRE(bench.apic(i).post_init());
            REQUIRE(bench.apic(i).post_sipi(Vector(1)));
            REQUIRE(bench.run(i) == Ran::yielded);
        }
        bench.cpu(i).threaded = true;
        for (unsigned n = 0; n < exits; ++n) {
            bench.cpu(i).then([i, n](FakeBackend& cpu) {
                cpu.write(Register::rip, 0x100);
                if (n % 4 == 0) {
                    Exit port(ExitReason::port_io);
                    port.instruction_length = 1;
                    port.port = {.port = Port(n % 8 == 0 ? 0x3FF : 0x40), .size = 1, .in = i % 2 == 0};
                    return port;
                }
                Exit other(n % 4 == 1 ? ExitReason::cpuid : ExitReason::preemption);
                other.instruction_length = 2;
                return other;
            });
        }
    }
    std::atomic<unsigned> running{4};
    Ran ended[4] = {};
    const auto processor = [&](unsigned i) {
        return [&, i] {
            ended[i] = bench.run(i);
            running.fetch_sub(1);
        };
    };
    bool shrank = false;
    at_once(processor(0), processor(1), processor(2), processor(3), [&] {
        u64 before = 0;
        while (running.load() != 0) {
            ExitStatistics sum;
            for (unsigned i = 0; i < 4; ++i) {
                sum.add(bench.vcpu(i).statistics());
                shrank = shrank || bench.vcpu(i).activity() == Activity::shutdown;
            }
            shrank = shrank || sum.total_count() < before;
            before = sum.total_count();
            std::this_thread::yield();
        }
    });
    CHECK_FALSE(shrank);
    ExitStatistics sum;
    for (unsigned i = 0; i < 4; ++i) {
        CHECK(ended[i] == Ran::yielded);
        CHECK(bench.cpu(i).breaches == 0);
        sum.add(bench.vcpu(i).statistics());
    }
    CHECK(sum.of(ExitReason::cpuid).count == 4 * exits / 4);
    CHECK(sum.of(ExitReason::port_io).count == 4 * exits / 4);
}
