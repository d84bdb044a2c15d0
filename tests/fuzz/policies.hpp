// A processor's policies over a physical machine that the input alters: real ones with some words changed.
#pragma once

#include "arch/x86/regs/msr.hpp"
#include "tests/fuzz/fuzz.hpp"
#include "tests/unit/vmm/policy_bench.hpp"
#include "vmm/cpuid_policy.hpp"

namespace bulkhead::fuzz {

class Machine final : public PhysicalMachine {
  public:
    explicit Machine(Input& in) {
        static const TablePhysicalMachine machines[] = {intel_machine(), amd_machine()};
        base_ = &machines[in.below(2)];
        const unsigned count = in.byte() % 6U;
        for (unsigned i = 0; i < count; ++i) {
            const u8 leaf = in.byte();
            changes_[i] = {leaf < 0x80 ? leaf % 0x20U : 0x80000000U + leaf % 0x24U, in.byte() % 10U,
                           in.byte(), static_cast<u32>(in.number()), true};
        }
    }
    [[nodiscard]] CpuidResult cpuid(u32 leaf, u32 subleaf) const override {
        CpuidResult result = base_->cpuid(leaf, subleaf);
        for (const Change& change : changes_) {
            if (!change.used || change.leaf != leaf || change.subleaf != subleaf) continue;
            u32* const words[] = {&result.eax, &result.ebx, &result.ecx, &result.edx};
            *words[change.word % 4] = change.value;
        }
        return result;
    }
    [[nodiscard]] u64 tsc() const override { return now; }
    [[nodiscard]] u64 tsc_hz() const override { return 2'400'000'000; }
    [[nodiscard]] u64 wall_clock() const override { return 1'700'000'000; }

    u64 now = 1'000'000;

  private:
    struct Change {
        u32 leaf, subleaf, word, value;
        bool used = false;
    };
    const TablePhysicalMachine* base_;
    Change changes_[6] = {};
};

inline CpuidParameters make_parameters(Input& in) {
    CpuidParameters parameters;
    const u8 shape = in.byte();
    parameters.vcpus = 1 + in.byte() % 16U;
    parameters.vcpu = in.byte() % parameters.vcpus;
    parameters.threads_per_core = 1 + (shape & 1);
    parameters.tsc_hz = (shape & 2) != 0 ? in.number() : 2'400'000'000;
    parameters.timer_hz = (shape & 4) != 0 ? in.number() : 0;
    parameters.x2apic = (shape & 8) == 0;
    parameters.tsc_deadline = (shape & 0x10) == 0;
    parameters.monitor = (shape & 0x20) != 0;
    parameters.la57 = (shape & 0x40) != 0;
    parameters.xsaves = (shape & 0x80) != 0;
    return parameters;
}

}  // namespace bulkhead::fuzz
