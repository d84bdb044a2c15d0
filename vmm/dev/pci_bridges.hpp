// The functions every PC of the i440FX kind has, as configuration space only: host bridge, ISA bridge and
// power management. References: Intel 82441FX PMC data sheet (order 290549-001, May 1996); 82371FB/SB PIIX3
// (order 290550-002, April 1997); 82371AB PIIX4 (order 290562-001, April 1997).
//
// Implemented: identity, command and status, and the registers firmware programs and reads back (PAM, SMRAM,
// PIRQ routing, the power management block's base, which is fixed). They have no effect: shadow RAM is RAM,
// there is no system management mode, and interrupts are wired by the machine's builder.
#pragma once

#include "vmm/dev/pci_function.hpp"

namespace bulkhead {

class PciBridge final : public PciFunction {
  public:
    [[nodiscard]] u32 config_read(u8 offset, unsigned size) override { return space_.read(offset, size); }
    void config_write(u8 offset, unsigned size, u32 value) override { space_.write(offset, size, value); }
    void config_reset() override { space_.reset(); }

    // Which of the three it is; once, before use.
    void become_host_bridge();  // 00:00.0, 8086:1237
    void become_isa_bridge();   // 00:01.0, 8086:7000
    // 00:01.3, 8086:7113; `io_base`: where the ACPI block answers, 64-byte aligned; `sci`: its ISA line.
    void become_power_management(u16 io_base, u8 sci);

  private:
    void identify(u16 vendor, u16 device, u32 class_code, u8 revision, u8 header_type);

    PciConfigSpace space_;
};

}  // namespace bulkhead
