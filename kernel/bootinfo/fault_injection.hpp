// Faults around the hypervisor that a debug build provokes on demand: host option inject=NAME[,NAME...]. Each
// is done to the hardware or to what is read from it, as near to the source as can be, so that everything
// behind it is what runs on a broken machine. A release build does not know the option and has no code for
// it.
#pragma once

#include <string_view>

#include "kernel/base/bits.hpp"
#include "kernel/base/result.hpp"

namespace bulkhead {

#ifdef BULKHEAD_FAULT_INJECTION
constexpr bool fault_injection = true;
#else
constexpr bool fault_injection = false;
#endif

enum class Fault : u8 {
    // While the machine is started.
    uart_absent,      // the console's UART fails its loop-back test
    uart_stuck,       // its transmitter is never ready, until something was received
    no_rsdp,          // no ACPI root pointer anywhere
    bad_madt,         // the MADT's checksum is wrong
    pm_timer_silent,  // the ACPI PM timer stands still
    tsc_unstable,     // the TSC's rate changes from measurement to measurement
    timer_silent,     // the local APIC's timer counts, but neither mode ever interrupts
    deadline_silent,  // its TSC-deadline mode does not
    vmx_locked,       // IA32_FEATURE_CONTROL: locked, VT-x off
    svm_locked,       // VM_CR: SVMDIS, locked
    vmxon,            // VMXON fails on core 0
    core_asleep,      // core 1 does not start
    core_vmxon,       // VMXON fails on core 2
    every_barrier,    // the processor seems to need, and have, each barrier against speculation
    // When a VM is made.
    allocation,  // fails: the first of the first creation, the second of the next, and so on
    vm_entry,    // the control fields of the second VM are illegal
    // Once the console is there and has nothing to do; in this order, each once.
    unexpected_interrupt,     // one of a vector that nobody handles
    spurious_interrupt,       // the local APIC's spurious vector
    nmi,                      // from this core to itself
    corrected_machine_check,  // a bank of error registers holds a corrected error
    memory_of_vm,             // #MC: uncorrected, in RAM of the last VM that is created
    interrupt_storm,          // the console's UART interrupts without end
    core_silent,              // core 1 hangs for three seconds
    core_lost,                // core 2 hangs for ever
    first_core_silent,        // as does core 0
    general_protection,
    page_fault,
    invalid_opcode,
    indirect_branch,  // to where no function begins, on a processor that tracks indirect branches
    return_address,   // overwritten on the stack, on a processor with shadow stacks
    double_fault,
    stack_overflow,
    assertion,
    machine_check,  // #MC: uncorrected, in the hypervisor's memory
    count
};

class FaultSet {
  public:
    [[nodiscard]] constexpr bool has(Fault fault) const {
        return has_bit(faults_, static_cast<unsigned>(fault));
    }
    constexpr void add(Fault fault) { faults_ |= bit(static_cast<unsigned>(fault)); }
    // True if it was there; it no longer is.
    [[nodiscard]] constexpr bool take(Fault fault) {
        const bool had = has(fault);
        faults_ &= ~bit(static_cast<unsigned>(fault));
        return had;
    }
    [[nodiscard]] constexpr bool empty() const { return faults_ == 0; }

  private:
    u64 faults_ = 0;
};

// As written in the option: "nmi", "page-fault".
[[nodiscard]] std::string_view name_of(Fault fault);
// The value of the option. Fails with the first word that is no fault.
[[nodiscard]] Result<FaultSet> parse_faults(std::string_view value);

}  // namespace bulkhead
