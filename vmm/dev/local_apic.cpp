#include "vmm/dev/local_apic.hpp"

#include <bit>

#include "arch/x86/regs/msr.hpp"

namespace bulkhead {

namespace {

using apic::Delivery;

// Version 14h (an integrated APIC), six LVT entries, no EOI-broadcast suppression.
constexpr u32 version_value = 0x14 | (5U << 16);

// What software may write of each LVT entry, and what else reads as defined.
constexpr u32 vector_bits = 0xFF, delivery_bits = 0x700;
constexpr u32 lint_writable =
    vector_bits | delivery_bits | apic::active_low | apic::level_triggered | apic::masked;

// ICR, low half: what software may write. Bit 12 is the delivery status in xAPIC mode.
constexpr u32 icr_writable = 0x000CCFFF;

}  // namespace

LocalApic::LocalApic(u8* page, const Clock& clock, InterruptBus& bus, const Parameters& parameters)
    : registers_(reinterpret_cast<u32*>(page)),
      clock_(clock),
      bus_(bus),
      id_(parameters.id),
      assist_(parameters.assist),
      physical_bits_(parameters.physical_bits),
      bootstrap_(parameters.bootstrap),
      x2apic_(parameters.x2apic),
      tsc_deadline_supported_(parameters.tsc_deadline),
      timer_hz_(parameters.timer_hz != 0 ? parameters.timer_hz : clock.hz()),
      minimum_period_(parameters.minimum_period != 0 ? parameters.minimum_period : clock.hz() / 50'000) {
    reset();
}

// --- Reset, INIT, IA32_APIC_BASE -------------------------------------------------------------------------

void LocalApic::reset() {
    base_.store(apic::default_base | apic::base_enable | (bootstrap_ ? apic::base_bsp : 0),
                std::memory_order_relaxed);
    signals_.store(0);
    lint_levels_.store(0);
    tsc_offset_ = 0;
    set_registers_to_reset();
}

void LocalApic::init() {
    set_registers_to_reset();
}

void LocalApic::set_registers_to_reset() {
    for (unsigned word = 0; word < 8; ++word) {
        const u32 level = load(apic::tmr + 16 * word);
        trigger_changes_[word] ^= level;
        trigger_changed_ = trigger_changed_ || level != 0;
    }
    for (u32 offset = 0; offset < 0x400; offset += 4) store(offset, 0);
    store(apic::version, version_value);
    store(apic::dfr, ~u32{0});
    store(apic::svr, 0xFF);
    for (u32 entry = apic::lvt_timer; entry <= apic::lvt_error; entry += 16) store(entry, apic::masked);
    set_identity();

    for (auto& request : requests_) request.store(0, std::memory_order_relaxed);
    remote_errors_.store(0, std::memory_order_relaxed);
    lint_rises_.store(0, std::memory_order_relaxed);
    request_words_ = service_words_ = 0;
    pending_errors_ = 0;
    lint_remote_irr_ = 0;
    timer_entry_ = apic::masked;
    divide_shift_ = 1;
    tsc_deadline_ = 0;
    stop_timer();
}

// The ID and, in x2APIC mode, the logical ID, which derives from it (Intel SDM Vol. 3A, 11.12.10.2).
void LocalApic::set_identity() {
    if (mode() == ApicMode::x2apic) {
        store(apic::id, id_);
        store(apic::ldr, (id_ >> 4) << 16 | u32{1} << (id_ & 15));
    } else {
        store(apic::id, id_ << 24);
    }
}

void LocalApic::enter_virtual_wire_mode() {
    store(apic::svr, apic::svr_enabled | 0xFF);
    store(apic::lvt_lint0, static_cast<u32>(Delivery::extint) << 8);
    store(apic::lvt_lint1, static_cast<u32>(Delivery::nmi) << 8);
}

// Intel SDM Vol. 3A, 11.4.4 and figure 11-27: the x2APIC is entered from the enabled xAPIC only, and left
// only by disabling the APIC.
bool LocalApic::write_base(u64 value) {
    const u64 defined = (low_mask(physical_bits_) & ~u64{0xFFF}) | apic::base_bsp | apic::base_enable |
                        (x2apic_ ? apic::base_x2apic : 0);
    if ((value & ~defined) != 0) return false;
    const bool enable = (value & apic::base_enable) != 0;
    const bool extend = (value & apic::base_x2apic) != 0;
    const ApicMode from = mode();
    if (extend && !enable) return false;
    if (extend && from == ApicMode::disabled) return false;
    if (enable && !extend && from == ApicMode::x2apic) return false;

    base_.store(value, std::memory_order_relaxed);
    const ApicMode to = mode();
    if (to == from) return true;
    (void)lint_levels_.fetch_or(0);  // as in write_lvt()
    if (to == ApicMode::x2apic) {
        store(apic::icr_high, 0);
        set_identity();
        bus_.destinations_changed();
    } else {
        // Disabling loses the state; what is enabled next is as after power-on.
        set_registers_to_reset();
    }
    return true;
}

// --- The page --------------------------------------------------------------------------------------------

u64 LocalApic::read(u64 offset, unsigned size) {
    if (mode() != ApicMode::xapic || offset >= page_size) return all_ones(size);
    const unsigned lane = offset & 15;
    if (lane >= 4) return 0;
    return u64{read_register(static_cast<u32>(offset & 0xFF0))} >> (8 * lane);
}

void LocalApic::write(u64 offset, unsigned size, u64 value) {
    if (mode() != ApicMode::xapic || offset >= page_size || size != 4 || (offset & 15) != 0) return;
    write_register(static_cast<u32>(offset), static_cast<u32>(value));
}

void LocalApic::apic_write(u32 offset) {
    if (mode() == ApicMode::disabled || offset >= 0x400) return;
    const u32 at = offset & 0x3F0;
    write_register(at, load(at));
}

u32 LocalApic::read_register(u32 offset) {
    switch (offset) {
        case apic::ppr: return processor_priority();
        case apic::apr: return arbitration_priority();
        case apic::timer_current: return current_count(clock_.now());
        case apic::id:
        case apic::version:
        case apic::tpr:
        case apic::eoi:
        case apic::rrd:
        case apic::ldr:
        case apic::dfr:
        case apic::svr:
        case apic::esr:
        case apic::icr_low:
        case apic::icr_high:
        case apic::timer_initial:
        case apic::timer_divide: return load(offset);
        default: break;
    }
    if (offset >= apic::isr && offset < apic::esr) return load(offset);
    if (offset >= apic::lvt_timer && offset <= apic::lvt_error) return load(offset);
    signal_error(apic::error_illegal_register);
    return 0;
}

void LocalApic::write_register(u32 offset, u32 value) {
    switch (offset) {
        case apic::eoi: end_of_interrupt(); return;
        case apic::tpr: store(apic::tpr, value & 0xFF); return;
        case apic::icr_low:
            store(apic::icr_low, value & icr_writable);
            send(value & icr_writable, load(apic::icr_high) >> 24);
            return;
        case apic::icr_high: store(apic::icr_high, value & 0xFF000000); return;
        case apic::timer_initial: start_timer(value); return;
        case apic::ldr:
            if (mode() != ApicMode::xapic) return;
            store(apic::ldr, value & 0xFF000000);
            bus_.destinations_changed();
            return;
        case apic::dfr:
            store(apic::dfr, value | 0x0FFFFFFF);
            bus_.destinations_changed();
            return;
        case apic::svr: write_svr(value); return;
        case apic::esr:
            // What was noted since the last write becomes visible (Intel SDM Vol. 3A, 11.5.3).
            store(apic::esr, pending_errors_);
            pending_errors_ = 0;
            return;
        case apic::timer_divide: write_divide(value); return;
        case apic::lvt_timer:
        case apic::lvt_thermal:
        case apic::lvt_performance:
        case apic::lvt_lint0:
        case apic::lvt_lint1:
        case apic::lvt_error: write_lvt(offset, value); return;
        case apic::id: set_identity(); return;  // read-only; undoes what hardware may have written
        case apic::version:
        case apic::apr:
        case apic::ppr:
        case apic::rrd:
        case apic::timer_current: return;
        case apic::self_ipi:
            if (mode() != ApicMode::x2apic) break;
            self_ipi(static_cast<u8>(value));
            return;
        default: break;
    }
    if (offset >= apic::isr && offset < apic::esr) return;
    signal_error(apic::error_illegal_register);
}

// --- x2APIC MSRs -----------------------------------------------------------------------------------------

std::optional<u64> LocalApic::read_msr(MsrIndex index) {
    if (mode() != ApicMode::x2apic || index < msr::x2apic_first || index > msr::x2apic_last)
        return std::nullopt;
    const u32 offset = (index.raw() & 0xFF) << 4;
    switch (offset) {
        case apic::icr_low: return load(apic::icr_low) | u64{load(apic::icr_low + 4)} << 32;
        case apic::id:
        case apic::version:
        case apic::tpr:
        case apic::ppr:
        case apic::ldr:
        case apic::svr:
        case apic::esr:
        case apic::timer_initial:
        case apic::timer_current:
        case apic::timer_divide: return read_register(offset);
        default: break;
    }
    if (offset >= apic::isr && offset < apic::esr) return load(offset);
    if (offset >= apic::lvt_timer && offset <= apic::lvt_error) return load(offset);
    return std::nullopt;
}

// Reserved bits that are set, read-only registers and absent ones are #GP (Intel SDM Vol. 3A, 11.12.1.3).
bool LocalApic::write_msr(MsrIndex index, u64 value) {
    if (mode() != ApicMode::x2apic || index < msr::x2apic_first || index > msr::x2apic_last) return false;
    const u32 offset = (index.raw() & 0xFF) << 4;
    if (offset == apic::icr_low) {
        // Bit 12, the delivery status of xAPIC mode, is ignored: software that reads, changes and writes
        // back.
        if ((value & ~u64{icr_writable | apic::delivery_pending} & 0xFFFFFFFF) != 0) return false;
        const u32 command = static_cast<u32>(value) & icr_writable;
        store(apic::icr_low, command);
        store(apic::icr_low + 4, static_cast<u32>(value >> 32));
        send(command, static_cast<u32>(value >> 32));
        return true;
    }
    u64 defined = 0;
    switch (offset) {
        case apic::eoi:
        case apic::esr: defined = 0; break;
        case apic::tpr:
        case apic::self_ipi: defined = 0xFF; break;
        case apic::svr: defined = apic::svr_enabled | 0xFF; break;
        case apic::timer_initial: defined = 0xFFFFFFFF; break;
        case apic::timer_divide: defined = 0xB; break;
        case apic::lvt_timer:
            defined = vector_bits | apic::delivery_pending | apic::masked | bit<u32>(17) |
                      (tsc_deadline_supported_ ? bit<u32>(18) : 0);
            break;
        case apic::lvt_thermal:
        case apic::lvt_performance:
            defined = vector_bits | delivery_bits | apic::delivery_pending | apic::masked;
            break;
        case apic::lvt_lint0:
        case apic::lvt_lint1: defined = lint_writable | apic::delivery_pending | apic::remote_irr; break;
        case apic::lvt_error: defined = vector_bits | apic::delivery_pending | apic::masked; break;
        default: return false;
    }
    if ((value & ~defined) != 0) return false;
    write_register(offset, static_cast<u32>(value));
    return true;
}

// --- LVT and SVR -----------------------------------------------------------------------------------------

void LocalApic::write_lvt(u32 offset, u32 value) {
    // While software-disabled, the mask bits are set and stay so.
    if ((load(apic::svr) & apic::svr_enabled) == 0) value |= apic::masked;
    switch (offset) {
        case apic::lvt_timer: write_timer_entry(value); return;
        case apic::lvt_error: store(offset, value & (vector_bits | apic::masked)); return;
        case apic::lvt_thermal:
        case apic::lvt_performance:
            store(offset, value & (vector_bits | delivery_bits | apic::masked));
            return;
        default: break;
    }
    const unsigned pin = offset == apic::lvt_lint1 ? 1 : 0;
    value &= lint_writable;
    if ((value & apic::level_triggered) == 0)
        lint_remote_irr_ = static_cast<u8>(lint_remote_irr_ & ~bit<u8>(pin));
    if (has_bit(lint_remote_irr_, pin)) value |= apic::remote_irr;
    store(offset, value);
    // Read by a locked operation, that the store above is seen by whoever raises the pin after this.
    const bool asserted = has_bit(lint_levels_.fetch_or(0), pin);
    if ((value & apic::level_triggered) != 0 && asserted) lint_asserted(pin);
}

void LocalApic::write_svr(u32 value) {
    store(apic::svr, value & (apic::svr_enabled | 0xFF));
    if ((value & apic::svr_enabled) != 0) {
        bus_.destinations_changed();
        return;
    }
    for (u32 entry = apic::lvt_timer; entry <= apic::lvt_error; entry += 16) {
        if (entry == apic::lvt_timer) {
            write_timer_entry(timer_entry_ | apic::masked);
        } else {
            store(entry, load(entry) | apic::masked);
        }
    }
}

// --- Requests, services, priorities ----------------------------------------------------------------------

void LocalApic::set(u32 bitmap, u8 vector) {
    const u32 at = word_of(bitmap, vector);
    store(at, load(at) | u32{1} << (vector & 31U));
}

void LocalApic::clear(u32 bitmap, u8 vector) {
    const u32 at = word_of(bitmap, vector);
    store(at, load(at) & ~(u32{1} << (vector & 31U)));
}

u8 LocalApic::highest(u32 bitmap) const {
    u32 any = 0;
    for (unsigned word = 0; word < 8; ++word) any |= load(bitmap + 16 * word);
    if (any == 0) return 0;
    for (unsigned word = 8; word-- > 0;) {
        const u32 bits = load(bitmap + 16 * word);
        if (bits != 0) return static_cast<u8>(32 * word + 31 - static_cast<unsigned>(std::countl_zero(bits)));
    }
    return 0;
}

u8 LocalApic::highest_in(u32 bitmap, u8 words) const {
    if (words == 0) return 0;
    const unsigned word = 7 - static_cast<unsigned>(std::countl_zero(words));
    const u32 bits = load(bitmap + 16 * word);
    return static_cast<u8>(32 * word + 31 - static_cast<unsigned>(std::countl_zero(bits | 1)));
}

u8 LocalApic::highest_request() const {
    return assist_ == ApicAssist::full ? highest(apic::irr) : highest_in(apic::irr, request_words_);
}

u8 LocalApic::highest_service() const {
    return assist_ == ApicAssist::full ? highest(apic::isr) : highest_in(apic::isr, service_words_);
}

void LocalApic::begin_request(u8 vector) {
    set(apic::irr, vector);
    request_words_ = static_cast<u8>(request_words_ | 1U << (vector >> 5U));
}

void LocalApic::end_request(u8 vector) {
    clear(apic::irr, vector);
    if (load(word_of(apic::irr, vector)) == 0)
        request_words_ = static_cast<u8>(request_words_ & ~(1U << (vector >> 5U)));
}

void LocalApic::begin_service(u8 vector) {
    set(apic::isr, vector);
    service_words_ = static_cast<u8>(service_words_ | 1U << (vector >> 5U));
}

void LocalApic::end_service(u8 vector) {
    clear(apic::isr, vector);
    if (load(word_of(apic::isr, vector)) == 0)
        service_words_ = static_cast<u8>(service_words_ & ~(1U << (vector >> 5U)));
}

// Intel SDM Vol. 3A, 11.8.3.1.
u8 LocalApic::priority_over(u8 service) const {
    const u8 tpr = static_cast<u8>(load(apic::tpr));
    return (tpr >> 4) >= (service >> 4) ? tpr : static_cast<u8>(service & 0xF0);
}

u8 LocalApic::processor_priority() const {
    return priority_over(highest(apic::isr));
}

// Intel SDM Vol. 3A, 11.6.2.4.
u8 LocalApic::arbitration_priority() const {
    const unsigned tpr = load(apic::tpr) & 0xFF;
    const unsigned request = highest(apic::irr) >> 4U, service = highest(apic::isr) >> 4U;
    if ((tpr >> 4) >= request && (tpr >> 4) > service) return static_cast<u8>(tpr);
    const unsigned common = (tpr >> 4) & service;
    return static_cast<u8>((common > request ? common : request) << 4);
}

bool LocalApic::merge() {
    if (!changed_.exchange(false, std::memory_order_acq_rel)) return false;
    if (remote_errors_.load(std::memory_order_relaxed) != 0) signal_error(remote_errors_.exchange(0));
    if (lint_rises_.load(std::memory_order_relaxed) != 0) {
        const u8 rises = lint_rises_.exchange(0);
        for (unsigned pin = 0; pin < 2; ++pin)
            if (has_bit(rises, pin)) lint_asserted(pin);
    }
    bool any = false;
    for (unsigned word = 0; word < 4; ++word) {
        if (requests_[word].load(std::memory_order_relaxed) == 0) continue;
        u64 bits = requests_[word].exchange(0, std::memory_order_acquire);
        const u64 levels = request_is_level_[word].load(std::memory_order_relaxed);
        any = true;
        while (bits != 0) {
            const unsigned position = static_cast<unsigned>(std::countr_zero(bits));
            bits &= bits - 1;
            accept(static_cast<u8>(64 * word + position), has_bit(levels, position));
        }
    }
    collected_ = collected_ || any;
    return any;
}

void LocalApic::accept(u8 vector, bool level) {
    if (level != test(apic::tmr, vector)) {
        if (level) {
            set(apic::tmr, vector);
        } else {
            clear(apic::tmr, vector);
        }
        trigger_changes_[vector >> 5U] ^= u32{1} << (vector & 31U);
        trigger_changed_ = true;
    }
    begin_request(vector);
}

std::optional<Vector> LocalApic::take_trigger_change() {
    if (!trigger_changed_) return std::nullopt;
    for (unsigned word = 0; word < 8; ++word) {
        u32& bits = trigger_changes_[word];
        if (bits == 0) continue;
        const unsigned position = static_cast<unsigned>(std::countr_zero(bits));
        bits &= bits - 1;
        return Vector(static_cast<u8>(32 * word + position));
    }
    trigger_changed_ = false;
    return std::nullopt;
}

std::optional<Vector> LocalApic::highest_pending() {
    collect();
    const u8 request = highest_request();
    if (request < apic::first_legal_vector) return std::nullopt;
    if ((request >> 4) <= (priority_over(highest_service()) >> 4)) return std::nullopt;
    return Vector(request);
}

Vector LocalApic::acknowledge() {
    const std::optional<Vector> vector = highest_pending();
    if (!vector) return Vector(static_cast<u8>(load(apic::svr)));
    end_request(vector->raw());
    begin_service(vector->raw());
    return *vector;
}

u8 LocalApic::tpr_threshold() {
    collect();
    const u8 request = highest_request() >> 4;
    if (request == 0 || (highest_service() >> 4) >= request) return 0;
    return cr8() >= request ? request : 0;
}

void LocalApic::end_of_interrupt() {
    const u8 vector = highest_service();
    if (vector == 0) return;
    end_service(vector);
    finish(vector);
}

void LocalApic::finish(u8 vector) {
    if (!test(apic::tmr, vector)) return;
    bus_.broadcast_eoi(Vector(vector));
    for (unsigned pin = 0; pin < 2; ++pin) {
        const u32 entry = pin == 0 ? apic::lvt_lint0 : apic::lvt_lint1;
        if (!has_bit(lint_remote_irr_, pin) || (load(entry) & 0xFF) != vector) continue;
        lint_remote_irr_ = static_cast<u8>(lint_remote_irr_ & ~bit<u8>(pin));
        store(entry, load(entry) & ~apic::remote_irr);
        if (has_bit(lint_levels_.load(std::memory_order_relaxed), pin)) lint_asserted(pin);
    }
}

}  // namespace bulkhead
