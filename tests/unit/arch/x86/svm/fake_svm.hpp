// A fake of AMD-V for the host tests: a processor whose exits the test scripts. It implements the link seam
// processor_access.hpp.
#pragma once

#include <functional>
#include <vector>

#include "arch/x86/svm/processor_access.hpp"
#include "arch/x86/svm/vmcb.hpp"

namespace bulkhead::svm {

struct FakeSvm {
    // What VMRUN was given.
    struct Entry {
        VmcbControl control;
        VmcbState state;
        GeneralRegisters registers;
    };

    Vmcb* vmcb = nullptr;
    u64 vmcb_physical = 0;
    // What the guest does between entry and exit. EVENTINJ was delivered, its valid bit is clear.
    std::function<void(GeneralRegisters&, Vmcb&)> guest = [](GeneralRegisters&, Vmcb& control_block) {
        control_block.control.exit_code = exit_code::cpuid;
    };

    std::vector<Entry> entries;
    unsigned guarded_entries = 0;
    std::vector<u64> deadlines;  // of the host's timer
    u64 tsc = 1'000'000;
    bool host_interrupt_first = false;  // before the virtual one
    bool only_timer_waits = false;      // when the host takes its interrupts
    unsigned interrupts_taken = 0;
};

FakeSvm& fake_svm();
FakeSvm& new_fake_svm();

}  // namespace bulkhead::svm
