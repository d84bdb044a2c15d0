// Machine checks of the running core: errors that the processor or the memory reports. Corrected ones are
// counted by whoever polls; one that loses a page of memory is noted for whoever knows whose it is; any other
// ends in a panic.
#pragma once

#include "arch/x86/regs/machine_check.hpp"
#include "kernel/base/format.hpp"
#include "kernel/base/types.hpp"
#include "kernel/mem/lost_pages.hpp"

namespace bulkhead {

// Turns reporting on and forgets what the banks hold from before. On each core, after configure_core().
void enable_machine_checks();

struct CorrectedErrors {
    u32 count = 0;  // banks that held one
    u32 bank = 0;   // the last of them
    u64 status = 0;
};
// Takes corrected errors from the running core's banks.
[[nodiscard]] CorrectedErrors poll_corrected_errors();

// #MC in host code: true if the core can go on where it was. lost_pages tells what it costs.
[[nodiscard]] bool survive_machine_check();
// #MC that ended a guest's turn on this core: true if the guest can go on. A panic where the host cannot.
[[nodiscard]] bool survive_machine_check_of_guest();
extern LostPages lost_pages;

// The error that survive_machine_check() would not survive, in one line.
void print_fatal_machine_check(Sink& sink);

#ifdef BULKHEAD_FAULT_INJECTION
// What bank 0 of every core holds until it is cleared, in place of what is really there.
extern machine_check::Bank injected_bank;
#endif

}  // namespace bulkhead
