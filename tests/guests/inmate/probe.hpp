// How a probe reports: one line a case, "PROBE id case PASS|FAIL|SKIP reason". The ids are those of the list
// of threats: a letter for the area and the number of the threat.
#pragma once

#include "tests/guests/runtime/runtime.hpp"

struct Fault {
    u64 vector;
    u64 error = 0;
};
constexpr Fault general_protection{13}, undefined{6}, not_available{7}, debug{1};

void pass(const char* id, const Text& name);
void fail(const char* id, const Text& name, const Text& why);
void skip(const char* id, const Text& name, const char* why);
bool check(const char* id, const Text& name, bool holds, const Text& otherwise = {});
bool check_equal(const char* id, const Text& name, u64 is, u64 wanted);
// "avoid=NAME,NAME" on the command line: cases whose names begin so are skipped, for they would end this
// machine.
bool avoided(const char* id, const Text& name);
void print_totals();

// Whether the features of the virtual machine are Intel's or AMD's, and which there are.
struct Machine {
    bool intel = false;
    bool amd = false;
    CpuidResult one{}, seven{}, extended{}, extended8{};
    u64 xcr0 = 0;  // what XCR0 may hold
    unsigned physical_bits = 36;
    u64 tsc_per_us = 1;
};
extern Machine machine;
void learn_machine();

// The code faults at its first instruction (or `offset` bytes in) and has changed no register.
bool faults(const char* id, const Text& name, const Code& code, Fault wanted, const Entry& in = {},
            Mode mode = Mode::long0, usize offset = 0);
// The code runs to its end.
bool runs(const char* id, const Text& name, const Code& code, const Entry& in = {}, Mode mode = Mode::long0);

// One register loaded; the others hold a pattern each.
Entry with(unsigned name, u64 value);
Entry with(unsigned a, u64 value_a, unsigned b, u64 value_b);
Entry with_msr(u32 index, u64 value);
// All registers hold a pattern, but for RSP.
Entry pattern();

void probe_reset_state();
void probe_msrs();
void probe_control_registers();
void probe_instructions();
void probe_events();
void probe_strings();
void probe_ports();
void probe_mmio();
void probe_apic();
void probe_x2apic();
void probe_memory();
