// The map of the virtual PC: which address, port and interrupt belongs to what. The loader describes it to
// the guest (memory map, ACPI, MP table), the VM builder wires the devices up by it; a number stands here
// once. Modelled on a PC with an i440FX-class chip set: one I/O APIC, two PICs, ISA devices, PCI bus 0.
#pragma once

#include <array>

#include "kernel/base/bits.hpp"
#include "kernel/base/types.hpp"

namespace bulkhead::platform {

// --- Physical memory --------------------------------------------------------------------------------------

constexpr u64 base_memory_end = 0xA0000;            // conventional RAM ends, the VGA window begins
constexpr u64 ebda = 0x9FC00;                       // extended BIOS data area: the last KiB of base memory
constexpr u64 ebda_size = base_memory_end - ebda;   //
constexpr u64 vga_window = 0xA0000;                 // A0000h-BFFFFh: graphics, text at B8000h
constexpr u64 vga_window_size = 0x20000;            //
constexpr u64 vga_text = 0xB8000;                   //
constexpr u64 bios_area = 0xC0000;                  // option ROMs and the BIOS: RAM the guest cannot write
constexpr u64 bios_area_end = 0x100000;             //
constexpr u64 high_memory = 0x100000;               // RAM from 1 MiB up
constexpr u64 mmio_hole = 0xC0000000;               // RAM below 4 GiB ends here at the latest
constexpr u64 mmio_hole_end = 0x100000000;          // RAM continues at 4 GiB
constexpr u64 pci_memory = mmio_hole;               // where PCI BARs may go
constexpr u64 pci_memory_end = 0xFEC00000;          //
constexpr u64 io_apic = 0xFEC00000;                 //
constexpr u64 io_apic_size = 0x1000;                //
constexpr u64 local_apic = 0xFEE00000;              //
constexpr u64 local_apic_size = 0x1000;             //
constexpr u64 firmware_window = 0xFF000000;         // the 16 MiB in which a firmware ROM can lie
constexpr u64 firmware_window_end = mmio_hole_end;  // a ROM's last byte is at FFFFFFFFh
constexpr u64 bios_alias_size = 0x20000;            // a ROM's last 128 KiB are seen at E0000h-FFFFFh too

// How an amount of RAM is spread over the map. The 128 KiB behind the VGA window do not count: a VM with N
// MiB has its last byte below 3 GiB at N MiB - 1, as a PC has.
struct RamPiece {
    u64 start = 0;
    u64 length = 0;
    bool guest_writable = true;
};
// base memory, BIOS area, memory from 1 MiB to the hole, memory from 4 GiB. A piece of length 0 is absent.
// bytes: a multiple of the page size, at least 2 MiB.
[[nodiscard]] constexpr std::array<RamPiece, 4> ram_pieces(u64 bytes) {
    const u64 low_end = bytes < mmio_hole ? bytes : mmio_hole;
    return {RamPiece{0, base_memory_end, true}, RamPiece{bios_area, bios_area_end - bios_area, false},
            RamPiece{high_memory, low_end > high_memory ? low_end - high_memory : 0, true},
            RamPiece{mmio_hole_end, bytes > mmio_hole ? bytes - mmio_hole : 0, true}};
}

// --- Tables the loader leaves for the guest ---------------------------------------------------------------

constexpr u64 rsdp = 0xE0000;             // ACPI root pointer, in the area that is searched for it
constexpr u64 mp_table = 0xF0000;         // MP floating pointer, the configuration table right behind it
constexpr u64 mp_table_limit = 0xF8000;   // one past what the MP table may use
constexpr u64 acpi_zone_size = 64 * kib;  // at the end of RAM below the hole: ACPI tables and, in its ...
constexpr u64 acpi_nvs_size = 4 * kib;    // ... last page, the FACS

// --- Ports ------------------------------------------------------------------------------------------------

constexpr Port pic_master{0x20}, pic_slave{0xA0}, elcr{0x4D0}, pit{0x40}, port_b{0x61}, keyboard_data{0x60},
    keyboard_command{0x64}, rtc_index{0x70}, rtc_data{0x71}, post_code{0x80}, fast_a20{0x92};
constexpr Port com1{0x3F8}, com2{0x2F8}, com3{0x3E8}, com4{0x2E8};
constexpr Port pci_config_address{0xCF8}, pci_config_data{0xCFC};
constexpr Port reset_control{0xCF9};
constexpr u8 reset_value = 0x06;  // hard reset, as the FADT's RESET_VALUE

// ACPI power management (ACPI 5.0, 4.8.3: fixed hardware registers). Status and enable are 16 bits each.
constexpr Port pm_base{0x600};
constexpr Port pm1a_event{0x600}, pm1a_control{0x604}, pm_timer{0x608};
constexpr u8 pm1_event_length = 4, pm1_control_length = 2, pm_timer_length = 4;
constexpr u64 pm_timer_hz = 3'579'545;
// Writing F1h to the SMI command port sets SCI_EN, F0h clears it. A machine whose SCI_EN is always set obeys
// the same protocol.
constexpr Port smi_command{0xB2};
constexpr u8 acpi_enable = 0xF1, acpi_disable = 0xF0;
constexpr u8 s5_sleep_type = 5;     // SLP_TYP that, with SLP_EN, turns the machine off
constexpr u8 century_index = 0x32;  // of CMOS RAM

// --- Interrupts -------------------------------------------------------------------------------------------

// Global system interrupt n is pin n of the only I/O APIC. ISA interrupt n is GSI n, except that the PIT's
// interrupt 0 is wired to pin 2; pin 0 takes the PICs' output (ExtINT).
constexpr unsigned gsi_count = 24;
constexpr u8 irq_pit = 0, irq_keyboard = 1, irq_cascade = 2, irq_com2 = 3, irq_com1 = 4, irq_rtc = 8,
             irq_mouse = 12, irq_ide_primary = 14, irq_ide_secondary = 15;
constexpr u8 gsi_pit = 2;
// The ACPI system control interrupt: level-triggered, active-high; said so in the MADT and the MP table, and
// the ELCR's bit for it belongs set.
constexpr u8 irq_sci = 9;
[[nodiscard]] constexpr u8 gsi_of_isa(u8 irq) {
    return irq == irq_pit ? gsi_pit : irq;
}

// PCI interrupt pins, level-triggered, active-low on the wire: device d's INTA#..INTD# (pin 1..4) go to four
// lines in the usual rotation. A line reaches I/O APIC pins 16-19 and, for systems that run on the PICs, ISA
// interrupts 10 and 11 (both level-triggered in the ELCR).
constexpr u8 pci_line_count = 4;
[[nodiscard]] constexpr u8 pci_line(u8 device, u8 pin) {
    return static_cast<u8>((device + pin - 1U) % pci_line_count);
}
constexpr u8 pci_first_gsi = 16;
[[nodiscard]] constexpr u8 gsi_of_pci_line(u8 line) {
    return static_cast<u8>(pci_first_gsi + line % pci_line_count);
}
[[nodiscard]] constexpr u8 isa_irq_of_pci_line(u8 line) {
    return (line & 1) == 0 ? 10 : 11;
}
// Interrupts 9, 10 and 11 are level-triggered.
constexpr u16 elcr_default = bit<u16>(9) | bit<u16>(10) | bit<u16>(11);

}  // namespace bulkhead::platform
