// A fake of VT-x for the host tests: VMCSs in a map, and a processor whose exits the test scripts. It
// implements the link seams vmcs_access.hpp and processor_access.hpp; that of vmm/extended_state.hpp is
// tests/fakes/fake_extended_registers.hpp, which notes in `operations` what it is asked to move.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "arch/x86/vmx/processor_access.hpp"
#include "arch/x86/vmx/vmcs_access.hpp"

namespace bulkhead {

struct FakeVmx {
    struct Vmcs {
        std::map<u32, u64> fields;
        bool launched = false;
        bool active = false;
    };

    std::map<u64, Vmcs> memory;  // by physical address
    u64 current = ~u64{0};
    u32 instruction_error = 0;
    std::set<u32> missing_fields;         // VMREAD and VMWRITE of these fail
    std::vector<u32> reads;               // encodings, in order
    std::vector<std::string> operations;  // other instructions, in order

    // What the guest does between entry and exit; returns the exit-reason field.
    std::function<u64(GeneralRegisters&)> guest = [](GeneralRegisters&) { return u64{10}; };
    bool fail_entry = false;
    unsigned entries = 0, guarded_entries = 0;
    unsigned nmis_taken = 0;

    u32 core = 0;         // that runs the test
    vmx::HostState host;  // and its state

    u64 tsc = 1'000'000;
    u64 cr2 = 0;
    std::map<u32, u64> msrs;

    std::map<u32, u64>& fields() { return memory[current].fields; }
    u64 operator[](const auto& field) { return fields()[field.encoding]; }
    template <class T, vmcs::Access access>
    void set(const vmcs::Field<T, access>& field, std::type_identity_t<T> value) {
        fields()[field.encoding] = vmcs::to_raw(value);
    }
};

// The one processor of the tests; each test starts with a new one.
FakeVmx& fake_vmx();
FakeVmx& new_fake_vmx();

}  // namespace bulkhead
