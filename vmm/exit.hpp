// A VM exit in words both vendors share: the lower of the two seams between the VMM and its backends. A
// backend decodes what the hardware reported into this; everything above decides on this alone.
#pragma once

#include <optional>
#include <string_view>

#include "kernel/base/types.hpp"
#include "vmm/cpu_state.hpp"

namespace bulkhead {

enum class ExitReason : u8 {
    // First those that no instruction of the guest's asked for: they come between two instructions, or while
    // it sleeps in HLT.
    external_interrupt,  // a host interrupt; the host's own handlers have run or run on re-enabling
    host_nmi,            // likewise, an NMI of the host's
    preemption,          // the deadline given to run() has passed
    interrupt_window,    // the guest can take an external interrupt now
    nmi_window,          // the guest can take an NMI now
    exception,           // one of the intercepted exceptions
    cpuid,
    hlt,
    pause,
    monitor,
    mwait,
    rdpmc,
    rdtsc,
    invd,
    wbinvd,
    invlpg,
    xsetbv,
    hypercall,
    port_io,
    msr_read,
    msr_write,
    control_register,
    debug_register,
    descriptor_table,  // LGDT, SIDT, ... when intercepted
    nested_page_fault,
    apic_access,  // linear access to the APIC page under APIC virtualisation
    apic_write,   // after a virtualised APIC write that needs help
    virtual_eoi,  // EOI of a vector whose EOI-exit bit is set
    tpr_below_threshold,
    task_switch,
    triple_fault,
    init_signal,
    sipi,
    undefined_instruction,  // an instruction the virtual processor does not have (VMX, SVM, GETSEC, ENCLS,
                            // ...): #UD
    page_modification_log_full,
    spurious,        // nothing to do: re-enter
    answered,        // an exit that was answered and counted; look for events
    entry_failure,   // the hardware refused the guest's state; VcpuBackend::explain() says which field
    hardware_error,  // nested table misconfigured, unknown exit code, VMfail: this VM stops, with a report
    count
};

[[nodiscard]] std::string_view name_of(ExitReason reason);
[[nodiscard]] constexpr bool is_asynchronous(ExitReason reason) {
    return reason <= ExitReason::nmi_window;
}

// Why the host took the processor from a guest that had asked for nothing: neither by an instruction, nor by
// a timer of its own, nor by an interrupt of its own machine or of its other processors.
enum class HostCause : u8 {
    tick,    // its turn was over, or the core had something else to look after at that time
    kick,    // another core wanted something: a console command, or the scheduler
    device,  // an interrupt or NMI of the physical machine's
    count
};
[[nodiscard]] std::string_view name_of(HostCause cause);

struct PortAccess {
    Port port{};
    u8 size = 1;  // 1, 2 or 4
    bool in = false;
    bool string = false;
    bool repeat = false;
    // For string accesses, where the hardware says so: address size in bytes and the segment of an OUTS. When
    // string_details is false the instruction has to be decoded.
    bool string_details = false;
    u8 address_size = 8;
    SegmentName segment = SegmentName::ds;
};

struct MsrAccess {
    MsrIndex index{};
};

struct ControlRegisterAccess {
    enum class Kind : u8 { write, read, clts, lmsw };
    u8 number = 0;  // CR0, CR3, CR4, CR8
    Kind kind = Kind::write;
    u8 general_register = 0;  // 0..15, source or destination of a MOV
    u16 lmsw_value = 0;
    bool operands_known = true;  // false without decode assists: decode the instruction
};

struct DebugRegisterAccess {
    u8 number = 0;
    bool read = false;
    u8 general_register = 0;
    bool operands_known = true;
};

struct NestedPageFault {
    GuestPhysical address{};
    bool read = false;
    bool write = false;
    bool fetch = false;
    bool present = false;      // the nested entry was present: a permission fault, not a hole
    bool during_walk = false;  // the access was the guest's page walk's own, to a paging structure
    bool linear_known = false;
    GuestVirtual linear{};
    // The instruction's bytes where the hardware supplies them (AMD decode assists); 0 where it does not.
    u8 byte_count = 0;
    u8 bytes[15] = {};
};

struct ApicAccess {
    u16 offset = 0;  // into the APIC page
    bool write = false;
    bool fetch = false;
    bool during_event = false;
};

struct ExceptionExit {
    Event event{};
    u64 debug_status = 0;  // #DB: the DR6 bits of this exception
};

struct TaskSwitchExit {
    enum class Source : u8 { call, iret, jmp, gate };
    u16 selector = 0;
    Source source = Source::jmp;
};

struct Exit {
    ExitReason reason = ExitReason::spurious;
    // The length of the exiting instruction where the hardware tells it; 0: decode to know.
    u8 instruction_length = 0;
    // An event whose delivery through the guest's IDT this exit broke off; it is delivered again on entry
    // unless the exit's handling says otherwise.
    std::optional<Event> interrupted{};
    u64 raw_code = 0;  // the vendor's own code, for reports
    union {
        PortAccess port;
        MsrAccess msr;
        ControlRegisterAccess control;
        DebugRegisterAccess debug;
        NestedPageFault nested;
        ApicAccess apic;
        ExceptionExit exception;
        TaskSwitchExit task_switch;
        Vector vector;  // virtual_eoi, sipi
    };

    constexpr Exit() : vector{} {}
    constexpr explicit Exit(ExitReason r) : reason(r), vector{} {}
};

}  // namespace bulkhead
