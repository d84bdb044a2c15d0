// The virtual machine control block: one page that holds what to intercept and the guest's state.
// AMD APM Vol. 2, appendix B (rev. 3.41).
#pragma once

#include <cstddef>

#include "arch/x86/regs/cpuid.hpp"
#include "kernel/base/bits.hpp"
#include "kernel/base/types.hpp"

namespace bulkhead::svm {

// Attributes are descriptor bits 40-47 in bits 0-7 and 52-55 in bits 8-11.
struct VmcbSegment {
    u16 selector = 0;
    u16 attributes = 0;
    u32 limit = 0;
    u64 base = 0;
};
static_assert(sizeof(VmcbSegment) == 16);

struct VmcbControl {
    u32 intercept_cr = 0;          // reads in bits 0-15, writes in bits 16-31
    u32 intercept_dr = 0;          // likewise
    u32 intercept_exceptions = 0;  // by vector
    u32 intercept_misc1 = 0;       // intercept1::
    u32 intercept_misc2 = 0;       // intercept2::
    u32 intercept_misc3 = 0;
    u8 reserved_018[0x3C - 0x18] = {};
    u16 pause_filter_threshold = 0;
    u16 pause_filter_count = 0;
    u64 iopm_base = 0;   // physical, 12 KiB
    u64 msrpm_base = 0;  // physical, 8 KiB
    u64 tsc_offset = 0;
    u32 asid = 0;
    u8 tlb_control = 0;  // TlbControl
    u8 reserved_05d[3] = {};
    u64 virtual_interrupt = 0;  // vintr::
    u64 interrupt_shadow = 0;   // bit 0
    u64 exit_code = 0;
    u64 exit_info1 = 0;
    u64 exit_info2 = 0;
    u64 exit_interrupt_info = 0;  // event_info::
    u64 nested_control = 0;       // bit 0: nested paging
    u64 avic_apic_bar = 0;
    u64 ghcb = 0;
    u64 event_injection = 0;  // event_info::
    u64 nested_cr3 = 0;
    u64 virtualization_extensions = 0;  // bit 0: LBR, bit 1: virtual VMSAVE/VMLOAD
    u32 clean = 0;                      // clean::
    u32 reserved_0c4 = 0;
    u64 next_rip = 0;
    u8 fetched_byte_count = 0;
    u8 fetched_bytes[15] = {};
    u8 reserved_0e0[0x400 - 0xE0] = {};
};
static_assert(offsetof(VmcbControl, pause_filter_threshold) == 0x3C);
static_assert(offsetof(VmcbControl, asid) == 0x58);
static_assert(offsetof(VmcbControl, virtual_interrupt) == 0x60);
static_assert(offsetof(VmcbControl, exit_code) == 0x70);
static_assert(offsetof(VmcbControl, event_injection) == 0xA8);
static_assert(offsetof(VmcbControl, clean) == 0xC0);
static_assert(offsetof(VmcbControl, fetched_byte_count) == 0xD0);
static_assert(sizeof(VmcbControl) == 0x400);

struct VmcbState {
    VmcbSegment es, cs, ss, ds, fs, gs, gdtr, ldtr, idtr, tr;
    u8 reserved_0a0[0xCB - 0xA0] = {};
    u8 cpl = 0;
    u32 reserved_0cc = 0;
    u64 efer = 0;
    u8 reserved_0d8[0x148 - 0xD8] = {};
    u64 cr4 = 0;
    u64 cr3 = 0;
    u64 cr0 = 0;
    u64 dr7 = 0;
    u64 dr6 = 0;
    u64 rflags = 0;
    u64 rip = 0;
    u8 reserved_180[0x1D8 - 0x180] = {};
    u64 rsp = 0;
    u64 s_cet = 0;
    u64 ssp = 0;
    u64 isst_address = 0;
    u64 rax = 0;
    u64 star = 0;
    u64 lstar = 0;
    u64 cstar = 0;
    u64 sfmask = 0;
    u64 kernel_gs_base = 0;
    u64 sysenter_cs = 0;
    u64 sysenter_esp = 0;
    u64 sysenter_eip = 0;
    u64 cr2 = 0;
    u8 reserved_248[0x268 - 0x248] = {};
    u64 pat = 0;
    u64 debugctl = 0;
    u8 reserved_278[0xC00 - 0x278] = {};
};
static_assert(offsetof(VmcbState, cpl) == 0xCB);
static_assert(offsetof(VmcbState, efer) == 0xD0);
static_assert(offsetof(VmcbState, cr4) == 0x148);
static_assert(offsetof(VmcbState, rip) == 0x178);
static_assert(offsetof(VmcbState, rsp) == 0x1D8);
static_assert(offsetof(VmcbState, rax) == 0x1F8);
static_assert(offsetof(VmcbState, cr2) == 0x240);
static_assert(offsetof(VmcbState, pat) == 0x268);
static_assert(offsetof(VmcbState, debugctl) == 0x270);

struct alignas(page_size) Vmcb {
    VmcbControl control;
    VmcbState state;
};
static_assert(sizeof(Vmcb) == page_size);

enum class TlbControl : u8 {
    nothing = 0,
    flush_all = 1,
    flush_this_asid = 3,
    flush_this_asid_non_global = 7
};

namespace intercept1 {
constexpr u32 intr = bit<u32>(0), nmi = bit<u32>(1), smi = bit<u32>(2), init = bit<u32>(3),
              vintr = bit<u32>(4), rdtsc = bit<u32>(14), rdpmc = bit<u32>(15), cpuid = bit<u32>(18),
              rsm = bit<u32>(19), iret = bit<u32>(20), invd = bit<u32>(22), pause = bit<u32>(23),
              hlt = bit<u32>(24), invlpg = bit<u32>(25), invlpga = bit<u32>(26), ioio = bit<u32>(27),
              msr = bit<u32>(28), task_switch = bit<u32>(29), ferr_freeze = bit<u32>(30),
              shutdown = bit<u32>(31);
}
namespace intercept2 {
constexpr u32 vmrun = bit<u32>(0), vmmcall = bit<u32>(1), vmload = bit<u32>(2), vmsave = bit<u32>(3),
              stgi = bit<u32>(4), clgi = bit<u32>(5), skinit = bit<u32>(6), rdtscp = bit<u32>(7),
              icebp = bit<u32>(8), wbinvd = bit<u32>(9), monitor = bit<u32>(10), mwait = bit<u32>(11),
              mwait_armed = bit<u32>(12), xsetbv = bit<u32>(13), rdpru = bit<u32>(14);
}

namespace vintr {
constexpr u64 tpr_mask = 0xFF, irq = bit(8), gif = bit(9), priority_shift = 16, ignore_tpr = bit(20),
              masking = bit(24), vector_shift = 32;
constexpr u64 request = irq | u64{0xF} << priority_shift | ignore_tpr;
}  // namespace vintr

// EVENTINJ and EXITINTINFO.
namespace event_info {
constexpr u64 type_shift = 8, has_error_code = bit(11), valid = bit(31), error_code_shift = 32;
constexpr u64 type_interrupt = 0, type_nmi = 2, type_exception = 3, type_software = 4;
}  // namespace event_info

// State that has not changed since the last VMRUN of this VMCB on this core and need not be read again.
// AMD APM Vol. 2, 15.15 (rev. 3.41).
namespace clean {
constexpr u32 intercepts = bit<u32>(0), iopm = bit<u32>(1), asid = bit<u32>(2), tpr = bit<u32>(3),
              nested_paging = bit<u32>(4), control_registers = bit<u32>(5), debug_registers = bit<u32>(6),
              descriptor_tables = bit<u32>(7), segments = bit<u32>(8), cr2 = bit<u32>(9), lbr = bit<u32>(10),
              avic = bit<u32>(11);
constexpr u32 all = intercepts | iopm | asid | tpr | nested_paging | control_registers | debug_registers |
                    descriptor_tables | segments | cr2 | lbr | avic;
}  // namespace clean

// Exit codes. AMD APM Vol. 2, appendix C (rev. 3.41).
namespace exit_code {
constexpr u64 cr_read = 0x00, cr_write = 0x10, dr_read = 0x20, dr_write = 0x30, exception = 0x40,
              exception_last = 0x5F, intr = 0x60, nmi = 0x61, smi = 0x62, init = 0x63, vintr = 0x64,
              cr0_selective_write = 0x65, idtr_read = 0x66, tr_write = 0x6D, rdtsc = 0x6E, rdpmc = 0x6F,
              pushf = 0x70, popf = 0x71, cpuid = 0x72, rsm = 0x73, iret = 0x74, software_interrupt = 0x75,
              invd = 0x76, pause = 0x77, hlt = 0x78, invlpg = 0x79, invlpga = 0x7A, ioio = 0x7B, msr = 0x7C,
              task_switch = 0x7D, ferr_freeze = 0x7E, shutdown = 0x7F, vmrun = 0x80, vmmcall = 0x81,
              vmload = 0x82, vmsave = 0x83, stgi = 0x84, clgi = 0x85, skinit = 0x86, rdtscp = 0x87,
              icebp = 0x88, wbinvd = 0x89, monitor = 0x8A, mwait = 0x8B, mwait_armed = 0x8C, xsetbv = 0x8D,
              rdpru = 0x8E, nested_fault = 0x400, invalid = ~u64{0};
}

}  // namespace bulkhead::svm
