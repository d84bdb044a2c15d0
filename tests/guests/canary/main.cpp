// The canary: a guest that sings as long as nothing is wrong. It paints its registers and its memory, lets
// time pass, and verifies them; ten times a second it prints a beat:
//   CANARY beats=N worst=US corrupt=N
// and "CANARY now K beats=..." when key K is pressed.
// worst is the longest time between two rounds so far, in microseconds: how long others kept the core.
// On its command line: marker=N, a number that is part of what it paints; rest=US, so long it halts between
// two rounds, until its timer wakes it.
#include "tests/guests/runtime/runtime.hpp"

extern "C" u64 hold_registers(u64 seed, u64 rounds);  // how many registers were not as painted

namespace {

constexpr u64 painted_at = 0x400000, word_count = 0x80000, timer_vector = 0xE0;

u64 paint(u64 marker, u64 index) {
    return marker ^ index * 0x9E3779B97F4A7C15;
}

void rest(u64 ticks) {
    wrmsr(0x6E0, rdtsc() + ticks);
    asm volatile("sti; hlt; cli" ::: "memory");
}

}  // namespace

extern "C" void guest_main() {
    const u64 marker = 0x414E4152590000 | (option("marker", 1) & 0xFFFF);
    const u64 beat = 100000 * ticks_per_microsecond();
    auto* const memory = reinterpret_cast<volatile u64*>(painted_at);
    for (u64 i = 0; i < word_count; ++i) memory[i] = i % 64 == 0 ? marker : paint(marker, i);
    wrmsr(0xC0000082, marker & low_bits(47));
    wrmsr(0xC0000102, marker & 0x7FFFFFFF);
    write_dr0(marker);
    write_dr3(~marker);
    write_cr2(marker);
    const u64 pause_between = option("rest", 0) * ticks_per_microsecond();
    if (pause_between != 0) {
        event_hook = [] {
            if (outcome.vector != timer_vector) return false;
            store<u32>(0xFEE000B0, 0);
            return true;
        };
        out8(0x21, 0xFF);
        out8(0xA1, 0xFF);
        store<u32>(0xFEE000F0, 0x1FF);
        store<u32>(0xFEE00320, 0x40000 | timer_vector);  // by the TSC's deadline
    }
    u64 beats = 0, worst = 0, corrupt = 0, verified = 0;
    u64 last = rdtsc(), next = last;
    for (;;) {
        if (pause_between != 0) rest(pause_between);
        corrupt += hold_registers(marker + beats, 500);
        if (rdmsr(0xC0000082) != (marker & low_bits(47)) || rdmsr(0xC0000102) != (marker & 0x7FFFFFFF))
            ++corrupt;
        if (read_dr0() != marker || read_dr3() != ~marker || read_cr2() != marker) ++corrupt;
        for (u64 i = verified; i < verified + 512; ++i)
            if (memory[i] != (i % 64 == 0 ? marker : paint(marker, i))) ++corrupt;
        verified = (verified + 512) % word_count;
        const u64 now = rdtsc();
        const u64 gap = (now - last) / ticks_per_microsecond();
        if (gap > worst) worst = gap;
        last = now;
        const int key = read_key();
        const bool asked = key >= 0;
        if (!asked && now - next < beat) continue;
        if (!asked) {
            next = now;
            ++beats;
        }
        Text line = "CANARY ";
        if (asked) line << "now " << static_cast<char>(key) << ' ';
        print(line << "beats=" << beats << " worst=" << worst << " corrupt=" << corrupt << "\r\n");
        last = rdtsc();
    }
}
