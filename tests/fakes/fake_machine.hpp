// A physical machine whose time the test moves.
#pragma once

#include <atomic>

#include "tests/unit/vmm/policy_bench.hpp"
#include "vmm/physical_machine.hpp"

namespace bulkhead {

class FakeMachine final : public PhysicalMachine {
  public:
    FakeMachine() : tables(intel_machine()) {}

    [[nodiscard]] CpuidResult cpuid(u32 leaf, u32 subleaf) const override {
        return tables.cpuid(leaf, subleaf);
    }
    [[nodiscard]] u64 tsc() const override { return now.load(std::memory_order_relaxed); }
    [[nodiscard]] u64 tsc_hz() const override { return 2'400'000'000; }
    [[nodiscard]] u64 wall_clock() const override { return seconds; }

    TablePhysicalMachine tables;
    std::atomic<u64> now = 1'000'000;
    u64 seconds = 1'700'000'000;
};

}  // namespace bulkhead
