#include "vmm/dev/i8042.hpp"

#include "kernel/base/bits.hpp"

namespace bulkhead {

namespace {

enum : u8 {
    status_output_full = 1 << 0,
    status_system = 1 << 2,
    status_command = 1 << 3,
    status_unlocked = 1 << 4,
    status_auxiliary = 1 << 5,
    status_timeout = 1 << 6,

    control_keyboard_interrupt = 1 << 0,
    control_auxiliary_interrupt = 1 << 1,
    control_system = 1 << 2,
    control_keyboard_off = 1 << 4,
    control_auxiliary_off = 1 << 5,
    control_translate = 1 << 6,

    output_not_reset = 1 << 0,
    output_a20 = 1 << 1,
    output_keyboard_irq = 1 << 4,
    output_auxiliary_irq = 1 << 5,
    output_lines_idle = 0xC0,

    input_port = 0xA0,  // keyboard not locked, no manufacturing jumper

    keyboard_ack = 0xFA,
    keyboard_resend = 0xFE,
    keyboard_passed = 0xAA,
    release_code = 0xF0,
};

// From set 2 to set 1, for the codes below 80h.
constexpr u8 translation[128] = {
    0xFF, 0x43, 0x41, 0x3F, 0x3D, 0x3B, 0x3C, 0x58, 0x64, 0x44, 0x42, 0x40, 0x3E, 0x0F, 0x29, 0x59,  //
    0x65, 0x38, 0x2A, 0x70, 0x1D, 0x10, 0x02, 0x5A, 0x66, 0x71, 0x2C, 0x1F, 0x1E, 0x11, 0x03, 0x5B,  //
    0x67, 0x2E, 0x2D, 0x20, 0x12, 0x05, 0x04, 0x5C, 0x68, 0x39, 0x2F, 0x21, 0x14, 0x13, 0x06, 0x5D,  //
    0x69, 0x31, 0x30, 0x23, 0x22, 0x15, 0x07, 0x5E, 0x6A, 0x72, 0x32, 0x24, 0x16, 0x08, 0x09, 0x5F,  //
    0x6B, 0x33, 0x25, 0x17, 0x18, 0x0B, 0x0A, 0x60, 0x6C, 0x34, 0x35, 0x26, 0x27, 0x19, 0x0C, 0x61,  //
    0x6D, 0x73, 0x28, 0x74, 0x1A, 0x0D, 0x62, 0x6E, 0x3A, 0x36, 0x1C, 0x1B, 0x75, 0x2B, 0x63, 0x76,  //
    0x55, 0x56, 0x77, 0x78, 0x79, 0x7A, 0x0E, 0x7B, 0x7C, 0x4F, 0x7D, 0x4B, 0x47, 0x7E, 0x7F, 0x6F,  //
    0x52, 0x53, 0x50, 0x4C, 0x4D, 0x48, 0x01, 0x45, 0x57, 0x4E, 0x51, 0x4A, 0x37, 0x49, 0x46, 0x54,
};

constexpr u8 translate(u8 code) {
    if (code < 0x80) return translation[code];
    if (code == 0x83) return 0x41;  // F7
    if (code == 0x84) return 0x54;  // SysRq
    return code;
}

}  // namespace

void I8042::reset() {
    for (u8& byte : memory_) byte = 0;
    memory_[0] = control_keyboard_interrupt | control_system | control_auxiliary_off | control_translate;
    last_command_ = 0;
    command_last_ = false;
    output_ = 0;
    output_full_ = false;
    output_source_ = Source::keyboard;
    displaced_valid_ = false;
    keyboard_defaults();
    scanning_ = true;
    leds_ = 0;
    keyboard_waits_for_ = 0;
    last_sent_ = 0;
    update_irqs();
}

void I8042::keyboard_defaults() {
    scan_code_set_ = 2;
    replied_ = 0;
    head_ = 0;
    queued_ = 0;
    release_prefix_ = false;
}

bool I8042::press(std::span<const u8> scan_codes) {
    if (!scanning_ || scan_codes.size() > space()) return false;
    for (const u8 code : scan_codes) queue_[(head_ + queued_++) % queue_size] = code;
    fill();
    return true;
}

bool I8042::key_ready() const {
    return replied_ > 0 || queued_ > 0;
}

// Moves the next byte into the output buffer if that is free. Bounded: at most the queue's F0h prefixes are
// consumed on the way.
void I8042::fill() {
    if (!output_full_ && displaced_valid_) {
        displaced_valid_ = false;
        output_ = displaced_;
        output_source_ = Source::keyboard;
        output_full_ = true;
    }
    while (!output_full_ && key_ready() && (memory_[0] & control_keyboard_off) == 0) {
        u8 code = 0;
        bool key = false;
        if (replied_ > 0) {
            code = replies_[0];
            --replied_;
            for (unsigned i = 0; i < replied_; ++i) replies_[i] = replies_[i + 1];
        } else {
            code = queue_[head_];
            head_ = (head_ + 1) % queue_size;
            --queued_;
            key = true;
        }
        last_sent_ = code;
        // In set 1 the keyboard itself does what the controller's translation does.
        if ((memory_[0] & control_translate) != 0 || (key && scan_code_set_ == 1)) {
            if (code == release_code) {
                release_prefix_ = true;
                continue;
            }
            code = translate(code);
            if (release_prefix_) code |= 0x80;
            release_prefix_ = false;
        }
        output_ = code;
        output_source_ = Source::keyboard;
        output_full_ = true;
    }
    update_irqs();
}

void I8042::update_irqs() {
    const bool auxiliary = output_source_ == Source::auxiliary || output_source_ == Source::auxiliary_timeout;
    keyboard_irq_.set(output_full_ && !auxiliary && (memory_[0] & control_keyboard_interrupt) != 0);
    auxiliary_irq_.set(output_full_ && auxiliary && (memory_[0] & control_auxiliary_interrupt) != 0);
}

// A byte of the controller's own. The keyboard's that waits to be read is kept for later.
void I8042::respond(u8 value, Source source) {
    if (output_full_ && output_source_ == Source::keyboard && !displaced_valid_) {
        displaced_ = output_;
        displaced_valid_ = true;
    }
    // The request falls and comes back: a new edge for a new byte.
    output_full_ = false;
    update_irqs();
    output_ = value;
    output_source_ = source;
    output_full_ = true;
    update_irqs();
}

u8 I8042::status() const {
    u8 value = status_unlocked;
    if (output_full_) {
        value |= status_output_full;
        if (output_source_ == Source::auxiliary) value |= status_auxiliary;
        if (output_source_ == Source::auxiliary_timeout) value |= status_auxiliary | status_timeout;
    }
    if ((memory_[0] & control_system) != 0) value |= status_system;
    if (command_last_) value |= status_command;
    return value;
}

u8 I8042::read_byte(u64 offset) {
    if (offset == 1) return status();
    if (offset != 0) return 0xFF;
    const u8 value = output_;
    if (output_full_) {
        output_full_ = false;
        update_irqs();
        fill();
    }
    return value;
}

void I8042::write_byte(u64 offset, u8 value) {
    if (offset == 1) {
        command_last_ = true;
        command(value);
    } else if (offset == 0) {
        command_last_ = false;
        if (last_command_ != 0) {
            parameter(value);
        } else {
            // Sending to the keyboard enables its clock.
            memory_[0] &= static_cast<u8>(~control_keyboard_off);
            keyboard_command(value);
        }
    }
    fill();
}

void I8042::command(u8 value) {
    last_command_ = 0;
    if (value >= 0x20 && value < 0x40) {
        respond(memory_[value & 0x1F], Source::controller);
        return;
    }
    if ((value >= 0x60 && value < 0x80) || (value >= 0xD1 && value <= 0xD4)) {
        last_command_ = value;
        return;
    }
    if (value >= 0xF0) {
        // Pulses those of the output port's lines 0-3 whose bits are clear; line 0 is RESET.
        if (!has_bit(value, 0)) power_.reset_machine();
        return;
    }
    switch (value) {
        case 0xA4: respond(0xF1, Source::controller); break;  // no password is set
        case 0xA7: memory_[0] |= control_auxiliary_off; break;
        case 0xA8: memory_[0] &= static_cast<u8>(~control_auxiliary_off); break;
        case 0xA9:
        case 0xAB: respond(0x00, Source::controller); break;  // the port is sound
        case 0xAA:
            memory_[0] |= control_system;
            respond(0x55, Source::controller);
            break;
        case 0xAD: memory_[0] |= control_keyboard_off; break;
        case 0xAE: memory_[0] &= static_cast<u8>(~control_keyboard_off); break;
        case 0xC0: respond(input_port, Source::controller); break;
        case 0xD0: {
            u8 port = output_not_reset | output_a20 | output_lines_idle;
            if (output_full_) {
                port |= output_source_ == Source::auxiliary ? output_auxiliary_irq : output_keyboard_irq;
            }
            respond(port, Source::controller);
            break;
        }
        case 0xE0: respond(0x00, Source::controller); break;  // both clocks low: test inputs
        default: break;                                       // A20 (DDh, DFh) and what nobody knows
    }
}

void I8042::parameter(u8 value) {
    const u8 command = last_command_;
    last_command_ = 0;
    switch (command) {
        case 0xD1:
            if ((value & output_not_reset) == 0) power_.reset_machine();
            break;
        case 0xD2: respond(value, Source::controller); break;
        case 0xD3: respond(value, Source::auxiliary); break;
        case 0xD4: respond(keyboard_resend, Source::auxiliary_timeout); break;
        default: memory_[command & 0x1F] = value; break;
    }
}

void I8042::reply(u8 value) {
    if (replied_ < reply_size) replies_[replied_++] = value;
}

void I8042::keyboard_command(u8 value) {
    const u8 waiting = keyboard_waits_for_;
    keyboard_waits_for_ = 0;
    // A parameter; a byte that is a command (EDh and above) ends the wait and is taken as such.
    if (waiting != 0 && value < 0xED) {
        if (waiting == 0xED) leds_ = value & 7;
        if (waiting == 0xF0) {
            if (value > 2) {
                reply(keyboard_resend);
                return;
            }
            reply(keyboard_ack);
            if (value == 0) {
                reply(scan_code_set_);
            } else {
                scan_code_set_ = value;
            }
            return;
        }
        reply(keyboard_ack);
        return;
    }
    // A new command puts an end to what the last one still had to say.
    replied_ = 0;
    switch (value) {
        case 0xED:  // LEDs
        case 0xF0:  // scan code set
        case 0xF3:  // typematic rate
        case 0xFB:
        case 0xFC:
        case 0xFD:  // a key's kind, in set 3
            keyboard_waits_for_ = value;
            reply(keyboard_ack);
            break;
        case 0xEE: reply(0xEE); break;
        case 0xF2:
            reply(keyboard_ack);
            reply(0xAB);
            reply(0x83);
            break;
        case 0xF4:
            scanning_ = true;
            reply(keyboard_ack);
            break;
        case 0xF5:
        case 0xF6:
            keyboard_defaults();
            scanning_ = value == 0xF6;
            reply(keyboard_ack);
            break;
        case 0xF7:
        case 0xF8:
        case 0xF9:
        case 0xFA: reply(keyboard_ack); break;
        case 0xFE: reply(last_sent_); break;
        case 0xFF:
            keyboard_defaults();
            scanning_ = true;
            leds_ = 0;
            reply(keyboard_ack);
            reply(keyboard_passed);
            break;
        default: reply(keyboard_resend); break;
    }
}

}  // namespace bulkhead
