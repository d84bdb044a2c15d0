// #VMEXIT to the neutral Exit. AMD APM Vol. 2, 15.6-15.13 and appendix C (rev. 3.41).
#pragma once

#include <optional>

#include "arch/x86/svm/capabilities.hpp"
#include "arch/x86/svm/vmcb.hpp"
#include "vmm/exit.hpp"

namespace bulkhead::svm {

// What the VMCB says of the last exit. VINTR becomes an interrupt window, IRET is the backend's own business
// and comes out as spurious. `registers`: the guest's, as of the exit.
[[nodiscard]] Exit decode_exit(const Vmcb& vmcb, const GeneralRegisters& registers,
                               const Capabilities& capabilities);

// EVENTINJ and EXITINTINFO have one format.
[[nodiscard]] u64 encode_event(const Event& event);
[[nodiscard]] std::optional<Event> decode_event(u64 info);

}  // namespace bulkhead::svm
