// The life of VMs, over a core whose address spaces hold (tests/fakes/fake_host.hpp): an access to another
// VM's memory, or to one that is not entered, ends the test program.
#include "vmm/manager.hpp"

#include <algorithm>
#include <set>
#include <string>

#include "tests/fakes/fake_backend.hpp"
#include "tests/fakes/fake_host.hpp"
#include "tests/unit/vmm/loader/images.hpp"

using namespace bulkhead;

namespace {

struct StandingClock final : MicrosecondClock {
    [[nodiscard]] u64 microseconds() const override { return 0; }
};
struct NoInterrupts final : InterruptFlag {
    bool disable() override { return false; }
    void restore(bool) override {}
};
struct Text final : Sink {
    void write(std::string_view piece) override { text += piece; }
    std::string text;
};
struct Observer final : VmObserver {
    void vm_changed(std::string_view text) override { lines.emplace_back(text); }
    std::vector<std::string> lines;
};

constexpr u64 units_start = 16 * mib;

// A machine of 64 MiB with a kernel, an initrd and two more files among its modules.
struct World {
    explicit World(u64 memory = 64 * mib, unsigned cores = 1) : host(memory), storage(16384), ring(storage) {
        host.cores = cores;
        REQUIRE(units->add_usable(HostPhysical(units_start), memory - units_start));
        add_module("kernel", test::make_elf());
        add_module("initrd", std::vector<u8>(5000, 0x11));
        add_module("bzimage", test::make_bzimage());
        add_module("junk", std::vector<u8>(10, 0x22));
        manager =
            std::make_unique<VmManager>(host, machine, factory, *units, log, modules, config, *document);
        manager->set_observer(observer);
    }
    void add_module(std::string_view name, const std::vector<u8>& content) {
        const u64 start = next_module;
        std::copy(content.begin(), content.end(), host.physical(start));
        modules.push_back({.start = HostPhysical(start),
                           .end = HostPhysical(start + content.size()),
                           .name = name,
                           .rest = {}});
        next_module += (content.size() + page_size - 1) / page_size * page_size;
    }

    VmConfig& vm(std::string_view name) {
        VmConfig* made = config.add();
        REQUIRE(made != nullptr);
        made->name = name;
        made->kernel = "kernel";
        made->memory_bytes = 4 * mib;
        return *made;
    }
    void adopt() { manager->adopt(); }

    [[nodiscard]] VmState state(u16 vm) const {
        VmDetails details;
        REQUIRE(manager->details(VmId(vm), details));
        return details.summary.state;
    }
    [[nodiscard]] std::string reason(u16 vm) const {
        VmDetails details;
        REQUIRE(manager->details(VmId(vm), details));
        return std::string(details.reason.view());
    }
    [[nodiscard]] u64 resets(u16 vm) const {
        VmDetails details;
        REQUIRE(manager->details(VmId(vm), details));
        return details.resets;
    }
    [[nodiscard]] FakeBackend& cpu(usize created) { return *factory.backends.at(created); }
    // As the hypervisor's loop on core 0 does it. True if a vCPU ran or a VM was attended to.
    bool turn() {
        const bool attended = manager->attend();
        const bool ran = manager->run_core(0, machine.now + 1'000'000);
        (void)manager->attend();  // to whatever stopped in this turn
        return ran || attended;
    }
    [[nodiscard]] u64 next_wake() const { return std::min(manager->next_turn(0), manager->next_attention()); }
    [[nodiscard]] std::string log_text() {
        std::string text;
        LogEntry entry;
        for (u64 next = 0; manager->read_log(next, entry); next = entry.sequence + 1)
            text += std::string(entry.text.view()) + "\n";
        return text;
    }
    // Where a VM's RAM is, by the memory that its backend was given. The VM has to be entered.
    [[nodiscard]] u64 physical_ram(usize created) const {
        const u8* ram = factory.parameters.at(created).memory->at(GuestPhysical(0), 1);
        return reinterpret_cast<u64>(ram) - host.window();
    }

    FakeHost host;
    FakeMachine machine;
    FakeFactory factory{machine};
    std::unique_ptr<UnitAllocator> units = std::make_unique<UnitAllocator>();
    std::vector<u8> storage;
    LogRing ring;
    StandingClock clock;
    NoInterrupts interrupts;
    Logger log{ring, clock, interrupts};
    std::vector<BootModule> modules;
    u64 next_module = mib;
    std::array<VmConfig, 4> room{};
    Config config{room};
    std::unique_ptr<toml::Document> document = std::make_unique<toml::Document>();
    Observer observer;
    std::unique_ptr<VmManager> manager;
};

std::string text_of(const Result<>& result) {
    return result ? std::string("fine") : std::string(result.error().text.view());
}

// A triple fault, a power-off, a crash: what the guest does in one turn.
FakeBackend::Step triple_fault() {
    return [](FakeBackend&) { return Exit(ExitReason::triple_fault); };
}
FakeBackend::Step out(u16 port, u8 size, u32 value) {
    return [=](FakeBackend& cpu) {
        cpu.gprs.rax = value;
        Exit exit(ExitReason::port_io);
        exit.instruction_length = 1;
        exit.port = {.port = Port(port), .size = size};
        return exit;
    };
}
FakeBackend::Step power_off() {
    return out(0x604, 2, 1 << 13 | 5 << 10);
}
FakeBackend::Step crash() {
    return [](FakeBackend&) { return Exit(ExitReason::hardware_error); };
}
FakeBackend::Step halt() {
    return [](FakeBackend&) {
        Exit exit(ExitReason::hlt);
        exit.instruction_length = 1;
        return exit;
    };
}

}  // namespace

TEST_CASE("adopted VMs that are to start by themselves run, the others wait") {
    World world;
    world.vm("one");
    world.vm("two").autostart = false;
    world.vm("three").refused = true;
    world.adopt();
    CHECK(world.manager->vm_count() == 3);
    CHECK(world.state(0) == VmState::running);
    CHECK(world.state(1) == VmState::off);
    CHECK(world.state(2) == VmState::refused);
    CHECK(world.observer.lines == std::vector<std::string>{"VM one started"});
    CHECK(text_of(world.manager->start(VmId(2))).find("three is refused") == 0);
    CHECK(text_of(world.manager->start(VmId(1))) == "fine");
    CHECK(text_of(world.manager->start(VmId(1))) == "two is running already");
    VmSummary summary;
    REQUIRE(world.manager->summary(1, summary));
    CHECK(summary.name == "two");
    CHECK(summary.memory_bytes == 4 * mib);
    CHECK_FALSE(world.manager->summary(3, summary));
}

