#include "vmm/dev/io_apic.hpp"

namespace bulkhead {

namespace {

constexpr u64 index_offset = 0x00, data_offset = 0x10, eoi_offset = 0x40;
constexpr u8 id_register = 0, version_register = 1, arbitration_register = 2, first_entry = 0x10;
constexpr u32 version_value = 0x20 | (IoApic::pin_count - 1) << 16;

// A redirection entry, beyond the fields it shares with the LVT.
constexpr u64 destination_mode = bit(11), writable = 0xFF00'0000'0001'AFFF;

}  // namespace

IoApic::IoApic(InterruptBus& bus) : bus_(bus) {
    for (unsigned pin = 0; pin < pin_count; ++pin) {
        lines_[pin].chip = this;
        lines_[pin].pin = pin;
    }
    reset();
}

void IoApic::reset() {
    const LockGuard guard(lock_);
    index_ = 0;
    id_ = 0;
    asserted_ = refused_ = 0;
    entries_.fill(apic::masked);
}

u64 IoApic::read(u64 offset, unsigned size) {
    const LockGuard guard(lock_);
    const unsigned lane = offset & 15;
    if (lane >= 4 || size > 4) return 0;
    u32 value = 0;
    if ((offset & ~u64{15}) == index_offset) {
        value = index_;
    } else if ((offset & ~u64{15}) == data_offset) {
        value = read_register();
    }
    return value >> (8 * lane);
}

void IoApic::write(u64 offset, unsigned size, u64 value) {
    const LockGuard guard(lock_);
    if (offset == index_offset) {
        index_ = static_cast<u8>(value);
    } else if (size != 4) {
        return;
    } else if (offset == data_offset) {
        write_register(static_cast<u32>(value));
    } else if (offset == eoi_offset) {
        end(Vector(static_cast<u8>(value)));
    }
}

u32 IoApic::read_register() const {
    switch (index_) {
        case id_register:
        case arbitration_register: return u32{id_} << 24;
        case version_register: return version_value;
        default: break;
    }
    const unsigned pin = (index_ - first_entry) / 2U;
    if (index_ < first_entry || pin >= pin_count) return 0;
    return static_cast<u32>(entries_[pin] >> ((index_ & 1) != 0 ? 32 : 0));
}

void IoApic::write_register(u32 value) {
    if (index_ == id_register) id_ = static_cast<u8>((value >> 24) & 0xF);
    const unsigned pin = (index_ - first_entry) / 2U;
    if (index_ < first_entry || pin >= pin_count) return;
    u64& entry = entries_[pin];
    const u64 written = (index_ & 1) != 0 ? insert(entry, 63, 32, value) : insert(entry, 31, 0, value);
    // Remote IRR survives a rewrite, so that the EOI to come still finds it; it has no meaning for edges, and
    // making a pin edge-triggered is the known way to clear it.
    const u64 remote_irr = has_bit(written, 15) ? entry & apic::remote_irr : 0;
    entry = (written & writable) | remote_irr;
    serve(pin);
}

// Delivers the level of a pin that is asserted and neither masked nor being served.
void IoApic::serve(unsigned pin) {
    u64& entry = entries_[pin];
    refused_ &= ~(u32{1} << pin);
    if (!has_bit(asserted_, pin) || (entry & apic::level_triggered) == 0) return;
    if ((entry & (apic::masked | apic::remote_irr)) != 0) return;
    // Where nobody accepts, the level stays pending until retry(). The local APIC that begins to accept calls
    // it after the fact, so that under the lock one of the two attempts finds it so.
    switch (send(entry)) {
        case Sent::accepted: entry |= apic::remote_irr; break;
        case Sent::refused: refused_ |= u32{1} << pin; break;
        case Sent::without_reply: break;
    }
}

IoApic::Sent IoApic::send(u64 entry) {
    InterruptMessage message{.destination = static_cast<u32>(entry >> 56),
                             .vector = static_cast<u8>(entry),
                             .delivery = static_cast<apic::Delivery>(extract(entry, 10, 8)),
                             .logical = (entry & destination_mode) != 0,
                             .level = (entry & apic::level_triggered) != 0};
    switch (message.delivery) {
        case apic::Delivery::fixed:
        case apic::Delivery::lowest_priority: return bus_.deliver(message) ? Sent::accepted : Sent::refused;
        case apic::Delivery::nmi:
        case apic::Delivery::init:
        case apic::Delivery::extint:
            // Edge-triggered by nature: there is no EOI that would end a level.
            message.level = false;
            bus_.deliver(message);
            return Sent::without_reply;
        default: return Sent::without_reply;
    }
}

void IoApic::set(unsigned pin, bool asserted) {
    if (pin >= pin_count) return;
    const LockGuard guard(lock_);
    const u32 mask = u32{1} << pin;
    if (!asserted) {
        asserted_ &= ~mask;
        refused_ &= ~mask;
        return;
    }
    const bool rises = (asserted_ & mask) == 0;
    asserted_ |= mask;
    if (!rises) return;
    const u64 entry = entries_[pin];
    if ((entry & apic::level_triggered) != 0) {
        serve(pin);
    } else if ((entry & apic::masked) == 0) {
        send(entry);
    }
}

void IoApic::eoi(Vector vector) {
    const LockGuard guard(lock_);
    end(vector);
}

void IoApic::retry() {
    const LockGuard guard(lock_);
    for (unsigned pin = 0; pin < pin_count; ++pin)
        if (has_bit(refused_, pin)) serve(pin);
}

void IoApic::end(Vector vector) {
    for (unsigned pin = 0; pin < pin_count; ++pin) {
        u64& entry = entries_[pin];
        if ((entry & apic::remote_irr) == 0 || static_cast<u8>(entry) != vector.raw()) continue;
        entry &= ~u64{apic::remote_irr};
        serve(pin);
    }
}

}  // namespace bulkhead
