// One thing done over and over again, or once for good, instead of random steps.
#pragma once

#include "tests/guests/exerciser/processor.hpp"

// By name, on each processor; returns if there is none of that name.
void attack(Processor& self, const char* name);
