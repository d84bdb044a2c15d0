// One virtual processor under VT-x: the VMCS behind VcpuBackend.
//
// A backend is tied to the core on which it is loaded: load(), then everything else, then save(), all on one
// core in VMX operation with interrupts disabled. Between save() and load() it may move: load() notices,
// writes the new core's host state and flushes. prepare() comes first of all.
//
// Who holds what while a vCPU is loaded: the VMCS what VM entry and exit switch; the processor's own
// registers the rest (x87 to AVX-512 state and XCR0, DR0-DR3 and DR6, CR2, the SYSCALL MSRs, KERNEL_GS_BASE,
// TSC_AUX), since the hypervisor uses none of them.
//
// Host interrupts: exits do not acknowledge them. They stay pending in the local APIC until the caller
// enables interrupts. NMIs that end the guest's turn are handled before run() returns.
#pragma once

#include "arch/x86/vmx/capabilities.hpp"
#include "arch/x86/vmx/control_registers.hpp"
#include "arch/x86/vmx/host_state.hpp"
#include "arch/x86/vmx/msr_bitmap.hpp"
#include "arch/x86/vmx/vmcs_access.hpp"
#include "vmm/extended_state.hpp"
#include "vmm/guest_memory.hpp"
#include "vmm/quick_exits.hpp"
#include "vmm/vcpu_backend.hpp"

namespace bulkhead::vmx {

// A 4 KiB page, by the address at which the VM's compartment has it and by the processor's.
struct Page {
    u8* host = nullptr;
    HostPhysical physical{};
};

struct VcpuParameters {
    Page vmcs{};
    Page virtual_apic{};  // the local APIC's register page
    Page msr_bitmap{};
    // Of the page that the nested table maps at the local APIC's address; 0: none is mapped. One for each VM,
    // lest it connect them in x2APIC mode.
    HostPhysical apic_access{};
    HostPhysical nested_root{};
    // Of a table without that page, for when there is no local APIC there; 0: there is no such table.
    HostPhysical nested_root_without_apic{};
    bool ept_accessed_dirty = false;
    u16 vpid = 1;                  // not 0; no two vCPUs that a core may run share one
    u64 guest_cr4_bits = 0;        // those that the guest's CPUID announces
    u64 xcr0_components = 0;       // what load() and save() switch; 0: the processor has no XSAVE
    u8* extended_state = nullptr;  // ExtendedState::area_size bytes, page-aligned
    u32 processor_signature = 0;   // CPUID leaf 1 EAX: EDX after RESET
    u8 physical_bits = 36;         // of the host, for explain()
    bool guarded = false;          // by bulkhead_vmx_enter_guarded()
    FeatureChoice features{};
    // PAE page-directory pointers are read from it; null: all not present.
    const GuestMemory* memory = nullptr;
};

class Backend final : public VcpuBackend {
  public:
    // `capabilities` outlives the backend.
    Backend(const Capabilities& capabilities, const VcpuParameters& parameters);
    Backend(const Backend&) = delete;
    Backend& operator=(const Backend&) = delete;

    // Makes the VMCS, in the state after RESET with the local APIC disabled; leaves nothing loaded. On a core
    // in VMX operation.
    [[nodiscard]] Result<> prepare(const HostState& host);

    [[nodiscard]] Exit run(u64 deadline) override;

    [[nodiscard]] u64 read(Register which) const override;
    void write(Register which, u64 value) override;
    [[nodiscard]] Segment segment(SegmentName which) const override;
    void set_segment(SegmentName which, const Segment& value) override;
    [[nodiscard]] DescriptorTable gdtr() const override;
    [[nodiscard]] DescriptorTable idtr() const override;
    void set_gdtr(const DescriptorTable& value) override;
    void set_idtr(const DescriptorTable& value) override;

    [[nodiscard]] bool advance(unsigned length) override;
    [[nodiscard]] CodePlace code_place() const override;
    [[nodiscard]] unsigned cpl() const override;
    [[nodiscard]] bool in_64_bit_code() const override;
    [[nodiscard]] Interruptibility interruptibility() const override;
    void set_interruptibility(Interruptibility value) override;

