// The wires between a PC's ISA interrupts and its two interrupt controllers: line n goes to the PIC's input n
// and to the I/O APIC's pin n, but line 0 (the timer) to pin 2. Line 2 is the PICs' cascade and no device's.
// The guest's MADT has to say the same: an override of ISA 0 to GSI 2, and one of ISA 9 (the SCI) as level.
// Levels here are logical, "asserted" or not: polarity is the MADT's affair.
#pragma once

#include <span>

#include "vmm/dev/device.hpp"

namespace bulkhead {

class IrqRouter final {
  public:
    static constexpr unsigned lines = 16;
    static constexpr unsigned cascade = 2;
    static constexpr unsigned timer_pin = 2;

    // Inputs of the controllers, by number; a null or missing one is not connected.
    IrqRouter(std::span<IrqLine* const> pic, std::span<IrqLine* const> io_apic);
    IrqRouter(const IrqRouter&) = delete;
    IrqRouter& operator=(const IrqRouter&) = delete;

    // The wire for the device with ISA interrupt `number`; of line 2, and of numbers above 15, one that ends
    // nowhere.
    [[nodiscard]] IrqLine& line(unsigned number) { return lines_[number < lines ? number : cascade]; }

  private:
    struct Line final : IrqLine {
        void set(bool level) override {
            if (pic != nullptr) pic->set(level);
            if (io_apic != nullptr) io_apic->set(level);
        }
        IrqLine* pic = nullptr;
        IrqLine* io_apic = nullptr;
    };

    Line lines_[lines];
};

}  // namespace bulkhead