TEST_CASE("commands to a VM that is not there, or not in that state, say so") {
    World world;
    world.vm("one").autostart = false;
    world.adopt();
    VmManager& m = *world.manager;
    for (const auto& result : {m.start(VmId(9)), m.pause(VmId(9)), m.unpause(VmId(9)), m.reset(VmId(9)),
                               m.shutdown(VmId(9)), m.destroy(VmId(9))}) {
        CHECK(text_of(result) == "there is no such VM");
    }
    VmDetails details;
    CHECK_FALSE(m.details(VmId(9), details));
    ExitStatistics statistics;
    CHECK_FALSE(m.exit_statistics(VmId(9), statistics));
    CHECK(m.exit_statistics(VmId(0), statistics));
    CHECK(m.console(VmId(9)) == nullptr);
    CHECK(m.console(VmId(0)) == nullptr);
    CHECK_FALSE(m.send_input(VmId(0), 'x'));
    CHECK(text_of(m.pause(VmId(0))) == "one is off, not running");
    CHECK(text_of(m.unpause(VmId(0))) == "one is off, not paused");
    CHECK(text_of(m.shutdown(VmId(0))) == "one is off, not running");
    CHECK(text_of(m.destroy(VmId(0))) == "one is off already");
    CHECK(text_of(m.reset(VmId(0))) == "one is off; start it instead");
    CHECK_FALSE(world.turn());
    CHECK(world.next_wake() == never);
    CHECK(text_of(m.poweroff()) == "no power button");
    CHECK(text_of(m.reboot()) == "fine");
    CHECK(m.host().backend == "fake");
}

TEST_CASE("while a VM runs, its memory is there and no other VM's is") {
    World world;
    world.vm("one");
    world.vm("two");
    world.adopt();
    u64 ram[2] = {}, apic[2] = {};
    for (const usize i : {0U, 1U}) {
        world.cpu(i).then([&, i](FakeBackend&) {
            ram[i] = world.physical_ram(i);
            apic[i] = world.factory.parameters[i].apic_page.physical.raw();
            CHECK_FALSE(world.host.in_kernel());
            return Exit(ExitReason::spurious);
        });
        REQUIRE(world.turn());
    }
    REQUIRE((ram[0] != 0 && ram[1] != 0 && ram[0] != ram[1]));
    for (const usize i : {0U, 1U}) {
        world.cpu(i).then([&, i](FakeBackend&) {
            CHECK(world.host.permissions_at(ram[i]) == read_write);
            CHECK(world.host.permissions_at(apic[i]) == read_write);
            CHECK(world.host.permissions_at(ram[1 - i]) == Permissions{});
            CHECK(world.host.permissions_at(apic[1 - i]) == Permissions{});
            // Its modules are for reading; another's are not there.
            CHECK(world.host.permissions_at(world.modules[0].start.raw()) == read_only);
            CHECK(world.host.permissions_at(world.modules[2].start.raw()) == Permissions{});
            return Exit(ExitReason::spurious);
        });
        REQUIRE(world.turn());
    }
    CHECK(world.cpu(0).script.empty());
    CHECK(world.cpu(1).script.empty());
    // The kernel's own address space shows none of it.
    world.host.enter_address_space(world.host.kernel_table().root());
    for (const u64 address : {ram[0], ram[1], apic[0], apic[1]})
        CHECK(world.host.permissions_at(address) == Permissions{});
    CHECK(world.host.kernel_mappings() == 0);
}

TEST_CASE("VMs and their processors take turns, and state moves when the processor changes") {
    World world;
    world.vm("one");
    world.vm("two");
    world.adopt();
    for (int i = 0; i < 10; ++i) REQUIRE(world.turn());
    CHECK(world.cpu(0).entries.size() == 5);
    CHECK(world.cpu(1).entries.size() == 5);
    CHECK(world.cpu(0).loaded + world.cpu(1).loaded == 1);
    CHECK(world.cpu(0).loads <= world.cpu(0).saves + 1);
    // Before each turn the host could flush what another VM left, in the address space of the one to come.
    REQUIRE(world.host.guests.size() == 10);
    CHECK(std::set(world.host.guests.begin(), world.host.guests.end()).size() == 2);
    for (const HostPhysical root : world.host.guests) CHECK(root != world.host.kernel_table().root());
    // Alone, a VM keeps the core: nothing is saved or loaded.
    REQUIRE(world.manager->pause(VmId(1)));
    REQUIRE(world.turn());
    const unsigned loads = world.cpu(0).loads;
    for (int i = 0; i < 5; ++i) REQUIRE(world.turn());
    CHECK(world.cpu(0).loads == loads);
}

TEST_CASE("a processor may sleep in guest mode for as long as nobody else waits for its core") {
    World world(64 * mib, 2);
    for (const char* name : {"one", "two"}) {
        VmConfig& vm = world.vm(name);
        vm.cpus.add(1);
        vm.autostart = false;
    }
    world.vm("first").cpus.add(0);
    world.adopt();
    REQUIRE(world.manager->start(VmId(0)));
    const auto turn = [&](unsigned core) {
        world.host.core = core;
        REQUIRE(world.manager->run_core(core, ~u64{0}));
        world.host.core = 0;
    };
    const auto allowed = [&](usize created) { return world.cpu(created).halt_allowed; };
    // Core 0 has the console to serve.
    turn(0);
    CHECK(allowed(0).empty());
    turn(1);
    CHECK(allowed(1) == std::vector{true});
    // No tick: only the timers of its own chips are waited for.
    CHECK(world.cpu(1).entries.back().deadline > world.machine.now + 10'000'000);
    turn(1);
    CHECK(allowed(1) == std::vector{true});
    CoreSummary core;
    REQUIRE(world.manager->core_summary(1, core));
    CHECK(core.dedicated);

    REQUIRE(world.manager->start(VmId(1)));
    turn(1);
    turn(1);
    CHECK(allowed(1) == std::vector{true, false});
    CHECK(allowed(2).empty());
    REQUIRE(world.manager->core_summary(1, core));
    CHECK_FALSE(core.dedicated);
    REQUIRE(world.manager->destroy(VmId(1)));
    turn(1);
    CHECK(allowed(1) == std::vector{true, false, true});

    // Sleep is not to be charged to a VM whose time is limited.
    REQUIRE(world.manager->set(VmId(0), "cpu.max", "50000 100000"));
    turn(1);
    CHECK(allowed(1).back() == false);
    REQUIRE(world.manager->set(VmId(0), "cpu.max", "max"));
    turn(1);
    CHECK(allowed(1).back() == true);
    REQUIRE(world.manager->set(VmId(0), "cpu.gang", "true"));
    turn(1);
    CHECK(allowed(1).back() == false);
    REQUIRE(world.manager->set(VmId(0), "cpu.gang", "false"));

    REQUIRE(world.manager->pin_vcpu(VmId(0), 0, world.config.vms()[2].cpus));
    turn(0);
    turn(0);
    CHECK(allowed(1).back() == false);
}

