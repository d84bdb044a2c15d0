// The upper of the two seams: what the VMM asks of the processor's virtualisation extension. vmx and svm each
// implement it once. Nothing above knows which.
#pragma once

#include "arch/x86/regs/control.hpp"
#include "kernel/base/format.hpp"
#include "vmm/cpu_state.hpp"
#include "vmm/exit.hpp"

namespace bulkhead {

// How much of the local APIC the hardware virtualises.
enum class ApicAssist : u8 {
    none,  // every access exits
    tpr,   // TPR and CR8 do not exit; the rest does
    full,  // register reads, TPR, EOI and self-IPI do not exit; interrupts are delivered by hardware from the
           // IRR
};

// moved: an xAPIC elsewhere than at FEE00000h, for the backend to know.
enum class ApicMode : u8 { disabled, xapic, moved, x2apic };

// Where the guest executes.
struct CodePlace {
    u64 rip = 0;
    u64 cr3 = 0;
    bool long_mode = false;  // 64-bit code under four-level paging
};

class QuickExits;

class VcpuBackend {
  public:
    // General registers as of the last exit; what is written here holds on the next entry.
    GeneralRegisters gprs{};
    // The host's TSC right before the last entry and right behind its exit.
    u64 entered = 0;
    u64 left = 0;

    // What answers exits within run(); null: nothing does.
    QuickExits* quick = nullptr;

    // Enters the guest until an exit that someone has to act on. Those that `quick` has answered are counted
    // by then; after one that wants a look, or with the deadline, the reason is ExitReason::answered.
    // `deadline`: host TSC value at which the host wants the core back at the latest
    // (ExitReason::preemption); ~0: never. Interrupts of the host end it at any time. Runs with host
    // interrupts disabled before and after; a host interrupt that ended it stays pending or was handled on
    // the way, as the vendor's hardware has it.
    [[nodiscard]] virtual Exit run(u64 deadline) = 0;

    [[nodiscard]] virtual u64 read(Register which) const = 0;
    // Writing CR0, CR3, CR4 or EFER sets the guest-visible value and adjusts what depends on it (mode
    // controls, PDPTEs, TLB tags). The value was vetted by the caller.
    virtual void write(Register which, u64 value) = 0;
    [[nodiscard]] virtual Segment segment(SegmentName which) const = 0;
    virtual void set_segment(SegmentName which, const Segment& value) = 0;
    [[nodiscard]] virtual DescriptorTable gdtr() const = 0;
    [[nodiscard]] virtual DescriptorTable idtr() const = 0;
    virtual void set_gdtr(const DescriptorTable& value) = 0;
    virtual void set_idtr(const DescriptorTable& value) = 0;

    // Moves RIP past an instruction of `length` bytes where nothing else happens at its end, as nearly
    // always. False, and nothing is changed, where an interrupt shadow ends, RF or TF is set, or RIP crosses
    // a 4 GiB boundary, which wraps in some modes. length 0: whether there is anything else to do.
    [[nodiscard]] virtual bool advance(unsigned length) {
        const Interruptibility blocked = interruptibility();
        const u64 before = read(Register::rip), after = before + length;
        if (blocked.sti_shadow || blocked.mov_ss_shadow || ((before ^ after) >> 32) != 0 ||
            (read(Register::rflags) & (rflags::rf | rflags::tf)) != 0) {
            return false;
        }
        write(Register::rip, after);
        return true;
    }

    // These are overridden for speed alone, as is advance().
    [[nodiscard]] virtual CodePlace code_place() const {
        return {.rip = read(Register::rip),
                .cr3 = read(Register::cr3),
                .long_mode = (read(Register::efer) & efer::lma) != 0 &&
                             segment(SegmentName::cs).long_mode() && (read(Register::cr4) & cr4::la57) == 0};
    }

    // The privilege level; 3 in virtual-8086 mode.
    [[nodiscard]] virtual unsigned cpl() const {
        return (read(Register::rflags) & rflags::vm) != 0 ? 3 : segment(SegmentName::ss).dpl();
    }
    [[nodiscard]] virtual bool in_64_bit_code() const {
        return (read(Register::efer) & efer::lma) != 0 && segment(SegmentName::cs).long_mode();
    }

    [[nodiscard]] virtual Interruptibility interruptibility() const = 0;
    virtual void set_interruptibility(Interruptibility value) = 0;

    // Delivers `event` on the next entry. At most one between two entries; a later call replaces an earlier.
    virtual void inject(const Event& event) = 0;
    [[nodiscard]] virtual bool injection_pending() const = 0;
    // Takes it back, with any debug trap that waits for the next entry.
    virtual void cancel_injection() = 0;

    // Asks for an exit as soon as the guest can take an external interrupt, or an NMI.
    virtual void set_interrupt_window(bool wanted) = 0;
    virtual void set_nmi_window(bool wanted) = 0;

    // HLT: whether the guest may sleep in guest mode, as on a core that nobody else waits for. Where it may
    // not, or the backend thinks better of it, HLT exits.
    virtual void let_halt(bool /*allowed*/) {}
    // After an exit that no instruction asked for: whether the guest sleeps in HLT. The hardware has it awake
    // from now on; to keep it asleep is the caller's.
    [[nodiscard]] virtual bool take_halt() { return false; }
    // A HLT has exited, with IF as given.
    virtual void note_halt(bool /*interrupts*/) {}

    // The value the guest's RDTSC adds to the host's TSC.
    virtual void set_tsc_offset(u64 offset) = 0;

    // Local APIC. `page` in the backend's reset parameters is the architectural register page, shared with
    // hardware.
    [[nodiscard]] virtual ApicAssist apic_assist() const = 0;
    virtual void set_apic_mode(ApicMode mode) = 0;
    // full: vector of the highest request and of the highest in service (0: none).
    virtual void set_virtual_interrupt(u8 requesting, u8 servicing) = 0;
    virtual void set_eoi_exit(Vector vector, bool exits) = 0;
    // tpr: exit when the task priority class falls below this (0: never).
    virtual void set_tpr_threshold(u8 priority_class) = 0;
    // none on AMD: V_TPR, the CR8 that the guest reads and writes without an exit. Else as in the APIC page.
    [[nodiscard]] virtual u8 cr8() const = 0;
    virtual void set_cr8(u8 value) = 0;

    // Forgets cached translations of this VM's nested table, or all of this vCPU's.
    virtual void flush_translations() = 0;

    // Puts the processor into the state after RESET (Intel SDM Vol. 3A, table 9-1, June 2023 edition).
    virtual void reset() = 0;

    // After ExitReason::entry_failure or hardware_error: which field is wrong, by the manual's rules, and
    // why.
    virtual void explain(Sink& sink) const = 0;

    // Called when the core switches between vCPUs: everything that is neither general registers nor part of
    // the hardware's own switch (x87 to AVX-512 state, XCR0, debug registers, syscall MSRs).
    virtual void load() = 0;
    virtual void save() = 0;

    // The guest's XCR0 and DR0-DR3, DR6 (index 0-3, 6).
    [[nodiscard]] virtual u64 xcr0() const = 0;
    virtual void set_xcr0(u64 value) = 0;
    [[nodiscard]] virtual u64 debug_register(unsigned index) const = 0;
    virtual void set_debug_register(unsigned index, u64 value) = 0;

  protected:
    ~VcpuBackend() = default;
};

}  // namespace bulkhead
