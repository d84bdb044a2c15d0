// What the hypervisor needs to know from ACPI: processors, interrupt controllers, timers, how to reset and
// power off. ACPI Specification 6.5, chapter 5 (August 2022 edition). No AML is interpreted.
//
// Every table's length and checksum are verified before it is used, every loop is bounded by the table's
// length. A table that is corrupt is noted and left out; without a usable MADT the hypervisor goes on with
// the one processor it runs on.
#pragma once

#include "kernel/base/fixed_string.hpp"
#include "kernel/base/fixed_vector.hpp"
#include "kernel/base/result.hpp"
#include "kernel/bootinfo/physical_reader.hpp"

namespace bulkhead {

struct AcpiAddress {
    enum class Space : u8 { memory = 0, io = 1, pci_configuration = 2, none = 0xFF };
    Space space = Space::none;
    u64 address = 0;
    u8 width = 0;  // bits

    [[nodiscard]] constexpr bool present() const { return space != Space::none; }
};

struct AcpiProcessor {
    u32 apic_id = 0;
    u32 uid = 0;
};

struct AcpiIoApic {
    u8 id = 0;
    HostPhysical address{};
    u32 gsi_base = 0;
};

// ISA interrupt `source` arrives at `gsi`.
struct AcpiOverride {
    enum class Polarity : u8 { bus = 0, high = 1, low = 3 };
    enum class Trigger : u8 { bus = 0, edge = 1, level = 3 };
    u8 source = 0;
    u32 gsi = 0;
    Polarity polarity = Polarity::bus;
    Trigger trigger = Trigger::bus;
};

// NMI at LINT0 or LINT1 of the processor `uid`; all_processors: of each.
struct AcpiLocalNmi {
    static constexpr u32 all_processors = 0xFFFFFFFF;
    u32 uid = all_processors;
    u8 lint = 1;
};

struct AcpiEcam {
    HostPhysical base{};
    u16 segment = 0;
    u8 first_bus = 0;
    u8 last_bus = 0;
};

// Power off: write SLP_TYP << 10 | SLP_EN (bit 13) to PM1a control, and PM1b's likewise where there is one.
struct AcpiPowerOff {
    AcpiAddress pm1a_control, pm1b_control;
    u8 sleep_type_a = 0, sleep_type_b = 0;
};

// About 6 KiB: belongs into static storage.
struct AcpiInfo {
    static constexpr usize max_processors = 256;

    FixedVector<AcpiProcessor, max_processors> processors;  // enabled ones, in the MADT's order
    u32 processors_left_out = 0;                            // beyond max_processors
    HostPhysical local_apic{0xFEE00000};
    bool has_legacy_pic = true;  // two 8259s, to be masked
    FixedVector<AcpiIoApic, 16> io_apics;
    FixedVector<AcpiOverride, 32> overrides;
    FixedVector<AcpiLocalNmi, 16> local_nmis;

    AcpiAddress pm_timer;  // none: absent
    bool pm_timer_32_bit = false;
    AcpiAddress reset_register;
    u8 reset_value = 0;
    std::optional<AcpiPowerOff> power_off;
    u16 smi_command_port = 0;  // 0: ACPI mode is always on
    u8 acpi_enable_value = 0;
    u16 boot_flags = 0;  // IAPC_BOOT_ARCH

    std::optional<HostPhysical> hpet;
    FixedVector<AcpiEcam, 8> ecam;
    std::optional<HostPhysical> dmar, ivrs;  // the tables: an IOMMU of Intel's or AMD's

    // What was wrong and what it costs, for the log.
    FixedVector<FixedString<160>, 8> notes;

    void note(std::string_view text);
};

// `loader_rsdp`: a copy of the root pointer from the boot loader, or empty; then it is looked for in the EBDA
// and from E0000h to FFFFFh. Overwrites `info`. On failure `info` is a machine without ACPI: no processors
// listed, nothing known; the caller goes on with the processor it runs on and says so.
[[nodiscard]] Result<> read_acpi(PhysicalReader& reader, Bytes loader_rsdp, AcpiInfo& info);

// Finds \_S5 in the AML of a DSDT or SSDT by its bytes: NameOp, "_S5_" and a package of integers. The first
// two are SLP_TYPa and SLP_TYPb. Nothing unless the encoding is just that.
struct SleepTypes {
    u8 a = 0, b = 0;
};
[[nodiscard]] std::optional<SleepTypes> find_s5(Bytes aml);

}  // namespace bulkhead
