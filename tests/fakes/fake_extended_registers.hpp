// The registers behind vmm/extended_state.hpp's link seam, of the one processor of the tests.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "vmm/extended_state.hpp"

namespace bulkhead {

struct FakeExtendedRegisters {
    u64 xcr0 = 1;
    u64 tsc_aux = 0;
    unsigned tsc_aux_writes = 0;
    std::map<u32, u64> debug;
    std::vector<u8> file;                 // x87 to AVX-512, as XRSTOR or FXRSTOR left it
    std::vector<std::string> operations;  // in order
    // Where saving and restoring of the file is noted as well, among what else happens there.
    std::vector<std::string>* journal = nullptr;
};

FakeExtendedRegisters& fake_extended_registers();
FakeExtendedRegisters& new_fake_extended_registers();

}  // namespace bulkhead
