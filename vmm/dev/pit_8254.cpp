#include "vmm/dev/pit_8254.hpp"

#include "kernel/base/bits.hpp"

namespace bulkhead {

namespace {

constexpr u8 gate2_bit = 0;
constexpr u8 port61_writable = 0x0F;

// Counter 1 requests a refresh every 18 cycles on a PC; port 61h bit 4 toggles with each.
constexpr u64 refresh_period = 18;

constexpr u32 from_bcd(u32 digits) {
    return ((digits >> 12) & 15) * 1000 + ((digits >> 8) & 15) * 100 + ((digits >> 4) & 15) * 10 +
           (digits & 15);
}

constexpr u32 to_bcd(u32 n) {
    return (n / 1000 % 10) << 12 | (n / 100 % 10) << 8 | (n / 10 % 10) << 4 | n % 10;
}

}  // namespace

i64 Pit8254::Counter::elapsed(u64 now) const {
    return counting ? static_cast<i64>(now - start) : static_cast<i64>(frozen);
}

// Intel 8254 data sheet, "Mode definitions".
bool Pit8254::Counter::out(u64 now) const {
    if (!loaded) return mode != 0;
    const i64 e = elapsed(now);
    switch (mode) {
        case 0: return e >= count;
        case 1: return e < 0 || e >= count;
        case 2:
        case 3: return !gate || e < 0 || static_cast<u64>(e) % count < high_part(count);
        default: return e != count;
    }
}

u16 Pit8254::Counter::value(u64 now) const {
    const u32 modulus = bcd ? 10000 : 65536;
    const i64 e = elapsed(now);
    u32 n = count;
    if (loaded && e > 0) {
        const u64 cycles = static_cast<u64>(e);
        if (mode == 2) {
            n = count - static_cast<u32>(cycles % count);
        } else if (mode == 3) {
            // Counts by two through each half; an odd count is made even first.
            u32 position = static_cast<u32>(cycles % count);
            if (position >= high_part(count)) position -= high_part(count);
            n = (count & ~1u) - 2 * position;
        } else {
            n = (count + modulus - static_cast<u32>(cycles % modulus)) % modulus;
        }
    } else if (loaded && mode == 3) {
        n = count & ~1u;
    }
    n %= modulus;
    return static_cast<u16>(bcd ? to_bcd(n) : n);
}

bool Pit8254::Counter::null_count(u64 now) const {
    return !loaded || pending || elapsed(now) < 0 || (!periodic() && count != reload);
}

u64 Pit8254::Counter::rise_after(u64 cycle) const {
    if (!loaded || !counting) return never;
    switch (mode) {
        case 0: return cycle < start + count ? start + count : never;
        case 2:
        case 3: {
            if (pending) {
                return pending_falls ? pending_at - high_part(reload) + reload : pending_at;
            }
            const i64 e = static_cast<i64>(cycle - start);
            return e < 0 ? start + count : start + (static_cast<u64>(e) / count + 1) * count;
        }
        case 4: return cycle < start + count + 1 ? start + count + 1 : never;
        default: return never;  // modes 1 and 5 wait for a gate that never moves on counter 0
    }
}

// Takes a count over that was written while the counter ran (modes 2 and 3), once its time has come, and
// moves `start` up to the present period.
void Pit8254::Counter::advance(u64 now) {
    if (!periodic() || !loaded || !counting) return;
    if (pending && now >= pending_at) {
        count = reload;
        start = pending_falls ? pending_at - high_part(count) : pending_at;
        pending = false;
    }
    const i64 e = elapsed(now);
    if (e >= count) start += static_cast<u64>(e) / count * count;
}

void Pit8254::Counter::program(u8 control) {
    const u8 field = (control >> 1) & 7;
    mode = field >= 6 ? field - 4 : field;
    access = (control >> 4) & 3;
    bcd = has_bit(control, 0);
    reload = 0;
    loaded = false;
    counting = false;
    pending = false;
    frozen = 0;
    high_byte_next_write = false;
    high_byte_next_read = false;
    latched_bytes = 0;
    status_latched = false;
}

void Pit8254::Counter::set_count(u32 n, u64 now) {
    const u32 modulus = bcd ? 10000 : 65536;
    n = (bcd ? from_bcd(n) : n) % modulus;
    advance(now);
    reload = n == 0 ? modulus : n;
    if (mode == 1 || mode == 5) return;  // taken over by the next trigger
    if (periodic() && loaded && counting) {
        // Taken over at the end of the present period, in mode 3 of the present half.
        if (pending) return;
        const bool high = static_cast<u64>(elapsed(now) < 0 ? 0 : elapsed(now)) < high_part(count);
        pending = true;
        pending_falls = mode == 3 && high && high_part(count) < count;
        pending_at = start + (pending_falls ? high_part(count) : count);
        return;
    }
    count = reload;
    loaded = true;
    counting = gate;
    start = now + 1;
    frozen = 0;
}

void Pit8254::Counter::set_gate(bool level, u64 now) {
    if (level == gate) return;
    advance(now);
    const i64 e = elapsed(now);
    gate = level;
    switch (mode) {
        case 0:
        case 4:
            if (!loaded) break;
            if (level) {
                start = now - frozen;
            } else {
                frozen = e < 0 ? 0 : static_cast<u64>(e);
            }
            counting = level;
            break;
        case 2:
        case 3:
            pending = false;
            frozen = e < 0 ? 0 : static_cast<u64>(e);
            counting = false;
            [[fallthrough]];
        default:
            // A rising gate triggers: the counter is loaded in the next cycle.
            if (!level || reload == 0) break;
            count = reload;
            loaded = true;
            counting = true;
            start = now + 1;
            break;
    }
}

void Pit8254::Counter::write(u8 byte, u64 now) {
    switch (access) {
        case 1: set_count(byte, now); break;
        case 2: set_count(static_cast<u32>(byte) << 8, now); break;
        default:
            if (!high_byte_next_write) {
                low_byte = byte;
                high_byte_next_write = true;
                if (mode == 0) {
                    // The first byte stops the count, with OUT low.
                    loaded = false;
                    counting = false;
                }
            } else {
                high_byte_next_write = false;
                set_count(static_cast<u32>(byte) << 8 | low_byte, now);
            }
            break;
    }
}

u8 Pit8254::Counter::read(u64 now) {
    if (status_latched) {
        status_latched = false;
        return status;
    }
    advance(now);
    u16 shown = latched;
    if (latched_bytes > 0) {
        --latched_bytes;
    } else {
        shown = value(now);
    }
    bool high = access == 2;
    if (access == 3) {
        high = high_byte_next_read;
        high_byte_next_read = !high_byte_next_read;
    }
    return static_cast<u8>(high ? shown >> 8 : shown);
}

// A count that is latched and not yet read stays.
void Pit8254::Counter::latch_count(u64 now) {
    if (latched_bytes > 0) return;
    advance(now);
    latched = value(now);
    latched_bytes = access == 3 ? 2 : 1;
    high_byte_next_read = false;
}

void Pit8254::Counter::latch_status(u64 now) {
    if (status_latched) return;
    advance(now);
    status_latched = true;
    status = static_cast<u8>((out(now) ? 0x80 : 0) | (null_count(now) ? 0x40 : 0) | access << 4 | mode << 1 |
                             (bcd ? 1 : 0));
}

void Pit8254::reset() {
    for (Counter& counter : counters_) counter = {};
    counters_[2].gate = false;
    port61_ = 0;
    next_rise_ = never;
    deadline_ = never;
    last_rise_ = 0;
    irq_.set(false);
}

void Pit8254::schedule(u64 now) {
    const Counter& counter = counters_[0];
    u64 after = now;
    if (counter.periodic() && counter.count < shortest_period && last_rise_ != 0 &&
        after < last_rise_ + shortest_period) {
        after = last_rise_ + shortest_period - 1;
    }
    next_rise_ = counter.rise_after(after);
    deadline_ = next_rise_ == never ? never : pit_oscillator.first_tick(clock_, next_rise_);
}

void Pit8254::expire() {
    const u64 cycle = now();
    if (cycle < next_rise_) return;
    counters_[0].advance(cycle);
    last_rise_ = cycle;
    schedule(cycle);
    irq_.set(false);
    irq_.set(true);
}

u8 Pit8254::read_byte(u64 offset) {
    const u64 cycle = now();
    switch (offset) {
        case 0:
        case 1:
        case 2: return counters_[offset].read(cycle);
        case 4: {
            counters_[2].advance(cycle);
            const u8 refresh = static_cast<u8>(cycle / refresh_period & 1);
            const u8 out2 = counters_[2].out(cycle) ? 1 : 0;
            return static_cast<u8>(port61_ | refresh << 4 | out2 << 5);
        }
        default: return 0xFF;
    }
}

void Pit8254::write_byte(u64 offset, u8 value) {
    const u64 cycle = now();
    switch (offset) {
        case 0:
        case 1:
        case 2:
            counters_[offset].write(value, cycle);
            if (offset == 0) {
                // A count in mode 0 takes OUT low.
                if (counters_[0].mode == 0) irq_.set(false);
                schedule(cycle);
            }
            break;
        case 3: write_control(value, cycle); break;
        case 4:
            port61_ = value & port61_writable;
            counters_[2].set_gate(has_bit(value, gate2_bit), cycle);
            break;
        default: break;
    }
}

void Pit8254::write_control(u8 value, u64 now) {
    const u8 select = value >> 6;
    if (select == 3) {
        // Read-back: bits 5 and 4 are active low.
        for (unsigned i = 0; i < 3; ++i) {
            if (!has_bit(value, i + 1)) continue;
            if (!has_bit(value, 5)) counters_[i].latch_count(now);
            if (!has_bit(value, 4)) counters_[i].latch_status(now);
        }
        return;
    }
    Counter& counter = counters_[select];
    if ((value & 0x30) == 0) {
        counter.latch_count(now);
        return;
    }
    counter.program(value);
    if (select == 0) {
        if (counter.mode == 0) irq_.set(false);
        schedule(now);
    }
}

}  // namespace bulkhead
