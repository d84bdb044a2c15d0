// An I/O APIC with 24 pins. Intel 82093AA data sheet (290566-001, May 1996), with the EOI register that came
// with version 20h (Intel ICH data sheets).
//
// Implemented: index and data window, ID, version, arbitration ID, redirection table, edge and level pins,
// remote IRR, EOI by broadcast and by register, delivery again of a level that is still asserted, also when
// at first no local APIC took it. Ignored: polarity (a line's level is its logical state, whatever the
// wire's), SMI and reserved delivery modes, writes narrower than 32 bits except of the index. An edge at a
// masked pin is lost, as the data sheet says. ExtINT makes the destination fetch its vector from the 8259As.
//
// Offsets: the page at FEC00000h. All entry points may be called from any core.
#pragma once

#include <array>
#include <span>

#include "kernel/sync/lock.hpp"
#include "vmm/dev/device.hpp"
#include "vmm/dev/interrupt_message.hpp"

namespace bulkhead {

class IoApic final : public Device {
  public:
    static constexpr unsigned pin_count = 24;

    explicit IoApic(InterruptBus& bus);
    IoApic(const IoApic&) = delete;
    IoApic& operator=(const IoApic&) = delete;

    [[nodiscard]] std::string_view name() const override { return "I/O APIC"; }
    [[nodiscard]] u64 read(u64 offset, unsigned size) override;
    void write(u64 offset, unsigned size, u64 value) override;
    void reset() override;

    // Asserts or releases a pin; a number without a pin is ignored.
    void set(unsigned pin, bool asserted);
    // The pin as a wire. pin < pin_count.
    [[nodiscard]] IrqLine& line(unsigned pin) { return lines_[pin]; }

    // A local APIC has ended `vector`.
    void eoi(Vector vector);
    // Local APICs have changed: levels that none of them took are tried again.
    void retry();

  private:
    struct Line final : IrqLine {
        IoApic* chip = nullptr;
        unsigned pin = 0;
        void set(bool level) override { chip->set(pin, level); }
    };

    [[nodiscard]] u32 read_register() const;
    void write_register(u32 value);
    void end(Vector vector);
    void serve(unsigned pin);
    enum class Sent : u8 { accepted, refused, without_reply };
    Sent send(u64 entry);

    InterruptBus& bus_;
    TicketLock lock_;  // a leaf: delivery beneath it takes no lock of the VM's
    u8 index_ = 0;
    u8 id_ = 0;
    u32 asserted_ = 0;
    u32 refused_ = 0;  // levels that no local APIC took
    std::array<u64, pin_count> entries_{};
    std::array<Line, pin_count> lines_{};
};

}  // namespace bulkhead
