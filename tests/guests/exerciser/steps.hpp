// What a step does: one instruction, or a few, that exits, faults or strikes.
#pragma once

#include "tests/guests/exerciser/processor.hpp"
#include "tests/guests/exerciser/stream.hpp"

// Of the command line.
struct Limits {
    bool avoids_control = false;  // writes no control registers
    bool avoids_locks = false;    // locks no memory
    u64 processors = 1;
    u64 kinds = ~u64{0};  // bit n: kind n of steps is among them
    u64 deadly = 0;       // one in so many steps is one that the machine does not survive; 0: none
};
extern Limits limits;

void do_step(Processor& self, u64 seed, u64 step);
// The APIC as it is between the steps.
void calm_apic();
void restore_apic_base(const Processor& self);
