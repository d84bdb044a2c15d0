#include "boot/hypervisor.hpp"

#include <algorithm>
#include <array>
#include <bit>

#include "arch/x86/cpu/control_flow.hpp"
#include "arch/x86/cpu/injected_faults.hpp"
#include "arch/x86/cpu/intrinsics.hpp"
#include "arch/x86/cpu/machine_check.hpp"
#include "arch/x86/cpu/panic.hpp"
#include "arch/x86/cpu/per_cpu.hpp"
#include "arch/x86/cpu/speculation.hpp"
#include "boot/backends.hpp"
#include "boot/cores.hpp"
#include "boot/fault_injection.hpp"
#include "boot/kernel_space.hpp"
#include "boot/machine_events.hpp"
#include "boot/recording.hpp"
#include "boot/serial_lines.hpp"
#include "boot/version.hpp"
#include "drivers/rtc.hpp"
#include "drivers/vectors.hpp"
#include "kernel/base/deferred.hpp"
#include "kernel/base/line_sink.hpp"
#include "kernel/mem/layout.hpp"
#include "vmm/config/config.hpp"
#include "vmm/config/default_config.hpp"
#include "vmm/console/session.hpp"
#include "vmm/manager.hpp"

namespace bulkhead {
namespace {

constexpr std::string_view config_module = "bulkhead.toml";
// The core looks at the console at least so often, whatever the guest does: 10 ms.
constexpr u64 slices_per_second = 100;
// How much of a guest's last output is shown before its end is announced, in polls of the session.
constexpr unsigned announced_polls = 64;
constexpr usize most_vms = Config::max_vms;

Deferred<std::array<VmConfig, most_vms>> vm_configs;
Deferred<Config> config;
Deferred<toml::Document> document;
Deferred<VmManager> manager;
Deferred<Session> session;
Deferred<SerialLines> serial_lines;
Host* the_host = nullptr;

class Services final : public HostServices {
  public:
    explicit Services(std::string_view backend) : backend_(backend) {}

    void enter_address_space(HostPhysical root) override {
        HostPhysical& current = *roots_;
        if (root == current) return;
        current = root;
        switches_->enter(root, root == kernel_page_table().root());
        cpu::write_cr3(root.raw());
    }
    void before_guest() override { flush_for_guest(switches_->before_guest()); }
    SpeculationFacts speculation_facts() const override { return bulkhead::speculation_facts(); }
    Mitigations mitigations() const override { return bulkhead::mitigations(); }
    u64 barriers_issued(unsigned core, Barrier barrier) const override {
        return barrier_count_of(core, barrier);
    }
    const HostPageTable& kernel_table() const override { return kernel_page_table(); }
    Result<> map(const PhysicalRange& range, Permissions permissions) override {
        return kernel_page_table().map(arena_virtual(range.start), range.start, range.length,
                                       {.permissions = permissions});
    }
    Result<> unmap(const PhysicalRange& range) override {
        return kernel_page_table().unmap(arena_virtual(range.start), range.length);
    }
    unsigned max_page_level() const override {
        return (cpu::cpuid(0x80000001).edx & cpuid::ext1_edx::page1gb) != 0 ? 3 : 2;
    }
    HostInfo info() const override {
        return {.version = version,
                .backend = backend_,
                .cpus = online_core_count(),
                .memory_bytes = the_host->memory.managed_units() * UnitAllocator::unit_size,
                .wall_clock = drivers::read_rtc().value_or(the_host->machine.wall_clock()),
                .tsc = the_host->machine.tsc(),
                .tsc_hz = the_host->machine.tsc_hz()};
    }
    bool page_faults(HostPhysical address) const override { return cpu::page_faults(arena_virtual(address)); }
    bool survive_machine_check() override { return survive_machine_check_of_guest(); }
    bool lost_memory_in(HostPhysical start, u64 length) const override {
        return lost_pages.any_in(start, length);
    }
    std::optional<LostPage> take_lost_page() override { return lost_pages.take(); }
    void own_page_lost(const LostPage& lost) override {
        panic(
            "HV-E012: machine check; the hypervisor's memory at {} has an uncorrectable error (bank {}, "
            "status {:#x}), have it examined",
            lost.page, lost.bank, lost.status);
    }
    Integrity integrity() const override {
        return {.text_checksum = image_checksum(),
                .table_checksum = kernel_page_table().checksum(),
                .free_pages = kernel_page_pool().free_pages()};
    }
    u64 own_memory() const override { return image_finish() - image_begin(); }
    unsigned core_count() const override { return bulkhead::core_count(); }
    CoreInfo core_info(unsigned core) const override { return bulkhead::core_info(core); }
    unsigned this_core() const override { return cpu_index(); }
    void kick(unsigned core) override { kick_core(core); }
    HostCause waiting_interrupt() const override { return bulkhead::waiting_interrupt(); }
    Result<> run_on(unsigned core, CoreWork& work) override { return run_on_core(core, work); }
    Result<> reboot() override {
        the_host->console.flush();
        the_host->power.reset();
    }
    Result<> power_off() override {
        the_host->console.flush();
        the_host->power.power_off();
        return fail("the machine does not power off: its ACPI tables do not say how, or it does not obey");
    }

