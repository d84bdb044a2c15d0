#include "boot/host.hpp"

#include "arch/x86/cpu/control_registers.hpp"
#include "arch/x86/cpu/intrinsics.hpp"
#include "arch/x86/cpu/speculation.hpp"
#include "drivers/vectors.hpp"

namespace bulkhead {
using namespace drivers;

bool CoreInterruptFlag::disable() {
    const bool enabled = cpu::interrupts_enabled();
    cpu::disable_interrupts();
    return enabled;
}

void CoreInterruptFlag::restore(bool enabled) {
    if (enabled) cpu::enable_interrupts();
}

void TscClock::start(u64 tsc_hz) {
    hz_ = tsc_hz;
    start_ = 0;  // the TSC started when the machine did: lines show the time since then
}

u64 TscClock::microseconds() const {
    if (hz_ == 0) return 0;
    return scale(cpu::read_tsc() - start_, 1'000'000, hz_);
}

void HostMachine::start(u64 tsc_hz, u64 wall_clock, u64 tsc) {
    hz_ = tsc_hz;
    wall_clock_ = wall_clock;
    wall_clock_tsc_ = tsc;
}

CpuidResult HostMachine::cpuid(u32 leaf, u32 subleaf) const {
    return cpu::cpuid(leaf, subleaf);
}

u64 HostMachine::tsc() const {
    return cpu::read_tsc();
}

u64 HostMachine::wall_clock() const {
    return wall_clock_ + (cpu::read_tsc() - wall_clock_tsc_) / hz_;
}

namespace {

struct IsaRoute {
    u32 gsi;
    bool level;
    bool active_low;
};

// ISA interrupts are edge-triggered and active-high unless ACPI says otherwise.
[[nodiscard]] IsaRoute isa_route(const AcpiInfo& acpi, u8 irq) {
    for (const AcpiOverride& override : acpi.overrides) {
        if (override.source == irq) {
            return {.gsi = override.gsi,
                    .level = override.trigger == AcpiOverride::Trigger::level,
                    .active_low = override.polarity == AcpiOverride::Polarity::low};
        }
    }
    return {.gsi = irq, .level = false, .active_low = false};
}

[[nodiscard]] IoApic* io_apic_for(Host& host, u32 gsi) {
    for (IoApic& io_apic : host.io_apics) {
        if (io_apic.serves(gsi)) return &io_apic;
    }
    return nullptr;
}

struct ConsoleInterrupt {
    Host* host = nullptr;
    InterruptHandler handler = nullptr;
    void* context = nullptr;
    u8 irq = 0;
    StormGuard storm{0};
};
ConsoleInterrupt console_interrupt;

void on_console_interrupt(void*) {
    ConsoleInterrupt& interrupt = console_interrupt;
    interrupt.handler(interrupt.context);
    if (interrupt.storm.strikes(cpu::read_tsc())) {
        mask_isa_interrupt(*interrupt.host, interrupt.irq);
        interrupt.host->console.disable_receive_interrupt();
        interrupt.host->log.error(
            "HV-E024: interrupt storm from the console's UART; its interrupt is off, check "
            "the line");
    }
    interrupt.host->local_apic.end_of_interrupt();
}

void append_feature(Sink& sink, bool present, std::string_view name) {
    if (present) print(sink, " {}", name);
}

void log_processor(Host& host) {
    char brand[48] = {};
    if (cpu::cpuid(0x8000'0000).eax >= 0x8000'0004) {
        for (u32 i = 0; i < 3; ++i) {
            const CpuidResult part = cpu::cpuid(0x8000'0002 + i);
            std::memcpy(brand + 16 * i, &part, sizeof(part));
        }
    }
    std::string_view name(brand, sizeof(brand));
    name = name.substr(0, name.find('\0'));
    while (!name.empty() && name.front() == ' ') name.remove_prefix(1);
    while (!name.empty() && name.back() == ' ') name.remove_suffix(1);

    const CpuidResult leaf1 = cpu::cpuid(1);
    const u32 family = static_cast<u32>(extract(leaf1.eax, 11, 8) +
                                        (extract(leaf1.eax, 11, 8) == 0xF ? extract(leaf1.eax, 27, 20) : 0));
    const u32 model = static_cast<u32>(extract(leaf1.eax, 7, 4) | extract(leaf1.eax, 19, 16) << 4);
    host.log.info("processor: {} (family {:#x}, model {:#x}, stepping {})", name.empty() ? "unnamed" : name,
                  family, model, leaf1.eax & 0xF);

    FixedString<160> features;
    const CpuidResult ext1 = cpu::cpuid(0x8000'0001);
    append_feature(features, (leaf1.ecx & cpuid::leaf1_ecx::vmx) != 0, "VT-x");
    append_feature(features, (ext1.ecx & cpuid::ext1_ecx::svm) != 0, "AMD-V");
    append_feature(features, host.local_apic.x2apic(), "x2APIC");
    append_feature(features, host.local_apic.has_tsc_deadline(), "TSC-deadline");
    append_feature(features, (ext1.edx & cpuid::ext1_edx::page1gb) != 0, "1-GiB-pages");
    append_feature(features, (leaf1.ecx & cpuid::leaf1_ecx::xsave) != 0, "XSAVE");
    features.append(" ");
    print_protections(features);
    host.log.info("features:{}", features.view());

    FixedString<160> open;
    for (const HazardReport& report : report_hazards(speculation_facts())) {
        if (report.state != HazardReport::State::open) continue;
        print(open, "{} {}", open.empty() ? "" : ",", report.hazard);
    }
    host.log.info("speculation: {}{}", open.empty() ? "all known hazards are met" : "open to", open.view());
}

}  // namespace

Result<> route_isa_interrupt(Host& host, u8 irq, Vector vector) {
    const IsaRoute route = isa_route(host.acpi, irq);
    IoApic* io_apic = io_apic_for(host, route.gsi);
    if (io_apic == nullptr)
        return fail("HV-E025: no I/O APIC serves ISA interrupt {}; going on without it", irq);
    const u32 apic_id = host.local_apic.id();
    if (apic_id > 0xFF)
        return fail("HV-E025: APIC ID {} is out of the I/O APIC's reach; going on without", apic_id);
    io_apic->route(
        route.gsi,
        {.vector = vector, .apic_id = apic_id, .level = route.level, .active_low = route.active_low});
    return {};
}

void mask_isa_interrupt(Host& host, u8 irq) {
    const IsaRoute route = isa_route(host.acpi, irq);
    if (IoApic* io_apic = io_apic_for(host, route.gsi)) io_apic->mask(route.gsi);
}

Result<> enable_console_interrupt(Host& host, InterruptHandler handler, void* context) {
    if (!host.console.present()) return fail("HV-E006: no console UART; there is no console input");
    // COM1 and COM3 share IRQ 4, COM2 and COM4 IRQ 3.
    const u16 base = host.console.base().raw();
    const u8 irq = base == 0x3F8 || base == 0x3E8 ? 4 : 3;
    console_interrupt = {
        .host = &host, .handler = handler, .context = context, .irq = irq, .storm = StormGuard(host.tsc.hz)};
    set_interrupt_handler(host_vector::console_uart, on_console_interrupt, nullptr);
    if (auto routed = route_isa_interrupt(host, irq, host_vector::console_uart); !routed) return routed;
    host.console.enable_receive_interrupt();
    return {};
}

void tell_of_missing_console(Logger& log, const HostOptions& options) {
    log.error(
        "HV-E006: no working UART at COM{}; the log goes to memory and the screen only, choose another with "
        "console=com1..com4",
        options.console.value_or(0) + 1);
}

void log_machine(Host& host) {
    log_processor(host);
    host.log.info("memory: {} MiB usable, {} MiB for VMs in 2 MiB units (largest run {} MiB)",
                  host.boot.memory.usable_bytes() / mib, host.memory.free_units() * 2,
                  host.memory.largest_free_run() * 2);
    host.log.info("ACPI: {} processor(s), {} I/O APIC(s), power-off {}", host.acpi.processors.size(),
                  host.acpi.io_apics.size(), host.power.can_power_off() ? "yes" : "no");
    host.log.info("TSC: {}.{:06} MHz by {}{}", host.tsc.hz / 1'000'000, host.tsc.hz % 1'000'000,
                  host.tsc.source, host.tsc.invariant ? ", invariant" : "");
    for (const BootModule& module : host.boot.modules) {
        host.log.info("module \"{}\": {} bytes at {}", module.name, module.size(), module.start);
    }
}

}  // namespace bulkhead
