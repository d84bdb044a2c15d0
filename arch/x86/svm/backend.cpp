#include "arch/x86/svm/backend.hpp"

#include <cstring>

#include "arch/x86/regs/control.hpp"
#include "arch/x86/svm/exit_decode.hpp"
#include "arch/x86/svm/processor_access.hpp"

namespace bulkhead::svm {
namespace {

constexpr u16 to_attributes(const Segment& segment) {
    // A segment that must not be used is one that is not present.
    if (segment.unusable) return 0;
    return static_cast<u16>((segment.access & 0xFF) | ((segment.access >> 4) & 0xF00));
}

constexpr u16 to_access(u16 attributes) {
    return static_cast<u16>((attributes & 0xFF) | ((attributes & 0xF00) << 4));
}

constexpr u32 cr8_write = bit<u32>(16 + 8), cr4_write = bit<u32>(16 + 4);

// A guest that has slept so often with interrupts enabled, and never without, is one whose idle loop does so.
constexpr u8 idle_halts = 8;

}  // namespace

Backend::Backend(const Parameters& parameters)
    : capabilities_(parameters.capabilities),
      vmcb_(*parameters.vmcb),
      vmcb_physical_(parameters.vmcb_physical.raw()),
      enter_(parameters.guarded ? bulkhead_svm_enter_guarded : bulkhead_svm_enter),
      parameters_(parameters),
      extended_(parameters.extended_area, parameters.xcr0_supported, parameters.tsc_aux) {
    fill_msr_permissions(parameters.msr_permissions);
}

void Backend::set_intercepts() {
    VmcbControl& control = vmcb_.control;
    control.intercept_cr = parameters_.intercept_cr4 ? cr4_write : 0;
    control.intercept_dr = 0;
    // A guest that makes the processor raise #DB or #AC without end would otherwise never give it back; a
    // machine check is the host's (APM Vol. 2, 15.12).
    control.intercept_exceptions = bit<u32>(exception::debug.raw()) |
                                   bit<u32>(exception::alignment_check.raw()) |
                                   bit<u32>(exception::machine_check.raw());
    control.intercept_misc1 = intercept1::intr | intercept1::nmi | intercept1::smi | intercept1::init |
                              intercept1::rdpmc | intercept1::cpuid | intercept1::rsm | intercept1::invd |
                              intercept1::hlt | intercept1::invlpga | intercept1::ioio | intercept1::msr |
                              intercept1::task_switch | intercept1::ferr_freeze | intercept1::shutdown;
    control.intercept_misc2 = intercept2::vmrun | intercept2::vmmcall | intercept2::vmload |
                              intercept2::vmsave | intercept2::stgi | intercept2::clgi | intercept2::skinit |
                              intercept2::wbinvd | intercept2::monitor | intercept2::mwait |
                              intercept2::xsetbv | intercept2::rdpru;
}

// The state after RESET, as far as the VMCB holds it: AMD APM Vol. 2, table 14-1 (rev. 3.41).
void Backend::reset() {
    std::memset(static_cast<void*>(&vmcb_), 0, sizeof vmcb_);
    gprs = {};
    gprs.rdx = parameters_.signature;
    VmcbControl& control = vmcb_.control;
    set_intercepts();
    control.iopm_base = parameters_.io_permissions.raw();
    control.msrpm_base = parameters_.msr_permissions_physical.raw();
    control.asid = parameters_.asid;
    control.virtual_interrupt = vintr::masking;
    control.nested_control = 1;
    control.nested_cr3 = parameters_.nested_root.raw();

    VmcbState& state = vmcb_.state;
    constexpr u16 present = 0x80, code_or_data = 0x10;
    const VmcbSegment data{
        .selector = 0, .attributes = present | code_or_data | 3, .limit = 0xFFFF, .base = 0};
    state.es = state.ss = state.ds = state.fs = state.gs = data;
    state.cs = {
        .selector = 0xF000, .attributes = present | code_or_data | 0xB, .limit = 0xFFFF, .base = 0xFFFF0000};
    state.gdtr.limit = state.idtr.limit = 0xFFFF;
    state.ldtr = {.selector = 0, .attributes = present | 2, .limit = 0xFFFF, .base = 0};
    state.tr = {.selector = 0, .attributes = present | 0xB, .limit = 0xFFFF, .base = 0};
    state.cr0 = cr0::cd | cr0::nw | cr0::et;
    state.efer = efer::svme;
    state.rflags = rflags::reserved_one;
    state.rip = 0xFFF0;
    state.dr6 = 0xFFFF0FF0;
    state.dr7 = 0x400;
    state.pat = 0x0007'0406'0007'0406;

    extended_.reset();
    flush_wanted_ = true;
    nmi_window_ = nmi_blocked_ = iret_running_ = false;
    halts_ = 0;
}

u64& Backend::field(Register which) const {
    VmcbState& state = vmcb_.state;
    switch (which) {
        case Register::rip: return state.rip;
        case Register::rflags: return state.rflags;
        case Register::cr0: return state.cr0;
        case Register::cr2: return state.cr2;
        case Register::cr3: return state.cr3;
        case Register::cr4: return state.cr4;
        case Register::dr7: return state.dr7;
        case Register::efer: return state.efer;
        case Register::fs_base: return state.fs.base;
        case Register::gs_base: return state.gs.base;
        case Register::kernel_gs_base: return state.kernel_gs_base;
        case Register::star: return state.star;
        case Register::lstar: return state.lstar;
        case Register::cstar: return state.cstar;
        case Register::sfmask: return state.sfmask;
        case Register::sysenter_cs: return state.sysenter_cs;
        case Register::sysenter_esp: return state.sysenter_esp;
        case Register::sysenter_eip: return state.sysenter_eip;
        case Register::pat: return state.pat;
        case Register::debugctl:
        case Register::tsc_aux:
        case Register::count: break;
    }
    return state.debugctl;
}

u64 Backend::read(Register which) const {
    if (which == Register::tsc_aux) return extended_.tsc_aux();
    const u64 value = field(which);
    return which == Register::efer ? value & ~efer::svme : value;
}

void Backend::write(Register which, u64 value) {
    if (which == Register::tsc_aux) {
        extended_.set_tsc_aux(value);
        return;
    }
    VmcbState& state = vmcb_.state;
    field(which) = value;
    switch (which) {
        case Register::cr0:
        case Register::efer: {
            state.cr0 |= cr0::et;
            const bool long_mode = (state.efer & efer::lme) != 0 && (state.cr0 & cr0::pg) != 0;
            state.efer = (state.efer & ~efer::lma) | efer::svme | (long_mode ? efer::lma : 0);
            touch(clean::control_registers);
            flush_wanted_ = true;
            break;
        }
        case Register::cr3:
        case Register::cr4:
            touch(clean::control_registers);
            flush_wanted_ = true;
            break;
        case Register::cr2: touch(clean::cr2); break;
        case Register::dr7: touch(clean::debug_registers); break;
        case Register::fs_base:
        case Register::gs_base: touch(clean::segments); break;
        case Register::pat: touch(clean::nested_paging); break;
        case Register::debugctl: touch(clean::lbr); break;
        default: break;  // RIP, RFLAGS and what VMLOAD loads are read by every entry
    }
}

VmcbSegment& Backend::vmcb_segment(SegmentName which) const {
    VmcbState& state = vmcb_.state;
    switch (which) {
        case SegmentName::es: return state.es;
        case SegmentName::cs: return state.cs;
        case SegmentName::ss: return state.ss;
        case SegmentName::ds: return state.ds;
        case SegmentName::fs: return state.fs;
        case SegmentName::gs: return state.gs;
        case SegmentName::ldtr: return state.ldtr;
        case SegmentName::tr: break;
    }
    return state.tr;
}

Segment Backend::segment(SegmentName which) const {
    const VmcbSegment& from = vmcb_segment(which);
    Segment result{.selector = from.selector,
                   .base = from.base,
                   .limit = from.limit,
                   .access = to_access(from.attributes)};
    // SS.DPL is the CPL by definition; the processor keeps it in a field of its own.
    if (which == SegmentName::ss)
        result.access = static_cast<u16>(insert(result.access, 6, 5, vmcb_.state.cpl));
    result.unusable = !has_bit(from.attributes, 7);
    return result;
}

void Backend::set_segment(SegmentName which, const Segment& value) {
    vmcb_segment(which) = {.selector = value.selector,
                           .attributes = to_attributes(value),
                           .limit = value.limit,
                           .base = value.base};
    if (which == SegmentName::ss) vmcb_.state.cpl = static_cast<u8>(value.dpl());
    touch(clean::segments);
}

DescriptorTable Backend::gdtr() const {
    return {.base = vmcb_.state.gdtr.base, .limit = static_cast<u16>(vmcb_.state.gdtr.limit)};
}
DescriptorTable Backend::idtr() const {
    return {.base = vmcb_.state.idtr.base, .limit = static_cast<u16>(vmcb_.state.idtr.limit)};
}
void Backend::set_gdtr(const DescriptorTable& value) {
    vmcb_.state.gdtr.base = value.base;
    vmcb_.state.gdtr.limit = value.limit;
    touch(clean::descriptor_tables);
}
void Backend::set_idtr(const DescriptorTable& value) {
    vmcb_.state.idtr.base = value.base;
    vmcb_.state.idtr.limit = value.limit;
    touch(clean::descriptor_tables);
}

bool Backend::in_64_bit_code() const {
    constexpr u16 long_segment = bit<u16>(9);
    return (vmcb_.state.efer & efer::lma) != 0 && (vmcb_.state.cs.attributes & long_segment) != 0;
}

CodePlace Backend::code_place() const {
    const VmcbState& state = vmcb_.state;
    return {
        .rip = state.rip, .cr3 = state.cr3, .long_mode = in_64_bit_code() && (state.cr4 & cr4::la57) == 0};
}

unsigned Backend::cpl() const {
    return vmcb_.state.cpl;
}

Interruptibility Backend::interruptibility() const {
    // One shadow serves STI and MOV SS alike.
    return {.sti_shadow = (vmcb_.control.interrupt_shadow & 1) != 0,
            .mov_ss_shadow = false,
            .nmi_blocked = nmi_blocked_};
}

void Backend::set_interruptibility(Interruptibility value) {
    vmcb_.control.interrupt_shadow = value.sti_shadow || value.mov_ss_shadow ? 1 : 0;
    nmi_blocked_ = value.nmi_blocked;
    if (!nmi_blocked_) iret_running_ = false;
}

void Backend::inject(const Event& event) {
    Event adjusted = event;
    const bool real_mode = (vmcb_.state.cr0 & cr0::pe) == 0;
    if (real_mode) adjusted.error_code.reset();
    // INT n, INT3 and INTO push the address behind themselves: without nRIP the processor takes it from RIP.
    if (event.instruction_length != 0 &&
        (event.type == Event::Type::software_interrupt || event.type == Event::Type::software_exception ||
         event.type == Event::Type::privileged_software_exception)) {
        if (capabilities_.next_rip) {
            vmcb_.control.next_rip = vmcb_.state.rip + event.instruction_length;
        } else {
            vmcb_.state.rip += event.instruction_length;
        }
    }
    if (event.fault_address) write(Register::cr2, *event.fault_address);
    if (event.type == Event::Type::nmi) {
        nmi_blocked_ = true;
        iret_running_ = false;
        vmcb_.control.intercept_misc1 |= intercept1::iret;
        touch(clean::intercepts);
    }
    vmcb_.control.event_injection = encode_event(adjusted);
}

bool Backend::injection_pending() const {
    return (vmcb_.control.event_injection & event_info::valid) != 0;
}

void Backend::cancel_injection() {
    vmcb_.control.event_injection = 0;
}

void Backend::set_interrupt_window(bool wanted) {
    VmcbControl& control = vmcb_.control;
    const bool set = (control.intercept_misc1 & intercept1::vintr) != 0;
    if (set == wanted) return;
    if (wanted) {
        control.intercept_misc1 |= intercept1::vintr;
        control.virtual_interrupt |= vintr::request;
    } else {
        control.intercept_misc1 &= ~intercept1::vintr;
        control.virtual_interrupt &= ~vintr::request;
    }
    touch(clean::intercepts | clean::tpr);
}

// HLT. The VMCB does not tell a guest that sleeps from one that is at the instruction behind the HLT: an exit
// in the sleep ends it. That is as it should be where the exit comes of an event for the guest, which is
// nearly all of them. But an exit for the host's own sake would let the guest go on without reason. An idle
// loop takes that, as it takes the SMI of a firmware that does not restart HLT; code that halts for good must
// not be woken. So HLT is left to the guest only once it has shown an idle loop, and no longer when an exit
// of the host's finds interrupts disabled.
void Backend::intercept_halt(bool wanted) {
    VmcbControl& control = vmcb_.control;
    if (((control.intercept_misc1 & intercept1::hlt) != 0) == wanted) return;
    control.intercept_misc1 ^= intercept1::hlt;
    touch(clean::intercepts);
}

void Backend::let_halt(bool allowed) {
    halt_allowed_ = allowed;
    halts_ = 0;
    if (!allowed) intercept_halt(true);
}

void Backend::note_halt(bool interrupts) {
    if (!halt_allowed_) return;
    halts_ = interrupts ? static_cast<u8>(halts_ + 1) : 0;
    if (halts_ < idle_halts) return;
    halts_ = 0;
    intercept_halt(false);
}

bool Backend::take_halt() {
    if (halt_allowed_ && (vmcb_.state.rflags & rflags::if_) == 0) {
        halts_ = 0;
        intercept_halt(true);
    }
    return false;
}

void Backend::set_tsc_offset(u64 offset) {
    vmcb_.control.tsc_offset = offset;
    touch(clean::intercepts);
}

// The TPR changes behind our back; the write that could let an interrupt through is intercepted while one
// waits.
void Backend::set_tpr_threshold(u8 priority_class) {
    const bool set = (vmcb_.control.intercept_cr & cr8_write) != 0;
    if (set == (priority_class != 0)) return;
    vmcb_.control.intercept_cr ^= cr8_write;
    touch(clean::intercepts);
}

u8 Backend::cr8() const {
    return static_cast<u8>(vmcb_.control.virtual_interrupt & 0xF);
}

void Backend::set_cr8(u8 value) {
    vmcb_.control.virtual_interrupt = (vmcb_.control.virtual_interrupt & ~vintr::tpr_mask) | (value & 0xF);
    touch(clean::tpr);
}

void Backend::load() {
    extended_.load();
    // Another core, or another VMCB with this ASID, may have been here since.
    vmcb_.control.clean = 0;
    flush_wanted_ = true;
}

void Backend::save() {
    extended_.save();
}

u64 Backend::debug_register(unsigned index) const {
    return index == 6 ? vmcb_.state.dr6 : extended_.debug_register(index);
}

void Backend::set_debug_register(unsigned index, u64 value) {
    if (index != 6) {
        extended_.set_debug_register(index, value);
        return;
    }
    vmcb_.state.dr6 = value;
    touch(clean::debug_registers);
}

void Backend::explain(Sink& sink) const {
    if (explain_vmcb(vmcb_, capabilities_, sink) == 0) {
        print(sink, "exit code {:#x}, info {:#x} {:#x}: the VMCB shows nothing illegal\n",
              vmcb_.control.exit_code, vmcb_.control.exit_info1, vmcb_.control.exit_info2);
    }
}

}  // namespace bulkhead::svm
