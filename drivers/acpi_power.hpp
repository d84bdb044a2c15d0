// Powering off and resetting the machine. ACPI Specification 6.5, 4.8.3 and 7.4 (August 2022 edition).
#pragma once

#include "kernel/base/types.hpp"
#include "kernel/bootinfo/acpi.hpp"

namespace bulkhead::drivers {

class MachinePower {
  public:
    // Maps device registers; fails by returning 0. Called from prepare() only.
    using MapDevice = HostVirtual (*)(HostPhysical start, u64 length);

    MachinePower() = default;
    // `info` outlives the object. Registers in memory are mapped now: there is no mapping anything in a
    // panic.
    void prepare(const AcpiInfo& info, MapDevice map);

    [[nodiscard]] bool can_power_off() const { return info_ != nullptr && info_->power_off.has_value(); }

    // Returns only if the machine does not do it, after about a second.
    void power_off();
    // By the ACPI reset register, port CF9h, the keyboard controller and a triple fault, in this order.
    [[noreturn]] void reset();

  private:
    struct Register {
        AcpiAddress address{};
        HostVirtual mapped{};
    };
    [[nodiscard]] Register prepare(const AcpiAddress& address, MapDevice map);
    [[nodiscard]] static u16 read16(const Register& from);
    static void write16(const Register& to, u16 value);
    void enter_acpi_mode();

    const AcpiInfo* info_ = nullptr;
    Register pm1a_, pm1b_, reset_;
};

}  // namespace bulkhead::drivers
