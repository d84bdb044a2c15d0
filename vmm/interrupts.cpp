#include "vmm/interrupts.hpp"

namespace bulkhead {

bool Interrupts::addresses(const LocalApic& apic, const InterruptMessage& message) const {
    switch (message.shorthand) {
        case apic::Shorthand::none: return apic.is_destination(message);
        case apic::Shorthand::self: return apic.id() == message.source;
        case apic::Shorthand::all: return true;
        case apic::Shorthand::others: return apic.id() != message.source;
    }
    return false;
}

bool Interrupts::accept(unsigned vcpu, const InterruptMessage& message) {
    LocalApic& apic = *apics_[vcpu];
    bool accepted = false;
    switch (message.delivery) {
        case apic::Delivery::fixed:
        case apic::Delivery::lowest_priority:
            accepted = apic.post(Vector(message.vector), message.level);
            break;
        case apic::Delivery::nmi: accepted = apic.post_nmi(); break;
        case apic::Delivery::init: accepted = apic.post_init(); break;
        case apic::Delivery::startup: accepted = apic.post_sipi(Vector(message.vector)); break;
        case apic::Delivery::extint: accepted = apic.post_extint(); break;
        case apic::Delivery::smi: break;  // dropped: there is no system-management mode
    }
    if (accepted && apic.id() != message.source) waker_.wake(vcpu);
    return accepted;
}

bool Interrupts::deliver(const InterruptMessage& message) {
    if (message.delivery == apic::Delivery::lowest_priority) return deliver_lowest_priority(message);
    // The commonest message, to one processor whose number is its ID, needs no search.
    const bool one =
        message.shorthand == apic::Shorthand::none && !message.logical && !message.is_broadcast();
    if (one && message.destination < apics_.size()) {
        const unsigned vcpu = message.destination;
        if (apics_[vcpu]->id() == message.destination)
            return apics_[vcpu]->is_destination(message) && accept(vcpu, message);
    }
    bool accepted = false;
    for (unsigned vcpu = 0; vcpu < apics_.size(); ++vcpu)
        if (addresses(*apics_[vcpu], message)) accepted = accept(vcpu, message) || accepted;
    return accepted;
}

// To the addressed processor of the lowest priority; among equals, to each in turn.
bool Interrupts::deliver_lowest_priority(const InterruptMessage& message) {
    const unsigned count = static_cast<unsigned>(apics_.size());
    if (count == 0) return false;
    const unsigned start = turn_.load(std::memory_order_relaxed) % count;
    unsigned chosen = count;
    unsigned lowest = 256;
    for (unsigned i = 0; i < count; ++i) {
        const unsigned vcpu = (start + i) % count;
        const LocalApic& apic = *apics_[vcpu];
        if (!apic.accepts_interrupts() || !addresses(apic, message)) continue;
        const unsigned priority = apic.processor_priority();
        if (priority < lowest) {
            lowest = priority;
            chosen = vcpu;
        }
    }
    if (chosen == count) return false;
    turn_.store(chosen + 1, std::memory_order_relaxed);
    return accept(chosen, message);
}

void Interrupts::broadcast_eoi(Vector vector) {
    for (IoApic* apic : io_apics_) apic->eoi(vector);
}

void Interrupts::destinations_changed() {
    for (IoApic* apic : io_apics_) apic->retry();
}

void Interrupts::deliver_msi(u64 address, u32 data) {
    if (const auto message = decode_msi(address, data)) deliver(*message);
}

void Interrupts::PicOutput::set(bool level) {
    for (unsigned vcpu = 0; vcpu < fabric->apics_.size(); ++vcpu)
        if (fabric->apics_[vcpu]->set_lint(0, level)) fabric->waker_.wake(vcpu);
}

}  // namespace bulkhead
