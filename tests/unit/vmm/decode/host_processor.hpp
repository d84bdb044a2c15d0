// Runs one instruction on the processor that runs the tests, with given registers and flags.
#pragma once

#include "kernel/base/bytes.hpp"
#include "vmm/cpu_state.hpp"

namespace bulkhead::test {

struct HostState {
    GeneralRegisters gprs{};
    u64 flags = 0;
    u64 host_rsp = 0;
};

// A page of code, to be created once.
class HostProcessor {
  public:
    HostProcessor();
    ~HostProcessor();
    HostProcessor(const HostProcessor&) = delete;
    HostProcessor& operator=(const HostProcessor&) = delete;

    // Executes `instruction` in ring 3, 64-bit code. It must neither fault nor transfer.
    void run(Bytes instruction, HostState& state);

  private:
    u8* code_;
};

// Memory below 4 GiB, so that 32-bit addresses reach it. Null where there is none to be had.
u8* map_low_memory(u64 address, u64 size);

}  // namespace bulkhead::test
