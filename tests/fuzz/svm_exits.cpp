// What AMD-V reports of an exit, decoded from a VMCB with anything in it.
#include "arch/x86/svm/exit_decode.hpp"
#include "tests/fuzz/fuzz.hpp"

using namespace bulkhead;

void fuzz_one(fuzz::Input& in) {
    static svm::Vmcb vmcb;
    while (!in.empty()) {
        svm::VmcbControl& control = vmcb.control;
        const u8 shape = in.byte();
        control.exit_code = (shape & 1) != 0 ? in.byte() % 0x90U : (shape & 2) != 0 ? 0x400 : in.number();
        control.exit_info1 = in.number();
        control.exit_info2 = in.number();
        control.exit_interrupt_info = (shape & 4) != 0 ? in.value<u64>() : 0;
        control.next_rip = in.number();
        control.fetched_byte_count = in.byte();
        vmcb.state.rip = in.flag() ? control.next_rip - in.byte() : in.number();
        svm::Capabilities capabilities{};
        capabilities.next_rip = (shape & 8) != 0;
        capabilities.decode_assists = (shape & 0x10) != 0;
        GeneralRegisters registers{};
        registers.rcx = in.number();

        const Exit exit = svm::decode_exit(vmcb, registers, capabilities);
        MUST(exit.reason < ExitReason::count && exit.instruction_length <= 15);
        MUST(exit.raw_code == control.exit_code);
        if (exit.interrupted) {
            // It can be delivered again as it is.
            const auto again = svm::decode_event(svm::encode_event(*exit.interrupted));
            MUST(again && again->type == exit.interrupted->type &&
                 again->vector == exit.interrupted->vector &&
                 again->error_code == exit.interrupted->error_code);
        }
        switch (exit.reason) {
            case ExitReason::port_io:
                MUST(exit.port.size == 1 || exit.port.size == 2 || exit.port.size == 4);
                break;
            case ExitReason::control_register:
                MUST(exit.control.number < 16 && exit.control.general_register < 16);
                break;
            case ExitReason::debug_register:
                MUST(exit.debug.number < 16 && exit.debug.general_register < 16);
                break;
            case ExitReason::exception: MUST(exit.exception.event.vector.raw() < 32); break;
            case ExitReason::nested_page_fault: MUST(exit.nested.byte_count <= 15); break;
            default: break;
        }
    }
}