TEST_CASE("halted processors are passed over until their time comes") {
    World world;
    world.vm("one");
    world.adopt();
    world.cpu(0).set_flag(rflags::if_, true);
    world.cpu(0).then(out(0x21, 1, 0xFF));  // nothing but the APIC could wake it, and no timer runs there
    world.cpu(0).then(halt());
    REQUIRE(world.turn());
    CHECK(world.state(0) == VmState::blocked);
    const u64 wake = world.next_wake();
    CHECK(wake > world.machine.now);
    const usize entries = world.cpu(0).entries.size();
    CHECK_FALSE(world.turn());
    world.machine.now = wake;
    CHECK(world.turn());  // looks at its timers, and goes back to sleep
    CHECK(world.cpu(0).entries.size() == entries);
    // A character typed makes it look too.
    CHECK(world.manager->send_input(VmId(0), 'x'));
    CHECK(world.turn());
}

TEST_CASE("a paused VM's time stands still and it goes on where it was") {
    World world;
    world.vm("one").vcpus = 2;
    world.adopt();
    REQUIRE(world.turn());
    const u64 offset = world.cpu(0).tsc_offset;
    REQUIRE(world.manager->pause(VmId(0)));
    CHECK(world.state(0) == VmState::paused);
    CHECK(text_of(world.manager->pause(VmId(0))) == "one is paused, not running");
    CHECK_FALSE(world.turn());
    CHECK(world.next_wake() == never);
    VmDetails before, after;
    REQUIRE(world.manager->details(VmId(0), before));
    world.machine.now += 7'000'000;
    REQUIRE(world.manager->details(VmId(0), after));
    CHECK(before.uptime_nanoseconds == after.uptime_nanoseconds);
    REQUIRE(world.manager->unpause(VmId(0)));
    CHECK(world.state(0) == VmState::running);
    CHECK(world.cpu(0).tsc_offset == offset - 7'000'000);
    CHECK(world.cpu(1).tsc_offset == world.cpu(0).tsc_offset);
    CHECK(world.turn());
}

TEST_CASE("what each VM writes to its serial port goes to its own console") {
    World world;
    world.vm("one");
    world.vm("two");
    world.adopt();
    const char letters[] = {'A', 'B'};
    for (const usize i : {0U, 1U}) {
        world.cpu(i).then(out(0x3FB, 1, 3));
        world.cpu(i).then(out(0x3F8, 1, static_cast<u8>(letters[i])));
    }
    for (int i = 0; i < 2; ++i) REQUIRE(world.turn());
    world.machine.now += world.machine.tsc_hz();
    for (int i = 0; i < 2; ++i) REQUIRE(world.turn());
    for (const u16 i : {0, 1}) {
        ConsoleRing* ring = world.manager->console(VmId(i));
        REQUIRE(ring != nullptr);
        u8 text[8] = {};
        CHECK(ring->read(text) == 1);
        CHECK(text[0] == letters[i]);
    }
}

TEST_CASE("on_reboot and on_crash say what becomes of a VM that stops") {
    using enum LifecycleAction;
    struct Case {
        FakeBackend::Step step;
        LifecycleAction on_reboot, on_crash;
        VmState expected;
        std::string reason;
    };
    const Case cases[] = {
        {triple_fault(), preserve, restart, VmState::shut_down, "triple fault"},
        {triple_fault(), destroy, restart, VmState::off, ""},
        {crash(), restart, preserve, VmState::crashed, "vCPU 0"},
        {crash(), restart, destroy, VmState::off, ""},
        {power_off(), restart, restart, VmState::shut_down, "powered off"},
        {power_off(), destroy, destroy, VmState::shut_down, "powered off"},
    };
    for (const Case& c : cases) {
        World world;
        const u64 free_before = world.units->free_units();
        VmConfig& vm = world.vm("one");
        vm.on_reboot = c.on_reboot;
        vm.on_crash = c.on_crash;
        world.adopt();
        world.cpu(0).then(c.step);
        REQUIRE(world.turn());
        CAPTURE(&c - cases);
        CHECK(world.state(0) == c.expected);
        CHECK(world.reason(0).rfind(c.reason, 0) == 0);
        CHECK_FALSE(world.turn());
        CHECK(world.resets(0) == 0);
        if (c.expected == VmState::off) CHECK(world.units->free_units() == free_before);
        // Whatever it was, it can be started anew.
        CHECK(text_of(world.manager->start(VmId(0))) == "fine");
        CHECK(world.state(0) == VmState::running);
        CHECK(world.reason(0).empty());
        CHECK(world.turn());
    }
}

TEST_CASE("a VM that resets itself starts again, a millisecond later at the least") {
    for (const bool crashes : {false, true}) {
        World world;
        VmConfig& vm = world.vm("one");
        vm.on_crash = LifecycleAction::restart;
        world.adopt();
        const u64 started = world.machine.now;
        world.cpu(0).then(crashes ? crash() : triple_fault());
        REQUIRE(world.turn());
        CHECK(world.state(0) == VmState::running);
        CHECK(world.resets(0) == 0);
        CHECK_FALSE(world.turn());
        CHECK(world.next_wake() == started + world.machine.tsc_hz() / 1000);
        world.machine.now = world.next_wake();
        CHECK(world.turn());
        CHECK(world.resets(0) == 1);
        const usize entries = world.cpu(0).entries.size();
        CHECK(world.turn());
        CHECK(world.cpu(0).entries.size() > entries);
        CHECK(world.cpu(0).entries.back().rip == 0x200020);
    }
}

TEST_CASE("a VM that resets itself without end gets a tenth of the time for being started") {
    World world;
    world.vm("one");
    world.adopt();
    world.cpu(0).reset_ticks = 50'000'000;
    const u64 begun = world.machine.now;
    constexpr unsigned rounds = 20;
    for (unsigned round = 0; round <= rounds; ++round) {
        world.cpu(0).then(triple_fault());
        REQUIRE(world.turn());
        if (world.next_wake() > world.machine.now) world.machine.now = world.next_wake();
        REQUIRE(world.turn());
        REQUIRE(world.resets(0) == round + 1);
    }
    // The first start took no time, and so did the wait for the second.
    CHECK(world.machine.now - begun >= rounds * 10 * world.cpu(0).reset_ticks);
    CHECK(world.machine.now - begun < (rounds + 1) * 10 * world.cpu(0).reset_ticks);

    // One that has been at work for longer than that does not wait.
    world.machine.now += 100 * world.cpu(0).reset_ticks;
    world.cpu(0).then(triple_fault());
    REQUIRE(world.turn());
    CHECK(world.resets(0) == rounds + 2);
}

