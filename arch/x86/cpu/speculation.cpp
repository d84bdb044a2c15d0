#include "arch/x86/cpu/speculation.hpp"

#include "arch/x86/cpu/descriptor_tables.hpp"
#include "arch/x86/cpu/injected_faults.hpp"
#include "arch/x86/cpu/intrinsics.hpp"
#include "arch/x86/cpu/per_cpu.hpp"
#include "arch/x86/regs/control.hpp"
#include "arch/x86/regs/msr.hpp"

namespace bulkhead {

// Read by speculation.inc.
struct SpeculationData {
    u32 barriers = 0;
    u32 host_spec_ctrl = 0, guest_spec_ctrl = 0;  // bits 63:32 are reserved
    u32 writable_selector = data_selector;        // VERW's operand: what it finds there does not matter
};
extern "C" SpeculationData bulkhead_speculation;
SpeculationData bulkhead_speculation;

namespace {

constinit SpeculationFacts facts{};
constinit Mitigations decided{};
constinit bool is_decided = false;

[[nodiscard]] SpeculationLeaves read_leaves() {
    SpeculationLeaves leaves;
    leaves.leaf0 = cpu::cpuid(0);
    const u32 highest = leaves.leaf0.eax, highest_extended = cpu::cpuid(0x8000'0000).eax;
    leaves.leaf1 = cpu::cpuid(1);
    if (highest >= 7) {
        leaves.leaf7 = cpu::cpuid(7);
        if (leaves.leaf7.eax >= 2) leaves.leaf7_2 = cpu::cpuid(7, 2);
    }
    if (highest >= 0xB) leaves.topology = cpu::cpuid(0xB);
    if (highest_extended >= 0x8000'0008) leaves.extended8 = cpu::cpuid(0x8000'0008);
    if (highest_extended >= 0x8000'001E) leaves.extended_1e = cpu::cpuid(0x8000'001E);
    if (highest_extended >= 0x8000'0021) leaves.extended_21 = cpu::cpuid(0x8000'0021);
    constexpr u32 has_architecture = bit<u32>(29);
    if ((leaves.leaf7.edx & has_architecture) != 0)
        leaves.architecture = cpu::read_msr_safe(msr::arch_capabilities).value_or(0);
    return leaves;
}

void issue(Barrier barrier, MsrIndex command) {
    if (!decided.uses(barrier)) return;
    cpu::write_msr(command, 1);
    ++this_core().barriers[static_cast<usize>(barrier)];
}

}  // namespace

void start_mitigations_on_this_core() {
    if (!is_decided) {
        facts = read_speculation_facts(read_leaves());
        decided = decide_mitigations(facts);
        is_decided = true;
        if (injected(Fault::every_barrier)) {
            decided.barriers = static_cast<u32>(low_mask(barrier_count));
            decided.host_spec_ctrl = 1;
        }
        bulkhead_speculation.barriers = decided.barriers;
        bulkhead_speculation.host_spec_ctrl = static_cast<u32>(decided.host_spec_ctrl);
        bulkhead_speculation.guest_spec_ctrl = static_cast<u32>(decided.guest_spec_ctrl);
    }
    if (decided.writes_spec_ctrl) cpu::write_msr(msr::spec_ctrl, decided.host_spec_ctrl);
    if (decided.automatic_ibrs) cpu::write_msr(msr::efer, cpu::read_msr(msr::efer) | efer::aibrse);
}

const SpeculationFacts& speculation_facts() {
    return facts;
}
const Mitigations& mitigations() {
    return decided;
}

void flush_for_guest(const GuestSwitch::Flush& flush) {
    if (flush.predictor) issue(Barrier::ibpb_on_switch, msr::pred_cmd);
    if (flush.data) issue(Barrier::l1d_flush_on_switch, msr::flush_cmd);
}

u64 barrier_count_of(u32 cpu, Barrier barrier) {
    return __atomic_load_n(&core_data(cpu).barriers[static_cast<usize>(barrier)], __ATOMIC_RELAXED);
}

}  // namespace bulkhead
