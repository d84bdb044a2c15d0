// What answers quick exits, for the tests of a vendor's backend: a VM's chips without memory, and the
// policies.
#pragma once

#include <catch2/catch.hpp>

#include "tests/fakes/fake_machine.hpp"
#include "vmm/quick_exits.hpp"
#include "vmm/virtual_machine.hpp"

namespace bulkhead {

class QuickWorld final : public Surroundings {
  public:
    explicit QuickWorld(VcpuBackend& backend)
        : vm(machine, *this, {.number = 1, .vcpus = 1, .memory = 0, .assist = ApicAssist::none}),
          apic(page, vm.clock(), vm.interrupts(), {.bootstrap = true}),
          quick(vm, 0,
                {.backend = backend, .apic = apic, .cpuid = cpuid, .clock = vm.clock(), .state = msrs}) {
        REQUIRE(vm.wire().has_value());
        REQUIRE(cpuid.build(machine, {}).has_value());
        backend.quick = &quick;
        quick.account.begin(0);
    }

    void serial_output(u16, u8) override {}
    void wake(u16, unsigned) override {}
    bool survives_machine_check(u16) override { return true; }

    [[nodiscard]] u64 count(ExitReason reason) const { return quick.account.statistics.of(reason).count; }

    alignas(4096) u8 page[4096] = {};
    FakeMachine machine;
    VirtualMachine vm;
    LocalApic apic;
    CpuidPolicy cpuid;
    MsrState msrs{};
    QuickExits quick;
};

}  // namespace bulkhead
