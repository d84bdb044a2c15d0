#include "fake_vmcs.hpp"

#include "tests/fakes/fake_extended_registers.hpp"

namespace bulkhead {
namespace {
FakeVmx instance;

u64 width_mask(u64 encoding) {
    switch (extract(encoding, 14, 13)) {
        case 0: return 0xFFFF;
        case 2: return 0xFFFF'FFFF;
        default: return ~u64{0};
    }
}
}  // namespace

FakeVmx& fake_vmx() {
    return instance;
}
FakeVmx& new_fake_vmx() {
    instance = FakeVmx{};
    instance.current = 0x1000;
    instance.memory[0x1000].active = true;
    new_fake_extended_registers().journal = &instance.operations;
    return instance;
}

extern "C" {

u64 bulkhead_vmread(u64 encoding) {
    auto& fake = fake_vmx();
    fake.reads.push_back(static_cast<u32>(encoding));
    if (encoding == vmcs::vm_instruction_error.encoding) return fake.instruction_error;
    if (fake.missing_fields.contains(static_cast<u32>(encoding))) return 0;
    return fake.fields()[static_cast<u32>(encoding)];
}

VmxResult bulkhead_vmwrite(u64 encoding, u64 value) {
    auto& fake = fake_vmx();
    if (!fake.memory.contains(fake.current)) return VmxResult::fail_invalid;
    if (fake.missing_fields.contains(static_cast<u32>(encoding))) {
        fake.instruction_error = 12;
        return VmxResult::fail_valid;
    }
    if (extract(encoding, 11, 10) == 1) {
        fake.instruction_error = 13;
        return VmxResult::fail_valid;
    }
    fake.fields()[static_cast<u32>(encoding)] = value & width_mask(encoding);
    return VmxResult::succeed;
}
void bulkhead_vmwrite_unchecked(u64 encoding, u64 value) {
    (void)bulkhead_vmwrite(encoding, value);
}

VmxResult bulkhead_vmptrld(u64 address) {
    auto& fake = fake_vmx();
    fake.operations.push_back("vmptrld");
    if ((address & 0xFFF) != 0) {
        fake.instruction_error = 9;
        return VmxResult::fail_valid;
    }
    fake.current = address;
    fake.memory[address].active = true;
    return VmxResult::succeed;
}
VmxResult bulkhead_vmclear(u64 address) {
    auto& fake = fake_vmx();
    fake.operations.push_back("vmclear");
    if ((address & 0xFFF) != 0) {
        fake.instruction_error = 2;
        return VmxResult::fail_valid;
    }
    fake.memory[address].launched = false;
    fake.memory[address].active = false;
    if (fake.current == address) fake.current = ~u64{0};
    return VmxResult::succeed;
}
VmxResult bulkhead_vmxon(u64) {
    return VmxResult::succeed;
}
VmxResult bulkhead_vmxoff() {
    return VmxResult::succeed;
}
VmxResult bulkhead_invept(InveptType type, const InvalidateDescriptor* descriptor) {
    fake_vmx().operations.push_back("invept " + std::to_string(static_cast<u64>(type)) + " " +
                                    std::to_string(descriptor->first));
    return VmxResult::succeed;
}
VmxResult bulkhead_invvpid(InvvpidType type, const InvalidateDescriptor* descriptor) {
    fake_vmx().operations.push_back("invvpid " + std::to_string(static_cast<u64>(type)) + " " +
                                    std::to_string(descriptor->first));
    return VmxResult::succeed;
}

u64 bulkhead_vmx_enter_guarded(GeneralRegisters* registers, bool launched) {
    ++fake_vmx().guarded_entries;
    return bulkhead_vmx_enter(registers, launched);
}

u64 bulkhead_vmx_enter(GeneralRegisters* registers, bool launched) {
    auto& fake = fake_vmx();
    auto& vmcs = fake.memory[fake.current];
    ++fake.entries;
    if (fake.fail_entry || launched != vmcs.launched) {
        if (!fake.fail_entry) fake.instruction_error = launched ? 5 : 4;
        return bulkhead_vmx_failed;
    }
    vmcs.fields[vmcs::guest_rsp.encoding] = registers->rsp;
    const u64 reason = fake.guest(*registers);
    vmcs.fields[vmcs::exit_reason.encoding] = reason;
    registers->rsp = vmcs.fields[vmcs::guest_rsp.encoding];
    if ((reason & bit(31)) == 0) {
        vmcs.launched = true;
        vmcs.fields[vmcs::vm_entry_interruption_information.encoding] &= ~bit(31);
    }
    return reason;
}

void bulkhead_vmx_take_nmi() {
    ++fake_vmx().nmis_taken;
}
u32 bulkhead_vmx_core() {
    return fake_vmx().core;
}
void bulkhead_vmx_host_state(vmx::HostState* state) {
    *state = fake_vmx().host;
}
u64 bulkhead_vmx_rdtsc() {
    return fake_vmx().tsc;
}
u64 bulkhead_vmx_rdmsr(u32 index) {
    return fake_vmx().msrs[index];
}
void bulkhead_vmx_wrmsr(u32 index, u64 value) {
    fake_vmx().msrs[index] = value;
}
u64 bulkhead_vmx_read_cr2() {
    return fake_vmx().cr2;
}
void bulkhead_vmx_write_cr2(u64 value) {
    fake_vmx().cr2 = value;
}
}  // extern "C"

}  // namespace bulkhead
