// A virtual processor under AMD-V. AMD APM Vol. 2, chapter 15 (rev. 3.41).
//
// What exits: everything that is not the guest's alone. CR0, CR3, CR4 and debug registers belong to the
// guest, with CR4 writes intercepted only where the guest's CPUID hides a feature the processor has. The
// local APIC is not virtualised (no AVIC) but for CR8, which is V_TPR.
#pragma once

#include "arch/x86/svm/capabilities.hpp"
#include "arch/x86/svm/vmcb.hpp"
#include "vmm/extended_state.hpp"
#include "vmm/quick_exits.hpp"
#include "vmm/vcpu_backend.hpp"

namespace bulkhead::svm {

class Backend final : public VcpuBackend {
  public:
    struct Parameters {
        Capabilities capabilities{};
        Vmcb* vmcb = nullptr;
        HostPhysical vmcb_physical{};
        HostPhysical io_permissions{};  // 12 KiB, every bit set
        u8* msr_permissions = nullptr;  // 8 KiB
        HostPhysical msr_permissions_physical{};
        HostPhysical nested_root{};
        u8* extended_area = nullptr;  // ExtendedState::area_size bytes, page-aligned
        u64 xcr0_supported = 0;
        bool tsc_aux = true;         // the processor has RDTSCP
        u32 asid = 1;                // other vCPUs may have it too: each load() flushes
        bool intercept_cr4 = false;  // the guest's CPUID hides a CR4 feature of the processor
        u32 signature = 0;           // CPUID leaf 1 EAX: EDX after RESET
        bool guarded = false;        // Mitigations::at_world_switch()
    };

    explicit Backend(const Parameters& parameters);

    Exit run(u64 deadline) override;

    u64 read(Register which) const override;
    void write(Register which, u64 value) override;
    Segment segment(SegmentName which) const override;
    void set_segment(SegmentName which, const Segment& value) override;
    DescriptorTable gdtr() const override;
    DescriptorTable idtr() const override;
    void set_gdtr(const DescriptorTable& value) override;
    void set_idtr(const DescriptorTable& value) override;

    [[nodiscard]] bool advance(unsigned length) override;
    [[nodiscard]] CodePlace code_place() const override;
    [[nodiscard]] unsigned cpl() const override;
    [[nodiscard]] bool in_64_bit_code() const override;
    Interruptibility interruptibility() const override;
    void set_interruptibility(Interruptibility value) override;
    void inject(const Event& event) override;
    bool injection_pending() const override;
    void cancel_injection() override;
    void set_interrupt_window(bool wanted) override;
    void set_nmi_window(bool wanted) override { nmi_window_ = wanted; }
    void let_halt(bool allowed) override;
    [[nodiscard]] bool take_halt() override;
    void note_halt(bool interrupts) override;
    void set_tsc_offset(u64 offset) override;

    ApicAssist apic_assist() const override { return ApicAssist::none; }
    void set_apic_mode(ApicMode) override {}
    void set_virtual_interrupt(u8, u8) override {}
    void set_eoi_exit(Vector, bool) override {}
    void set_tpr_threshold(u8 priority_class) override;
    u8 cr8() const override;
    void set_cr8(u8 value) override;

    void flush_translations() override { flush_wanted_ = true; }
    void reset() override;
    void explain(Sink& sink) const override;
    void load() override;
    void save() override;

    u64 xcr0() const override { return extended_.xcr0(); }
    void set_xcr0(u64 value) override { extended_.set_xcr0(value); }
    u64 debug_register(unsigned index) const override;
    void set_debug_register(unsigned index, u64 value) override;

  private:
    void touch(u32 clean_bits) { vmcb_.control.clean &= ~clean_bits; }
    void set_intercepts();
    void intercept_halt(bool wanted);
    [[gnu::noinline]] void offer_interrupt();
    [[gnu::noinline]] void settle_interrupt();
    [[nodiscard]] bool skip(unsigned length);
    [[nodiscard]] bool skip_instruction();
    [[nodiscard]] QuickExits::Answer answer();
    [[nodiscard, gnu::noinline]] QuickExits::Answer answer_string(PortAccess& access, unsigned length);
    [[nodiscard]] VmcbSegment& vmcb_segment(SegmentName which) const;
    [[nodiscard]] u64& field(Register which) const;

    Capabilities capabilities_;
    Vmcb& vmcb_;
    u64 vmcb_physical_;
    void (*enter_)(GeneralRegisters*, u64);
    Parameters parameters_;
    ExtendedState extended_;
    u64 offered_ = 0;  // of EVENTINJ, as a virtual interrupt while the guest runs
    bool flush_wanted_ = true;
    bool nmi_window_ = false;
    bool nmi_blocked_ = false;
    bool halt_allowed_ = false;
    u8 halts_ = 0;  // intercepted one after the other, all with IF set
    // After an intercepted IRET that ends NMI blocking once it has run: its address; the block lasts while
    // RIP is there.
    bool iret_running_ = false;
    u64 iret_rip_ = 0;
};

// What VMRUN refuses, and illegal states it does not, by the manual's list: a line each, with the field's
// name and value. Returns how many.
unsigned explain_vmcb(const Vmcb& vmcb, const Capabilities& capabilities, Sink& sink);

// Clears the intercept of what the guest owns outright; everything else in the 8 KiB map exits.
void fill_msr_permissions(u8* map);

}  // namespace bulkhead::svm