TEST_CASE("a VM that resets itself without end does not fill the log, and its end is told") {
    World world;
    world.vm("one");
    world.adopt();
    const usize before = world.observer.lines.size();
    const auto reset = [&] {
        world.cpu(0).then(triple_fault());
        REQUIRE(world.turn());
        world.machine.now += world.machine.tsc_hz();
        REQUIRE(world.turn());
    };
    for (int i = 0; i < 205; ++i) reset();
    CHECK(world.resets(0) == 205);
    const usize lines = world.observer.lines.size() - before;
    CHECK(lines >= LineBudget::burst);
    CHECK(lines <= LineBudget::burst + 205 / LineBudget::seconds_a_line + 1);
    CHECK(world.observer.lines.back().find("VM one resets itself (9 ") == 0);
    CHECK(world.observer.lines.back().find("lines like this were left out)") != std::string::npos);
    // The last word is always said.
    REQUIRE(world.manager->set(VmId(0), "on_reboot", "preserve"));
    world.cpu(0).then(triple_fault());
    REQUIRE(world.turn());
    CHECK(world.observer.lines.back() == "VM one stopped: triple fault");
}

TEST_CASE("where a vCPU was that stopped its VM is kept until the operator starts the VM anew") {
    for (const bool restarts : {true, false}) {
        World world;
        VmConfig& vm = world.vm("one");
        vm.on_reboot = restarts ? LifecycleAction::restart : LifecycleAction::preserve;
        world.adopt();
        VmDetails details;
        REQUIRE(world.manager->details(VmId(0), details));
        CHECK_FALSE(details.fault.has_value());
        world.cpu(0).then([](FakeBackend& cpu) {
            cpu.write(Register::rip, 0x1234);
            cpu.gprs.rsp = 0x5678;
            return Exit(ExitReason::triple_fault);
        });
        REQUIRE(world.turn());
        for (int i = 0; i < 2; ++i) {
            REQUIRE(world.manager->details(VmId(0), details));
            REQUIRE(details.fault.has_value());
            CHECK(details.fault->what.view() == "triple fault");
            CHECK(details.fault->vcpu == 0);
            CHECK(details.fault->rip == 0x1234);
            CHECK(details.fault->rsp == 0x5678);
            if (!restarts) break;
            world.machine.now = std::max<u64>(world.machine.now, world.next_wake());
            REQUIRE(world.turn());
            CHECK(world.resets(0) == 1);
        }
        if (restarts) REQUIRE(world.manager->destroy(VmId(0)));
        REQUIRE(world.manager->start(VmId(0)));
        REQUIRE(world.manager->details(VmId(0), details));
        CHECK_FALSE(details.fault.has_value());
    }
}

TEST_CASE("reset begins anew from any state that has a machine") {
    World world;
    VmConfig& vm = world.vm("one");
    vm.on_crash = LifecycleAction::preserve;
    world.adopt();
    world.cpu(0).then([&](FakeBackend& cpu) {
        cpu.write(Register::rip, 0x1234);
        const u8 secret[] = {1, 2, 3};
        REQUIRE(world.factory.parameters[0].memory->write(GuestPhysical(0x300000), secret));
        return Exit(ExitReason::external_interrupt);
    });
    REQUIRE(world.turn());
    REQUIRE(world.manager->reset(VmId(0)));
    world.cpu(0).then([&](FakeBackend& cpu) {
        CHECK(cpu.read(Register::rip) == 0x200020);
        u8 bytes[3] = {9, 9, 9};
        REQUIRE(world.factory.parameters[0].memory->read(GuestPhysical(0x300000), bytes));
        CHECK((bytes[0] == 0 && bytes[1] == 0 && bytes[2] == 0));
        return Exit(ExitReason::hardware_error);
    });
    REQUIRE(world.turn());
    CHECK(world.state(0) == VmState::crashed);
    REQUIRE(world.manager->reset(VmId(0)));
    CHECK(world.state(0) == VmState::running);
    CHECK(world.resets(0) == 2);
    REQUIRE(world.manager->pause(VmId(0)));
    REQUIRE(world.manager->reset(VmId(0)));
    CHECK(world.state(0) == VmState::running);
    CHECK(world.turn());
}

TEST_CASE("shutdown presses the power button of a guest that listens, and tells when it does not") {
    World world;
    world.vm("one");
    world.adopt();
    CHECK(text_of(world.manager->shutdown(VmId(0))).find("does not listen") != std::string::npos);
    world.cpu(0).then(out(0xB2, 1, 0xF1));
    world.cpu(0).then(out(0x602, 2, 1 << 8));
    REQUIRE(world.turn());
    CHECK(text_of(world.manager->shutdown(VmId(0))) == "fine");
}

TEST_CASE("destroying a VM gives back every unit, scrubbed, and the core lets go of its state") {
    World world;
    const u64 free_before = world.units->free_units();
    const usize tables_before = world.host.kernel_tables();
    world.vm("one");
    world.adopt();
    CHECK(world.units->free_units() < free_before);
    world.cpu(0).then([&](FakeBackend&) {
        const u8 secret[] = {0xDE, 0xAD, 0xBE, 0xEF};
        REQUIRE(world.factory.parameters[0].memory->write(GuestPhysical(0x3FFF00), secret));
        return Exit(ExitReason::external_interrupt);
    });
    REQUIRE(world.turn());
    CHECK(world.cpu(0).loaded);
    REQUIRE(world.manager->destroy(VmId(0)));
    CHECK_FALSE(world.cpu(0).loaded);
    CHECK(world.state(0) == VmState::off);
    CHECK(world.units->free_units() == free_before);
    CHECK(world.host.in_kernel());
    CHECK(world.host.kernel_mappings() == 0);
    CHECK(world.host.kernel_tables() == tables_before);
    const u8* memory = world.host.physical(units_start);
    CHECK(std::all_of(memory, memory + 48 * mib, [](u8 byte) { return byte == 0; }));
    CHECK(world.manager->console(VmId(0)) == nullptr);
    CHECK_FALSE(world.turn());
    CHECK(world.observer.lines.back() == "VM one was destroyed");
}

