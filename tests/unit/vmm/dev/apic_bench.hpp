// A local APIC with a page, a clock and a bus that keeps what it was given.
#pragma once

#include <vector>

#include "tests/fakes/fake_clock.hpp"
#include "vmm/dev/interrupt_message.hpp"
#include "vmm/dev/local_apic.hpp"

namespace bulkhead {

class RecordingBus final : public InterruptBus {
  public:
    bool deliver(const InterruptMessage& message) override {
        messages.push_back(message);
        return accepts;
    }
    void broadcast_eoi(Vector vector) override { ended.push_back(vector.raw()); }

    bool accepts = true;
    std::vector<InterruptMessage> messages;
    std::vector<u8> ended;
};

struct ApicBench {
    explicit ApicBench(LocalApic::Parameters parameters = {}) : apic(page, clock, bus, parameters) {}

    u32 read(u32 offset) { return static_cast<u32>(apic.read(offset, 4)); }
    void write(u32 offset, u32 value) { apic.write(offset, 4, value); }
    void enable() { write(apic::svr, 0x1FF); }
    void enter_x2apic() {
        if (!apic.write_base(apic.base() | apic::base_x2apic)) throw "x2APIC mode refused";
    }
    u32 errors() {
        write(apic::esr, 0);
        return read(apic::esr);
    }
    // 0: none.
    unsigned pending() {
        const auto vector = apic.highest_pending();
        return vector ? vector->raw() : 0U;
    }

    alignas(4096) u8 page[4096] = {};
    FakeClock clock{2'000'000'000};
    RecordingBus bus;
    LocalApic apic;
};

[[nodiscard]] inline MsrIndex x2apic_msr(u32 offset) {
    return MsrIndex(0x800 + offset / 16);
}

}  // namespace bulkhead
