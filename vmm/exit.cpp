#include "vmm/exit.hpp"

namespace bulkhead {

std::string_view name_of(ExitReason reason) {
    switch (reason) {
        case ExitReason::external_interrupt: return "external interrupt";
        case ExitReason::host_nmi: return "NMI";
        case ExitReason::preemption: return "preemption timer";
        case ExitReason::interrupt_window: return "interrupt window";
        case ExitReason::nmi_window: return "NMI window";
        case ExitReason::exception: return "exception";
        case ExitReason::cpuid: return "CPUID";
        case ExitReason::hlt: return "HLT";
        case ExitReason::pause: return "PAUSE";
        case ExitReason::monitor: return "MONITOR";
        case ExitReason::mwait: return "MWAIT";
        case ExitReason::rdpmc: return "RDPMC";
        case ExitReason::rdtsc: return "RDTSC";
        case ExitReason::invd: return "INVD";
        case ExitReason::wbinvd: return "WBINVD";
        case ExitReason::invlpg: return "INVLPG";
        case ExitReason::xsetbv: return "XSETBV";
        case ExitReason::hypercall: return "hypercall";
        case ExitReason::port_io: return "port I/O";
        case ExitReason::msr_read: return "RDMSR";
        case ExitReason::msr_write: return "WRMSR";
        case ExitReason::control_register: return "control register";
        case ExitReason::debug_register: return "debug register";
        case ExitReason::descriptor_table: return "descriptor table";
        case ExitReason::nested_page_fault: return "nested page fault";
        case ExitReason::apic_access: return "APIC access";
        case ExitReason::apic_write: return "APIC write";
        case ExitReason::virtual_eoi: return "virtual EOI";
        case ExitReason::tpr_below_threshold: return "TPR below threshold";
        case ExitReason::task_switch: return "task switch";
        case ExitReason::triple_fault: return "triple fault";
        case ExitReason::init_signal: return "INIT";
        case ExitReason::sipi: return "SIPI";
        case ExitReason::undefined_instruction: return "undefined instruction";
        case ExitReason::page_modification_log_full: return "page-modification log full";
        case ExitReason::spurious: return "spurious";
        case ExitReason::answered: return "answered";
        case ExitReason::entry_failure: return "VM-entry failure";
        case ExitReason::hardware_error: return "hardware error";
        case ExitReason::count: break;
    }
    return "unknown";
}

std::string_view name_of(HostCause cause) {
    switch (cause) {
        case HostCause::tick: return "tick";
        case HostCause::kick: return "kick";
        case HostCause::device: return "device";
        case HostCause::count: break;
    }
    return "unknown";
}

}  // namespace bulkhead