TEST_CASE("what firmware has left in memory is in no VM's way, and none finds it") {
    World world;
    u8* memory = world.host.physical(units_start);
    std::fill(memory, memory + 48 * mib, u8{0xA5});
    world.vm("one");
    world.adopt();
    world.cpu(0).then([&](FakeBackend&) {
        for (const GuestMemory::Range& range : world.factory.parameters[0].memory->ranges())
            CHECK(std::count(range.host, range.host + range.length, u8{0xA5}) < 16);
        const auto& apic_page = world.factory.parameters[0].apic_page;
        CHECK(std::none_of(apic_page.base, apic_page.base + page_size, [](u8 byte) { return byte == 0xA5; }));
        return Exit(ExitReason::external_interrupt);
    });
    REQUIRE(world.turn());
    CHECK(world.cpu(0).script.empty());
    REQUIRE(world.manager->destroy(VmId(0)));
}

TEST_CASE("memory that cannot be scrubbed is not given to anyone else") {
    World world;
    const u64 free_before = world.units->free_units();
    world.vm("one");
    world.adopt();
    const u64 taken = free_before - world.units->free_units();
    world.host.fail_map_at = world.host.maps + 1;
    REQUIRE(world.manager->destroy(VmId(0)));
    CHECK(world.units->free_units() == free_before - 1);
    CHECK(world.log_text().find("one") != std::string::npos);
    REQUIRE(taken > 1);
    CHECK(text_of(world.manager->start(VmId(0))) == "fine");
}

TEST_CASE("a VM that does not fit is refused with what it needs, and nothing is lost") {
    World world;
    const u64 free_before = world.units->free_units();
    world.vm("large").memory_bytes = 60 * mib;
    world.vm("exact").memory_bytes = 4 * mib;
    world.adopt();
    CHECK(world.state(0) == VmState::refused);
    const std::string why = "it needs 62 MiB (60 MiB and overhead), the machine has 48 MiB for VMs";
    CHECK(world.reason(0).find(why) == 0);
    CHECK(world.log_text().find("VM large: " + why) != std::string::npos);
    CHECK(world.state(1) == VmState::running);
    REQUIRE(world.manager->destroy(VmId(1)));
    CHECK(world.units->free_units() == free_before);
    // Room for the arena alone.
    REQUIRE(world.units->allocate({.units = free_before - 1}));
    CHECK(text_of(world.manager->start(VmId(1))).find("out of memory: it needs 6 MiB, 2 MiB are free") == 0);
    CHECK(world.units->free_units() == 1);
}

TEST_CASE("guest memory may lie in pieces") {
    World world;
    // Every second 2 MiB are taken; three free neighbours nowhere.
    std::vector<UnitRun> taken;
    auto all = world.units->allocate({.units = world.units->free_units()});
    REQUIRE(all);
    const HostPhysical start = (*all)[0].start;
    for (u64 i = 0; i < 24; i += 2) REQUIRE(world.units->free(UnitRun{start + i * large_page_size, 1}));
    world.vm("pieces").memory_bytes = 8 * mib;
    world.vm("too many").memory_bytes = 10 * mib;
    world.adopt();
    CHECK(world.state(0) == VmState::running);
    CHECK(world.state(1) == VmState::off);
    CHECK(world.reason(1).find("out of memory") == 0);
    CHECK(world.turn());
    REQUIRE(world.manager->destroy(VmId(0)));
    CHECK(world.units->free_units() == 12);
}

TEST_CASE("missing and unusable modules are named") {
    World world;
    const u64 free_before = world.units->free_units();
    world.vm("a").kernel = "vmlinuz";
    world.vm("b").initrd = "initramfs";
    VmConfig& c = world.vm("c");
    REQUIRE(c.add_module("nowhere with words"));
    world.vm("d").kernel = "junk";
    world.adopt();
    CHECK(world.reason(0) == "kernel \"vmlinuz\" is not among the boot modules; add it to the GRUB entry");
    CHECK(world.reason(1) == "initrd \"initramfs\" is not among the boot modules; add it to the GRUB entry");
    CHECK(world.reason(2) == "module \"nowhere\" is not among the boot modules; add it to the GRUB entry");
    CHECK_FALSE(world.reason(3).empty());
    for (const u16 i : {0, 1, 2}) CHECK(world.state(i) == VmState::refused);
    CHECK(world.state(3) == VmState::off);  // the plan does not look into modules
    CHECK(world.units->free_units() == free_before);
    CHECK(world.host.kernel_mappings() == 0);
    World none;
    none.vm("e").kernel.clear();
    none.adopt();
    CHECK(none.reason(0).find("it has no kernel") == 0);
}

TEST_CASE("a module is read as a whole, or not at all where it is too long") {
    World world;
    world.adopt();
    std::vector<char> text(5000);
    REQUIRE(world.manager->read_module("initrd", text).value() == 5000);
    CHECK(std::count(text.begin(), text.end(), '\x11') == 5000);
    std::fill(text.begin(), text.end(), 'x');
    const auto refused = world.manager->read_module("initrd", std::span(text).first(4999));
    REQUIRE_FALSE(refused);
    CHECK(refused.error().text.view() == "module initrd has 5000 bytes; at most 4999 are read");
    CHECK(std::count(text.begin(), text.end(), 'x') == 5000);
    CHECK_FALSE(world.manager->read_module("nothing", text));
}

TEST_CASE("an initrd, modules, and one file in two roles are all mapped") {
    World world;
    VmConfig& vm = world.vm("one");
    vm.initrd = "initrd";
    REQUIRE(vm.add_module("junk first words"));
    REQUIRE(vm.add_module("junk"));
    REQUIRE(vm.add_module("initrd"));
    REQUIRE(vm.add_module("kernel"));
    world.adopt();
    CHECK(world.reason(0).empty());
    CHECK(world.state(0) == VmState::running);
    CHECK(world.turn());
}

TEST_CASE("files that share a page are mapped all the same") {
    World world;
    // The loader put them one behind the other.
    BootModule& initrd = world.modules[1];
    BootModule& junk = world.modules[3];
    junk.start = initrd.end;
    junk.end = junk.start + 5000;
    World fresh;
    fresh.modules[1] = initrd;
    fresh.modules[3] = junk;
    VmConfig& vm = fresh.vm("one");
    vm.initrd = "initrd";
    REQUIRE(vm.add_module("junk"));
    fresh.adopt();
    CHECK(fresh.reason(0).empty());
    CHECK(fresh.state(0) == VmState::running);
}

