#include "vmm/dev/pic_8259.hpp"

#include "kernel/base/bits.hpp"

namespace bulkhead {

namespace {

constexpr u8 none = 8;

constexpr u8 mask_of(unsigned input) {
    return static_cast<u8>(1u << (input & 7));
}

// PIIX3: the timer, the keyboard and the cascade are always edge-triggered, and so are RTC and FPU error.
constexpr u8 elcr_writable[2] = {0xF8, 0xDE};

}  // namespace

Pic8259::Pic8259(IrqLine& output) : output_(output) {
    for (unsigned i = 0; i < inputs; ++i) {
        lines_[i].pic = this;
        lines_[i].number = i;
    }
}

void Pic8259::reset() {
    first_ = {};
    second_ = {};
    update();
}

void Pic8259::Chip::set(u8 input, bool level) {
    const u8 bit = mask_of(input);
    if (level) {
        const bool rose = (levels & bit) == 0;
        levels |= bit;
        if (rose || (level_triggered & bit) != 0) request |= bit;
    } else {
        levels &= static_cast<u8>(~bit);
        request &= static_cast<u8>(~bit);
    }
}

u8 Pic8259::Chip::priority_of(u8 inputs) const {
    for (u8 distance = 0; distance < 8; ++distance) {
        if ((inputs & mask_of(lowest + 1u + distance)) != 0) return distance;
    }
    return none;
}

u8 Pic8259::Chip::best() const {
    if ((request & ~mask) == 0) return none;
    const u8 wanted = priority_of(request & static_cast<u8>(~mask));
    if (wanted == none) return none;
    u8 blocking = service;
    // In special mask mode a masked input in service blocks nothing.
    if (special_mask) blocking &= static_cast<u8>(~mask);
    if (fully_nested) blocking &= static_cast<u8>(~mask_of(cascade_input));
    if (wanted >= priority_of(blocking)) return none;
    return static_cast<u8>((lowest + 1 + wanted) & 7);
}

void Pic8259::Chip::begin_service(u8 input) {
    const u8 bit = mask_of(input);
    if ((level_triggered & bit) == 0) request &= static_cast<u8>(~bit);
    if (!automatic_eoi) {
        service |= bit;
    } else if (rotate_on_automatic_eoi) {
        lowest = input;
    }
}

void Pic8259::Chip::write_command(u8 value) {
    if (has_bit(value, 4)) {
        // ICW1. The edge detectors are reset: an input that is high has to fall first. ELCR and the pins
        // stay.
        const u8 kept_levels = levels;
        const u8 kept_triggering = level_triggered;
        *this = {};
        levels = kept_levels;
        level_triggered = kept_triggering;
        request = levels & level_triggered;
        next_icw = 2;
        icw4_follows = has_bit(value, 0);
        single = has_bit(value, 1);
    } else if (has_bit(value, 3)) {
        // OCW3
        if (has_bit(value, 6)) special_mask = has_bit(value, 5);
        poll = has_bit(value, 2);
        if (has_bit(value, 1)) read_service = has_bit(value, 0);
    } else {
        write_ocw2(value);
    }
}

void Pic8259::Chip::write_ocw2(u8 value) {
    const u8 level = value & 7;
    switch (value >> 5) {
        case 0: rotate_on_automatic_eoi = false; break;
        case 4: rotate_on_automatic_eoi = true; break;
        case 1:    // non-specific EOI
        case 5: {  // the same, with rotation
            // In special mask mode it passes over inputs that are masked.
            const u8 candidates = special_mask ? static_cast<u8>(service & ~mask) : service;
            const u8 distance = priority_of(candidates);
            if (distance == none) break;
            const u8 input = static_cast<u8>((lowest + 1 + distance) & 7);
            service &= static_cast<u8>(~mask_of(input));
            if (has_bit(value, 7)) lowest = input;
            break;
        }
        case 3:  // specific EOI
            service &= static_cast<u8>(~mask_of(level));
            break;
        case 7:  // the same, with rotation
            service &= static_cast<u8>(~mask_of(level));
            lowest = level;
            break;
        case 6: lowest = level; break;
        default: break;
    }
}

void Pic8259::Chip::write_data(u8 value) {
    switch (next_icw) {
        case 2:
            base = value & 0xF8;
            next_icw = !single ? 3 : icw4_follows ? 4 : 0;
            break;
        case 3: next_icw = icw4_follows ? 4 : 0; break;
        case 4:
            automatic_eoi = has_bit(value, 1);
            fully_nested = has_bit(value, 4);
            next_icw = 0;
            break;
        default: mask = value; break;
    }
}

u8 Pic8259::Chip::read(bool data_port) {
    if (poll) {
        // The read takes the place of the acknowledge cycle, at either address.
        poll = false;
        const u8 input = best();
        if (input == none) return 0x07;
        begin_service(input);
        return 0x80 | input;
    }
    if (data_port) return mask;
    return read_service ? service : request;
}

u8 Pic8259::read_byte(u64 offset) {
    switch (offset) {
        case 0:
        case 1:
        case 2:
        case 3: {
            Chip& chip = offset < 2 ? first_ : second_;
            const bool polled = chip.poll;
            const u8 value = chip.read(has_bit(offset, 0));
            if (polled) {
                // As in acknowledge(): INT of the second chip falls with the acknowledgement.
                if (&chip == &second_ && has_bit(value, 7)) first_.set(cascade_input, false);
                update();
            }
            return value;
        }
        case 4: return first_.level_triggered;
        case 5: return second_.level_triggered;
        default: return 0xFF;
    }
}

void Pic8259::write_byte(u64 offset, u8 value) {
    switch (offset) {
        case 0: first_.write_command(value); break;
        case 1: first_.write_data(value); break;
        case 2: second_.write_command(value); break;
        case 3: second_.write_data(value); break;
        case 4:
        case 5: {
            Chip& chip = offset == 4 ? first_ : second_;
            chip.level_triggered = value & elcr_writable[offset - 4];
            chip.request |= chip.levels & chip.level_triggered;
            break;
        }
        default: return;
    }
    update();
}

void Pic8259::update() {
    first_.set(cascade_input, second_.best() != none);
    const bool level = first_.best() != none;
    if (level == output_level_) return;
    output_level_ = level;
    output_.set(level);
}

void Pic8259::set_irq(unsigned number, bool level) {
    if (number >= inputs || number == cascade_input) return;
    (number < 8 ? first_ : second_).set(number & 7, level);
    update();
}

u8 Pic8259::acknowledge() {
    const u8 input = first_.best();
    if (input == none) return first_.base + 7;
    first_.begin_service(input);
    u8 vector = first_.base + input;
    if (input == cascade_input) {
        const u8 second_input = second_.best();
        vector = second_.base + (second_input == none ? 7 : second_input);
        if (second_input != none) second_.begin_service(second_input);
        // INT of the second chip falls, so that a request still waiting there makes a new edge.
        first_.set(cascade_input, false);
    }
    update();
    return vector;
}

}  // namespace bulkhead
