// An interrupt as it travels between I/O APICs, devices (MSI) and local APICs, and the bus that carries it.
#pragma once

#include <optional>

#include "arch/x86/regs/apic.hpp"
#include "kernel/base/bits.hpp"
#include "kernel/base/types.hpp"

namespace bulkhead {

struct InterruptMessage {
    static constexpr u32 no_source = ~u32{0};

    u32 destination = 0;  // physical: an APIC ID; logical: a set
    u8 vector = 0;
    apic::Delivery delivery = apic::Delivery::fixed;
    bool logical = false;
    bool level = false;  // level-triggered: the EOI is broadcast to the I/O APICs
    bool wide = false;   // the destination has 32 bits (an x2APIC sent this), not 8
    apic::Shorthand shorthand = apic::Shorthand::none;
    u32 source = no_source;  // APIC ID of the sender, for shorthands

    // The number that addresses every local APIC.
    [[nodiscard]] constexpr bool is_broadcast() const { return destination == (wide ? ~u32{0} : 0xFF); }
};

// Carries messages among the APICs of one VM. May be called from any core.
class InterruptBus {
  public:
    // True if at least one local APIC accepted the message.
    virtual bool deliver(const InterruptMessage& message) = 0;

    // The end of a level-triggered interrupt, announced to every I/O APIC.
    virtual void broadcast_eoi(Vector vector) = 0;

    // A local APIC accepts messages that it may have refused before: a level that nobody took is to be
    // delivered again.
    virtual void destinations_changed() {}

  protected:
    ~InterruptBus() = default;
};

// What a memory write to the interrupt range means (Intel SDM Vol. 3A, 11.11, June 2023 edition), or nothing
// for a write that is no interrupt: another address, a vector below 16, a reserved delivery mode, or the
// de-assertion of a level.
[[nodiscard]] constexpr std::optional<InterruptMessage> decode_msi(u64 address, u32 data) {
    if ((address >> 20) != 0xFEE) return std::nullopt;
    const bool redirect = has_bit(address, 3);
    const bool level = has_bit(data, 15);
    if (level && !has_bit(data, 14)) return std::nullopt;
    InterruptMessage message{.destination = static_cast<u32>(extract(address, 19, 12)),
                             .vector = static_cast<u8>(data),
                             .delivery = static_cast<apic::Delivery>(extract(data, 10, 8)),
                             .logical = has_bit(address, 2),
                             .level = level};
    switch (message.delivery) {
        case apic::Delivery::fixed:
            if (redirect) message.delivery = apic::Delivery::lowest_priority;
            [[fallthrough]];
        case apic::Delivery::lowest_priority:
            if (message.vector < 16) return std::nullopt;
            return message;
        case apic::Delivery::nmi:
        case apic::Delivery::init:
        case apic::Delivery::extint: message.level = false; return message;
        case apic::Delivery::smi:
        case apic::Delivery::startup: return std::nullopt;
    }
    return std::nullopt;
}

}  // namespace bulkhead