TEST_CASE("creation that fails in the backend or for want of a table leaves nothing behind") {
    for (u64 at = 0; at < 4; ++at) {
        World world;
        const u64 free_before = world.units->free_units();
        world.factory.fail_at = at;
        world.vm("one").vcpus = 4;
        world.adopt();
        CHECK(world.state(0) == VmState::off);
        CHECK(world.reason(0) == "the fake makes no more");
        CHECK(world.units->free_units() == free_before);
        CHECK(text_of(world.manager->start(VmId(0))) == "fine");
        CHECK(world.turn());
    }
    World world;
    const u64 free_before = world.units->free_units();
    world.vm("one");
    world.host.fail_map_at = 0;
    world.adopt();
    CHECK(world.reason(0) == "the kernel has no page for a table");
    CHECK(world.units->free_units() == free_before);
    World many;
    many.vm("one").vcpus = 17;
    many.adopt();
    CHECK(many.reason(0).find("vcpus = 17 is out of range") == 0);
}

TEST_CASE("exit statistics are summed over a VM's processors") {
    World world;
    world.vm("one").vcpus = 2;
    world.adopt();
    for (int i = 0; i < 4; ++i) (void)world.turn();
    ExitStatistics statistics;
    REQUIRE(world.manager->exit_statistics(VmId(0), statistics));
    CHECK(statistics.total_count() == world.cpu(0).entries.size() + world.cpu(1).entries.size());
    VmSummary summary;
    REQUIRE(world.manager->summary(0, summary));
    CHECK(summary.cpu_nanoseconds > 0);
}

TEST_CASE("a thousand VMs come and go and nothing is left of them") {
    World world(40 * mib);
    world.vm("one").autostart = false;
    world.vm("two");
    world.adopt();
    const u64 free_before = world.units->free_units();
    const usize tables_before = world.host.kernel_tables();
    for (int i = 0; i < 1000; ++i) {
        REQUIRE(world.manager->start(VmId(0)));
        REQUIRE(world.turn());
        REQUIRE(world.turn());
        REQUIRE(world.manager->destroy(VmId(0)));
        REQUIRE(world.units->free_units() == free_before);
        REQUIRE(world.host.kernel_tables() == tables_before);
        world.factory.backends.resize(1);
        world.factory.parameters.resize(1);
    }
    CHECK(world.state(1) == VmState::running);
    CHECK(world.turn());
}

TEST_CASE(
    "no page table leads to another VM's memory, and every load from it page-faults, on whoever's core") {
    World world;
    world.vm("one").vcpus = 2;
    world.vm("two");
    world.vm("three").autostart = false;
    world.adopt();
    VmManager& m = *world.manager;
    for (int i = 0; i < 6; ++i) REQUIRE(world.turn());
    Text leaks;
    TableCheck tables;
    REQUIRE(m.check_tables(tables, leaks));
    CHECK(tables.tables == 5);  // the kernel's, and of each VM the compartment's and the guest's
    CHECK(tables.mappings > 4);
    CHECK(tables.leaks == 0);
    CHECK(leaks.text.empty());

    const std::optional<VmId> viewers[] = {std::nullopt, VmId(0), VmId(1)};
    for (const auto viewer : viewers) {
        for (const u16 owner : {0, 1}) {
            if (viewer == VmId(owner)) continue;
            ReachCheck reach;
            CHECK(text_of(m.check_reach(viewer, VmId(owner), reach)) == "fine");
            CHECK_FALSE(reach.reached);
            CHECK(reach.cores == 1);
            CHECK(reach.loads == 3 + 2);  // 6 MiB in two runs, each with its last byte
        }
    }
    CHECK(world.host.in_kernel());
    ReachCheck reach;
    CHECK(text_of(m.check_reach(VmId(0), VmId(0), reach)) == "one may read its own memory");
    CHECK(text_of(m.check_reach(VmId(0), VmId(2), reach)) == "three is off");
    CHECK(text_of(m.check_reach(VmId(2), VmId(0), reach)) == "three is off");
    CHECK(text_of(m.check_reach(VmId(9), VmId(0), reach)) == "there is no such VM");
    CHECK(text_of(m.check_reach(std::nullopt, VmId(9), reach)) == "there is no such VM");
    // Whoever was interrupted goes on.
    for (int i = 0; i < 6; ++i) REQUIRE(world.turn());

    // What is mapped is found: by its table, and by a load.
    VmMemorySummary memory;
    REQUIRE(m.vm_memory(VmId(1), memory));
    REQUIRE(memory.ranges.size() == 2);
    REQUIRE(world.host.map({memory.ranges[1].start + 2 * mib, page_size}, read_only));
    REQUIRE(m.check_tables(tables, leaks));
    CHECK(tables.leaks == 1);
    CHECK(leaks.text.find("the kernel's host table maps memory of VM 1") == 0);
    REQUIRE(m.check_reach(std::nullopt, VmId(1), reach));
    CHECK(reach.reached);
    CHECK(reach.core == 0);
    CHECK(reach.address == memory.ranges[1].start + 2 * mib);
    REQUIRE(m.check_reach(VmId(0), VmId(1), reach));
    CHECK_FALSE(reach.reached);
    REQUIRE(world.host.unmap({memory.ranges[1].start + 2 * mib, page_size}));

    // The same of a VM's own tables: one entry too many in its compartment, and in what its guest goes
    // through.
    const HostPhysical stolen = memory.ranges[1].start;
    HostPageTable compartment(host_paging, world.host.tables(), world.host.last_vm_root);
    REQUIRE(compartment.map(arena_virtual(stolen), stolen, 2 * mib, {.permissions = read_only}));
    leaks.text.clear();
    REQUIRE(m.check_tables(tables, leaks));
    CHECK(tables.leaks == 1);
    CHECK(leaks.text.find("VM 0's host table maps memory of VM 1") == 0);
    REQUIRE(m.check_reach(VmId(0), VmId(1), reach));
    CHECK(reach.reached);
    CHECK(reach.address == stolen);
    REQUIRE(m.check_reach(VmId(1), VmId(0), reach));
    CHECK_FALSE(reach.reached);
    REQUIRE(compartment.unmap(arena_virtual(stolen), 2 * mib));

    NestedPageTable nested(world.factory.nested_format(), world.host.tables(),
                           world.factory.parameters.at(0).nested_root);
    REQUIRE(nested.map(GuestPhysical(6 * mib), stolen, 2 * mib, {.permissions = read_write_execute}));
    leaks.text.clear();
    REQUIRE(m.check_tables(tables, leaks));
    CHECK(tables.leaks == 1);
    CHECK(leaks.text.find("VM 0's nested table maps memory of VM 1") == 0);
    REQUIRE(nested.unmap(GuestPhysical(6 * mib), 2 * mib));
    REQUIRE(m.check_tables(tables, leaks));
    CHECK(tables.leaks == 0);

    // Nothing can be proven where not even a VM's own memory is readable.
    world.host.reads_nothing = true;
    CHECK(text_of(m.check_reach(VmId(0), VmId(1), reach)) == "core 0 cannot read one's own memory for it");
}

