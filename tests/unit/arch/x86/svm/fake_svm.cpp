#include "fake_svm.hpp"

#include <catch2/catch.hpp>

namespace bulkhead::svm {
namespace {
FakeSvm instance;
}

FakeSvm& fake_svm() {
    return instance;
}
FakeSvm& new_fake_svm() {
    instance = FakeSvm{};
    return instance;
}

extern "C" {

void bulkhead_svm_enter(GeneralRegisters* registers, u64 vmcb) {
    REQUIRE(vmcb == instance.vmcb_physical);
    Vmcb& block = *instance.vmcb;
    instance.entries.push_back({.control = block.control, .state = block.state, .registers = *registers});
    block.control.exit_interrupt_info = 0;
    block.control.event_injection &= ~event_info::valid;
    if ((block.control.intercept_misc1 & intercept1::vintr) == 0 && !instance.host_interrupt_first)
        block.control.virtual_interrupt &= ~vintr::irq;
    block.control.exit_info1 = block.control.exit_info2 = 0;
    block.control.interrupt_shadow = 0;
    instance.guest(*registers, block);
}

void bulkhead_svm_enter_guarded(GeneralRegisters* registers, u64 vmcb) {
    ++instance.guarded_entries;
    bulkhead_svm_enter(registers, vmcb);
}

u64 bulkhead_svm_rdtsc() {
    return instance.tsc;
}

bool bulkhead_svm_take_timer() {
    ++instance.interrupts_taken;
    return instance.only_timer_waits;
}

void bulkhead_svm_arm_timer(u64 deadline) {
    instance.deadlines.push_back(deadline);
}

}  // extern "C"

}  // namespace bulkhead::svm
