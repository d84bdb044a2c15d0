// ACPI's fixed hardware: the PM1a event and control blocks, the power management timer and the SMI command
// port, laid out as on Intel's PIIX4. References: ACPI Specification 6.4, chapter 4 "ACPI Hardware
// Specification"; Intel 82371AB PIIX4 data sheet (order 290562-001, April 1997).
//
// Implemented: PM1 status and enable, SCI, power button, the timer's 32 bits (FADT flag TMR_VAL_EXT) with
// TMR_STS, soft-off through SLP_TYP 5, ACPI enable and disable through the SMI command port.
// Ignored: other sleep types, BM_RLD, GBL_RLS (there is no system management mode to release), wake events,
// general-purpose events (the FADT declares no GPE block).
//
// The FADT to go with it: PM1a_EVT at offset 0 (4 bytes), PM1a_CNT at 4 (2 bytes), PM_TMR at 8 (4 bytes),
// SMI_CMD at 10h, ACPI_ENABLE F1h, ACPI_DISABLE F0h. DSDT: \_S5 is Package {5, 0, 0, 0}. Reset register: CF9h
// with value 06h (reset_control.hpp). The SCI is a level.
//
// Offsets: 0-Fh the PM block (600h), 10h-11h SMI command and status (B2h). Not synchronised: one caller at a
// time.
#pragma once

#include "vmm/dev/byte_device.hpp"
#include "vmm/dev/oscillator.hpp"
#include "vmm/dev/power_control.hpp"

namespace bulkhead {

class AcpiPm final : public Device {
  public:
    static constexpr u64 event_block = 0;
    static constexpr u64 control_block = 4;
    static constexpr u64 timer_block = 8;
    static constexpr u64 block_length = 16;
    static constexpr u64 smi_command = 16;
    static constexpr u64 smi_length = 2;
    static constexpr u8 acpi_enable = 0xF1;
    static constexpr u8 acpi_disable = 0xF0;
    static constexpr u8 soft_off_type = 5;

    AcpiPm(const Clock& clock, IrqLine& sci, PowerControl& power) : clock_(clock), sci_(sci), power_(power) {}

    [[nodiscard]] std::string_view name() const override { return "acpi-pm"; }
    [[nodiscard]] u64 read(u64 offset, unsigned size) override;
    void write(u64 offset, unsigned size, u64 value) override;
    void reset() override;
    [[nodiscard]] Ticks deadline() const override { return deadline_; }
    [[nodiscard]] bool has_timer() const override { return true; }
    void expire() override;

    // The operator presses the power button. False if the guest does not listen to it: ACPI mode is off or
    // the event not enabled. It is latched all the same.
    bool press_power_button();

    [[nodiscard]] u32 timer() const;

  private:
    [[nodiscard]] u8 read_byte(u64 offset, u32 timer_now) const;
    void write_byte(u64 offset, u8 value);
    void write_control(u16 value);
    void collect_timer_event();
    void update();

    const Clock& clock_;
    IrqLine& sci_;
    PowerControl& power_;

    u16 status_ = 0;
    u16 enable_ = 0;
    u16 control_ = 0;
    u8 smi_command_ = 0;
    u8 smi_status_ = 0;
    u64 half_periods_seen_ = 0;  // changes of the timer's top bit that TMR_STS knows of
    Ticks deadline_ = never;
    bool sci_level_ = false;
};

}  // namespace bulkhead
