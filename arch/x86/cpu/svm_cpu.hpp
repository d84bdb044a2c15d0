// AMD-V on the running core: is it there, on, off, and what the world switch needs of the host.
#pragma once

#include "arch/x86/svm/capabilities.hpp"
#include "kernel/base/result.hpp"

namespace bulkhead {

// CPUID and VM_CR: what every VM needs is there. Changes nothing.
[[nodiscard]] Result<svm::Capabilities> detect_svm();

// Sets EFER.SVME. `save_area`, for the processor's own use, and `host_vmcb`, for the host's FS, GS, TR and
// SYSCALL registers as they are now, are a page each, of the core's own.
[[nodiscard]] Result<> enable_svm(HostPhysical save_area, HostPhysical host_vmcb);

// The host's timer that brings a core back from its guest; called with the TSC value to fire at, ~0 for none.
// count: how often this core's timer has interrupted it.
void set_svm_timer(void (*arm)(u64 deadline), u64 (*count)());

}  // namespace bulkhead
