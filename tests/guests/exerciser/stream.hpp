// The random numbers of a step.
#pragma once

#include "tests/guests/runtime/runtime.hpp"

// SplitMix64: a step's numbers depend on the seed, the processor and the step alone, so any step can be begun
// with.
class Stream {
  public:
    Stream(u64 seed, u64 processor, u64 step)
        : state_((seed + 1) * 0xD1342543DE82EF95 + (processor + 1) * 0xAF251AF3B0F025B5 +
                 step * 0x9E3779B97F4A7C15) {}
    u64 next() {
        u64 z = state_ += 0x9E3779B97F4A7C15;
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9;
        z = (z ^ z >> 27) * 0x94D049BB133111EB;
        return z ^ z >> 31;
    }
    u64 below(u64 limit) { return next() % limit; }
    bool one_in(u64 count) { return below(count) == 0; }
    template <class T, usize n>
    const T& of(const T (&list)[n]) {
        return list[below(n)];
    }
    // Edges more often than what lies between.
    u64 value() {
        const u64 random = next();
        switch (random & 7) {
            case 0: return 0;
            case 1: return ~u64{0};
            case 2: return bit(random >> 8 & 63);
            case 3: return bit(random >> 8 & 63) - 1;
            case 4: return random >> 32;
            case 5: return random >> 48;
            default: return next();
        }
    }

  private:
    u64 state_;
};