// Creation as such: what power_on() does is not counted, for it takes nothing.
TEST_CASE("creation fails at each of its steps in turn, and nothing is left behind") {
    // Each way to fail, with the number of the step at which it does: true if that step was come to.
    struct Way {
        const char* name;
        u64 least;  // so many steps there are
        void (*arm)(World& world, AllocationFault& fault, u64 step);
        bool (*struck)(const World& world, const AllocationFault& fault, u64 step);
    };
    const Way ways[] = {
        {"an allocation in the VM's arena, or of a page for its tables", 30,
         [](World& world, AllocationFault& fault, u64 step) {
             fault = {.fail_at = step};
             world.manager->set_fault(&fault);
         },
         [](const World&, const AllocationFault& fault, u64 step) { return fault.seen > step; }},
        {"a mapping in the kernel's tables", 0,
         [](World& world, AllocationFault&, u64 step) { world.host.fail_map_at = world.host.maps + step; },
         [](const World& world, const AllocationFault&, u64) {
             return world.host.maps > world.host.fail_map_at;
         }},
        {"a page for the kernel's tables", 0,
         [](World& world, AllocationFault&, u64 step) {
             world.host.fail_table_at = world.host.tables_made + step;
         },
         [](const World& world, const AllocationFault&, u64) {
             return world.host.tables_made > world.host.fail_table_at;
         }},
        {"a backend", 1,
         [](World& world, AllocationFault&, u64 step) {
             world.factory.fail_at = world.factory.creations + step;
         },
         [](const World& world, const AllocationFault&, u64) {
             return world.factory.creations > world.factory.fail_at;
         }},
    };
    for (const Way& way : ways) {
        CAPTURE(way.name);
        World world;
        VmConfig& vm = world.vm("one");
        vm.vcpus = 2;
        vm.autostart = false;
        vm.initrd = "initrd";
        world.vm("two");
        world.adopt();
        REQUIRE(world.state(1) == VmState::running);
        const u64 free_before = world.units->free_units();
        const usize tables_before = world.host.kernel_tables();
        u64 steps = 0;
        for (bool struck = true; struck; ++steps) {
            REQUIRE(steps < 2000);
            AllocationFault fault;
            way.arm(world, fault, steps);
            const auto started = world.manager->start(VmId(0));
            struck = way.struck(world, fault, steps);
            world.manager->set_fault(nullptr);
            world.host.fail_map_at = world.host.fail_table_at = world.factory.fail_at = ~u64{0};
            CAPTURE(steps);
            REQUIRE(started.has_value() == !struck);
            if (struck) {
                REQUIRE(world.state(0) == VmState::off);
                REQUIRE_FALSE(world.reason(0).empty());
            } else {
                REQUIRE(world.manager->destroy(VmId(0)));
            }
            REQUIRE(world.units->free_units() == free_before);
            REQUIRE(world.host.kernel_tables() == tables_before);
            REQUIRE(world.host.kernel_mappings() == 0);
            VmMemorySummary memory;
            REQUIRE(world.manager->vm_memory(VmId(0), memory));
            REQUIRE(memory.ranges.empty());
            REQUIRE(memory.overhead_used_bytes == 0);
            CoreSummary core;
            REQUIRE(world.manager->core_summary(0, core));
            REQUIRE(core.vcpus == 1);
            world.factory.backends.resize(1);
            world.factory.parameters.resize(1);
        }
        INFO("steps that failed in turn: " << steps - 1);
        REQUIRE(steps > way.least);
        CHECK(world.turn());
    }
}

TEST_CASE("a VM whose memory the hardware loses stops alone, and nobody gets that memory again") {
    World world;
    world.vm("one");
    world.vm("two");
    world.adopt();
    const u64 managed = world.units->managed_units();
    const auto memory_of = [&](u16 vm) {
        VmMemorySummary memory;
        REQUIRE(world.manager->vm_memory(VmId(vm), memory));
        return memory.ranges;
    };
    const HostPhysical page = memory_of(0)[1].start + (large_page_size + 5 * page_size);
    REQUIRE(world.host.lost.note({.page = page, .bank = 4, .status = 0xBD00}, 0));
    REQUIRE(world.turn());
    CHECK(world.state(0) == VmState::crashed);
    const std::string what = "its memory at " + std::string([&] {
                                 FixedString<40> text;
                                 print(text, "{}", page);
                                 return std::string(text.view());
                             }()) +
                             " has an uncorrectable error (bank 4, status 0xbd00)";
    CHECK(world.reason(0) == what);
    CHECK(world.log_text().find("HV-E015: VM one: " + what) != std::string::npos);
    CHECK(world.observer.lines.back() == "VM one crashed: " + what);
    CHECK(world.state(1) == VmState::running);
    CHECK(world.turn());
    CHECK(world.units->managed_units() == managed - 1);
    CHECK(world.host.own_pages_lost.empty());

    // Once more: it is known.
    REQUIRE(world.host.lost.note({.page = page, .bank = 4, .status = 0xBD00}, 0));
    REQUIRE(world.manager->attend());
    CHECK(world.units->managed_units() == managed - 1);
    CHECK(world.host.own_pages_lost.empty());

    // A start, as a reset, takes other memory; what is lost is not even touched.
    std::fill_n(world.host.physical(page.align_down(large_page_size).raw()), large_page_size, u8{0xEE});
    const u64 free_before = world.units->free_units();
    CHECK(text_of(world.manager->reset(VmId(0))) == "fine");
    CHECK(world.state(0) == VmState::running);
    CHECK(world.units->free_units() == free_before - 1);
    for (const PhysicalRange& range : memory_of(0))
        CHECK_FALSE(range.covers({.start = page, .length = page_size}));
    CHECK(*world.host.physical(page.raw()) == 0xEE);
    CHECK(world.turn());
    CHECK(text_of(world.manager->destroy(VmId(0))) == "fine");
    CHECK(text_of(world.manager->destroy(VmId(1))) == "fine");
    CHECK(world.units->free_units() == managed - 1);
}

