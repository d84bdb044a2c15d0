// #VMEXIT to the neutral Exit. AMD APM Vol. 2, 15.6-15.13 and appendix C (rev. 3.41).
#pragma once

#include <optional>

#include "arch/x86/svm/capabilities.hpp"
#include "arch/x86/svm/vmcb.hpp"
#include "kernel/base/bits.hpp"
#include "vmm/exit.hpp"

namespace bulkhead::svm {

// What the VMCB says of the last exit. VINTR becomes an interrupt window, IRET is the backend's own business
// and comes out as spurious. `registers`: the guest's, as of the exit.
[[nodiscard]] Exit decode_exit(const Vmcb& vmcb, const GeneralRegisters& registers,
                               const Capabilities& capabilities);

// What EXITINFO1 says of IN, OUT, INS or OUTS. APM Vol. 2, 15.10.2.
[[nodiscard]] inline PortAccess port_access(u64 info) {
    return {.port = Port(static_cast<u16>(info >> 16)),
            .size = static_cast<u8>(has_bit(info, 6)   ? 4
                                    : has_bit(info, 5) ? 2
                                                       : 1),
            .in = has_bit(info, 0),
            .string = has_bit(info, 2),
            .repeat = has_bit(info, 3)};
}

// EXITINFO2 is the address of the instruction behind, with or without nRIP. 0: no length of an instruction.
[[nodiscard]] inline u8 port_instruction_length(const Vmcb& vmcb) {
    const u64 length = vmcb.control.exit_info2 - vmcb.state.rip;
    return length <= 15 ? static_cast<u8>(length) : u8{0};
}

// EVENTINJ and EXITINTINFO have one format.
[[nodiscard]] u64 encode_event(const Event& event);
[[nodiscard]] std::optional<Event> decode_event(u64 info);

}  // namespace bulkhead::svm
