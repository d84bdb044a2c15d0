// The local APIC's inputs: its own errors and pins, the messages it sends, and what reaches it from any core.
#include "vmm/dev/local_apic.hpp"

namespace bulkhead {

using apic::Delivery;
using apic::Shorthand;

// --- Local sources ---------------------------------------------------------------------------------------

void LocalApic::signal_error(u32 status) {
    const u32 fresh = status & ~pending_errors_;
    pending_errors_ |= status;
    if (fresh == 0) return;
    const u32 entry = load(apic::lvt_error);
    if ((entry & apic::masked) != 0) return;
    // The error interrupt's own vector may be illegal: that is noted, and raises nothing further.
    if ((entry & 0xFF) < apic::first_legal_vector) {
        pending_errors_ |= apic::error_receive_illegal_vector;
        return;
    }
    post(Vector(static_cast<u8>(entry)), false);
}

// A fixed interrupt by an LVT entry.
void LocalApic::raise(u32 entry) {
    if ((entry & apic::masked) != 0) return;
    if ((entry & 0xFF) < apic::first_legal_vector) {
        signal_error(apic::error_receive_illegal_vector);
        return;
    }
    post(Vector(static_cast<u8>(entry)), false);
}

// A rising edge of a pin, or a level that is there when the entry begins to listen. Polarity is not modelled:
// the pin's level is its logical state.
void LocalApic::lint_asserted(unsigned pin) {
    if (mode() == ApicMode::disabled) {
        if (pin == 1) signals_.fetch_or(signal_nmi);  // the pins are then the processor's INTR and NMI
        return;
    }
    const u32 offset = pin == 0 ? apic::lvt_lint0 : apic::lvt_lint1;
    const u32 entry = load(offset);
    if ((entry & apic::masked) != 0) return;
    switch (apic::delivery_of(entry)) {
        case Delivery::nmi: signals_.fetch_or(signal_nmi); return;
        case Delivery::fixed: break;
        default: return;  // ExtINT is asked for in has_extint(); SMI, INIT and reserved modes are ignored
    }
    if ((entry & apic::level_triggered) == 0) {
        raise(entry);
        return;
    }
    if (has_bit(lint_remote_irr_, pin)) return;
    if ((entry & 0xFF) < apic::first_legal_vector) {
        signal_error(apic::error_receive_illegal_vector);
        return;
    }
    if (!post(Vector(static_cast<u8>(entry)), true)) return;
    lint_remote_irr_ = static_cast<u8>(lint_remote_irr_ | bit<u8>(pin));
    store(offset, entry | apic::remote_irr);
}

bool LocalApic::has_extint() {
    collect();
    const bool line = has_bit(lint_levels_.load(std::memory_order_relaxed), 0);
    if (mode() == ApicMode::disabled) return line;
    if ((signals_.load(std::memory_order_relaxed) & signal_extint) != 0) return true;
    const u32 entry = load(apic::lvt_lint0);
    return line && (entry & apic::masked) == 0 && apic::delivery_of(entry) == Delivery::extint;
}

// --- Inter-processor interrupts --------------------------------------------------------------------------

void LocalApic::self_ipi(u8 vector) {
    if (vector < apic::first_legal_vector) {
        signal_error(apic::error_send_illegal_vector);
        return;
    }
    post(Vector(vector), false);
}

void LocalApic::send(u32 command, u32 destination) {
    const bool wide = mode() == ApicMode::x2apic;
    InterruptMessage message{.destination = destination,
                             .vector = static_cast<u8>(command),
                             .delivery = apic::delivery_of(command),
                             .logical = (command & apic::icr_logical) != 0,
                             .wide = wide,
                             .shorthand = static_cast<Shorthand>(extract(command, 19, 18)),
                             .source = id_};
    switch (message.delivery) {
        case Delivery::fixed:
        case Delivery::lowest_priority:
            if (message.vector < apic::first_legal_vector) {
                signal_error(apic::error_send_illegal_vector);
                return;
            }
            if (message.shorthand == Shorthand::self) {
                post(Vector(message.vector), false);
                return;
            }
            break;
        case Delivery::init:
            // The level de-assertion of old only synchronised arbitration IDs.
            if ((command & apic::level_triggered) != 0 && (command & apic::icr_assert) == 0) return;
            break;
        case Delivery::nmi:
        case Delivery::startup: break;
        default: return;
    }
    bus_.deliver(message);
}

bool LocalApic::is_destination(const InterruptMessage& message) const {
    const ApicMode now = mode();
    if (now == ApicMode::disabled) return false;
    if (message.is_broadcast()) return true;
    const u32 to = message.destination;
    if (!message.logical) return to == id_;
    const u32 own = load(apic::ldr);
    if (now == ApicMode::x2apic) return (to >> 16) == (own >> 16) && (to & own & 0xFFFF) != 0;
    if (to > 0xFF) return false;
    switch (load(apic::dfr) >> 28) {
        case 0xF: return (to & (own >> 24)) != 0;
        case 0x0: return (to >> 4) == (own >> 28) && (to & (own >> 24) & 0xF) != 0;
        default: return false;  // an undefined model addresses nobody
    }
}

// --- From any core ---------------------------------------------------------------------------------------

bool LocalApic::post(Vector vector, bool level) {
    if (!accepts_interrupts()) return false;
    if (vector.raw() < apic::first_legal_vector) {
        remote_errors_.fetch_or(apic::error_receive_illegal_vector);
        changed_.store(true, std::memory_order_release);
        return true;
    }
    const unsigned word = vector.raw() / 64;
    const u64 mask = bit(vector.raw() % 64);
    if (level) {
        request_is_level_[word].fetch_or(mask, std::memory_order_relaxed);
    } else if ((request_is_level_[word].load(std::memory_order_relaxed) & mask) != 0) {
        request_is_level_[word].fetch_and(~mask, std::memory_order_relaxed);
    }
    requests_[word].fetch_or(mask, std::memory_order_release);
    changed_.store(true, std::memory_order_release);
    return true;
}

bool LocalApic::post_nmi() {
    if (mode() == ApicMode::disabled) return false;
    signals_.fetch_or(signal_nmi);
    return true;
}

bool LocalApic::post_init() {
    if (mode() == ApicMode::disabled) return false;
    // INIT supersedes what came before it.
    signals_.store(signal_init);
    return true;
}

bool LocalApic::post_sipi(Vector page) {
    if (mode() == ApicMode::disabled) return false;
    u32 seen = signals_.load(std::memory_order_relaxed);
    do {
        if ((seen & signal_sipi) != 0) return true;  // the first counts
    } while (!signals_.compare_exchange_weak(seen, seen | signal_sipi | u32{page.raw()} << sipi_shift));
    return true;
}

bool LocalApic::post_extint() {
    if (!accepts_interrupts()) return false;
    signals_.fetch_or(signal_extint);
    return true;
}

std::optional<Vector> LocalApic::take_sipi() {
    const u32 seen = signals_.fetch_and(~(signal_sipi | u32{0xFF} << sipi_shift));
    if ((seen & signal_sipi) == 0) return std::nullopt;
    return Vector(static_cast<u8>(seen >> sipi_shift));
}

bool LocalApic::set_lint(unsigned pin, bool level) {
    const u8 mask = static_cast<u8>(1U << (pin & 1));
    if (!level) {
        lint_levels_.fetch_and(static_cast<u8>(~mask));
        return false;
    }
    if ((lint_levels_.fetch_or(mask) & mask) != 0) return false;
    // Its owner unmasks it first and looks at the level then; here it is the other way round. So of two that
    // do it at once one sees the other (write_lvt(), write_base()).
    const u32 entry = load((pin & 1) == 0 ? apic::lvt_lint0 : apic::lvt_lint1);
    if (mode() != ApicMode::disabled && (entry & apic::masked) != 0) return false;
    lint_rises_.fetch_or(mask);
    changed_.store(true, std::memory_order_release);
    return true;
}

}  // namespace bulkhead
