// An I/O APIC of the host. Intel 82093AA data sheet (May 1996).
#pragma once

#include "kernel/base/types.hpp"

namespace bulkhead::drivers {

// Unlocked: routes are made on one core at start-up; mask() and unmask() of one input by one core at a time.
class IoApic {
  public:
    struct Route {
        Vector vector{};
        u32 apic_id = 0;  // below 256: no interrupt remapping
        bool level = false;
        bool active_low = false;
    };

    IoApic() = default;
    // `page`: a mapping of its registers (uncacheable). Masks every input.
    IoApic(HostVirtual page, u32 gsi_base);

    [[nodiscard]] u32 gsi_base() const { return gsi_base_; }
    [[nodiscard]] u32 inputs() const { return inputs_; }
    [[nodiscard]] bool serves(u32 gsi) const { return gsi >= gsi_base_ && gsi - gsi_base_ < inputs_; }

    // For a GSI it serves. The input is unmasked.
    void route(u32 gsi, const Route& route);
    void mask(u32 gsi);
    void unmask(u32 gsi);

  private:
    [[nodiscard]] u32 read(u8 index) const;
    void write(u8 index, u32 value);
    [[nodiscard]] u8 entry(u32 gsi) const { return static_cast<u8>(0x10 + 2 * (gsi - gsi_base_)); }

    HostVirtual page_{};
    u32 gsi_base_ = 0;
    u32 inputs_ = 0;
};

}  // namespace bulkhead::drivers