TEST_CASE("on_crash says what becomes of a VM whose memory is lost") {
    for (const auto action :
         {LifecycleAction::restart, LifecycleAction::destroy, LifecycleAction::preserve}) {
        World world;
        world.vm("one").on_crash = action;
        world.adopt();
        const u64 managed = world.units->managed_units();
        VmMemorySummary memory;
        REQUIRE(world.manager->vm_memory(VmId(0), memory));
        // The guest itself met it.
        world.host.machine_check_survived = false;
        world.cpu(0).then([&](FakeBackend&) {
            REQUIRE(world.host.lost.note({.page = memory.ranges[1].start}, 0));
            Exit exit(ExitReason::exception);
            exit.exception = {.event = make_exception(exception::machine_check)};
            return exit;
        });
        REQUIRE(world.turn());
        CHECK(world.units->managed_units() == managed - 1);
        if (action == LifecycleAction::destroy) {
            CHECK(world.state(0) == VmState::off);
            CHECK(world.units->free_units() == managed - 1);
            continue;
        }
        CHECK(world.reason(0).find("has an uncorrectable error") != std::string::npos);
        if (action == LifecycleAction::preserve) {
            CHECK(world.state(0) == VmState::crashed);
            CHECK(text_of(world.manager->start(VmId(0))) == "fine");
        } else {
            CHECK(world.state(0) == VmState::running);
            world.machine.now = world.next_wake();
            REQUIRE(world.turn());
            CHECK(world.resets(0) == 1);
        }
        CHECK(world.state(0) == VmState::running);
        const PhysicalRange before = memory.ranges[1];
        REQUIRE(world.manager->vm_memory(VmId(0), memory));
        for (const PhysicalRange& range : memory.ranges)
            CHECK_FALSE(range.covers({.start = before.start, .length = page_size}));
        CHECK(world.turn());
    }
}

TEST_CASE("a machine check in a guest's turn that concerns others leaves the guest running") {
    World world;
    world.vm("one");
    world.vm("two");
    world.adopt();
    VmMemorySummary memory;
    REQUIRE(world.manager->vm_memory(VmId(1), memory));
    world.cpu(0).then([&](FakeBackend&) {
        REQUIRE(world.host.lost.note({.page = memory.ranges[1].start}, 0));
        Exit exit(ExitReason::exception);
        exit.exception = {.event = make_exception(exception::machine_check)};
        return exit;
    });
    REQUIRE(world.turn());
    CHECK(world.state(0) == VmState::running);
    CHECK(world.state(1) == VmState::crashed);
    // One that it met without a word of where stops it all the same.
    world.host.machine_check_survived = false;
    world.cpu(0).then([](FakeBackend&) {
        Exit exit(ExitReason::exception);
        exit.exception = {.event = make_exception(exception::machine_check)};
        return exit;
    });
    REQUIRE(world.turn());
    CHECK(world.state(0) == VmState::crashed);
    CHECK(world.reason(0).find("a machine check struck while it ran") != std::string::npos);
}

TEST_CASE("lost memory that is free goes out of use; what is no VM's is the hypervisor's own") {
    World world;
    world.vm("one");
    world.adopt();
    const u64 managed = world.units->managed_units(), free = world.units->free_units();
    VmMemorySummary memory;
    REQUIRE(world.manager->vm_memory(VmId(0), memory));
    const u64 last = 64 * mib - page_size;
    REQUIRE(world.host.lost.note({.page = HostPhysical(last)}, 0));
    REQUIRE(world.manager->attend());
    CHECK(world.units->free_units() == free - 1);
    CHECK(world.units->managed_units() == managed - 1);
    CHECK(world.log_text().find("HV-E015: free memory at") != std::string::npos);
    CHECK(world.host.own_pages_lost.empty());
    // The VM's own tables, and below all memory for VMs.
    REQUIRE(world.host.lost.note({.page = memory.ranges[0].start}, 0));
    REQUIRE(world.host.lost.note({.page = HostPhysical(mib)}, 0));
    REQUIRE(world.manager->attend());
    CHECK(world.host.own_pages_lost == std::vector<u64>{memory.ranges[0].start.raw(), mib});
    CHECK(world.state(0) == VmState::running);
    CHECK(world.turn());
}

TEST_CASE("however much memory is lost, what is found again is nothing new") {
    World world(256 * mib);
    world.vm("one");
    world.adopt();
    const u64 managed = world.units->managed_units(), free = world.units->free_units();
    constexpr u64 count = 100;
    for (unsigned round = 0; round < 2; ++round) {
        for (u64 i = 0; i < count; ++i) {
            const HostPhysical page(256 * mib - i * large_page_size - (round + 1) * page_size);
            REQUIRE(world.host.lost.note({.page = page}, 0));
            REQUIRE(world.manager->attend());
        }
        CHECK(world.units->managed_units() == managed - count);
        CHECK(world.units->free_units() == free - count);
        CHECK(world.host.own_pages_lost.empty());
    }
    // What is left is given out as before.
    CHECK(world.state(0) == VmState::running);
    CHECK(world.units->allocate({.units = free - count, .max_runs = 16}));
    CHECK(world.units->free_units() == 0);
}

TEST_CASE("VMs on a core that does not answer are stopped, and can be dealt with once it does") {
    World world;
    world.vm("one");
    world.vm("two").autostart = false;
    world.adopt();
    const u64 free = world.units->free_units();
    REQUIRE(world.turn());
    world.host.core_is_silent = true;
    world.manager->lose_core(1);  // where nobody runs
    CHECK(world.state(0) == VmState::running);
    world.manager->lose_core(0);
    CHECK(world.state(0) == VmState::crashed);
    CHECK(world.reason(0) == "core 0, on which it runs, does not answer");
    CHECK(world.observer.lines.back() == "VM one crashed: core 0, on which it runs, does not answer");
    CHECK(world.state(1) == VmState::off);
    world.manager->lose_core(0);
    CHECK(world.observer.lines.size() == 2);
    // Its memory may be in use.
    CHECK(text_of(world.manager->start(VmId(0))) == "the core is silent");
    CHECK(world.units->free_units() == free);

    // The core goes on: the vCPU finds its VM stopped, and never enters the guest again.
    world.host.core_is_silent = false;
    const usize entries = world.cpu(0).entries.size();
    for (int i = 0; i < 3; ++i) (void)world.turn();
    CHECK(world.cpu(0).entries.size() == entries);
    CHECK(text_of(world.manager->start(VmId(0))) == "fine");
    CHECK(world.turn());
    CHECK(world.cpu(0).entries.size() > entries);
}