    // An event whose delivery an exit broke off is not injected again by itself: the caller has it in the
    // Exit.
    void inject(const Event& event) override;
    [[nodiscard]] bool injection_pending() const override { return injection_pending_; }
    void cancel_injection() override;
    void set_interrupt_window(bool wanted) override;
    void set_nmi_window(bool wanted) override;

    void let_halt(bool allowed) override;
    [[nodiscard]] bool take_halt() override;
    void set_tsc_offset(u64 offset) override;

    // Of the current APIC mode.
    [[nodiscard]] ApicAssist apic_assist() const override;
    void set_apic_mode(ApicMode mode) override;
    void set_virtual_interrupt(u8 requesting, u8 servicing) override;
    void set_eoi_exit(Vector vector, bool exits) override;
    void set_tpr_threshold(u8 priority_class) override;
    [[nodiscard]] u8 cr8() const override;
    void set_cr8(u8 value) override;

    // While not loaded it is put off until load(). Either way it concerns one core: what another core holds
    // of the nested table goes when a vCPU of the VM is loaded there that was elsewhere before.
    void flush_translations() override;
    void reset() override;
    void explain(Sink& sink) const override;
    void load() override;
    void save() override;

    [[nodiscard]] u64 xcr0() const override { return extended_.xcr0(); }
    void set_xcr0(u64 value) override { extended_.set_xcr0(value); }
    [[nodiscard]] u64 debug_register(unsigned index) const override {
        return extended_.debug_register(index);
    }
    void set_debug_register(unsigned index, u64 value) override {
        extended_.set_debug_register(index, value);
    }

  private:
    // MSRs that stay in the processor while loaded.
    static constexpr usize resident_msr_count = 5;

    [[nodiscard]] Result<> write_controls();
    void set_primary(u32 control, bool on);
    void choose_halt_exiting();
    void arm_timer(u64 deadline, u64 now);
    void use_timer(bool wanted);
    [[nodiscard]] bool skip(unsigned length);
    [[nodiscard]] bool skip_instruction();
    [[nodiscard]] QuickExits::Answer answer(u64 reason);
    [[nodiscard]] bool own_access(bool apic_access, KnownTranslation& known) const;
    [[nodiscard, gnu::noinline]] QuickExits::Answer answer_string(PortAccess& access);
    [[nodiscard, gnu::noinline, gnu::cold]] Exit explain_failure(u64 reason);
    [[nodiscard, gnu::noinline]] Exit host_exit(u64 reason, u64 deadline);

    [[nodiscard]] u64 read_resident(usize index) const;
    void write_resident(usize index, u64 value);
    void write_cr0(u64 value);
    void write_cr4(u64 value);
    void update_mode();
    void match_pending_single_step();
    void flush_guest_translations();
    void flush_nested_translations();
    void move_to_core(u32 core);
    [[nodiscard]] bool uses_vpid() const;
    [[nodiscard]] u64 ept_pointer_to(HostPhysical root) const;
    [[nodiscard]] u64 ept_pointer() const { return ept_pointer_to(nested_root_); }

    const Capabilities& capabilities_;
    const VcpuParameters parameters_;
    u64 (*const enter_)(GeneralRegisters*, bool);
    const bool has_timer_;  // the preemption timer: there, and wanted
    const unsigned timer_shift_;
    const ControlRegisterOwnership cr0_;
    const ControlRegisterOwnership cr4_;
    MsrBitmap msr_bitmap_;
    u64 compartment_cr3_ = 0;
    u32 core_ = 0;  // on which it was last loaded, or prepared

    // As in the VMCS.
    u32 pin_ = 0, primary_ = 0, secondary_ = 0;
    HostPhysical nested_root_{};
    u64 eoi_exits_[4] = {};

    bool launched_ = false;
    bool loaded_ = false;
    bool flush_pending_ = false;
    bool injection_pending_ = false;
    bool halt_allowed_ = false;

    // The registers that stay in the processor while loaded, while not loaded.
    u64 resident_msrs_[resident_msr_count] = {};
    u64 cr2_ = 0;
    ExtendedState extended_;
};

}  // namespace bulkhead::vmx