  private:
    std::string_view backend_;
    PerCpu<HostPhysical> roots_;  // what CR3 holds; 0: not known
    PerCpu<GuestSwitch> switches_;
};
Deferred<Services> services;

// What comes in on the serial line, between the interrupt and the console's next turn.
class InputQueue {
  public:
    void fill() {
        while (const auto byte = the_host->console.receive()) {
            if (head_ - tail_ < sizeof bytes_) bytes_[head_++ % sizeof bytes_] = *byte;
        }
    }
    [[nodiscard]] std::optional<u8> take() {
        if (head_ == tail_) return std::nullopt;
        return bytes_[tail_++ % sizeof bytes_];
    }

  private:
    u8 bytes_[256] = {};
    u32 head_ = 0, tail_ = 0;
};
InputQueue input;

// The terminal gets bytes as they are; the log's own sink turns line ends into CR LF.
class Terminal final : public Sink {
  public:
    void write(std::string_view text) override {
        for (const char c : text) the_host->console.put(static_cast<u8>(c));
    }
};
Terminal terminal;

class Announcer final : public VmObserver {
  public:
    void vm_changed(std::string_view text) override {
        if (!session.ready()) return;
        serial_lines->bind();
        // What the guest said before comes first. (At the prompt, a poll would run a command: not amid a
        // change.)
        for (unsigned i = 0; i < announced_polls && session->attached() && session->poll(); ++i) {
        }
        session->notify(text);
    }
};
Announcer announcer;

// The log's lines for the operator's terminal, without tearing the prompt he types at.
class ConsoleLog final : public LineSink {
    void line(std::string_view text) override { session->notify(text); }
};
ConsoleLog console_log;

class ProblemLog final : public LineSink {
    void line(std::string_view text) override { the_host->log.error("{}", text); }
};

Result<Bytes> map_module(const BootModule& module) {
    const HostPhysical start = module.start.align_down(page_size);
    const u64 length = module.end.align_up(page_size) - start;
    if (auto mapped = services->map({start, length}, read_only); !mapped)
        return std::unexpected(mapped.error());
    return Bytes(reinterpret_cast<const u8*>(arena_virtual(module.start).raw()), module.size());
}

void unmap_module(const BootModule& module) {
    const HostPhysical start = module.start.align_down(page_size);
    (void)services->unmap({start, module.end.align_up(page_size) - start});
}

void read_config() {
    config.emplace(std::span<VmConfig>(vm_configs.emplace()));
    for (const BootModule& module : the_host->boot.modules) {
        if (module.name != config_module) continue;
        const auto bytes = map_module(module);
        if (!bytes) {
            the_host->log.error("{}: {}", config_module, bytes.error().text);
            return;
        }
        ProblemLog problems;
        document.emplace();
        const unsigned count =
            parse_config(config_module, {reinterpret_cast<const char*>(bytes->data()), bytes->size()},
                         *document, *config, problems);
        if (count != 0)
            the_host->log.error("{}: {} problem(s); the VMs concerned are refused", config_module, count);
        unmap_module(module);
        return;
    }
    the_host->log.info("no config module ({}): each kernel among the modules becomes a VM", config_module);
    DefaultConfig defaults(*config);
    for (const BootModule& module : the_host->boot.modules) {
        const auto bytes = map_module(module);
        if (!bytes) {
            the_host->log.error("module {}: {}", module.name, bytes.error().text);
            continue;
        }
        if (auto added = defaults.add(module.name, module.rest, *bytes); !added) {
            the_host->log.error("{}", added.error().text);
        }
        unmap_module(module);
    }
}

// [host] of the config. What the hypervisor's own command line says goes before it.
void apply_host_config() {
    const HostConfig& wanted = config->host;
    const HostOptions& options = the_host->options;
    static constexpr u16 ports[] = {0x3F8, 0x2F8, 0x3E8, 0x2E8};
    const Port port(ports[wanted.console == ComPort::none ? 0 : static_cast<unsigned>(wanted.console) - 1]);
    if (!options.console && !options.no_console &&
        (port != the_host->console.base() || wanted.baud != options.baud)) {
        const Port before = the_host->console.base();
        the_host->console.flush();
        if (!the_host->console.initialize(port, wanted.baud)) {
            (void)the_host->console.initialize(before, options.baud);
            the_host->log.error("HV-E006: no working UART at {}; the console stays where it is",
                                name_of(wanted.console));
        }
    }
    if (the_host->screen != nullptr && !wanted.screen) {
        the_host->log.remove_sink(*the_host->screen);
    } else if (the_host->screen != nullptr && options.log_level == LogLevel::info) {
        the_host->log.set_level(*the_host->screen, wanted.log_level);
    }
    if (wanted.on_panic == PanicAction::reset) panic_settings.reset = the_host->reset_machine;
}

// What each core's timer is armed for; nothing once it has fired. Most entries want what the last one wanted.
PerCpu<std::optional<u64>> armed_deadline;

void arm_timer(u64 deadline) {
    std::optional<u64>& armed = *armed_deadline;
    if (armed == deadline) return;
    armed = deadline;
    if (deadline == never) {
        the_host->local_apic.disarm_timer();
    } else {
        the_host->local_apic.arm_timer(deadline);
    }
}

PerCpu<u64> timer_interrupts;

u64 timer_interrupt_count() {
    return *timer_interrupts;
}

void on_timer(void*) {
    ++*timer_interrupts;
    armed_deadline->reset();
    the_host->local_apic.end_of_interrupt();
}
void on_console_interrupt(void*) {
    input.fill();
}

// One turn of the console: what was typed, what guests wrote, what was logged. True if there is more at once.
bool serve_console() {
    // Polled as well: an interrupt may be lost, or have no way to this core.
    input.fill();
    while (const auto byte = input.take()) session->input(*byte);
    // Only while the line takes characters: guests do not wait for it.
    bool more = the_host->console.ready_to_send() && session->poll();
    more = serial_lines->poll() || more;
    return the_host->log.drain() || more;
}

// Set once there are VMs to run.
std::atomic<bool> manager_ready = false;

// What a core other than the first does: its vCPUs' work, and what core 0 asks of it.
[[noreturn]] void run_guests(unsigned core) {
    for (;;) {
        note_activity(CoreActivity::working);
        while (serve_core_requests()) {
        }
        watch_first_core();
        if constexpr (fault_injection) hang_if_told(core);
        const bool ready = manager_ready.load(std::memory_order_acquire);
        // A guest, too, goes only as far as the next interrupt.
        note_activity(CoreActivity::waiting);
        if (ready && manager->run_core(core, never)) {
            cpu::take_interrupts();
            continue;
        }
        // Whoever has nothing to do has an eye on core 0; a core with a vCPU is left in peace.
        const u64 look = ready && !manager->has_vcpus(core) ? cpu::read_tsc() + the_host->tsc.hz : never;
        arm_timer(ready ? std::min(manager->next_turn(core), look) : never);
        cpu::enable_interrupts_and_halt();
        cpu::disable_interrupts();
    }
}

}  // namespace

void run_hypervisor(Host& host) {
    the_host = &host;
    auto factory = start_virtualization(host.options.virtual_interrupts, arm_timer, timer_interrupt_count);
    if (!factory) {
        host.log.error("{}", factory.error().text);
        host.log.error("no VM can run on this machine; Bulkhead {} is halted", version);
        host.console.flush();
        for (;;) cpu::enable_interrupts_and_halt();
    }
    enter_shadow_stack();
    host.log.info("virtualisation: {}{}{}{}", (*factory)->name(),
                  (*factory)->apic_assist() == ApicAssist::full ? "; it delivers guests' interrupts" : "",
                  indirect_branches_tracked() ? "; indirect branches of the host are tracked (CET)" : "",
                  has_shadow_stacks() ? "; its returns have shadow stacks" : "");
    services.emplace((*factory)->name());
    host.local_apic.enable_timer(host_vector::timer);
    set_interrupt_handler(host_vector::timer, on_timer, nullptr);
    if (injected(Fault::core_asleep)) leave_cores_asleep(bit(1));
    start_cores(host, run_guests);
    read_config();
    apply_host_config();
    if (auto enabled = enable_console_interrupt(host, on_console_interrupt, nullptr); !enabled) {
        host.log.warning("{}; the console is polled", enabled.error().text);
    }
    const RecordedHardware hardware = start_recording(host.machine, **factory);
    manager.emplace(*services, hardware.machine, hardware.factory, host.memory, host.log,
                    std::span<const BootModule>(host.boot.modules), *config, document.emplace());
    manager->set_observer(announcer);
    if constexpr (fault_injection) fail_allocations(*manager);
    manager_ready.store(true, std::memory_order_release);
    manager->adopt();

    // Once more, where the plan has not made it scroll away: nobody else can tell why no prompt comes.
    if (!host.console.present() && !host.options.no_console) tell_of_missing_console(host.log, host.options);
    host.log.remove_sink(host.console);
    serial_lines.emplace(host, *manager, config->host.baud);
    serial_lines->bind();
    session.emplace(terminal, *manager, config->host.escape);
    // VMs announce themselves to the session; of the log the operator sees what went wrong.
    (void)host.log.add_sink(console_log, std::min(config->host.log_level, LogLevel::warning));
    host.log.set_deferred(true);
    session->start();

    const u64 slice = host.machine.tsc_hz() / slices_per_second;
    for (;;) {
        note_activity(CoreActivity::working);
        bool busy = serve_console();
        for (u64 lost = watch_cores(host.log); lost != 0; lost &= lost - 1)
            manager->lose_core(static_cast<unsigned>(std::countr_zero(lost)));
        watch_machine(host);
        busy = manager->attend() || busy;
        const u64 now = host.machine.tsc();
        // While a serial line is at work its FIFO of 16 bytes wants to be looked after.
        const bool lines_at_work = serial_lines->in_use() || !host.console.ready_to_send();
        const u64 back = now + (lines_at_work ? slice / 10 : slice);
        const bool ran = manager->run_core(0, back);
        if constexpr (fault_injection) {
            if (!busy) inject_next_fault(host, *manager);
        }
        // Interrupts that came while the guest ran are taken here.
        if (ran || busy) {
            cpu::take_interrupts();
            continue;
        }
        arm_timer(std::min({manager->next_turn(0), manager->next_attention(), back}));
        cpu::enable_interrupts_and_halt();
        cpu::disable_interrupts();
    }
}

}  // namespace bulkhead
