// What VT-x reports of an exit, decoded from a VMCS with anything in it. Guests choose a good deal of it:
// addresses, ports, registers, vectors.
#include "arch/x86/vmx/control_bits.hpp"
#include "arch/x86/vmx/events.hpp"
#include "arch/x86/vmx/exit_decode.hpp"
#include "arch/x86/vmx/vmcs_access.hpp"
#include "tests/fuzz/fuzz.hpp"

using namespace bulkhead;

namespace {

fuzz::Input* source;
unsigned reads, writes;

void check_event(const Event& event) {
    MUST(static_cast<u8>(event.type) <= static_cast<u8>(Event::Type::software_exception));
    MUST(event.instruction_length <= 15);
    for (const bool protected_mode : {false, true}) {
        const vmx::EntryEvent entry = vmx::encode_event(event, protected_mode, true);
        MUST(has_bit(entry.information, 31) && (entry.information & 0x7FFFF000) == 0);
        const u8 vector = event.type == Event::Type::nmi ? u8{2} : event.vector.raw();
        MUST((entry.information & 0xFF) == vector);
        MUST(protected_mode || !has_bit(entry.information, 11));
        MUST(entry.error_code <= 0xFFFF || !has_bit(entry.information, 11) || event.error_code);
        MUST(entry.instruction_length <= 15);
    }
}

}  // namespace

// The VMCS: a field is what the input says when it is read, so that a second read may say otherwise.
extern "C" {
u64 bulkhead_vmread(u64 encoding) {
    ++reads;
    const u64 value = source->number();
    switch (extract(encoding, 14, 13)) {
        case 0: return value & 0xFFFF;
        case 2: return value & 0xFFFFFFFF;
        default: return value;
    }
}
VmxResult bulkhead_vmwrite(u64, u64) {
    ++writes;
    return VmxResult::succeed;
}
void bulkhead_vmwrite_unchecked(u64, u64) {
    ++writes;
}
}

void fuzz_one(fuzz::Input& in) {
    source = &in;
    while (!in.empty()) {
        reads = writes = 0;
        GeneralRegisters registers{};
        registers.rcx = in.number();
        const u64 reason = in.flag() ? in.byte() % 80U : in.number();
        const Exit exit = vmx::decode_exit(reason, registers, in.flag());
        MUST(reads <= 12 && writes <= 2);
        MUST(exit.reason < ExitReason::count && exit.instruction_length <= 15 && exit.raw_code == reason);
        MUST(!name_of(exit.reason).empty());
        constexpr u64 machine_check_in_entry = bit(31) | vmx::basic_exit_reason::entry_failure_machine_check;
        if (reason == machine_check_in_entry) {
            MUST(exit.reason == ExitReason::exception);
            MUST(exit.exception.event.vector == exception::machine_check);
        } else if (has_bit(reason, 31)) {
            MUST(exit.reason == ExitReason::entry_failure);
        }
        if (exit.interrupted) check_event(*exit.interrupted);
        switch (exit.reason) {
            case ExitReason::port_io:
                MUST(exit.port.size >= 1 && exit.port.size <= 8);
                if (exit.port.string_details) {
                    MUST(static_cast<u8>(exit.port.segment) <= static_cast<u8>(SegmentName::gs));
                    MUST(exit.port.address_size == 2 || exit.port.address_size == 4 ||
                         exit.port.address_size == 8);
                }
                break;
            case ExitReason::control_register:
                MUST(exit.control.number < 16 && exit.control.general_register < 16);
                break;
            case ExitReason::debug_register:
                MUST(exit.debug.number < 8 && exit.debug.general_register < 16);
                break;
            case ExitReason::exception: check_event(exit.exception.event); break;
            case ExitReason::apic_access:
            case ExitReason::apic_write: MUST(exit.apic.offset < page_size); break;
            case ExitReason::msr_read:
            case ExitReason::msr_write:
                MUST(exit.msr.index == MsrIndex(static_cast<u32>(registers.rcx)));
                break;
            default: break;
        }
    }
}
