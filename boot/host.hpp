// The physical machine as start-up found it: what run_hypervisor() builds upon.
#pragma once

#include "arch/x86/cpu/traps.hpp"
#include "drivers/acpi_power.hpp"
#include "drivers/io_apic.hpp"
#include "drivers/local_apic.hpp"
#include "drivers/tsc.hpp"
#include "drivers/uart_16550.hpp"
#include "kernel/base/fixed_vector.hpp"
#include "kernel/bootinfo/acpi.hpp"
#include "kernel/bootinfo/boot_info.hpp"
#include "kernel/bootinfo/host_options.hpp"
#include "kernel/log/logger.hpp"
#include "kernel/mem/unit_allocator.hpp"
#include "kernel/sync/lock.hpp"
#include "kernel/sync/storm_guard.hpp"
#include "vmm/physical_machine.hpp"

namespace bulkhead {

// RFLAGS.IF of the running core.
class CoreInterruptFlag final : public InterruptFlag {
  public:
    bool disable() override;
    void restore(bool enabled) override;
};

// Time since start-up by the TSC; 0 until its frequency is known.
class TscClock final : public MicrosecondClock {
  public:
    void start(u64 tsc_hz);
    [[nodiscard]] u64 microseconds() const override;

  private:
    u64 hz_ = 0;
    u64 start_ = 0;
};

class HostMachine final : public PhysicalMachine {
  public:
    // wall_clock: seconds since 1970 as of the TSC value `tsc`.
    void start(u64 tsc_hz, u64 wall_clock, u64 tsc);
    [[nodiscard]] CpuidResult cpuid(u32 leaf, u32 subleaf) const override;
    [[nodiscard]] u64 tsc() const override;
    [[nodiscard]] u64 tsc_hz() const override { return hz_; }
    [[nodiscard]] u64 wall_clock() const override;

  private:
    u64 hz_ = 0;
    u64 wall_clock_ = 0;
    u64 wall_clock_tsc_ = 0;
};

// All of it is made by boot_main() and lives for ever.
struct Host {
    BootInfo& boot;
    HostOptions& options;
    AcpiInfo& acpi;
    UnitAllocator&
        memory;  // for VMs: neither the image, nor modules, nor what the boot loader passed is in it
    Logger& log;
    CoreInterruptFlag& interrupts;
    drivers::Uart16550& console;  // present() tells whether there is one
    drivers::LocalApic& local_apic;
    FixedVector<drivers::IoApic, 16>& io_apics;
    drivers::MachinePower& power;
    HostMachine& machine;
    drivers::TscCalibration tsc;
    Sink* screen;             // of the log; null: there is none
    void (*reset_machine)();  // for panic_settings
};

// Routes ISA interrupt `irq` (0..15), by ACPI's overrides, to `vector` on the running core and unmasks it.
// Fails where no I/O APIC serves it.
[[nodiscard]] Result<> route_isa_interrupt(Host& host, u8 irq, Vector vector);
void mask_isa_interrupt(Host& host, u8 irq);

// Has `handler` called for each received-data interrupt of the console's UART; the handler empties the
// receiver, the acknowledgement is done here. In a storm the input is masked for good, with a line in the
// log, and the caller has to poll. Fails where there is no UART or no way for its interrupt.
[[nodiscard]] Result<> enable_console_interrupt(Host& host, InterruptHandler handler, void* context);

// HV-E006, in the log.
void tell_of_missing_console(Logger& log, const HostOptions& options);

// The processor's name and what it can do, memory, processors, time: some lines in the log.
void log_machine(Host& host);

}  // namespace bulkhead
