// PCI configuration mechanism 1: the address register at CF8h and the data window at CFCh of bus 0.
// Reference: PCI Local Bus Specification 3.0, 3.2.2.3.2.
//
// Implemented: the address register, which answers doubleword accesses only; narrower ones at CF8h-CFBh
// belong to other chips on the same ports (the reset register at CF9h) and are passed on. Byte, word and
// doubleword access to the data window. Functions, buses and windows that are not there read as ones and
// swallow writes. Missing: other buses, special cycles, mechanism 2, ECAM.
//
// Offsets: 0-3 CF8h, 4-7 CFCh. Not synchronised: one caller at a time.
#pragma once

#include "kernel/base/fixed_vector.hpp"
#include "kernel/base/result.hpp"
#include "vmm/dev/device.hpp"
#include "vmm/dev/pci_function.hpp"

namespace bulkhead {

class PciHost final : public Device {
  public:
    static constexpr usize max_functions = 32;

    // `beneath`: who gets accesses to CF8h-CFBh that are not to the address register, by the same offsets.
    explicit PciHost(Device& beneath) : beneath_(beneath) {}

    // On bus 0; device 0-31, function 0-7. Refused when the place is taken, does not exist, or the table is
    // full. A device with several functions says so in its function 0's header type (bit 7).
    [[nodiscard]] Result<> attach(unsigned device, unsigned function, PciFunction& what);

    [[nodiscard]] std::string_view name() const override { return "pci-host"; }
    [[nodiscard]] u64 read(u64 offset, unsigned size) override;
    void write(u64 offset, unsigned size, u64 value) override;
    // Resets the functions too, as RST# does.
    void reset() override;

  private:
    struct Place {
        u8 number = 0;  // device << 3 | function
        PciFunction* function = nullptr;
    };

    [[nodiscard]] PciFunction* selected() const;

    Device& beneath_;
    u32 address_ = 0;
    FixedVector<Place, max_functions> places_;
};

}  // namespace bulkhead
