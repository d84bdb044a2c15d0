// VMX instructions, as the pure code sees them. The image implements these few functions in assembly
// (arch/x86/cpu/vmx_instructions.asm), the host tests with a fake VMCS: a seam at link time, so that the exit
// path pays a call and nothing more.
// Intel SDM Vol. 3C, chapter 31 "VMX instruction reference" (June 2023 edition).
#pragma once

#include <concepts>

#include "arch/x86/vmx/vmcs_fields.hpp"
#include "kernel/base/result.hpp"

namespace bulkhead {

// How a VMX instruction ended: VMsucceed, VMfailInvalid (there is no current VMCS, so no error number), or
// VMfailValid (the VM-instruction error field of the current VMCS has the number).
enum class VmxResult : u8 { succeed = 0, fail_invalid = 1, fail_valid = 2 };

// Operand of INVEPT and INVVPID.
struct InvalidateDescriptor {
    u64 first;   // INVEPT: the EPT pointer; INVVPID: the VPID
    u64 second;  // INVEPT: zero; INVVPID: a linear address
};
enum class InveptType : u64 { single_context = 1, all_contexts = 2 };
enum class InvvpidType : u64 { individual_address = 0, single_context = 1, all_contexts = 2 };

extern "C" {
// Whatever where VMREAD fails: no field of ours is absent once set-up has written or probed it.
u64 bulkhead_vmread(u64 encoding);
VmxResult bulkhead_vmwrite(u64 encoding, u64 value);
void bulkhead_vmwrite_unchecked(u64 encoding, u64 value);
VmxResult bulkhead_vmptrld(u64 vmcs);
VmxResult bulkhead_vmclear(u64 vmcs);
VmxResult bulkhead_vmxon(u64 region);
VmxResult bulkhead_vmxoff();
VmxResult bulkhead_invept(InveptType type, const InvalidateDescriptor* descriptor);
VmxResult bulkhead_invvpid(InvvpidType type, const InvalidateDescriptor* descriptor);
}

namespace vmcs {

// The current VMCS of this core.
template <class T, Access access>
[[nodiscard]] T read(const Field<T, access>& field) {
    return static_cast<T>(bulkhead_vmread(field.encoding));
}

// The value has to be of the field's very type: nothing narrows in silence, and a field is no value.
template <class T, std::same_as<T> U>
void write(const ReadWrite<T>& field, U value) {
    bulkhead_vmwrite_unchecked(field.encoding, to_raw(value));
}

// For set-up: says which field this processor's VMCS refuses.
template <class T, std::same_as<T> U>
[[nodiscard]] Result<> write_checked(const ReadWrite<T>& field, U value);

}  // namespace vmcs

// The VM-instruction error numbers' meanings. Intel SDM Vol. 3C, table 31-1 (June 2023 edition).
[[nodiscard]] std::string_view vm_instruction_error_name(u32 number);

// Why the instruction failed, in words: reads the VM-instruction error field where there is one.
[[nodiscard]] std::string_view explain_vmx_failure(VmxResult result);

template <class T, std::same_as<T> U>
Result<> vmcs::write_checked(const ReadWrite<T>& field, U value) {
    const VmxResult result = bulkhead_vmwrite(field.encoding, to_raw(value));
    if (result == VmxResult::succeed) return {};
    return fail("HV-E207: VMWRITE of the {} failed: {}; the VM cannot run on this processor", field.name,
                explain_vmx_failure(result));
}

}  // namespace bulkhead
